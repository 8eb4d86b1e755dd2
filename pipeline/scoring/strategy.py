"""How a step is decided: which candidates are scored in full, and in which precision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pipeline.distributed.ranks import losses_of
from pipeline.models.loading import LiveModel
from pipeline.pruning.state import Candidate, PruningState
from pipeline.pruning.trajectory import Step
from pipeline.scoring.losses import Losses
from pipeline.scoring.mixed import confirmed
from pipeline.scoring.one_pass import Progress
from pipeline.scoring.perplexity import Windows, scored
from pipeline.scoring.race import race

Search = Literal["exhaustive", "race"]
Precision = Literal["model", "mixed"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A search with what it asks for losses."""

    search: Search
    exact: Losses
    """Losses in the precision that decides."""
    screen: Losses
    """Losses by which candidates are told apart first; may be ``exact``."""
    audit_every: int
    """Every so many steps of a trajectory a race is checked; 0 never."""

    def step(
        self,
        index: int,
        state: PruningState,
        candidates: Sequence[Candidate],
        windows: Windows,
        last: Step | None,
        on_progress: Progress,
    ) -> Step:
        """Step ``index`` of a trajectory; ``last`` is the one before."""
        progress = _UpToOne(on_progress)

        def ask(losses: Losses, asked: Sequence[Candidate], which: Sequence[int]) -> Tensor:
            share = len(asked) * len(which) / (len(candidates) * len(windows.ids))
            return losses(
                state, asked, windows.part(which), lambda done: progress.tell(done * share)
            )

        every = range(len(windows.ids))
        if self.search == "race":
            found = race(candidates, len(every), partial(ask, self.screen), last)
        else:
            found = scored(candidates, ask(self.screen, candidates, every))
        if self.screen is not self.exact:
            found = confirmed(found, lambda asked: ask(self.exact, asked, every))
        step = Step.choose(found)
        if self.search == "race" and self.audit_every and (index + 1) % self.audit_every == 0:
            exhaustive = scored(candidates, ask(self.exact, candidates, every))
            step = replace(step, audited=Step.choose(exhaustive).chosen)
        return step


def strategy(
    live: LiveModel,
    device: str,
    search: Search,
    precision: Precision,
    memory_fraction: float,
    audit_every: int,
) -> Strategy:
    """The search and the precision by their names, on a live model, on all ranks."""
    steps_alike = search == "exhaustive"
    ask = partial(losses_of, live, memory_fraction, device)
    if precision == "model":
        losses = ask(keep=steps_alike)
        return Strategy(search, losses, losses, audit_every)
    return Strategy(
        search, ask(keep=False), ask(keep=steps_alike, cast_to=torch.float16), audit_every
    )


class _UpToOne:
    """Progress of work whose amount is not known before."""

    def __init__(self, on_progress: Progress) -> None:
        self.on_progress = on_progress
        self.left = 1.0

    def tell(self, share: float) -> None:
        share = min(share, self.left)
        self.left -= share
        self.on_progress(share)
