"""Perplexity of the model without a candidate, on calibration windows.

Scored exactly for every candidate, or by a race that drops candidates early; in the precision of
the model, or in float16 with what may decide scored again in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pipeline.criteria.base import CALIBRATION, Criterion, Material, Need
from pipeline.files import Json
from pipeline.pruning.choice import Scorer
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import PERPLEXITY, ScoredCandidate, Step
from pipeline.pruning.units import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipeline.distributed.ranks import Leader
    from pipeline.models.loading import LiveModel
    from pipeline.scoring.losses import Losses
    from pipeline.scoring.perplexity import Windows
    from pipeline.settings.core import Config

Search = Literal["exhaustive", "race"]
Precision = Literal["model", "mixed"]


@dataclass(frozen=True)
class Perplexity(Criterion):
    """The criterion of the paper (arXiv 2501.09949)."""

    search: Search = "exhaustive"
    """Whether all candidates are scored on all windows, or raced."""
    audit_every: int = 0
    """Every so many steps of a trajectory a race is checked; 0 never."""
    name: str = PERPLEXITY
    needs: frozenset[Need[Any]] = frozenset({CALIBRATION})

    def identity(self, config: "Config") -> dict[str, Json]:
        """Search and precision."""
        return {"search": self.search, "precision": config.scoring.precision}

    def scorer(self, config: "Config", material: Material) -> Scorer:
        """Scores on all ranks."""
        exact, screen = losses_in(
            config.scoring.precision,
            self.search,
            material.live,
            config.scoring.memory_fraction,
            config.model.device,
            material.leader,
        )
        return PerplexityScorer(
            self.search,
            exact,
            screen,
            self.audit_every,
            material.of(CALIBRATION),
            material.on_progress,
        )


def losses_in(
    precision: Precision,
    search: Search,
    live: "LiveModel",
    memory_fraction: float,
    device: str,
    leader: "Leader | None",
) -> "tuple[Losses, Losses]":
    """Losses in the precision that decides, and those by which candidates are told apart first."""
    import torch

    from pipeline.distributed.ranks import losses_of

    steps_alike = search == "exhaustive"
    ask = partial(losses_of, leader, live, memory_fraction, device)
    if precision == "model":
        losses = ask(keep=steps_alike)
        return losses, losses
    return ask(keep=False), ask(keep=steps_alike, cast_to=torch.float16)


@dataclass(frozen=True)
class PerplexityScorer(Scorer):
    """A search with what it asks for losses."""

    search: Search
    exact: "Losses"
    """Losses in the precision that decides."""
    screen: "Losses"
    """Losses by which candidates are told apart first; may be ``exact``."""
    audit_every: int
    windows: "Windows"
    on_progress: "Callable[[float], None]"
    criterion: str = PERPLEXITY

    def scores(
        self, state: PruningState, candidates: Sequence[Candidate]
    ) -> Sequence[ScoredCandidate]:
        """All of them on all windows, in the precision that decides."""
        from pipeline.scoring.perplexity import scored

        return scored(candidates, self.exact(state, candidates, self.windows, self.on_progress))

    def step(
        self,
        index: int,
        state: PruningState,
        candidates: Sequence[Candidate],
        last: Step | None,
    ) -> Step:
        """As the search decides; audited where that is due."""
        from pipeline.scoring.mixed import confirmed
        from pipeline.scoring.perplexity import scored
        from pipeline.scoring.race import race

        def ask(losses: "Losses", asked: Sequence[Candidate], which: Sequence[int]) -> "Tensor":
            share = len(asked) * len(which) / (len(candidates) * len(self.windows.ids))
            return losses(
                state, asked, self.windows.part(which), lambda done: self.on_progress(done * share)
            )

        every = range(len(self.windows.ids))
        if self.search == "race":
            scores = race(candidates, len(every), partial(ask, self.screen), last)
        else:
            scores = scored(candidates, ask(self.screen, candidates, every))
        if self.screen is not self.exact:
            scores = confirmed(scores, lambda asked: ask(self.exact, asked, every))
        step = Step.choose(scores)
        if self.search == "race" and self.audit_every and (index + 1) % self.audit_every == 0:
            exhaustive = scored(candidates, ask(self.exact, candidates, every))
            step = replace(step, audited=Step.choose(exhaustive).chosen)
        return step
