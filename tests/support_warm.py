"""Python processes that need not import what others have imported: see ``warm/server.py``."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

WARM = Path(__file__).with_name("warm")
PADDING = "-" * 16384
"""As long as the command line and the environment of a process may be."""

WITHOUT_THREADS = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""What has torch, numpy and pyarrow start none: a fork would lack them."""


def start_server(folder: Path) -> Path:
    """A program that acts like the Python interpreter, with a server in ``folder`` behind it.

    The server is started by the first of all that ask for it, and ends with the last of them.
    """
    folder.mkdir(exist_ok=True)
    python = folder / "python"
    with (folder / "starting").open("ab") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        held = os.open(folder / "held", os.O_RDWR | os.O_CREAT)
        fcntl.flock(held, fcntl.LOCK_SH)  # until this process ends
        if not python.exists():
            _start(folder)
            client = f'exec {sys.executable} -IS {WARM / "client.py"} {folder / "socket"} "$0" "$@"'
            python.write_text(f"#!/bin/sh\n{client}\n", encoding="utf-8")
            python.chmod(0o755)
    return python


def _start(folder: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-I", str(WARM / "server.py"), str(folder), PADDING],
        env=os.environ | WITHOUT_THREADS | {"PADDING": PADDING},
        stdin=subprocess.DEVNULL,
        stdout=(folder / "log").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while not (folder / "socket").exists():
        assert server.poll() is None, "the server of warm processes could not be started"
        time.sleep(0.05)
