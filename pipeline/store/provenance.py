"""Where a result comes from: code, packages, machine, job. Noted with every stage; decides none."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pipeline
from pipeline.files import read_sealed
from pipeline.settings.secrets import without_secrets
from pipeline.store.processes import current_job

CODE_VARIABLE = "MULTIPRUNER_CODE"
"""Names a file with what ``code`` returned where the job was submitted."""
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "datasets", "lm-eval", "numpy",
    "accelerate", "pydantic", "submitit", "wandb",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """What made a result that is finished now."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": _code_at_submission() or _imported_code(),
        **machine(),
    }


def machine() -> dict[str, Any]:
    """Packages, host, GPU and job of this process; the job under its scheduler's name."""
    job = current_job()
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "host": platform.node(),
        "machine": platform.machine(),
        "gpu": _gpus(),
        **({job.scheduler: dict(job.variables)} if job.scheduler else {}),
    }


def code() -> dict[str, Any]:
    """Revision of the code in git, and what was changed since; both None outside of git."""
    root = Path(pipeline.__file__).resolve().parents[1]
    revision = _git(root, "rev-parse", "HEAD")
    diff = _git(root, "diff", "HEAD", "--", "pipeline", "conf", "launch.py")
    return {
        "folder": str(root),
        "revision": revision.strip() if revision else None,
        "diff": None if diff is None else without_secrets(diff),
    }


@cache
def _imported_code() -> dict[str, Any]:
    """``code`` at the first stage that ends here: what was imported does not change later."""
    return code()


def _code_at_submission() -> dict[str, Any] | None:
    path = os.environ.get(CODE_VARIABLE)
    if path is None:
        return None
    return read_sealed(Path(path), Path(path).name)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True, text=True, errors="replace", timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
