"""How programs end: what went wrong in one line, and the exit status. The only place for it."""

import errno
import os
import sys
from collections.abc import Callable

from pipeline.errors import ConfigError, DamagedError, PipelineError
from pipeline.screen import as_line

MENDED = "launching its run again makes it again; all there is: multipruner check [--repair]"
KEPT = "everything up to the last step is kept; to go on, type the same again:"
OF_THE_DISK = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
    errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
)  # fmt: skip


def report_errors(
    work: Callable[[], None], command: str, heading: str = "The configuration is wrong:"
) -> int:
    """Do ``work`` and say in one line what went wrong with it; the exit status.

    ``command`` is what was typed, ``heading`` stands over what is wrong with it.
    """
    try:
        work()
    except ConfigError as error:
        print(heading, *map(as_line, error.problems), sep="\n  ", file=sys.stderr)
        return error.exit_status
    except DamagedError as error:
        print(f"error: {error}; {MENDED}", file=sys.stderr)
        return error.exit_status
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"interrupted; {KEPT}\n  {command}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{where}; {KEPT}\n  {command}", file=sys.stderr)
        return 1
    return 0
