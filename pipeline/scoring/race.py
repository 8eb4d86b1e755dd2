"""A step decided from part of its losses: a candidate is dropped once it can hardly win.

Two things are known of a candidate's gap, its mean loss above the leader's. The evidence is the
mean paired difference over the windows seen; its variance follows from the spread over windows,
which leans on all candidates, as each has seen few. The prior is the gap at the last step plus the
drift since; how much single candidates drift apart is measured on those that have all windows now.
Both are weighed by inverse variance. The candidates that the last step ranks first are scored on
all windows, the others on 1, 2, 4, ... windows. One is dropped when the weighed gap exceeds ``Z``
standard errors and the evidence alone is against it, so none goes unasked.

Measured along the exhaustive path. SmolLM2-135M, 45 steps of 20 to 60 candidates, 16 and 8 windows
of 2048 tokens of Alpaca: 1/3.9 of the losses, no other decision; with ``Z`` 3 and 3 finalists 1/4.5
and 3 others, by at most 0.003 in loss. The built-in model, 34 steps of 8 to 20 candidates, 16
windows of 512 tokens: with those two, 1/2.3 and no other. Fewer candidates save less: the finalists
are a larger part of them. The constants were chosen on this data.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import Candidate
from pipeline.scoring.perplexity import perplexity_of_losses

AskLosses = Callable[[Sequence[Candidate], Sequence[int]], Tensor]
"""Losses of candidates in the windows with these indexes, float64 ``[candidates, indexes]``."""

Z = 4.0
"""Standard errors above the leader at which a candidate is dropped."""
FINALISTS = 4
"""Candidates that are scored on all windows at once: those the last step ranks first."""
NEWCOMERS = 2
"""As many that the last step does not know are finalists too: the rest of what it narrowed."""
FIRST_WAVE = 1
"""Windows before anything is dropped."""
FIRST_WAVE_ALONE = 4
"""The same where no last step helps."""
POOLED_WINDOWS = 4
"""Windows that the spread over all candidates counts for beside a candidate's own."""
GUESSED_DRIFT = 0.1
"""Drift before it is measured, as a share of the median gap at the last step."""
GUESS_COUNTS = 2
"""Measured drifts that the guess counts for."""
LEAST_SPREAD = 1e-4
"""Spread and drift that are always possible, in loss: rounding, and near-ties."""


def race(
    candidates: Sequence[Candidate], windows: int, ask: AskLosses, last: Step | None
) -> list[ScoredCandidate]:
    """The candidates with their perplexities: exact for all that were not dropped.

    ``last`` is the step before in the same trajectory, None at the first. No candidate is asked for
    twice in a window. One with a loss that is no finite number is dropped at once and has no
    perplexity.
    """
    field = _Field(candidates, windows, ask, last)
    field.score(field.finalists(), range(windows))
    first = FIRST_WAVE_ALONE if field.before.isnan().all() else FIRST_WAVE
    seen = 0
    while field.open.any():
        wave = range(seen, min(windows, max(first, 2 * seen)))
        field.score(field.open, wave)
        field.drop()
        seen = wave.stop
    if not field.complete.any():
        field.score_dropped()
    return field.result()


