"""A job that is asked to stop does so between steps; its helper processes go on."""

import os
import signal
import subprocess
import sys
import time

import pytest

JOB = """
import os, subprocess, sys, time
from pipeline.runs.interruption import Interrupted, Interruption

def late():
    print("late", flush=True)

stop = Interruption.watch({patience}, late)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(helper.pid, flush=True)
try:
    while True:
        time.sleep(0.05)
        if not {deaf}:
            stop.check()
except Interrupted as error:
    print(error, helper.poll(), flush=True)
    helper.kill()
"""


def job(patience: float, deaf: bool) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOB.format(patience=patience, deaf=deaf)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_stops_the_work_and_spares_helpers(number: signal.Signals) -> None:
    process, helper = job(patience=60, deaf=False)
    time.sleep(0.2)
    os.kill(helper, number)  # a cluster signals every process of a job
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert out.split("\n")[0] == f"stopped between two steps by {number.name} None"


def test_work_that_comes_to_no_step_is_left_when_patience_ends() -> None:
    process, helper = job(patience=0.2, deaf=True)
    process.send_signal(signal.SIGUSR2)
    assert process.stdout
    assert process.stdout.readline() == "late\n"
    process.kill()
    process.wait()
    os.kill(helper, signal.SIGKILL)
