"""What every search asks for: losses of a state without each of its candidates."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.models.loading import LiveModel
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate
from pipeline.scoring.one_pass import OnePass, Progress, WindowLoss, next_token_loss
from pipeline.scoring.perplexity import Windows


class Losses(Protocol):
    """Computes losses, here or on several devices, in one precision."""

    def __call__(
        self,
        state: PruningState,
        candidates: Sequence[Candidate],
        windows: Windows,
        on_progress: Progress,
    ) -> Tensor:
        """Mean loss in each window without each candidate, float64 ``[candidates, windows]``."""


def lowered(live: LiveModel, dtype: torch.dtype) -> LiveModel:
    """A second live model that follows ``live`` with its weights in another format."""
    return LiveModel(lambda variant: live.at(variant).cast(dtype), live.lineage)


class LocalLosses:
    """Losses on this process's live model."""

    def __init__(
        self,
        live: LiveModel,
        memory_fraction: float,
        *,
        keep: bool,
        loss: WindowLoss = next_token_loss,
    ) -> None:
        self.live = live
        self.one_pass = OnePass(memory_fraction, keep=keep, loss=loss)

    def __call__(
        self,
        state: PruningState,
        candidates: Sequence[Candidate],
        windows: Windows,
        on_progress: Progress,
    ) -> Tensor:
        """As ``Losses`` says."""
        model = self.live.at(self.live.cut(state))
        return self.one_pass.losses(model, candidates, windows, on_progress)
