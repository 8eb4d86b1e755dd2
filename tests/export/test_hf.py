"""An exported folder opens with stock transformers and answers as the live model does."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support_export import CONFIGS, random_state
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.errors import StageError
from pipeline.export import hf, opened
from pipeline.models import modelling
from pipeline.models.loading import load
from pipeline.models.packing import PackedModel
from pipeline.models.source import locate
from pipeline.pruning.state import PruningState

NO_TOKENIZER = SimpleNamespace(tokenizer_files=[], folder=Path("/nowhere"), gguf_file=None)
SEEDS = range(5)
Packed = Callable[..., PackedModel]


def exported(packed: PackedModel, folder: Path, shard_bytes: int = 10**9) -> Path:
    folder.mkdir(exist_ok=True)
    hf.write_folder(packed, NO_TOKENIZER, folder, torch.float32, shard_bytes)  # type: ignore[arg-type]
    return folder


def open_folder(folder: Path, **given: Any) -> PreTrainedModel:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, dtype=torch.float32, **given
    )
    assert not any(info[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    return model


def logits_of(packed: PackedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return packed.model.model(ids, use_cache=False).logits


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert not opened.compare(ours, theirs, 1e-5).where


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_any_state_of_any_family_answers_as_the_live_model(
    packed: Packed, ids: torch.Tensor, tmp_path: Path, name: str, seed: int
) -> None:
    model = packed(name, seed)
    expected = logits_of(model, ids)
    loaded = open_folder(exported(model, tmp_path))
    with torch.no_grad():
        assert_same(loaded(ids, use_cache=False).logits, expected)
        prompt = ids[:1, :9]
        plain = loaded.generate(prompt, max_new_tokens=12, do_sample=False, use_cache=False)
        for cache in ("dynamic", "static"):
            told = loaded.generate(
                prompt, max_new_tokens=12, do_sample=False, cache_implementation=cache
            )
            assert told.tolist() == plain.tolist(), cache
        loaded.set_attn_implementation("eager")
        assert_same(loaded(ids, use_cache=False).logits, expected)


EXTREMES: list[dict[str, Any]] = [
    {"removed_attn": (0,)},
    {"removed_attn": (4,), "removed_mlp": (4,)},
    {"removed_mlp": (0,), "removed_attn": (1,)},
    {"removed_attn": (0, 1, 2, 3, 4)},
    {"removed_mlp": (0, 1, 2, 3, 4)},
    {"removed_attn": (0, 1, 2, 3, 4), "removed_mlp": (0, 1, 2, 3, 4)},
    {"removed_attn": (1, 2), "attn_widths": (16, 32, 32, 16, 32), "mlp_widths": (47, 1, 48, 13, 7)},
]


@pytest.mark.parametrize("state", EXTREMES)
def test_the_ends_of_what_can_go(
    packed: Packed, ids: torch.Tensor, tmp_path: Path, state: dict[str, Any]
) -> None:
    model = packed("llama", **state)
    loaded = open_folder(exported(model, tmp_path))
    with torch.no_grad():
        assert_same(loaded(ids, use_cache=False).logits, logits_of(model, ids))


def test_layers_that_are_alike_need_no_code(
    packed: Packed, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = packed("llama", removed_attn=(1, 3), removed_mlp=(0, 3), mlp_widths=(24,) * 5)
    assert model.is_uniform
    folder = exported(model, tmp_path)
    assert not list(folder.glob("*.py"))
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("llama", 3)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        assert_same(loaded(ids).logits, logits_of(model, ids))


def test_it_never_opens_as_something_else(packed: Packed, tmp_path: Path) -> None:
    folder = exported(packed("llama", removed_attn=(2,)), tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert config.model_type == "pruned_llama"


def test_saving_what_was_opened_gives_the_same_again(packed: Packed, tmp_path: Path) -> None:
    model = packed("qwen2_mixed", 1)
    first = exported(model, tmp_path / "first")
    open_folder(first).save_pretrained(tmp_path / "second")
    again, once = (load_file(tmp_path / name / "model.safetensors") for name in ("second", "first"))
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], once[name]) for name in once)
    open_folder(tmp_path / "second")


def test_large_models_are_written_in_pieces(
    packed: Packed, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = packed("llama_mha", 3)
    folder = exported(model, tmp_path, shard_bytes=20_000)
    pieces = sorted(folder.glob("*.safetensors"))
    assert len(pieces) > 2
    assert not list(folder.glob("*.part"))
    with torch.no_grad():
        assert_same(open_folder(folder)(ids).logits, logits_of(model, ids))


def test_it_is_opened_where_nobody_knows_this_project(
    packed: Packed, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = packed("llama", 2)
    folder = exported(model, tmp_path)
    expected = logits_of(model, ids)
    assert opened.check(folder, "float32", ids, expected) <= 1e-5
    expected[0, 7] += 1.0
    with pytest.raises(StageError, match="token 7 of window 0"):
        opened.check(folder, "float32", ids, expected)
    (folder / "model.safetensors").unlink()
    with pytest.raises(StageError, match="does not open"):
        opened.check(folder, "float32", ids, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_padded_it_is_an_ordinary_model(
    packed: Packed, ids: torch.Tensor, tmp_path: Path, name: str, seed: int
) -> None:
    model = packed(name, seed)
    padded = model.padded(("attn", "mlp"), whole=True)
    assert padded.is_uniform
    folder = exported(padded, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert loaded.config.model_type == model.dense.model_type
    with torch.no_grad():
        assert_same(loaded(ids).logits, logits_of(model, ids))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_exported_can_be_pruned_and_exported_again(
    packed: Packed, ids: torch.Tensor, tmp_path: Path, name: str
) -> None:
    """By this project's own file: the folder's code is not run."""
    folder = exported(packed(name, 4), tmp_path / "first")
    if not packed(name, 4).is_uniform:
        (folder / modelling.FILE).write_text("raise AssertionError('was run')")
    source = locate(str(folder), None, None)
    model = load(source, "float32", "cpu", "sdpa")
    assert model.shape.total_params == source.shape.total_params
    state = random_state(PruningState.dense(model.shape), 7)
    model.prune_to(state)
    again = PackedModel.of(model, source.config)
    loaded = open_folder(exported(again, tmp_path / "second"))
    with torch.no_grad():
        assert_same(loaded(ids, use_cache=False).logits, logits_of(again, ids))
