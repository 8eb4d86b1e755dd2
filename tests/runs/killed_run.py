"""Start one launch again and again, and kill it at random moments until it has ended.

python killed_run.py KILLS SEED REPORT ARGUMENT...

The ARGUMENTs are those of launch.py. The first launch, in the folder ``undisturbed``, is left
alone. Then come the folders ``killed-0``, ``killed-1``, ...: in each the launch is started until it
ends by itself, and the next folder's turn comes, until KILLS processes were killed. REPORT (JSON)
says how it went.

Everything is imported once, and each launch is a fork: it takes little time besides its work.
"""

import importlib
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # no thread may be there when this process forks
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from hydra import compose, initialize_config_dir

import launch
from pipeline.config.overrides import CONF

IMPORTED_BY_A_LAUNCH = (
    "pipeline.runs.session",
    "pipeline.report.drawing.painter",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "rich.console",
    "pipeline.plan.preflight",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.modeling_gguf_pytorch_utils",
)
SLOWER = 1.1
"""The latest moment to kill, in times that an undisturbed launch takes."""


def main() -> None:
    kills, seed, report, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    for module in IMPORTED_BY_A_LAUNCH:
        importlib.import_module(module)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("config", arguments)  # fills Hydra's caches
    moments = random.Random(int(seed))
    status, whole_s = wait(start(Path("undisturbed"), arguments), None)
    rounds: list[dict[str, Any]] = []
    whole = exported(Path("undisturbed"))
    kills_left = int(kills)
    while status == 0 and kills_left > 0:
        folder = Path(f"killed-{len(rounds)}")
        found: list[int] = []  # scored candidates on disk at each start
        status, broken = None, 0
        while status is None:
            found.append(scored_on_disk(folder))
            broken += exported(folder) not in ({}, whole)
            latest = moments.uniform(0, SLOWER * whole_s) if kills_left > 0 else None
            status, took_s = wait(start(folder, arguments), latest)
            kills_left -= status is None
        if len(found) == 1:
            whole_s = took_s  # the machine may be less busy now
        broken += exported(folder) != whole
        rounds.append({"folder": str(folder), "found": found, "broken_exports": broken})
    Path(report).write_text(json.dumps({"status": status, "rounds": rounds}), encoding="utf-8")


def start(folder: Path, arguments: list[str]) -> int:
    """Fork a launch that runs in ``folder``; its process id."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        sys.argv = [launch.__file__, *arguments]
        status = launch.main()
        sys.stdout.flush()
        os._exit(status)  # tidying up the interpreter takes long, and is no part of the run
    return pid


def wait(pid: int, kill_after_s: float | None) -> tuple[int | None, float]:
    """A process's exit status, None after it was killed, and the seconds that it had."""
    started = time.monotonic()
    descriptor = os.pidfd_open(pid)
    ended, _, _ = select.select([descriptor], [], [], kill_after_s)
    os.close(descriptor)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if status == -signal.SIGKILL else status, time.monotonic() - started


def scored_on_disk(folder: Path) -> int:
    """How many candidates the steps in a folder's store hold."""
    steps = folder.glob("outputs/store/trajectories/*/steps/[0-9]*.json")
    return sum(len(json.loads(path.read_bytes())["candidates"]) for path in steps)


def exported(folder: Path) -> dict[str, int]:
    """What a user finds of exports in a folder: files and their sizes, without the card."""
    exports = folder.glob("outputs/runs/*/export/[!.]*/**/*")
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in exports
        if path.is_file() and path.name not in ("README.md", "export.json", "report.png")
    }


if __name__ == "__main__":
    main()
