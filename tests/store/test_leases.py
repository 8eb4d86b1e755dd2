"""One writer per folder: real processes that live, die, are stopped, or sit on other machines."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import LeaseLostError
from pipeline.files import encode, publish
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.trajectory import Guard, TrajectoryStore
from pipeline.pruning.units import ATTN, Candidate
from pipeline.store import leases
from pipeline.store.leases import DEAD_AFTER_S, awaited_lease, holder_of, lease
from pipeline.store.processes import NO_JOB, CurrentJob, announce
from pipeline.store.processes import Process as LeaseHolder

REPO = Path(__file__).parents[2]
HOLD_UNTIL_TOLD = """
import pathlib, sys
from pipeline.store.leases import lease
with lease(pathlib.Path(sys.argv[1])) as guard:
    print("refused" if guard is None else "held", flush=True)
    sys.stdin.read()
"""
RACERS, RACES = 6, 20

Process = subprocess.Popen[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def held_elsewhere(folder: Path) -> Iterator[Process]:
    """Another process, which holds the lease until its input is closed."""
    with process_that_leases(folder) as process:
        assert said(process) == "held"
        yield process


@contextmanager
def process_that_leases(folder: Path) -> Iterator[Process]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_TOLD, str(folder)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 0


def write_lease(folder: Path, holder: LeaseHolder, silent_s: float = 0.0) -> Path:
    """The lease file of a holder that last beat ``silent_s`` seconds ago."""
    path = folder / "leases" / "000000.json"
    publish(path, encode(asdict(holder)))
    age(path, silent_s)
    return path


def age(path: Path, silent_s: float) -> None:
    beat = time.time() - silent_s
    os.utime(path, (beat, beat))


def gone() -> LeaseHolder:
    """A process of this machine that is gone; its id was given to another one, this one."""
    return replace(LeaseHolder.here(), started="1")


ELSEWHERE: dict[str, Callable[[], LeaseHolder]] = {
    "another machine": lambda: replace(LeaseHolder.here(), host="elsewhere", boot_id="another"),
    "a machine of the same name": lambda: replace(LeaseHolder.here(), boot_id="another"),
    "another container": lambda: replace(LeaseHolder.here(), pid_namespace="pid:[1]"),
}


@pytest.fixture(params=ELSEWHERE)
def stranger(request: pytest.FixtureRequest) -> LeaseHolder:
    """A holder of which it cannot be told from here whether it lives."""
    return ELSEWHERE[request.param]()


def test_the_first_becomes_the_writer(folder: Path) -> None:
    with lease(folder) as guard:
        assert guard is not None
        guard()


def test_a_second_process_gets_none_while_the_first_one_lives(
    folder: Path, held_elsewhere: Process
) -> None:
    with lease(folder) as guard:
        assert guard is None
    assert holder_of(folder) == f"process {held_elsewhere.pid} on {os.uname().nodename}"


def test_a_process_that_got_none_changes_nothing_for_the_holder(folder: Path) -> None:
    with lease(folder) as guard:
        assert guard is not None
        with process_that_leases(folder) as other:
            assert said(other) == "refused"
            let_go(other)
        guard()
        with process_that_leases(folder) as other:
            assert said(other) == "refused"


def test_a_folder_is_free_again_once_its_holder_lets_go(
    folder: Path, held_elsewhere: Process
) -> None:
    let_go(held_elsewhere)
    assert holder_of(folder) is None
    with lease(folder) as guard:
        assert guard is not None


def test_a_holder_that_fails_lets_go(folder: Path) -> None:
    with pytest.raises(ValueError, match="work failed"), lease(folder):
        raise ValueError("work failed")
    with process_that_leases(folder) as other:
        assert said(other) == "held"


def test_one_process_after_the_other_can_hold_it(folder: Path) -> None:
    for _ in range(5):
        with lease(folder) as guard:
            assert guard is not None
    files = {path.suffix for path in (folder / "leases").iterdir()}
    assert files == {".json", ".released"}
    numbers = sorted(path.stem for path in (folder / "leases").glob("*.json"))
    assert numbers == [f"{n:06d}" for n in range(len(numbers))], "a number is never given twice"


def test_nobody_holds_a_folder_that_nobody_leased(folder: Path) -> None:
    assert holder_of(folder) is None


def test_the_lease_of_a_killed_process_is_taken_over_at_once(
    folder: Path, held_elsewhere: Process
) -> None:
    held_elsewhere.send_signal(signal.SIGKILL)
    held_elsewhere.wait()
    with lease(folder) as guard:
        assert guard is not None
        guard()


def test_a_killed_process_is_dead_even_before_its_parent_asked_for_its_status(
    folder: Path, held_elsewhere: Process
) -> None:
    held_elsewhere.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, held_elsewhere.pid, os.WEXITED | os.WNOWAIT)
    with lease(folder) as guard:
        assert guard is not None


def test_a_reused_process_id_does_not_keep_a_lease(folder: Path) -> None:
    write_lease(folder, gone())
    with lease(folder) as guard:
        assert guard is not None


def test_a_stopped_process_keeps_its_lease_however_long(
    folder: Path, held_elsewhere: Process
) -> None:
    held_elsewhere.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, held_elsewhere.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        age(folder / "leases" / "000000.json", 100 * DEAD_AFTER_S)
        with lease(folder) as guard:
            assert guard is None
    finally:
        held_elsewhere.send_signal(signal.SIGCONT)
    let_go(held_elsewhere)


def test_a_holder_elsewhere_that_beats_keeps_its_lease(folder: Path, stranger: LeaseHolder) -> None:
    write_lease(folder, stranger, silent_s=DEAD_AFTER_S / 2)
    with lease(folder) as guard:
        assert guard is None


def test_a_holder_elsewhere_that_fell_silent_is_taken_over(
    folder: Path, stranger: LeaseHolder
) -> None:
    write_lease(folder, stranger, silent_s=DEAD_AFTER_S + 5)
    with lease(folder) as guard:
        assert guard is not None


def test_a_holder_elsewhere_that_let_go_is_not_waited_for(
    folder: Path, stranger: LeaseHolder
) -> None:
    write_lease(folder, stranger).with_suffix(".released").touch()
    with lease(folder) as guard:
        assert guard is not None


def test_a_holder_beats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.02)
    with lease(folder):
        mine = folder / "leases" / "000000.json"
        age(mine, DEAD_AFTER_S)
        deadline = time.monotonic() + 30
        while time.time() - mine.stat().st_mtime > DEAD_AFTER_S / 2:
            assert time.monotonic() < deadline, "no beat came"
            time.sleep(0.01)


def test_half_written_leases_do_not_count(folder: Path) -> None:
    half = folder / "leases" / ".000007.json.0a1b2c3d.tmp"
    half.parent.mkdir(parents=True)
    half.write_text('{"host": ', encoding="utf-8")
    assert holder_of(folder) is None
    with lease(folder) as guard:
        assert guard is not None
        guard()


@contextmanager
def taken_over(folder: Path) -> Iterator[Callable[[], None]]:
    """The guard of a holder that another process took for dead, and replaced."""
    with lease(folder) as guard:
        assert guard is not None
        mine = folder / "leases" / "000000.json"
        mine.write_text(encode(asdict(gone())), encoding="utf-8")
        with process_that_leases(folder) as other:
            assert said(other) == "held"
            yield guard


def test_who_was_taken_over_may_no_longer_write(folder: Path) -> None:
    with taken_over(folder) as guard, pytest.raises(LeaseLostError, match="taken over"):
        guard()


def test_who_was_taken_over_records_no_step(folder: Path) -> None:
    removed = Candidate(ATTN, 0, 0)
    step = Step.choose([ScoredCandidate(removed, 2.0)])
    trajectory = TrajectoryStore(folder, awaited_lease).open({"start": "dense"})
    with taken_over(trajectory.folder) as guard:
        with pytest.raises(LeaseLostError):
            trajectory.record(0, step, {}, guard)
        assert trajectory.read(0) is None


def test_who_was_taken_over_does_not_let_go_for_the_new_holder(folder: Path) -> None:
    with ExitStack() as new_holder:
        with lease(folder) as lost:
            assert lost is not None
            mine = folder / "leases" / "000000.json"
            mine.write_text(encode(asdict(gone())), encoding="utf-8")
            guard = new_holder.enter_context(lease(folder))
            assert guard is not None
        guard()
        with process_that_leases(folder) as other:
            assert said(other) == "refused"


def test_who_is_slow_to_take_over_does_not_become_a_second_writer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking and publishing, others take the lease over, let go, and take it again."""
    write_lease(folder, gone())
    with ExitStack() as holder:

        def publish_late(path: Path, text: str) -> bool:
            monkeypatch.setattr(leases, "publish", publish)
            with lease(folder) as quick:
                assert quick is not None
            assert holder.enter_context(lease(folder)) is not None
            return publish(path, text)

        monkeypatch.setattr(leases, "publish", publish_late)
        with lease(folder) as guard:
            assert guard is None


