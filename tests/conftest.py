"""What all tests share."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_warm import start_server

pytest.register_assert_rewrite("support_executors")

os.fsync = lambda _: None  # what killed processes wrote stays; no test takes the power away
gc.disable()  # nothing that is imported is garbage; looking for it takes a quarter of the time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that no worker is left alone with it at the end.

    That is what is marked so, then the files in which tests start programs.
    """
    gc.freeze()
    gc.enable()
    starting = {item.path for item in items if "python" in getattr(item, "fixturenames", ())}

    def place(item: pytest.Item) -> tuple[bool, bool]:
        marks = {mark.name for mark in item.iter_markers()}
        return not {"slurm", "slow"} & marks, item.path not in starting

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data that is kept beside the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("shared data folder is not on this machine")
    return folder


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Children can be interrupted even where this process was started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Acts like ``sys.executable``, but need not import what takes seconds to import.

    For tests that start a program to see what it does, not how it starts.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # one server for all workers
    return str(start_server(folder / "warm"))


@pytest.fixture
def warm(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started here with ``sys.executable``, and what that starts, is such a ``python``."""
    monkeypatch.setattr(sys, "executable", python)
