#!/usr/bin/env python3
"""Kill launches at random moments, again and again, and see whether they end as if undisturbed.

python benchmarks/kills.py [--kills 200] [--seed 0] [--export hf]

A tiny model with steps in all dimensions, probed and evaluated, and exported where that is asked. A
launch is started, killed by SIGKILL at a random moment and started again, until it ends by itself;
then comes the next.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from damage import FAR, tiny_inputs

from pipeline.jobs.checking import units_of_run, units_of_store

KILLED_RUN = REPOSITORY / "tests" / "runs" / "killed_run.py"
RESULTS = ("steps.jsonl", "pruning_config.json", "sensitivity.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", help="a target, or a list of them in brackets")
    parsed = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tiny_inputs(place)
        arguments = [absolute(each, place) for each in FAR]
        if parsed.export:
            arguments.append(f"export={parsed.export}")
        subprocess.run(  # noqa: S603
            [sys.executable, KILLED_RUN, str(parsed.kills), str(parsed.seed), "report.json",
             *arguments],
            cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        rounds = json.loads((place / "report.json").read_text("utf-8"))["rounds"]
        wanted = results(place / "undisturbed")
        others = [each["folder"] for each in rounds if results(place / each["folder"]) != wanted]
        damaged = [damage for each in rounds for damage in damages(place / each["folder"])]
    broken = sum(each["broken_exports"] for each in rounds)
    kills = sum(len(each["found"]) - 1 for each in rounds)
    most = max(len(each["found"]) - 1 for each in rounds)
    print(
        f"{kills} kills in {len(rounds)} runs, at most {most} in one; {len(others)} ended "
        f"otherwise, {len(damaged)} files damaged, {broken} exports in parts; "
        f"{time.monotonic() - started:.0f} s",
        *others, *damaged, sep="\n",
    )  # fmt: skip
    sys.exit(bool(others or damaged or broken))


def absolute(argument: str, place: Path) -> str:
    """A launch's argument; launches stand in folders below the files that they name."""
    key, _, value = argument.partition("=")
    return f"{key}={place / value}" if key.endswith((".path", ".text")) else argument


def results(place: Path) -> dict[str, bytes]:
    (run,) = (place / "outputs" / "runs").iterdir()
    return {name: (run / name).read_bytes() for name in RESULTS}


def damages(place: Path) -> list[str]:
    outputs = place / "outputs"
    (run,) = (outputs / "runs").iterdir()
    units = [*units_of_store(outputs / "store"), *units_of_run(run)]
    return [str(damage) for unit in units for damage in unit.damages()]


if __name__ == "__main__":
    main()
