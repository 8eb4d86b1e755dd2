"""The loop that trains: AdamW on batches of examples, and the best state by held-out text."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.files import Json, mended, replace
from pipeline.models.prunable import PrunableModel
from pipeline.recovery.base import Examples, Progress, Recovering
from pipeline.recovery.training.adapters import Trained
from pipeline.recovery.training.checkpoints import Checkpoint, remove
from pipeline.recovery.training.losses import (
    Batch,
    BatchLoss,
    Objective,
    add_gradients,
    next_token_loss,
    summed_loss,
    targets_of,
)
from pipeline.recovery.training.noise import Noise
from pipeline.recovery.training.schedule import Schedule, seed_of
from pipeline.recovery.training.settings import TrainingConfig
from pipeline.recovery.training.team import Team, TeamError

RATES = (1e-4, 2e-4, 4e-4, 8e-4)
"""What ``lr=auto`` tries."""
SWEPT_SHARE = 0.06
"""Of the steps, that each rate is tried for."""
CHECKPOINT_S = 30.0
"""Seconds of work between checkpoints, at least."""
CHECKPOINT_SHARE = 0.05
"""Of the time, that checkpoints may take."""
POINTS = 100
"""Of the learning curve, about."""
TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 16384}
"""Tokens of a micro-batch, where nothing else is asked for."""
SIXTEEN_BITS = 2
"""Bytes of a number."""
LEARNING = "learning.jsonl"
LEARN, TRY, HELD_OUT = "learning", "trying rates", "held-out text"
"""Kinds of work, for whoever watches."""
PASSES = 3
"""Of a token that is learnt from: one forward, and back twice as much."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be trained, on what; to be pickled."""

    name: str
    """Of the technique, for messages and files."""
    settings: TrainingConfig
    trained: Trained
    objective: Objective
    train: Examples
    held_out: Mapping[str, Examples]
    seed: int
    folder: Path
    noise: float = 0.0
    """Share of the tokens that are read as others."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Held-out text at one state."""

    step: int
    held_out: Mapping[str, float | None]
    """Perplexities by name; None where it is no finite number."""
    score: float
    """Mean log-perplexity; 0 where there is no held-out text."""


@dataclass(slots=True)
class Position:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[Json] = field(default_factory=list)


