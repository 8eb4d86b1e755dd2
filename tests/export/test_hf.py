"""An exported folder opens with stock transformers and answers as the live model does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from support_export import CONFIGS, NO_TOKENIZER, logits_of, random_state
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipeline.errors import StageError
from pipeline.export import hf, opened
from pipeline.models import modelling
from pipeline.models.loading import load
from pipeline.models.packing import PackedModel
from pipeline.models.source import locate
from pipeline.pruning.state import PruningState

SEEDS = range(5)
Packed = Callable[..., PackedModel]


def exported(packed: PackedModel, folder: Path, shard_bytes: int = 10**9) -> Path:
    folder.mkdir(exist_ok=True)
    hf.write_folder(packed, NO_TOKENIZER, folder, torch.float32, shard_bytes)
    return folder


def open_folder(folder: Path, **given: Any) -> PreTrainedModel:
    given = {"dtype": torch.float32, "trust_remote_code": True, **given}
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **given)
    assert not any(info[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    return model


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


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_trained_model_opens_in_every_number_format(
    golden: PackedModel, tmp_path: Path, dtype: str
) -> None:
    """On whatever device accelerate finds; from one pass or token by token."""
    folder, kind = exported(golden, tmp_path), getattr(torch, dtype)
    loaded = open_folder(folder, dtype=kind, device_map="auto")
    assert {parameter.dtype for parameter in loaded.parameters()} == {kind}
    ids = torch.arange(3, 43)[None]
    expected = logits_of(golden, ids)
    with torch.no_grad():
        whole = loaded(ids, use_cache=False).logits
        cached, parts = None, []
        for token in ids.T:
            answer = loaded(token[None], past_key_values=cached)
            cached = answer.past_key_values
            parts.append(answer.logits)
    for found in (whole, torch.cat(parts, dim=1)):
        assert not opened.compare(found.float(), expected, opened.TOLERANCE[dtype]).where


def test_a_trained_model_goes_on_as_the_live_one(golden: PackedModel, tmp_path: Path) -> None:
    prompt = torch.arange(3, 11)[None]
    loaded = open_folder(exported(golden, tmp_path))
    made = loaded.generate(prompt, max_new_tokens=200, min_new_tokens=200, do_sample=False)
    expected = logits_of(golden, made)[0, prompt.shape[1] - 1 : -1]
    expected[:, loaded.generation_config.eos_token_id] = -torch.inf  # 200 tokens were asked for
    assert made.shape[1] == prompt.shape[1] + 200
    assert made[0, prompt.shape[1] :].tolist() == expected.argmax(-1).tolist()


def test_lora_trains_on_it_and_is_merged(golden: PackedModel, tmp_path: Path) -> None:
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(
        open_folder(exported(golden, tmp_path / "first")), LoraConfig(target_modules=targets)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.randint(3, golden.model.vocabulary_size, (2, 40))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "second")
    with torch.no_grad():
        assert_same(open_folder(tmp_path / "second")(ids).logits, merged(ids).logits)


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


def test_it_never_opens_as_something_else(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in a process where this project has opened none
    monkeypatch.delitem(CONFIG_MAPPING._extra_content, "pruned_llama", raising=False)
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
    assert opened.check(folder, "float32", ids, logits_of(model, ids)) <= 1e-5


@pytest.mark.usefixtures("warm")
def test_what_answers_otherwise_or_does_not_open_is_told(
    packed: Packed, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = packed("llama", 2)
    folder = exported(model, tmp_path)
    expected = logits_of(model, ids)
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