def race(root: Path, start: Any, finish: Any, winners: Any) -> None:
    """Try to take over the dead lease of every race; hold what was won until all have tried."""
    for number in range(RACES):
        start.wait(timeout=60)
        with lease(root / str(number)) as guard:
            finish.wait(timeout=60)
            if guard is not None:
                guard()
                winners.put(number)


def test_of_processes_that_race_for_a_dead_lease_exactly_one_gets_it(tmp_path: Path) -> None:
    for number in range(RACES):
        write_lease(tmp_path / str(number), gone())
    context = multiprocessing.get_context("spawn")
    start, finish = context.Barrier(RACERS), context.Barrier(RACERS)
    winners = context.Queue()
    racers = [
        context.Process(target=race, args=(tmp_path, start, finish, winners)) for _ in range(RACERS)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=120)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    won = [winners.get(timeout=10) for _ in range(RACES)]
    assert sorted(won) == list(range(RACES))
    assert winners.empty()


def test_a_requeued_job_takes_over_from_its_earlier_start_even_while_that_one_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(job: CurrentJob) -> None:
        become(job, monkeypatch)

    job = CurrentJob(scheduler="queue", identity="queue 12", restart=1)
    start(job)
    with lease(tmp_path) as before:
        assert before
        with lease(tmp_path) as same_start:
            assert same_start is None
        start(replace(job, restart=2))
        with lease(tmp_path) as after:
            assert after
            after()
            with pytest.raises(LeaseLostError):
                before()
        start(replace(job, identity="queue 13", restart=3))
        with lease(tmp_path / "other") as other, lease(tmp_path / "other") as second:
            assert (other is None, second is None) == (False, True)
    start(NO_JOB)
    with lease(tmp_path / "third") as third, lease(tmp_path / "third") as fourth:
        assert (third is None, fourth is None) == (False, True)


