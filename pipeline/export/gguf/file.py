"""Writing a GGUF file.

A model whose layers are alike is written as its family has it. Another goes as ``deci``: the one
architecture of llama.cpp in which every layer has widths of its own. Read from its source:

- the head size is taken from the first layer, which therefore needs an attention (it always has);
- a layer with no MLP (``feed_forward_length`` 0) would lose its attention, too, without a word, so
  an MLP of zeros stands there, which is exact;
- queries and keys are rotated by pairs of neighbours, transformers rotates halves: their rows are
  put in that order, with each layer's own number of heads.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    TensorNameMap,
    get_tensor_name_map,
)
from gguf.quants import quantize
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pipeline.export.gguf import tokenizer
from pipeline.export.gguf.architectures import Architecture, architecture_of, rope_of
from pipeline.models.packing import PackedModel
from pipeline.models.source import ModelSource

Type = GGMLQuantizationType


@dataclass(frozen=True, slots=True)
class Format:
    """How weights are stored. Norms and biases are always float32."""

    matrices: GGMLQuantizationType
    embeddings: GGMLQuantizationType
    """Of the token embeddings and the head, which feel few bits most."""
    file_type: LlamaFileType


FORMATS = {
    "f32": Format(Type.F32, Type.F32, LlamaFileType.ALL_F32),
    "f16": Format(Type.F16, Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": Format(Type.BF16, Type.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": Format(Type.Q8_0, Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q5_1": Format(Type.Q5_1, Type.Q8_0, LlamaFileType.MOSTLY_Q5_1),
    "q5_0": Format(Type.Q5_0, Type.Q8_0, LlamaFileType.MOSTLY_Q5_0),
    "q4_1": Format(Type.Q4_1, Type.Q8_0, LlamaFileType.MOSTLY_Q4_1),
    "q4_0": Format(Type.Q4_0, Type.Q8_0, LlamaFileType.MOSTLY_Q4_0),
}
"""What gguf-py can write of what llama.cpp runs well; smaller ones by llama-quantize."""


ZERO_MLP_WIDTH = 32
"""Of the MLP that stands where a layer lost its own: one block of every quantisation."""


def write(packed: PackedModel, source: ModelSource, path: Path, dtype: str) -> list[str]:
    """Write the model to ``path`` with its weights in one of ``FORMATS``, and tell of compromises.

    Tensor by tensor: beside the model no more than one of its matrices is in memory. Neither
    ``problems`` nor room on the disk are looked at here.
    """
    architecture = architecture_of(packed)
    names = _names(packed, architecture)
    planned = [
        (name, tuple(tensor.shape), _type_of(name, tensor.shape, FORMATS[dtype]))
        for name, tensor in _tensors(packed, architecture, names)
    ]
    writer = GGUFWriter(path, architecture.name)
    try:
        _add_keys(writer, packed, source)
        writer.add_file_type(FORMATS[dtype].file_type)
        writer.add_quantization_version(GGML_QUANT_VERSION)
        told = tokenizer.add(writer, source, packed.model.vocabulary_size)
        for name, shape, kind in planned:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), _bytes_of(shape, kind), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        tensors = _tensors(packed, architecture, names)
        for (_, _, kind), (_, tensor) in zip(planned, tensors, strict=True):
            values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            writer.write_tensor_data(quantize(values, kind))
    finally:
        writer.close()
    return [*told, *_told_of_widths(planned, FORMATS[dtype])]


def size_bytes(packed: PackedModel, dtype: str) -> int:
    """Bytes that the weights take in the file."""
    architecture = architecture_of(packed)
    tensors = _tensors(packed, architecture, _names(packed, architecture))
    return sum(
        _bytes_of(tensor.shape, _type_of(name, tensor.shape, FORMATS[dtype]))
        for name, tensor in tensors
    )


def _add_keys(writer: GGUFWriter, packed: PackedModel, source: ModelSource) -> None:
    text = packed.family.text(packed.dense)
    writer.add_type("model")
    writer.add_name(f"{source.name} pruned")
    writer.add_vocab_size(packed.model.vocabulary_size)
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(len(packed.layers))
    widths = [layer.widths for layer in packed.layers]
    query, key_value = [each.query for each in widths], [each.key_value for each in widths]
    channels = [each.intermediate or ZERO_MLP_WIDTH for each in widths]
    same = packed.is_uniform
    writer.add_head_count(query[0] if same else query)
    writer.add_head_count_kv(key_value[0] if same else key_value)
    writer.add_feed_forward_length(channels[0] if same else channels)
    writer.add_key_length(packed.head_dim)
    writer.add_value_length(packed.head_dim)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_dimension_count(packed.head_dim)
    rope_type, rope = rope_of(text)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope_type in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope_type))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope_type == "yarn":
        original = rope.get("original_max_position_embeddings") or text.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)


def _names(packed: PackedModel, architecture: Architecture) -> TensorNameMap:
    (arch,) = (arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture.name)
    return get_tensor_name_map(arch, len(packed.layers))


def _tensors(
    packed: PackedModel, architecture: Architecture, names: TensorNameMap
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the file by its name there, on whatever device and in whatever format."""
    for name, tensor in packed.tensors():
        stem, _, kind = name.rpartition(".")
        found = names.get_name(stem)
        assert found, f"llama.cpp's {architecture.name} has no {name}"
        heads = _rotated_heads(packed, stem) if architecture.pairs_neighbours else 0
        yield f"{found}.{kind}", _neighbours(tensor, heads) if heads else tensor
    text = packed.family.text(packed.dense)
    for index, layer in enumerate(packed.layers):
        if layer.mlp is None:
            yield from _zero_mlp(f"blk.{index}", text.hidden_size)
    if rope_of(text)[0] == "llama3":
        yield "rope_freqs.weight", _rope_factors(text, packed.head_dim)