class Loop:
    """Training of one model, on one rank."""

    def __init__(
        self,
        job: Job,
        model: PrunableModel,
        parameters: Mapping[str, nn.Parameter],
        loss_of: BatchLoss,
        team: Team,
        host: Recovering | None,
    ) -> None:
        self.job, self.model, self.parameters = job, model, parameters
        self.loss_of, self.team, self.host = loss_of, team, host
        settings, train = job.settings, job.train
        self.steps_of_epoch = math.ceil(len(train.ids) / settings.batch)
        self.steps = self.steps_of_epoch * settings.epochs
        longest = max(each.ids.shape[1] for each in (train, *job.held_out.values()))
        at_once = TOKENS_AT_ONCE[model.device.type] // longest
        self.micro_batch = settings.micro_batch or max(1, min(settings.batch, at_once))
        self.targets = targets_of(train)
        self.noise = Noise.of(job.noise, train, job.seed)
        self.path = job.folder / f"{job.name}.checkpoint.safetensors"
        self.autocast = settings.compute == "bfloat16" or (
            settings.compute == "auto"
            and (model.device.type == "cuda" or model.model.dtype.itemsize == SIXTEEN_BITS)
        )
        self.at, self.lr = Position(), 0.0
        self.optimizer = self._new_optimizer()

    def run(self) -> dict[str, Json]:
        """Train to the end, from where an earlier process came."""
        is_new = not self._resume()
        if self.host:
            left = 1 - self.at.step / self.steps
            ahead = training_ahead(
                self.job.settings, self.job.train, self.job.held_out, left, is_new=is_new
            )
            self.host.watching.on_ahead(ahead)
            self.host.watching.on_doing(LEARN)
        if is_new:
            self._start()
        schedule = self._schedule(self.lr, self.steps)
        measured_at = {
            math.ceil(self.steps * share / self.job.settings.measurements)
            for share in range(1, self.job.settings.measurements + 1)
        }
        every = max(1, self.steps // POINTS)
        started = written = time.monotonic()
        before, pause = self.at.seconds, CHECKPOINT_S
        problem = None
        while self.at.step < self.steps:
            lr, rows = schedule.at(self.at.step), self._rows(self.at.step)
            loss = self._step(self.at.step, rows, lr)
            if loss is None:
                problem = f"the loss was no finite number in step {self.at.step + 1}"
                break
            tokens = int(self.job.train.lengths[rows].sum())
            self._worked(LEARN, PASSES * tokens)
            self.at.step += 1
            self.at.tokens += tokens
            self.at.seconds = before + time.monotonic() - started
            measured = self._measure() if self.at.step in measured_at else None
            if measured:
                self._compare(measured)
            if measured or self.at.step % every == 0:
                self._record(loss, measured, lr)
            if self.host and time.monotonic() - written >= pause:
                began = time.monotonic()
                self._checkpoint().write(self.path)
                written = time.monotonic()
                pause = max(CHECKPOINT_S, (written - began) / CHECKPOINT_SHARE)
        return self._ended(problem)

    def _start(self) -> None:
        self.first = self.best = self._measure()
        self.state = self._copy()
        lr = self.job.settings.lr
        self.lr = self._best_rate() if lr == "auto" else lr
        self._record(None, self.first)

    def _ended(self, problem: str | None) -> dict[str, Json]:
        """Give the best state back, and say what came of it."""
        kept = self.best.step if self.job.held_out else self.at.step
        key = f"recover.{self.job.name}.lr"
        if problem and not (self.job.held_out and kept):
            if self.host:
                remove(self.path)
            lower = f"{self.lr / 10:.0e}".replace("e-0", "e-")
            raise TeamError(
                StageError(f"{problem} at the rate {self.lr:g}; try a lower one: {key}={lower}")
            )
        if self.host is None:
            return {}
        if problem:
            self.host.warn(f"{problem}; the state of step {kept} is kept; {key} may be too high")
        elif kept == 0:
            self.host.warn(
                "learning made held-out text worse, so the weights stay as they were; a lower "
                f"{key} or more text may help"
            )
        if kept != self.at.step:
            self._put(self.state)
        remove(self.path)
        return {
            "lr": self.lr,
            "steps": self.at.step,
            "kept_step": kept,
            "tokens": self.at.tokens,
            "seconds": round(self.at.seconds, 3),
            "trained_parameters": sum(p.numel() for p in self.parameters.values()),
            "held_out": {
                name: {"before": self.first.held_out[name], "after": self.best.held_out[name]}
                for name in self.first.held_out
            },
        }

    def _schedule(self, lr: float, steps: int) -> Schedule:
        settings = self.job.settings
        warmup_steps = math.ceil(settings.warmup_steps * steps / self.steps)
        return Schedule(lr, settings.schedule, warmup_steps, steps)

    def _rows(self, step: int) -> list[int]:
        """The examples of a step, longest first: an epoch has its own order."""
        epoch, place = divmod(step, self.steps_of_epoch)
        generator = torch.Generator().manual_seed(seed_of(self.job.seed, epoch))
        order = torch.randperm(len(self.job.train.ids), generator=generator)
        rows: list[int] = order.split(self.job.settings.batch)[place].tolist()
        lengths = self.job.train.lengths
        return sorted(rows, key=lambda row: -int(lengths[row]))

    def _step(self, step: int, rows: Sequence[int], lr: float) -> float | None:
        """Learn from a batch; its mean loss before. None, and nothing learnt, where not finite."""
        targets = max(1, int(self.targets[rows].sum()))
        if self.host and self.host.leader:
            self.host.leader.check()
        torch.manual_seed(seed_of(self.job.seed, step, self.team.rank))
        loss = (
            self._over_ranks(lambda: self._gradients(step, self.team.share(rows), targets))
            / targets
        )
        self.team.add_up([p.grad for p in self.parameters.values() if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.job.settings.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.team.alike(self.optimizer.step)
        return loss

    def _gradients(self, step: int, rows: Sequence[int], targets: int) -> float:
        """Have every parameter its gradient of these examples; their summed loss."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.zero_()
        read = self.noise.on if self.noise else lambda batch, _: batch
        return sum(
            add_gradients(self.model, read(batch, step), self.loss_of, targets, self._computing)
            for batch in self._batches(self.job.train, rows)
        )

    def _over_ranks(self, work: Callable[[], float]) -> float:
        """The sum of what ``work`` gives on every rank."""
        return sum(self.team.everyones(self.team.alike(lambda: self._in_memory(work))))

    def _in_memory(self, work: Callable[[], float]) -> float:
        """What ``work`` gives; with half of the sequences at a time where memory runs out."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
            self.micro_batch //= 2
            torch.cuda.empty_cache()

    def _batches(self, examples: Examples, rows: Sequence[int]) -> Iterator[Batch]:
        size = self.micro_batch
        for start in range(0, len(rows), size):
            yield Batch.of(examples, rows[start : start + size], self.model.device)

    def _computing(self) -> AbstractContextManager[object]:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast)

    def _measure(self) -> Measured:
        """Perplexity of the held-out texts now, on all ranks."""
        loss_of = next_token_loss(self.model)

        def share(examples: Examples) -> float:
            batches = self._batches(examples, self.team.share(range(len(examples.ids))))
            return sum(summed_loss(self.model, each, loss_of, self._computing) for each in batches)

        losses = {}
        for name, examples in self.job.held_out.items():
            targets = int(targets_of(examples).sum())
            losses[name] = self._over_ranks(partial(share, examples)) / targets
            self._worked(HELD_OUT, int(examples.lengths.sum()))
        score = sum(losses.values()) / max(1, len(losses))
        perplexities = {name: _perplexity(loss) for name, loss in losses.items()}
        return Measured(self.at.step, perplexities, score if math.isfinite(score) else math.inf)

    def _compare(self, measured: Measured) -> None:
        """Keep a state that is better than all before."""
        if self.job.held_out and measured.score < self.best.score:
            self.best = measured
            if self.host:
                self.state = self._copy()

    def _best_rate(self) -> float:
        """The rate that comes furthest in a small part of the steps, each from the same start."""
        if not self.job.held_out:
            key = f"recover.{self.job.name}.lr"
            raise TeamError(
                StageError(f"{key}=auto needs held-out text to choose by; give a rate: {key}=2e-4")
            )
        steps = max(1, round(SWEPT_SHARE * self.steps))
        scores = {}
        for rate in RATES:
            schedule = self._schedule(rate, steps)
            losses = []
            for step in range(steps):
                rows = self._rows(step)
                losses.append(self._step(step, rows, schedule.at(step)))
                self._worked(TRY, PASSES * int(self.job.train.lengths[rows].sum()))
            scores[rate] = math.inf if None in losses else self._measure().score
            self._put(self.state)
            self.optimizer = self._new_optimizer()
        rate = min(scores, key=scores.__getitem__)
        if self.host:
            found = ", ".join(f"{rate:g}: {_perplexity(s) or 0:.2f}" for rate, s in scores.items())
            self.host.note(
                f"held-out perplexity after {steps} steps by rate: {found}; {rate:g} is taken"
            )
        return rate

    def _record(self, loss: float | None, measured: Measured | None, lr: float = 0.0) -> None:
        """A point of the learning curve, shown and written."""
        if self.host is None:
            return
        at, known = self.at, measured.held_out if measured else {}
        held_out = {name: ppl for name, ppl in known.items() if ppl is not None}
        last = at.curve[-1] if at.curve else {"tokens": 0, "seconds": 0.0}
        took = at.seconds - last["seconds"]
        at.curve.append(
            {
                "tokens": at.tokens,
                "loss": loss,
                "lr": lr,
                "seconds": round(at.seconds, 3),
                "tokens_per_s": round((at.tokens - last["tokens"]) / took, 1) if took else None,
                "held_out": dict(known) or None,
            }
        )
        lines = (json.dumps(point, allow_nan=False) + "\n" for point in at.curve)
        replace(self.job.folder / LEARNING, "".join(lines))
        total = int(self.job.train.lengths.sum()) * self.job.settings.epochs
        self.host.progress(Progress(at.tokens, total, loss, lr, held_out or None))

    def _worked(self, kind: str, tokens: float) -> None:
        if self.host:
            self.host.watching.on_progress(kind, tokens)

    def _new_optimizer(self) -> torch.optim.AdamW:
        settings = self.job.settings
        return torch.optim.AdamW(
            self.parameters.values(),
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().to("cpu", copy=True) for name, p in self.parameters.items()}

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def _checkpoint(self) -> Checkpoint:
        tensors = {f"best/{name}": tensor for name, tensor in self.state.items()}
        for name, parameter in self.parameters.items():
            tensors[f"now/{name}"] = parameter.detach()
            for key in MOMENTS:
                tensors[f"{key}/{name}"] = self.optimizer.state[parameter][key]
        states = {"first": asdict(self.first), "best": asdict(self.best), "at": asdict(self.at)}
        return Checkpoint(tensors, {"settings": self._identity(), "lr": self.lr, **states})

    def _identity(self) -> dict[str, Json]:
        """What a checkpoint holds for."""
        settings = self.job.settings
        values = settings.model_dump(mode="json").items()
        return {key: value for key, value in values if settings.decides(key)}

    def _resume(self) -> bool:
        """Go on from the last checkpoint, where there is one."""
        warn = self.host.warn if self.host else lambda _: None
        found = self.team.alike(lambda: mended(lambda: Checkpoint.read(self.path), warn))
        if found and found.facts["settings"] != self._identity():
            found = None
        if len(set(self.team.everyones(found is None))) > 1:
            raise TeamError(StageError(f"not all ranks see {self.path}: share that folder"))
        if found is None:
            return False
        tensors, facts = found.tensors, found.facts
        self.lr, self.at = facts["lr"], Position(**facts["at"])
        self.first, self.best = Measured(**facts["first"]), Measured(**facts["best"])
        self.state = {name: tensors[f"best/{name}"] for name in self.parameters}
        self._put({name: tensors[f"now/{name}"] for name in self.parameters})
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}/{name}"].to(parameter.device) for key in MOMENTS
            }
        return True


def training_ahead(
    settings: TrainingConfig,
    train: Examples,
    held_out: Mapping[str, Examples],
    left: float = 1.0,
    *,
    is_new: bool = True,
) -> dict[str, float]:
    """What training takes, by kind of work, in tokens; ``left`` is the share that is to be done."""
    learning = PASSES * settings.epochs * float(train.lengths.sum())
    measurements = left * settings.measurements + is_new
    tried = len(RATES) if settings.lr == "auto" and is_new else 0
    measured = sum(float(examples.lengths.sum()) for examples in held_out.values())
    return {
        LEARN: left * learning,
        TRY: tried * SWEPT_SHARE * learning,
        HELD_OUT: (measurements + tried) * measured,
    }


def _perplexity(loss: float) -> float | None:
    return math.exp(loss) if loss < math.log(torch.finfo(torch.float64).max) else None
