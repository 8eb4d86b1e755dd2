"""Other tokens in the text that is learnt from: so the dense model shows more of what it knows."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.recovery.base import Examples
from pipeline.recovery.training.losses import Batch
from pipeline.recovery.training.schedule import seed_of


@dataclass(frozen=True, slots=True)
class Noise:
    """Some tokens are read as others, drawn from the whole text; what is predicted stays.

    Each example has its own in every step, whoever computes it.
    """

    share: float
    """Of the tokens, from 0 to 1."""
    words: Tensor
    """What is drawn from, ``[tokens]``."""
    seed: int

    @classmethod
    def of(cls, share: float, examples: Examples, seed: int) -> "Noise | None":
        """With the tokens that are learnt; None where nothing is replaced."""
        return cls(share, examples.ids[examples.learnt], seed) if share else None

    def on(self, batch: Batch, step: int) -> Batch:
        """The batch as it is read in a step."""
        longest = batch.ids.shape[1]
        drawn = [self._drawn(longest, step, row) for row in batch.rows]
        ids = torch.stack([words for words, _ in drawn]).to(batch.ids.device)
        chances = torch.stack([chances for _, chances in drawn]).to(batch.ids.device)
        return replace(batch, ids=torch.where(chances < self.share, ids, batch.ids))

    def _drawn(self, count: int, step: int, row: int) -> tuple[Tensor, Tensor]:
        """Other tokens and a chance for each place; the first ones do not depend on ``count``."""
        draws = torch.Generator().manual_seed(seed_of(self.seed, step, row))
        both = torch.rand(count, 2, generator=draws, dtype=torch.float64)
        return self.words[(both[:, 0] * len(self.words)).long()], both[:, 1]
