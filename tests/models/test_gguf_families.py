"""GGUF files of every known family that transformers reads answer as the model that they hold."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from pipeline.models.families import FAMILIES
from pipeline.models.loading import load
from pipeline.models.source import locate

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "sliding_window": 8,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "▁a", *(f"t{i}" for i in range(6, 64))]
ARCHITECTURES = {  # Qwen3 is read with heads of 128 channels alone
    "llama": "llama", "qwen2": "qwen2", "phi3": "phi3", "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}  # fmt: skip
AS_PUBLISHED = ("llama", "qwen2")


def write(model: PreTrainedModel, architecture: str, path: Path) -> None:
    """As llama.cpp's converters do, with a tokenizer that puts <bos> before a text."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    mapping = GGUF_CONFIG_MAPPING[architecture] | {"attention.sliding_window": "sliding_window"}
    for key, name in mapping.items():
        value = getattr(config, name, None) if name else None
        if isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * 60)
    for put, index in (
        (writer.add_pad_token_id, 0), (writer.add_eos_token_id, 1),
        (writer.add_bos_token_id, 2), (writer.add_unk_token_id, 3),
    ):  # fmt: skip
        put(index)
    writer.add_add_bos_token(True)
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(known, config.num_hidden_layers)
    for name, weight in dict(model.named_parameters()).items():
        kept = weight.detach()
        if architecture.startswith("gemma") and "norm" in name:
            kept = kept + 1
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            kept = kept.unflatten(0, (-1, 2, SIZES["head_dim"] // 2)).transpose(1, 2).flatten(0, 2)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), kept.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("model_type", [each for each in ARCHITECTURES if each in FAMILIES])
def test_a_gguf_file_answers_as_its_model(model_type: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**SIZES)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.normal_(0.5, 0.1)
    write(model, ARCHITECTURES[model_type], tmp_path / "model.gguf")
    source = locate(str(tmp_path), "model.gguf", None)
    source.check()
    ids = torch.randint(4, 64, (2, 20))
    with torch.no_grad():
        ours = load(source, "float32", "cpu", "eager").model(ids).logits
        torch.testing.assert_close(ours, model(ids).logits)
    window = "" if model_type in AS_PUBLISHED else "<bos>"
    assert source.tokens_before == {"text": "<bos>", "window": window}