class _Field:
    """The candidates of a step and what is known of them; masks are bool ``[candidates]``."""

    def __init__(
        self, candidates: Sequence[Candidate], windows: int, ask: AskLosses, last: Step | None
    ) -> None:
        self.candidates, self.windows, self.ask = candidates, windows, ask
        count = len(candidates)
        self.losses = torch.full((count, windows), torch.nan, dtype=torch.float64)
        """NaN where not asked for, ``[candidates, windows]``."""
        self.seen = torch.zeros(count, dtype=torch.int64)
        """Windows each candidate was asked for, always the first ones, ``[candidates]``."""
        self.dropped = torch.zeros(count, dtype=torch.bool)
        self.refused = torch.zeros(count, dtype=torch.bool)
        """Those with a loss that is not a finite number."""
        self.before = _log_perplexities(candidates, last)
        """Log perplexities at the last step, NaN where it has none, ``[candidates]``."""

    @property
    def complete(self) -> Tensor:
        """Mask of those with a finite loss in every window."""
        return (self.seen == self.windows) & ~self.refused

    @property
    def open(self) -> Tensor:
        """Mask of those that are still to be asked for."""
        return (self.seen < self.windows) & ~self.refused & ~self.dropped

    def finalists(self) -> Tensor:
        """Mask of those that need no wave: what the last step ranks first, and a few newcomers."""
        new = self.before.isnan()
        known = int((~new).sum())
        chosen = new & (known > 0) & (len(new) - known <= NEWCOMERS)
        ranking = self.before.nan_to_num(math.inf).argsort(stable=True)
        chosen[ranking[: min(FINALISTS, known)]] = True
        return chosen

    def score(self, mask: Tensor, wave: range) -> None:
        """Ask for the windows ``wave`` of the candidates in ``mask``."""
        rows = mask.nonzero()[:, 0].tolist()
        if not rows:
            return
        losses = self.ask([self.candidates[row] for row in rows], wave).double().cpu()
        self.losses[rows, wave.start : wave.stop] = losses
        self.seen[rows] = wave.stop
        self.refused[rows] = ~losses.isfinite().all(dim=1)

    def score_dropped(self) -> None:
        """Complete what was dropped for a leader that turned out to have no perplexity."""
        for seen in sorted(set(self.seen[self.dropped].tolist())):
            self.score(self.dropped & (self.seen == seen), range(seen, self.windows))

    def drop(self) -> None:
        """Drop what can hardly become better than the leader."""
        leader = self._leader()
        if leader is None:
            return
        evidence, unsure = self._evidence(leader)
        gap, variance = self._gaps(leader)
        against = (evidence > 0) & unsure.isfinite() & (gap > Z * variance.sqrt())
        self.dropped |= self.open & against

    def result(self) -> list[ScoredCandidate]:
        """All candidates in their order; those that were dropped with an estimate."""
        leader = self._leader()
        estimates = self.losses.mean(dim=1)
        if leader is not None:
            gap, _ = self._gaps(leader)
            estimates = torch.where(self.complete, estimates, estimates[leader] + gap)
        scores = []
        for row, candidate in enumerate(self.candidates):
            estimated = bool(self.dropped[row] & ~self.refused[row] & ~self.complete[row])
            losses = estimates[row : row + 1] if estimated else self.losses[row]
            ppl = None if self.refused[row] else perplexity_of_losses(losses)
            scores.append(ScoredCandidate(candidate, ppl, estimated))
        return scores

    def _leader(self) -> int | None:
        """The lowest of those that are complete; before there are any, of those in the race."""
        among = self.complete if self.complete.any() else self.open
        if not among.any():
            return None
        return int(torch.where(among, self.losses.nanmean(dim=1), math.inf).argmin())

    def _gaps(self, leader: int) -> tuple[Tensor, Tensor]:
        """Gap to the leader and its variance, ``[candidates]`` each, in loss and loss squared."""
        evidence, unsure = self._evidence(leader)
        prior, drift = self._prior(leader)
        weight = 1 / unsure + 1 / drift
        return (evidence / unsure + prior / drift) / weight, 1 / weight

    def _evidence(self, leader: int) -> tuple[Tensor, Tensor]:
        """Mean paired difference to the leader and its variance, infinite where unknown.

        Windows are a sample without replacement: nothing is left to chance once all are seen.
        """
        differences = self.losses - self.losses[leader]
        mean = differences.nanmean(dim=1)
        seen = self.seen.clamp(max=int(self.seen[leader])).double()
        squares = (differences - mean[:, None]).square().nansum(dim=1)
        free = seen - 1
        several = (free > 0) & ~self.refused
        several[leader] = False
        if not several.any():
            return mean, torch.full_like(mean, math.inf)
        pooled = (squares[several] / free[several]).mean()
        spread = (squares + POOLED_WINDOWS * pooled) / (free + POOLED_WINDOWS)
        return mean, spread.clamp(min=LEAST_SPREAD**2) * (1 / seen - 1 / self.windows)

    def _prior(self, leader: int) -> tuple[Tensor, Tensor]:
        """Gap expected from the last step and its variance, infinite where unknown."""
        drifts = self.losses.mean(dim=1) - self.before
        drifts = drifts[self.complete & drifts.isfinite()]
        if len(drifts) < 2:  # noqa: PLR2004 - one has no spread
            return torch.zeros_like(self.before), torch.full_like(self.before, math.inf)
        known = self.before.isfinite()
        typical = (self.before - self.before[known].min())[known].median()
        guess = GUESS_COUNTS * (GUESSED_DRIFT * typical) ** 2
        measured = (drifts - drifts.mean()).square().sum()
        variance = (guess + measured) / (GUESS_COUNTS + len(drifts) - 1) * (1 + 1 / len(drifts))
        expected = self.before + drifts.mean() - self.losses[leader].mean()
        return (
            expected.nan_to_num(0.0),
            torch.where(known, variance.clamp(min=LEAST_SPREAD**2), math.inf),
        )


def _log_perplexities(candidates: Sequence[Candidate], last: Step | None) -> Tensor:
    """What a step knows of candidates, float64 ``[candidates]``; NaN where that is nothing."""
    known = {s.candidate: s.score for s in last.scored if s.score is not None} if last else {}
    return torch.tensor([math.log(known.get(c, math.nan)) for c in candidates], dtype=torch.float64)
