"""A copy of the code that files are added to, as a newcomer would, and where runs are started."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support_inputs import REPOSITORY, save_model, write_tokens

Json = dict[str, Any]
SIZES = {"num_hidden_layers": 4}
LAUNCHES = """
import contextlib, io, json, sys
import launch
ended = {}
for name, arguments in json.load(sys.stdin).items():
    sys.argv = ["launch.py", *arguments]
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = launch.main()
    ended[name] = {"status": status, "out": out.getvalue(), "errors": errors.getvalue()}
print(json.dumps(ended))
"""
"""Several launches in one process, as if each were typed: imports take longer than tiny runs."""


@dataclass(frozen=True)
class Launched:
    """A launch that ended, and the run's folder if it is one."""

    status: int
    out: str
    errors: str
    folder: Path

    @property
    def steps(self) -> list[Json]:
        """The lines of ``steps.jsonl``."""
        lines = (self.folder / "steps.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def summary(self) -> Json:
        """The summary."""
        return json.loads((self.folder / "summary.json").read_text("utf-8"))

    @property
    def order(self) -> list[tuple[str, int]]:
        """What went, in its order."""
        return [(step["unit"], step["layer"]) for step in self.steps]


@dataclass(frozen=True)
class Checkout:
    """A copy of the code with a tiny model and tokens."""

    place: Path
    python: str
    """The interpreter that runs it."""

    @classmethod
    def at(cls, place: Path, python: str) -> "Checkout":
        """Copy the code, all but the built-in model."""
        skip = shutil.ignore_patterns("__pycache__", "builtin")
        for name in ("pipeline", "conf", "sweeps", "hydra_plugins"):
            shutil.copytree(REPOSITORY / name, place / name, ignore=skip)
        shutil.copy(REPOSITORY / "launch.py", place)
        (place / "pipeline" / "builtin").symlink_to(REPOSITORY / "pipeline" / "builtin")
        save_model(place / "model", **SIZES)
        write_tokens(place / "tokens.json")
        return cls(place, python)

    def add_file(self, path: str, content: str) -> None:
        """A new file; none that is there is changed."""
        assert not (self.place / path).exists()
        (self.place / path).write_text(content, "utf-8")

    def launch(self, launches: Mapping[str, Sequence[str]]) -> dict[str, Launched]:
        """Launch with these arguments one after the other; each by the name of its run."""
        model = ("model=hf", "model.path=model", "model.device=cpu", "run.pictures=[]")
        asked = {
            name: [*model, *arguments, f"run.name={name}"] for name, arguments in launches.items()
        }
        ended = subprocess.run(
            [self.python, "-c", LAUNCHES],
            input=json.dumps(asked),
            cwd=self.place,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        runs = self.place / "outputs" / "runs"
        told = json.loads(ended.stdout)
        return {name: Launched(**entry, folder=runs / name) for name, entry in told.items()}
