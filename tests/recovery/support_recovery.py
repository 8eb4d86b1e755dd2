"""A tiny pruned model, something to learn, and what a technique is called with."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from pipeline.models.loading import LiveModel
from pipeline.models.prunable import PrunableModel
from pipeline.models.variants import Variant, dense_lineage
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import ATTN, MLP_WIDTH, Candidate
from pipeline.recovery import techniques
from pipeline.recovery.base import Examples, Progress, Recovering

VOCABULARY = 53
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": None,
}


def random_model(dtype: torch.dtype = torch.float32, **sizes: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | sizes)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            values = torch.empty(parameter.shape).normal_(mean, 0.15, generator=generator)
            parameter.copy_(values)
    return model.eval()


class Loaded:
    """Loads copies of one model."""

    def __init__(self, dtype: torch.dtype = torch.float32, **sizes: Any) -> None:
        self.dtype, self.sizes = dtype, sizes

    def __call__(self, _: Variant) -> PrunableModel:
        return PrunableModel(random_model(self.dtype, **self.sizes))


def counting(rows: int, tokens: int, step: int, seed: int = 0) -> Tensor:
    """Sequences that count in steps, from anywhere."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(VOCABULARY, (rows, 1), generator=generator)
    return (starts + step * torch.arange(tokens)) % VOCABULARY


def examples(ids: Tensor, lengths: list[int] | None = None, prompt: int = 0) -> Examples:
    """Of which what follows the prompt is learnt."""
    places = torch.arange(ids.shape[1])
    ends = torch.tensor(lengths or [ids.shape[1]] * len(ids))
    return Examples(ids, ends, (places >= prompt) & (places < ends[:, None]))


def cut(live: LiveModel) -> Variant:
    """Without an attention, and with a narrower MLP."""
    dense = PruningState.dense(live.load(Variant(None, ())).shape)  # type: ignore[arg-type]
    return live.cut(dense.without(Candidate(ATTN, 1, 0)).without(Candidate(MLP_WIDTH, 0, 24)))


class Said(list[str]):
    """What a person was told, and the progress that was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: list[Progress] = []


def recovering(
    name: str,
    folder: Path,
    learnt: Examples,
    held_out: Tensor | None = None,
    load: Loaded | None = None,
    said: Said | None = None,
    leader: Any = None,
    **settings: Any,
) -> Recovering:
    live = LiveModel(load or Loaded(), dense_lineage("files:tiny", reordered=False))
    said = Said() if said is None else said
    folder.mkdir(parents=True, exist_ok=True)
    return Recovering(
        live,
        cut(live),
        None,  # type: ignore[arg-type]
        techniques()[name].section(**settings),
        learnt,
        {} if held_out is None else {"counting": examples(held_out)},
        7,
        folder,
        said.append,
        said.append,
        said.progress.append,
        leader,
    )


def recovered(job: Recovering, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a technique says, and the weights that it leaves."""
    known = techniques()[name].run(job)
    model = job.live.at(job.variant)
    assert not model.model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())
    return dict(known), copy.deepcopy({n: p.detach() for n, p in model.weights().items()})
