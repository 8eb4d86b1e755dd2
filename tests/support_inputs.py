"""Inputs that tests make for themselves: tiny models, tokenizers, calibration files."""

import json
import string
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.config import schema
from pipeline.config.compose import from_composed
from pipeline.errors import ConfigError
from pipeline.settings.core import Config

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"

MODEL: dict[str, Any] = {
    "vocab_size": 104,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 3,
}
"""Two key/value heads, each with two query heads of four channels."""

TINY = (
    "model=hf",
    "model.path=model",
    "model.device=cpu",
    "calibration=tokens",
    "calibration.path=tokens.json",
    "run.pictures=[]",
)
"""Arguments for a model and tokens that were saved where the launch is typed."""

A_FIFTH = (
    "prune.target_ratio=20",
    "prune.distribution=[40,60,0]",
    "prune.mlp_group_size=8",
    "prune.attn_group_size=8",
)
"""Arguments that remove a fifth of ``save_model``'s model: blocks, and MLP channels."""

UNKNOWN, EOS = "<unk>", "</s>"
CHARACTERS = (UNKNOWN, EOS, *string.printable)
"""What ``save_tokenizer``'s tokenizer knows; a token's id is its place here."""


@cache
def raw(*overrides: str) -> DictConfig:
    """What Hydra makes of a command line. Not to be changed."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def configured(*overrides: str) -> Config:
    """The validated configuration of a command line."""
    return from_composed(raw(*overrides))


@contextmanager
def another_schema() -> Iterator[None]:
    """What is registered as this begins has its keys; after it they are read anew.

    Whoever registers takes it back within.
    """
    caches = (schema.schema, schema.known_keys, schema._fields_of_all)
    for each in caches:
        each.cache_clear()
    try:
        yield
    finally:
        for each in caches:
            each.cache_clear()


def problems_of(work: Callable[[], object]) -> list[str]:
    """The problems of the ``ConfigError`` that ``work`` must raise."""
    with pytest.raises(ConfigError) as caught:
        work()
    return list(caught.value.problems)


def files_under(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder there, with the time of its last change and its size."""
    found = (path for folder in folders for path in (folder, *folder.rglob("*")))
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in found}


def save_model(folder: Path, **sizes: Any) -> Path:
    """A random Llama with safetensors, as ``save_pretrained`` leaves it; no tokenizer."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**MODEL | sizes)).save_pretrained(folder)
    return folder


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Let ``edit`` change the tensors of a saved model."""
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **values: Any) -> None:
    """Set values in the ``config.json`` of a saved model."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def save_tokenizer(folder: Path, eos: str = EOS) -> Path:
    """A tokenizer whose tokens are single characters; ``</s>`` in a text is one token, too."""
    vocabulary = {token: i for i, token in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, unk_token=UNKNOWN, bos_token=EOS
    )
    fast.save_pretrained(folder)
    return folder


def spelled(windows: torch.Tensor) -> list[str]:
    """What windows of ``save_tokenizer``'s tokens read."""
    return ["".join(CHARACTERS[i] for i in ids) for ids in windows.tolist()]


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    """A .jsonl file as most programs write it: what is not ASCII stands as it is."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_tokens(path: Path, block: object = None, width: object = None) -> Path:
    """A file for ``calibration=tokens``; two windows and one where nothing else is given."""
    tokens = {"block": block or [[5, 6, 7, 8], [9, 10, 11, 12]], "width": width or [[5, 6, 7, 8]]}
    path.write_text(json.dumps(tokens), encoding="utf-8")
    return path
