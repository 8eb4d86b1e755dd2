"""The stand-in for the interpreter acts as the interpreter does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "/nowhere", "GIVEN": "given"}
SCRIPTS = {
    "status": "import sys; sys.exit(3)",
    "message": "import sys; print('a', flush=True); sys.exit('told')",
    "error": "1 / 0",
    "interrupt": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "place": "import os; print(os.getcwd(), os.environ['GIVEN'], oct(os.umask(0)))",
    "arguments": "import sys; print(sys.argv[1:], sys.path[:2], input())",
    "at exit": "import atexit; atexit.register(print, 'last'); print('first')",
    "thread": "import threading; threading.Timer(0.1, print, ['later']).start()",
}


def ended(program: str, *arguments: str, folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [program, *arguments], check=False, cwd=folder, input="typed\n", text=True,
        env=ENVIRONMENT, capture_output=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_it_ends_as_the_interpreter_does(python: str, tmp_path: Path, script: str) -> None:
    asked = ("-u", "-c", script, "one", "-u")
    assert ended(python, *asked, folder=tmp_path) == ended(sys.executable, *asked, folder=tmp_path)


def test_scripts_and_modules_are_run_with_the_code_that_their_environment_names(
    python: str, tmp_path: Path
) -> None:
    (tmp_path / "shown.py").write_text("import sys; print(__name__, sys.argv, sys.path[:2])")
    for asked in (["shown.py", "one"], ["-m", "shown", "one"]):
        found = ended(python, *asked, folder=tmp_path)
        assert found == ended(sys.executable, *asked, folder=tmp_path)
    assert ended(python, "-P", "-m", "shown", folder=tmp_path)[0] == 1


def test_what_takes_long_to_import_is_there_and_nothing_of_the_project(
    python: str, tmp_path: Path
) -> None:
    code = "import sys; print('torch' in sys.modules, 'pipeline' in sys.modules, sys.executable)"
    assert ended(python, "-c", code, folder=tmp_path) == (0, f"True False {python}\n", "")


@pytest.mark.usefixtures("interrupts")
def test_signals_reach_it_and_it_dies_with_whoever_started_it(python: str) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(
            [python, "-c", code], env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            assert process.stdout
            pid = int(process.stdout.readline())
            assert pid != process.pid
            process.send_signal(number)
            assert process.wait(10) == -number
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
