"""W&B as a machine without credentials or network has it, and a server on loopback."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_server import WandbServer
from wandb_support import CLOSED, KEY


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no settings, no proxy, and no way out: only loopback is ever tried."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy") or name == "NETRC":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A key is configured."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return KEY


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, key: str) -> Iterator[WandbServer]:
    """A server, and the key to it."""
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        yield running
