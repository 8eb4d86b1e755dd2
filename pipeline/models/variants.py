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
    were put first. ``cut``: blocks and the tails of blocks were removed, as the state says.
    Whatever else: what is left was given other values."""
    key: str | None = None
    """What stands for the data that it was done with: of dense weights the digest of the files, of
    an order that is not made of the weights its own, of other values that of their file; None where
    the rest of the lineage and the state say it all."""


Lineage = tuple[Origin, ...]
"""How weights came about, from the first thing to the last."""


def dense_lineage(weights: str, *, reordered: bool | str) -> Lineage:
    """Of weights as they are loaded; ``weights`` is the digest of the model's files.

    ``reordered`` says whether channels are put in order; the digest of the order where it is not
    that of the weights' L1 norms.
    """
    dense = Origin(DENSE, weights)
    if not reordered:
        return (dense,)
    return (dense, Origin(REORDERED, reordered if isinstance(reordered, str) else None))


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

    def recovered(self, how: str, weights: str) -> "Variant":
        """This one with other values in what is left; ``weights`` is the digest of their file."""
        return Variant(self.state, (*self.lineage, Origin(how, weights)))

    @property
    def base(self) -> Lineage:
        """How the weights came about that were cut last: from them this variant can be cut."""
        is_cut = bool(self.lineage) and self.lineage[-1].how == CUT
        return self.lineage[:-1] if is_cut else self.lineage

    @property
    def values(self) -> str | None:
        """Digest of the file of values that its weights got after being cut; None: no others."""
        last = self.lineage[-1] if self.lineage else None
        return last.key if last and last.how not in (DENSE, REORDERED, CUT) else None

    @property
    def before_recovery(self) -> "Variant":
        """The variant whose weights were given other values; itself where they were not."""
        kept = len(self.lineage)
        while kept and self.lineage[kept - 1].how not in (DENSE, REORDERED, CUT):
            kept -= 1
        return Variant(self.state, self.lineage[:kept])

    @property
    def measured_as(self) -> "Variant":
        """The variant whose records are this one's, too.

        A dense model computes the same in whatever order that is stored with a run.
        """
        last = self.lineage[-1] if self.lineage else None
        is_in_order = last is not None and last.how == REORDERED and last.key is not None
        return Variant(self.state, self.lineage[:-1]) if is_in_order else self

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