def test_a_lease_is_waited_for_and_who_has_it_is_told(
    folder: Path, held_elsewhere: Process
) -> None:
    holders: list[str] = []

    def tell(holder: str) -> None:
        holders.append(holder)
        if len(holders) == 2:
            let_go(held_elsewhere)

    with awaited_lease(folder, tell) as guard:
        assert guard is not None
    assert holders == [f"process {held_elsewhere.pid} on {os.uname().nodename}"] * 2


def test_waiting_for_a_lease_ends_when_it_is_given_up(
    folder: Path, held_elsewhere: Process
) -> None:
    answers = iter([False, True])
    with awaited_lease(folder, lambda _: None, lambda: next(answers)) as guard:
        assert guard is None
    assert next(answers, None) is None


def test_whoever_waits_for_a_lease_may_stop_by_raising(
    folder: Path, held_elsewhere: Process
) -> None:
    with pytest.raises(KeyboardInterrupt), awaited_lease(folder, lambda _: interrupt()):
        pytest.fail("another process has it")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_however_long_is_waited_nothing_piles_up(
    folder: Path, held_elsewhere: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    tries = 0

    @contextmanager
    def counted(folder: Path) -> Iterator[Guard | None]:
        nonlocal tries
        tries += 1
        entered.append(tries)
        with lease(folder) as guard:
            yield guard
        entered.remove(tries)

    monkeypatch.setattr(leases, "lease", counted)
    monkeypatch.setattr(leases, "POLL_S", 0.0)
    kept = []
    with awaited_lease(folder, lambda _: kept.append(len(entered)), lambda: tries == 50):
        assert entered == [50]
    assert kept == [0] * 49


# A folder that is deleted


def test_who_lost_the_folder_itself_may_no_longer_write(folder: Path) -> None:
    with lease(folder) as guard:
        assert guard is not None
        shutil.rmtree(folder)
        with pytest.raises(LeaseLostError, match="or it was deleted"):
            guard()
    assert not folder.exists()


def test_who_lost_the_folder_does_not_let_go_for_whoever_has_it_now(folder: Path) -> None:
    with ExitStack() as now:
        with lease(folder):
            shutil.rmtree(folder)
            new_holder = now.enter_context(process_that_leases(folder))
            assert said(new_holder) == "held"
        with lease(folder) as guard:
            assert guard is None


# A node that the scheduler has lost


LOST_NODE = """
import os, pathlib, platform, sys
platform.node = lambda: "lost"
from pipeline.errors import LeaseLostError
from pipeline.store import leases
from pipeline.store.processes import CurrentJob, announce
leases.BEAT_S = 0.05
announce(CurrentJob(scheduler="slurm", id="12", identity="slurm 12"), os.environ)
with leases.lease(pathlib.Path(sys.argv[1])) as guard:
    print("held", flush=True)
    for _ in sys.stdin:
        try:
            guard()
            print("may write", flush=True)
        except LeaseLostError:
            print("may not write", flush=True)
"""
"""A job's process on another machine, which says whether it may write as often as it is asked."""


@pytest.fixture
def on_lost_node(folder: Path) -> Iterator[Process]:
    with subprocess.Popen(
        [sys.executable, "-c", LOST_NODE, str(folder)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert said(process) == "held"
        yield process
        process.kill()


def asked(process: Process) -> str:
    assert process.stdin is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return said(process)


def become(job: CurrentJob, patch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    announce(job, environment)
    for name, value in environment.items():
        patch.setenv(name, value)


def beats_anew(mine: Path) -> None:
    age(mine, 2 * DEAD_AFTER_S)
    end = time.monotonic() + 30
    while time.time() - mine.stat().st_mtime > DEAD_AFTER_S:
        assert time.monotonic() < end, "no beat came"
        time.sleep(0.01)


def test_a_process_that_lives_on_keeps_the_job_that_was_submitted_anew_out(
    folder: Path, on_lost_node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(CurrentJob(scheduler="slurm", id="13", identity="slurm 13"), monkeypatch)
    mine = folder / "leases" / "000000.json"
    for _ in range(3):
        beats_anew(mine)
        with lease(folder) as second:
            assert second is None
    assert asked(on_lost_node) == "may write"
    on_lost_node.kill()
    on_lost_node.wait()
    with lease(folder) as second:
        assert second is None, "it was heard of a moment ago"
    age(mine, DEAD_AFTER_S + 5)
    with lease(folder) as second:
        assert second is not None
        second()


def test_a_process_that_comes_back_after_a_silence_finds_that_it_may_not_write(
    folder: Path, on_lost_node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(CurrentJob(scheduler="slurm", id="13", identity="slurm 13"), monkeypatch)
    on_lost_node.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, on_lost_node.pid, os.WSTOPPED | os.WNOWAIT)
    age(folder / "leases" / "000000.json", DEAD_AFTER_S + 5)
    with lease(folder) as second:
        assert second is not None
        on_lost_node.send_signal(signal.SIGCONT)
        assert asked(on_lost_node) == "may not write"
        second()
    assert asked(on_lost_node) == "may not write"


def test_the_requeued_job_takes_over_from_a_process_that_lives_on(
    folder: Path, on_lost_node: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = CurrentJob(scheduler="slurm", id="12", identity="slurm 12", restart=1)
    become(again, monkeypatch)
    beats_anew(folder / "leases" / "000000.json")
    with lease(folder) as second:
        assert second is not None
        assert asked(on_lost_node) == "may not write"
        second()