def _rotated_heads(packed: PackedModel, stem: str) -> int:
    """Heads of a projection whose rows rotary embeddings turn; 0 of any other."""
    family = packed.family
    layers, _, inner = stem.removeprefix(f"{family.decoder}.{family.layers}.").partition(".")
    for projection in family.attn.projections:
        if inner == f"{family.attn.body}.{projection.name}" and layers.isdecimal():
            query, key_value = packed.layers[int(layers)].heads
            of_segment = {"query": query, "key": key_value}
            return of_segment.get(projection.rows[0], 0) if projection.rows else 0
    return 0


def _neighbours(tensor: Tensor, heads: int) -> Tensor:
    """Rows ``[heads * 2 * pairs, ...]`` with what rotates together side by side."""
    pairs: Tensor = tensor.unflatten(0, (heads, 2, -1))
    return pairs.transpose(1, 2).flatten(0, 2)


def _zero_mlp(block: str, hidden_size: int) -> Iterator[tuple[str, Tensor]]:
    yield f"{block}.ffn_norm.weight", torch.ones(hidden_size)
    for name in ("ffn_gate", "ffn_up"):
        yield f"{block}.{name}.weight", torch.zeros(ZERO_MLP_WIDTH, hidden_size)
    yield f"{block}.ffn_down.weight", torch.zeros(hidden_size, ZERO_MLP_WIDTH)


def _rope_factors(text: Any, head_dim: int) -> Tensor:
    """What llama.cpp divides each rotary frequency by, ``[head_dim / 2]``."""
    _, rope = rope_of(text)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](text, torch.device("cpu"))
    factors: Tensor = rope["rope_theta"] ** -exponents / scaled.double()
    return factors.float()


def _type_of(name: str, shape: Iterable[int], wanted: Format) -> GGMLQuantizationType:
    """How a tensor is stored: as asked for where its rows are whole blocks, else in float16."""
    *rows, columns = shape
    if not rows:
        return Type.F32
    kind = wanted.embeddings if name in ("token_embd.weight", "output.weight") else wanted.matrices
    return Type.F16 if columns % GGML_QUANT_SIZES[kind][0] else kind


def _bytes_of(shape: Iterable[int], kind: GGMLQuantizationType) -> int:
    block, size = GGML_QUANT_SIZES[kind]
    return math.prod(shape) // int(block) * int(size)


def _told_of_widths(
    planned: list[tuple[str, tuple[int, ...], GGMLQuantizationType]], wanted: Format
) -> list[str]:
    larger = [
        name
        for name, shape, kind in planned
        if len(shape) > 1 and kind is Type.F16 is not wanted.matrices
    ]
    if not larger:
        return []
    block = GGML_QUANT_SIZES[wanted.matrices][0]
    return [
        f"{len(larger)} matrices are stored as f16, not {wanted.matrices.name.lower()}, whose rows "
        f"come in blocks of {block}: {_some(larger)}; widths that are multiples of {block} avoid it"
    ]


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
