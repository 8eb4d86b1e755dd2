"""Work divided over processes, each with a live model of its own.

Rank 0 does everything as if it were alone, but for what is divided: it tells the other ranks what
to score, or which function to run with it, and they take a share each. What is said goes over gloo,
where a dead peer is noticed at once; losses and gradients are exchanged over nccl where the ranks
have GPUs, once all are known to be there.

Besides, each worker and rank 0 wait, in a thread, for a message from each other: rank 0's says
goodbye, a worker's are its last words. So a rank whose peer has died learns of it whatever it is
doing.
"""

import math
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.distributed.rendezvous import Ranks
from pipeline.errors import StageError
from pipeline.models.loading import LiveModel
from pipeline.pruning.passes import costs
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate
from pipeline.scoring.losses import LocalLosses, Losses, lowered
from pipeline.scoring.one_pass import Progress
from pipeline.scoring.perplexity import Windows

T = TypeVar("T")

MEETING = timedelta(minutes=5)
"""How long ranks wait for one another at the start."""
FOR_EVER = timedelta(days=365)
"""How long a living rank may have nothing to say: rank 0 also measures and evaluates."""
GATHERING = timedelta(minutes=2)
"""How long losses may take over nccl, once all ranks have them."""
WORDS = 512
"""Bytes of a rank's last words."""
GOODBYE = "goodbye"
NAMING_S = 5.0
"""Seconds after a failed exchange in which it must come out which rank has died."""
WINDOWS_KEPT = 4
"""Sets of windows that a rank recognises: those of all dimensions."""
SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What would make other libraries take rank 0 for one of several that do the same."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a rank scores."""

    rows: Sequence[int]
    """Places among the candidates."""
    windows: range


