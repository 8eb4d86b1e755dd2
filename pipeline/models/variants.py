"""Variants: a model as it is used, that is its pruning state and how its weights came about."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pipeline.files import key_of
from pipeline.pruning.state import PruningState

DENSE, REORDERED, CUT = "dense", "reordered", "cut"


@dataclass(frozen=True, slots=True)
class Origin:
    """One thing that was done to get weights."""

    how: str
    """``dense``: read from the model's files. ``reordered``: the most important channels and heads
    were put first. ``cut``: blocks and the tails of blocks were removed, as the state says."""
    key: str | None = None
    """What stands for the data that it was done with: of dense weights the digest of the files;
    None where the rest of the lineage and the state say it all."""


Lineage = tuple[Origin, ...]
"""How weights came about, from the first thing to the last."""


def dense_lineage(weights: str, *, reordered: bool) -> Lineage:
    """Of weights as they are loaded; ``weights`` is the digest of the model's files."""
    dense = Origin(DENSE, weights)
    return (dense, Origin(REORDERED)) if reordered else (dense,)


@dataclass(frozen=True)
class Variant:
    """Equal variants are the same model: what is measured or stored of one is keyed by it."""

    state: PruningState
    lineage: Lineage

    @classmethod
    def cut(cls, state: PruningState, lineage: Lineage) -> "Variant":
        """Weights with ``lineage``, cut down to ``state``."""
        is_dense = state == PruningState.dense(state.shape)
        return cls(state, lineage if is_dense else (*lineage, Origin(CUT)))

    @property
    def base(self) -> Lineage:
        """How the weights came about that were cut last: from them this variant can be cut."""
        is_cut = bool(self.lineage) and self.lineage[-1].how == CUT
        return self.lineage[:-1] if is_cut else self.lineage

    def identity(self) -> dict[str, Any]:
        """Plain JSON that is equal for equal weights; the order of removal does not count."""
        return {
            "state": self.state.identity(),
            "lineage": [asdict(origin) for origin in self.lineage],
        }

    @cached_property
    def key(self) -> str:
        """Hash of the identity."""
        return key_of(self.identity())
