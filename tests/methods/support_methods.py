"""Methods of a newcomer: a file in ``pipeline/methods``, a file in ``conf/prune``, and no more.

They are put into a copy of the code, and launched there as a person would.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support_inputs import REPOSITORY, save_model, write_tokens

Json = dict[str, Any]
SIZES = {"num_hidden_layers": 4}


@dataclass(frozen=True)
class Checkout:
    """A copy of the code, in which runs are started."""

    place: Path

    @classmethod
    def at(cls, place: Path) -> "Checkout":
        """The code without the built-in model, and a tiny model with tokens."""
        skip = shutil.ignore_patterns("__pycache__", "builtin")
        for name in ("pipeline", "conf", "sweeps", "hydra_plugins"):
            shutil.copytree(REPOSITORY / name, place / name, ignore=skip)
        shutil.copy(REPOSITORY / "launch.py", place)
        (place / "pipeline" / "builtin").symlink_to(REPOSITORY / "pipeline" / "builtin")
        save_model(place / "model", **SIZES)
        write_tokens(place / "tokens.json")
        return cls(place)

    def add_method(self, name: str, code: str, yaml: str) -> None:
        """All that a newcomer does."""
        (self.place / "pipeline" / "methods" / f"{name}.py").write_text(code, "utf-8")
        (self.place / "conf" / "prune" / f"{name}.yaml").write_text(yaml, "utf-8")

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Start ``launch.py`` here, on the tiny model."""
        return subprocess.run(
            [sys.executable, "launch.py", "model=hf", "model.path=model", "model.device=cpu",
             *arguments],
            cwd=self.place, env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    def run(self, name: str, *arguments: str) -> "MethodRun":
        """A run that must come to its end."""
        ended = self.launch(*arguments, f"run.name={name}")
        assert (ended.returncode, ended.stderr) == (0, "")
        return MethodRun(self.place / "outputs" / "runs" / name)


@dataclass(frozen=True)
class MethodRun:
    """A finished run's folder."""

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