def divide(trunk: int, costs: Sequence[int], windows: int, ranks: int) -> list[Share]:
    """The shares by rank: candidates, windows or both divided, whichever is done first.

    Ranks with different candidates walk the same trunk; ranks with different windows do not, but
    windows may not go evenly.
    """

    def longest(parts: int) -> int:
        of_one = max(sum(costs[row] for row in rows) for rows in by_cost(costs, ranks // parts))
        return (trunk + of_one) * math.ceil(windows / parts)

    most = min(ranks, max(windows, 1))
    parts = min((n for n in range(1, most + 1) if ranks % n == 0), key=longest)
    return [
        Share(rows, range(windows * part // parts, windows * (part + 1) // parts))
        for part in range(parts)
        for rows in by_cost(costs, ranks // parts)
    ]


def by_cost(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Longest-processing-time-first assignment: the places in ``costs`` that each rank gets.

    The most expensive candidates branch off lowest, so a removal hardly changes which rank has what
    lies below it, and the states that a rank keeps from one step serve the next.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for row in sorted(range(len(costs)), key=lambda row: (-costs[row], row)):
        rank = loads.index(min(loads))
        shares[rank].append(row)
        loads[rank] += costs[row]
    return [sorted(share) for share in shares]


def losses_of(
    leader: "Leader | None",
    live: LiveModel,
    memory_fraction: float,
    device: str,
    *,
    keep: bool,
    cast_to: torch.dtype | None = None,
) -> Losses:
    """Losses on ``live``; with a leader on all ranks, with a model each that is loaded as it is.

    ``cast_to`` asks for them on a copy with its weights in that format. ``device`` is "cpu" or
    "cuda". Raises ``StageError`` where a rank is gone.
    """
    model = lowered(live, cast_to) if cast_to else live
    if leader is None:
        return LocalLosses(model, memory_fraction, keep=keep)
    if device == "cpu":
        memory_fraction /= leader.group.ranks.local_size
    opened = _Open(pickle.dumps(live), cast_to, memory_fraction, keep, device)
    with leader.exchanging():
        leader.group.exchange(opened)
        leader.group.use(device)
    return RankedLosses(cast_to, LocalLosses(model, memory_fraction, keep=keep), leader)


class RankedLosses:
    """Losses on all ranks; used by rank 0."""

    def __init__(self, cast_to: torch.dtype | None, local: Losses, leader: "Leader") -> None:
        self.cast_to, self.local, self.leader = cast_to, local, leader
        self._known: list[Windows] = []

    def __call__(
        self,
        state: PruningState,
        candidates: Sequence[Candidate],
        windows: Windows,
        on_progress: Progress,
    ) -> Tensor:
        """As ``Losses`` says. Raises ``StageError`` where a rank fails or is gone."""
        group, leader = self.leader.group, self.leader
        shares = divide(*costs(state, candidates), len(windows.ids), group.ranks.size)
        mine, its_windows = _of_share(shares[0], candidates, windows, self._known)
        parts: list[Tensor] = []

        def progress(share: float) -> None:
            leader.check()
            on_progress(share)

        with leader.exchanging():
            group.exchange(_Score(self.cast_to, state, tuple(candidates), windows, shares))
            losses, problem = _scored(lambda: self.local(state, mine, its_windows, progress), mine)
            leader.check()
            if not mine:
                on_progress(1.0)
            problems = group.problems(_text(problem))
            if not any(problems):
                parts = group.gather(losses, shares)
        if problem:
            raise problem
        for rank, text in enumerate(problems):
            if text:
                raise StageError(f"rank {rank} failed: {text}")
        together = torch.empty(len(candidates), len(windows.ids), dtype=torch.float64)
        for share, part in zip(shares, parts, strict=True):
            together[list(share.rows), share.windows.start : share.windows.stop] = part
        return together


class Group:
    """The ranks' channels: ``control`` and ``watch`` (gloo), and one for losses."""

    def __init__(self, ranks: Ranks) -> None:
        """Meet the other ranks. Raises ``StageError`` where they do not come."""
        self.ranks = ranks
        self.device = torch.device("cpu")
        try:
            dist.init_process_group(
                "gloo", ranks.init_method, MEETING, world_size=ranks.size, rank=ranks.rank
            )
            self.control = dist.new_group(backend="gloo", timeout=FOR_EVER)
            self.watch = dist.new_group(backend="gloo", timeout=FOR_EVER)
        except (RuntimeError, ValueError) as error:
            raise StageError(
                f"rank {ranks.rank} of {ranks.size} did not meet the others at "
                f"{ranks.init_method}: {_last_line(error)}"
            ) from error
        self._losses = self.control
        for name in SET_BY_TORCHRUN:
            os.environ.pop(name, None)

    def use(self, device: str) -> None:
        """Exchange losses over what suits ``device``; all ranks call it with the same."""
        if device == "cuda" and self.device.type == "cpu":
            torch.cuda.set_device(self.ranks.local_rank % torch.cuda.device_count())
            self.device = torch.device("cuda", torch.cuda.current_device())
            self._losses = dist.new_group(backend="nccl", timeout=GATHERING)

    def exchange(self, command: Any) -> Any:
        """Rank 0's command, on every rank."""
        box = [command]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def everyones(self, mine: T) -> list[T]:
        """What each rank gives, by rank, on every rank; also a barrier."""
        given: list[T] = [mine] * self.ranks.size
        dist.all_gather_object(given, mine, group=self.control)
        return given

    def problems(self, mine: str | None) -> list[str | None]:
        """What went wrong on each rank, on every rank; also a barrier."""
        return self.everyones(mine)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor the sum over the ranks, the same to the last bit on all of them."""
        for tensor in tensors:
            dist.all_reduce(tensor, group=self._losses)

    def gather(self, mine: Tensor, shares: Sequence[Share]) -> list[Tensor]:
        """The losses ``[candidates, windows]`` of every rank's share."""
        sizes = [(len(share.rows), len(share.windows)) for share in shares]
        padded = torch.zeros(*map(max, zip(*sizes, strict=True)), dtype=torch.float64)
        padded[: mine.shape[0], : mine.shape[1]] = mine
        padded = padded.to(self.device)
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded, group=self._losses)
        return [
            part[:rows, :windows].cpu() for part, (rows, windows) in zip(parts, sizes, strict=True)
        ]

    def await_words(self, rank: int) -> str | None:
        """What ``rank`` says at its end, or at this one's; None where it dies without a word."""
        words = torch.zeros(WORDS, dtype=torch.uint8)
        try:
            dist.recv(words, src=rank, group=self.watch)
        except RuntimeError:
            return None
        return bytes(words.tolist()).rstrip(b"\0").decode(errors="replace")

    def say(self, rank: int, words: str) -> None:
        """Say something to ``rank`` at its end or at this one's, if it is still there."""
        bytes_ = torch.tensor(list(words.encode()[:WORDS].ljust(WORDS, b"\0")), dtype=torch.uint8)
        with suppress(RuntimeError):
            dist.send(bytes_, dst=rank, group=self.watch)


class Leader:
    """Rank 0's view of the others."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._lost: dict[int, str | None] = {}
        self._noticed = threading.Event()
        self._broken_off = False
        others = range(1, group.ranks.size)
        self._threads = [
            threading.Thread(target=self._watch, args=(rank,), daemon=True) for rank in others
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise ``StageError`` where a rank is gone."""
        by_words = sorted(self._lost.items(), key=lambda lost: lost[1] is not None)
        for rank, words in by_words:  # who only lost a peer says so
            why = f"its last words: {words}" if words else "it was killed, or its machine died"
            raise StageError(
                f"rank {rank} of {self.group.ranks.size} is gone ({why}); every step that was "
                "finished is kept, and the same launch goes on from there"
            )

    @contextmanager
    def exchanging(self) -> Iterator[None]:
        """From a command to what comes of it. Blames a failure on the rank that is gone.

        What breaks off in the middle leaves the ranks at odds: the next one raises ``StageError``.
        """
        self.check()
        if self._broken_off:
            raise StageError("the ranks were interrupted in the middle of a step; launch again")
        self._broken_off = True
        try:
            yield
        except RuntimeError as error:
            if self._noticed.wait(NAMING_S):
                self.check()
            raise StageError(f"the ranks cannot exchange: {_last_line(error)}") from error
        self._broken_off = False

    def together(
        self,
        device: str,
        mine: Callable[[Group], T],
        theirs: Callable[..., None],
        *arguments: Any,
    ) -> T:
        """What ``mine`` gives, while every other rank runs ``theirs``, pickled, with ``arguments``.

        Both get their ``Group``. None may raise while others wait for it in an exchange. ``device``
        is "cpu" or "cuda". Raises ``StageError`` where a rank is gone.
        """
        with self.exchanging():
            self.group.exchange(_Call(device, theirs, arguments))
            self.group.use(device)
            return mine(self.group)

    def dismiss(self) -> None:
        """End the workers, whatever they are doing."""
        for rank in range(1, self.group.ranks.size):
            self.group.say(rank, GOODBYE)
        for thread in self._threads:
            thread.join(NAMING_S)
        if not any(thread.is_alive() for thread in self._threads):
            dist.destroy_process_group()

    def _watch(self, rank: int) -> None:
        self._lost[rank] = self.group.await_words(rank)
        self._noticed.set()


@contextmanager
def leading(ranks: Ranks) -> Iterator[Leader]:
    """Rank 0: the other ranks are there for ``losses_of`` meanwhile, and end with it."""
    leader = Leader(Group(ranks))
    try:
        yield leader
    finally:
        leader.dismiss()


def serve(ranks: Ranks) -> NoReturn:
    """Any other rank: do what rank 0 asks for, until it ends.

    Exits with status 0 where rank 0 ends in order, else 1. Prints nothing, and writes no file.
    """
    try:
        group = Group(ranks)
    except StageError:
        os._exit(1)
    watch = threading.Thread(target=lambda: os._exit(0 if group.await_words(0) else 1), daemon=True)
    watch.start()
    try:
        _serve(group)
    except Exception as error:  # noqa: BLE001 - rank 0 tells of it, and ends
        group.say(0, f"{type(error).__name__}: {_last_line(error)}")
    watch.join(NAMING_S)
    os._exit(1)


def _serve(group: Group) -> NoReturn:
    served: dict[torch.dtype | None, _Served] = {}
    known: list[Windows] = []
    while True:
        command = group.exchange(None)
        if isinstance(command, _Open):
            group.use(command.device)
            served[command.cast_to] = _Served.of(command, served)
            continue
        if isinstance(command, _Call):
            served.clear()  # their memory; whoever scores again opens again
            group.use(command.device)
            command.run(group, *command.arguments)
            continue
        assert isinstance(command, _Score)
        share = command.shares[group.ranks.rank]
        mine, windows = _of_share(share, command.candidates, command.windows, known)
        score = partial(served[command.cast_to].losses, command.state, mine, windows, _ignore)
        losses, problem = _scored(score, mine)
        if not any(group.problems(_text(problem))):
            group.gather(losses, command.shares)


@dataclass(frozen=True, slots=True)
class _Open:
    """Be ready to score with a model."""

    live: bytes
    """A live model without what is in memory; pickled, so that equal ones are recognised."""
    cast_to: torch.dtype | None
    memory_fraction: float
    keep: bool
    device: str


@dataclass(frozen=True, slots=True)
class _Score:
    """Score a step's candidates; ``shares`` by rank."""

    cast_to: torch.dtype | None
    state: PruningState
    candidates: tuple[Candidate, ...]
    windows: Windows
    shares: list[Share]


@dataclass(frozen=True, slots=True)
class _Call:
    """Run a function with this rank's group."""

    device: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Served:
    """A worker's model, loaded when it is first needed."""

    opened: _Open
    losses: LocalLosses

    @classmethod
    def of(cls, opened: _Open, served: Mapping[torch.dtype | None, "_Served"]) -> "_Served":
        """What ``opened`` asks for; the one in ``served`` where that is the same."""
        before = served.get(opened.cast_to)
        if before and before.opened == opened:
            return before
        if opened.cast_to:
            live = lowered(served[None].losses.live, opened.cast_to)
        else:
            live = pickle.loads(opened.live)  # noqa: S301
        return cls(opened, LocalLosses(live, opened.memory_fraction, keep=opened.keep))


def _of_share(
    share: Share, candidates: Sequence[Candidate], windows: Windows, known: list[Windows]
) -> tuple[list[Candidate], Windows]:
    """A share's candidates and its windows."""
    mine = [candidates[row] for row in share.rows]
    return mine, _recognised(windows.part(share.windows), known)


def _recognised(windows: Windows, known: list[Windows]) -> Windows:
    """The equal windows that came before, if any: states are kept for that very object."""
    for earlier in known:
        if earlier.eos_id == windows.eos_id and torch.equal(earlier.ids, windows.ids):
            return earlier
    known.append(windows)
    del known[:-WINDOWS_KEPT]
    return windows


def _scored(
    score: Callable[[], Tensor], share: Sequence[Candidate]
) -> tuple[Tensor, Exception | None]:
    """Losses of a share, or what went wrong: the other ranks must learn of it."""
    try:
        return score() if share else torch.empty(0, 0), None
    except Exception as error:  # noqa: BLE001
        return torch.empty(0, 0), error


def _text(problem: Exception | None) -> str | None:
    return None if problem is None else str(problem) or type(problem).__name__


def _ignore(_: float) -> None:
    """Only rank 0 shows progress."""


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]
