"""One rank of a job over gloo: python ranked_process.py PAUSE_S

Rank 0 scores the first steps of a tiny random model and prints the losses as JSON. With a PAUSE_S
above 0 a rank says on standard error that it scores, and takes so many seconds longer for it; below
0 it fails where it gets ready.
"""

import json
import os
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.distributed.ranks import Group, Leader, losses_of
from pipeline.distributed.rendezvous import ranks_of_torchrun
from pipeline.distributed.start import over_ranks
from pipeline.errors import PipelineError
from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS, MLP_CHANNELS
from pipeline.scoring import losses
from pipeline.scoring.perplexity import Windows

GROUP = 8
BROKEN = -1
STEPS = 3


def load(_: PruningState | None = None) -> PrunableModel:
    config = LlamaConfig(
        vocab_size=41,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config).to(torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.requires_grad_(False).parameters():
        parameter.normal_(0, 0.2, generator=generator)
    return PrunableModel(model)


def score(leader: Leader | None = None) -> list[Any]:
    """Losses of some steps, each ``[candidates, windows]``, on all ranks or this one."""
    live = LiveModel(load)
    state = PruningState.dense(load().state.shape)
    ids = torch.randint(4, 41, (3, 12), generator=torch.Generator().manual_seed(1))
    found = []
    ranked = losses_of(leader, live, 0.5, "cpu", keep=True)
    for units in (BLOCKS, MLP_CHANNELS):
        for _ in range(STEPS):
            candidates = state.candidates(units, GROUP)
            shares: list[float] = []
            rows = ranked(state, candidates, Windows(ids, None), shares.append)
            assert abs(sum(shares) - 1) < 1e-9
            found.append(rows.tolist())
            state = state.without(candidates[int(rows.mean(dim=1).argmin())])
    return found


class Slow(losses.OnePass):
    """Tells that it scores, and takes its time."""

    pause_s = 0.0

    def losses(self, *args: Any) -> Any:
        sys.stderr.write("scoring\n")
        sys.stderr.flush()
        on_progress = args[-1]
        for _ in range(int(self.pause_s / 0.02)):
            time.sleep(0.02)
            on_progress(0.0)
        return super().losses(*args)


def broken(_group: Group, _device: str) -> None:
    raise OSError("the GPU fell off the bus")


if __name__ == "__main__":
    torch.set_num_threads(1)
    Slow.pause_s = float(sys.argv[1])
    if Slow.pause_s == BROKEN:
        Group.use = broken  # type: ignore[method-assign]
    elif Slow.pause_s:
        losses.OnePass = Slow  # type: ignore[misc]
    try:
        over_ranks(
            lambda leader: sys.stdout.write(json.dumps(score(leader))),
            ranks_of_torchrun(os.environ),
        )
    except PipelineError as error:
        sys.exit(f"error: {error}")
