"""What SLURM says. Its programs are asked; an answer that does not come is None, never a guess."""

import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """One job as SLURM knows it."""

    id: str
    name: str
    state: str
    """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ..."""
    reason: str | None = None
    exit_code: str | None = None
    """Status and signal, as sacct has them: 1:0 or 0:9."""
    node: str | None = None
    started: str | None = None
    ended: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it may still start."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD")

    @property
    def is_running(self) -> bool:
        """Whether its processes may be alive."""
        return self.state in ("RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT")

    @property
    def may_go_on(self) -> bool:
        """Whether it has not come to its end."""
        return self.is_waiting or self.is_running


def ask(*command: str, timeout_s: float = ANSWER_S) -> str | None:
    """What a program prints; None where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def queue(names: Iterable[str]) -> dict[str, list[Job]] | None:
    """Jobs that squeue knows, by name, those included that ended a moment ago; None without it."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    text = ask(
        "squeue", "-h", "-r", "--states=all", f"--name={','.join(wanted)}",
        "-o", "%i|%j|%T|%N|%S|%e|%r",
    )  # fmt: skip
    if text is None:
        return None
    jobs: dict[str, list[Job]] = {name: [] for name in wanted}
    for line in text.splitlines():
        job_id, name, state, node, started, ended, reason = line.split("|", 6)
        known = [_known(text) for text in (node, started, ended)]
        jobs[name].append(Job(job_id, name, state, _known(reason), None, *known))
    return jobs


def accounted(names: Iterable[str], since: str) -> dict[str, list[Job]] | None:
    """Jobs that sacct knows, by name; None where there is no accounting."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    text = ask(
        "sacct", "-n", "-P", "-X", f"--name={','.join(wanted)}", "-S", since,
        "-o", "JobID,JobName,State,ExitCode,NodeList,Start,End",
    )  # fmt: skip
    if text is None:
        return None
    jobs: dict[str, list[Job]] = {name: [] for name in wanted}
    for line in text.splitlines():
        job_id, name, state, exit_code, node, started, ended = line.split("|")
        known = [_known(text) for text in (exit_code, node, started, ended)]
        jobs[name].append(Job(job_id, name, state.split()[0], None, *known))
    return jobs


def _known(text: str) -> str | None:
    unknown = ("", "None", "N/A", "Unknown", "None assigned", "(null)")
    return None if text in unknown else text


def state_of(job_id: str) -> str | None:
    """A job's state in the queue; None where that cannot be told."""
    text = ask("squeue", "-h", "--states=all", f"--jobs={job_id}", "-o", "%T")
    return text.split()[0] if text and text.split() else None


def requeue(job_id: str, patience_s: float = 20.0) -> bool:
    """Put a running job back into the queue, and say whether SLURM did."""
    return _insist(("scontrol", "requeue", job_id), patience_s)


def cancel(job_ids: Sequence[str], patience_s: float = 20.0) -> bool:
    """End jobs, pending and running; say whether SLURM took it."""
    return not job_ids or _insist(("scancel", *job_ids), patience_s)


def _insist(command: Sequence[str], patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while ask(*command) is None:
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True
