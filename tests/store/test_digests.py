"""Large files are hashed once, and what was remembered wrongly is hashed again."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.models.digests import weights_digest
from pipeline.models.source import ModelSource
from pipeline.store import digests
from pipeline.store.digests import Digests


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read to be hashed, in a process that has hashed none before."""
    calls: list[Path] = []
    original: Callable[[Path], str] = digests.sha256_of_file

    def counted(path: Path) -> str:
        calls.append(path)
        return original(path)

    digests._sha256.cache_clear()
    monkeypatch.setattr(digests, "sha256_of_file", counted)
    return calls


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"weights")
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def another_process() -> None:
    digests._sha256.cache_clear()


def test_runs_of_one_process_hash_a_file_once_before_anything_is_saved(
    tmp_path: Path, file: Path, hashed: list[Path]
) -> None:
    values = {Digests(tmp_path / "digests").of(file) for _ in range(20)}
    assert values == {sha256(b"weights")}
    assert hashed == [file]
    assert not (tmp_path / "digests").exists(), "planning writes nothing"


def test_threads_hash_a_file_once(tmp_path: Path, file: Path, hashed: list[Path]) -> None:
    shared = Digests(tmp_path / "digests")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(shared.of, [file] * 50)) == {sha256(b"weights")}
    assert hashed == [file]
    shared.save()
    assert len(list((tmp_path / "digests").iterdir())) == 1


def test_the_files_of_a_model_are_hashed_at_once(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, both = digests.sha256_of_file, threading.Barrier(2, timeout=20)

    def together(path: Path) -> str:
        both.wait()  # breaks where the second begins when the first has ended
        return counted(path)

    monkeypatch.setattr(digests, "sha256_of_file", together)
    (tmp_path / "config.json").write_text("{}")
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    source = ModelSource(tmp_path, None, None)
    assert weights_digest(source, Digests(tmp_path / "digests").of).startswith("files:")
    assert sorted(path.name for path in hashed) == ["a.safetensors", "b.safetensors"]


def test_what_is_saved_is_read_by_another_process(
    tmp_path: Path, file: Path, hashed: list[Path]
) -> None:
    for _ in range(2):
        folder = Digests(tmp_path / "digests")
        assert folder.of(file) == sha256(b"weights")
        folder.save()
        another_process()
    assert hashed == [file]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"sha": 1}', "\udce4"])
def test_a_broken_entry_is_replaced(
    content: str, tmp_path: Path, file: Path, hashed: list[Path]
) -> None:
    folder = Digests(tmp_path / "digests")
    folder.of(file)
    folder.save()
    (entry,) = (tmp_path / "digests").iterdir()
    entry.write_text(content, "utf-8", errors="surrogateescape")
    another_process()
    assert folder.of(file) == sha256(b"weights")
    folder.save()
    another_process()
    assert Digests(tmp_path / "digests").of(file) == sha256(b"weights")
    assert hashed == [file, file]


def test_a_file_that_changed_is_hashed_again(
    tmp_path: Path, file: Path, hashed: list[Path]
) -> None:
    folder = Digests(tmp_path / "digests")
    folder.of(file)
    folder.save()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(1, 1))
    assert folder.of(file) == sha256(b"WEIGHTS")
    assert hashed == [file, file]
