"""Start one launch again and again, and kill it at random moments until it has ended.

python killed_run.py KILLS SEED REPORT ARGUMENT...

The ARGUMENTs are those of launch.py. The first launches, in the folders ``importing`` and
``undisturbed``, are left alone. Then come the folders ``killed-0``, ``killed-1``, ...: in each the
launch is started until it ends by itself, and the next folder's turn comes, until KILLS processes
were killed. REPORT (JSON) says how it went.

What the first launch imports is imported once, and each later one is a fork: it takes little time
besides its work.
"""

import gc
import importlib
import json
import os
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # no thread may be there when this process forks
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from support_forks import KILLED, wait

import launch
from pipeline.config.compose import compose_overrides

IMPORTED = "imported.json"
SLOWER = 1.1
"""The latest moment to kill, in times that an undisturbed launch takes."""


def main() -> None:
    kills, seed, report, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    assert wait(start(Path("importing"), arguments))[0] == 0
    for module in json.loads(Path("importing", IMPORTED).read_bytes()):
        with suppress(ImportError):  # what others made up, as torch.ops
            importlib.import_module(module)
    compose_overrides(arguments)  # fills the caches of Hydra and of the schema
    gc.collect()
    gc.freeze()  # a fork need not look for garbage there
    moments = random.Random(int(seed))
    status, whole_s = wait(start(Path("undisturbed"), arguments))
    rounds: list[dict[str, Any]] = []
    whole = exported(Path("undisturbed"))
    kills_left = int(kills)
    while status == 0 and kills_left > 0:
        folder = Path(f"killed-{len(rounds)}")
        found: list[int] = []  # scored candidates on disk at each start
        status, broken = KILLED, 0
        while status == KILLED:
            found.append(scored_on_disk(folder))
            broken += exported(folder) not in ({}, whole)
            latest = moments.uniform(0, SLOWER * whole_s) if kills_left > 0 else None
            status, took_s = wait(start(folder, arguments), latest)
            kills_left -= status == KILLED
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
        if folder.name == "importing":
            Path(IMPORTED).write_text(json.dumps(list(sys.modules)), encoding="utf-8")
        sys.stdout.flush()
        os._exit(status)  # tidying up the interpreter takes long, and is no part of the run
    return pid


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
