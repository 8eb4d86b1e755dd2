"""What a person reads in a terminal. The only place that makes a console."""

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 900
"""Characters of a line that somebody may still read."""
WIDTH_OF_A_FILE = 200
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def screen(
    *,
    width: int | None = None,
    wraps: bool = False,
    is_quiet: bool = False,
    to_errors: bool = False,
) -> "Console":
    """Where to print. Text stands there as it is: brackets, colons and numbers mean nothing.

    So a path or a name of the user's may hold anything; what has a style is given as ``Text``.
    ``wraps`` has a line go on for as long as it is, for the terminal to break; ``to_errors`` prints
    to the standard error. A file or a pipe has room for wide tables.
    """
    from rich.console import Console

    is_terminal = (sys.stderr if to_errors else sys.stdout).isatty()
    width = width or (None if is_terminal else WIDTH_OF_A_FILE)
    return Console(
        width=width, quiet=is_quiet, soft_wrap=wraps, stderr=to_errors,
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip


def duration(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 3.5 h."""
    minutes = seconds / 60
    if seconds < 90:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def as_line(text: str) -> str:
    """Text in one line: what would break it, or colour it, is written as in Python."""
    line = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 3 :]}"
