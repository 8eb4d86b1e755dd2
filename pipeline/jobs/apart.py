"""A run in a process of its own that is waited for: ``python -m pipeline.jobs.apart RUN``.

What is measured there does not have this process's places in memory, nor what it keeps warm.
"""

import gc
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from pipeline import program
from pipeline.errors import PipelineError, StageError
from pipeline.files import mended
from pipeline.plan.run import Run
from pipeline.runs.display import Quiet
from pipeline.screen import screen

ROOT = Path(__file__).resolve().parents[2]
ERROR = "error: "


def run_apart(run: Run, console: Console) -> str:
    """Run a run in another process; what came of it, in a line. Raises ``StageError``."""
    mended(run.claim, Quiet(console).warning)
    _release_memory()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-P", "-u", "-m", __name__, str(run.folder.path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    *said, last = [*filter(None, ended.stdout.splitlines())] or [""]
    for line in said:
        console.print(line)
    if ended.returncode:
        raise StageError(last.removeprefix(ERROR) or "its process was killed")
    return f"{last}, in another process: {run.folder.path}"


def _release_memory() -> None:
    """Give back what torch keeps of the GPU for later: the other process needs it now."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def main() -> int:
    """Run the run of a folder; the exit status."""
    from pipeline.report.table import in_a_line
    from pipeline.runs.session import run_all

    program.begin()
    try:
        report = run_all(Run.open(Path(sys.argv[1])), Quiet(screen(wraps=True)))
    except PipelineError as error:
        print(f"{ERROR}{error}", file=sys.stderr)
        return error.exit_status
    print(in_a_line(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
