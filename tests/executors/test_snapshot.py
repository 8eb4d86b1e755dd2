"""Jobs run the code as it was when they were submitted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.jobs import snapshot as module
from pipeline.jobs.snapshot import snapshot


def test_a_snapshot_is_what_python_imports_wherever_it_starts(tmp_path: Path) -> None:
    copy = snapshot(tmp_path)
    command = [sys.executable, "-P", "-c", "import pipeline.jobs.job as j; print(j.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    out = subprocess.run(
        command, env=environment, cwd=module.PACKAGE.parent, capture_output=True, check=True
    )
    assert out.stdout.decode().strip() == str(copy / "pipeline/jobs/job.py")


def test_equal_code_is_copied_once_and_other_code_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "stage.py").write_text("ONE = 1\n")
    monkeypatch.setattr(module, "PACKAGE", package)
    first, again = snapshot(tmp_path / "code"), snapshot(tmp_path / "code")
    (package / "stage.py").write_text("ONE = 2\n")
    other = snapshot(tmp_path / "code")
    assert (first == again, first == other) == (True, False)
    assert (first / "package/stage.py").read_text() == "ONE = 1\n"
    assert (other / "package/stage.py").read_text() == "ONE = 2\n"


def test_a_copy_that_was_cut_off_is_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("A = 1\n")
    (package / "b.py").write_text("B = 1\n")
    monkeypatch.setattr(module, "PACKAGE", package)
    write = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if path.name == "b.py":
            raise OSError(28, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OSError, match="No space"):
            snapshot(tmp_path / "code")
    copy = snapshot(tmp_path / "code")
    assert sorted(path.name for path in (copy / "package").iterdir()) == ["a.py", "b.py"]
