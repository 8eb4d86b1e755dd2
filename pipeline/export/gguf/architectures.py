"""What llama.cpp's architectures can express. No torch here: planning asks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.models.packing import PackedModel
    from pipeline.models.source import ModelSource


@dataclass(frozen=True, slots=True)
class Architecture:
    """What one of them has a place for, and how it wants it."""

    name: str
    """As the file calls it."""
    rope_types: tuple[str, ...]
    pairs_neighbours: bool
    """Whether rotary embeddings rotate neighbours; else halves, as transformers does."""
    biases: frozenset[str]
    """Linear layers that may have one, as the configuration calls the choice."""


ALL_BIASES = frozenset({"attention_bias", "mlp_bias"})
SCALED = ("default", "linear", "yarn")
LLAMA = Architecture("llama", (*SCALED, "llama3"), True, ALL_BIASES)
QWEN2 = Architecture("qwen2", SCALED, False, frozenset())
QWEN3 = Architecture("qwen3", SCALED, False, frozenset())
DECI = Architecture("deci", (*SCALED, "llama3"), True, ALL_BIASES)
"""The one in which every layer has widths of its own."""

UNIFORM = {"llama": LLAMA, "mistral": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3}
"""By family, for models whose layers are alike."""
PER_LAYER = {"llama": DECI, "mistral": DECI, "qwen2": DECI}
"""By family, for models whose layers differ."""

DEFAULTS_ONLY = ("attention_factor", "mscale", "mscale_all_dim")
"""Of the scaling of rotary embeddings: llama.cpp works them out from the factor."""


def architecture_of(packed: "PackedModel") -> Architecture:
    """The one that a pruned model is written as."""
    return (UNIFORM if packed.is_uniform else PER_LAYER)[packed.architecture]


def problems(source: "ModelSource", *, uniform: bool | None = None) -> list[str]:
    """Why a model cannot be written as GGUF, one line each; empty where it can.

    ``uniform``: whether its layers are alike after pruning; None while that is not known, which
    tells only what stands against both. Reads configuration and tokenizer, no weights.
    """
    from pipeline.export.gguf.tokenizer import problems as tokenizer_problems

    family = source.architecture
    tables = {True: [UNIFORM], False: [PER_LAYER], None: [PER_LAYER, UNIFORM]}[uniform]
    known = [table[family] for table in tables if family in table]
    if not known and family in UNIFORM:
        return [
            f"GGUF cannot express a {family} model with layers that differ for any engine; "
            "take export=hf, or export.pad=true for an ordinary model with zeros"
        ]
    if not known:
        return [
            f"GGUF is written of {', '.join(sorted(UNIFORM))} models, and this is a {family} "
            "model; take export=hf, and llama.cpp's own converter where layers end alike"
        ]
    text = source.family.text(source.config)
    found = min((_unexpressed(text, architecture) for architecture in known), key=len)
    lines = [f"GGUF cannot express {what} of this {family} model; take export=hf" for what in found]
    return lines + tokenizer_problems(source)


def rope_of(text: Any) -> tuple[str, dict[str, Any]]:
    """The kind of rotary embeddings, and what is said of it."""
    rope = dict(text.rope_parameters or {})
    return rope.get("rope_type", "default"), rope


def _unexpressed(text: Any, architecture: Architecture) -> list[str]:
    """What stands in a configuration that an architecture has no place for."""
    found = []
    rope_type, rope = rope_of(text)
    if rope_type not in architecture.rope_types:
        found.append(f"the {rope_type} scaling of rotary embeddings")
    found += [f"{name} of rotary embeddings" for name in DEFAULTS_ONLY if rope.get(name)]
    if rope.get("truncate") is False:
        found.append("truncate=false of rotary embeddings")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        found.append("rotary embeddings of a part of each head")
    if _slides(text):
        found.append(f"the sliding window of {text.sliding_window} tokens")
    if text.hidden_act not in ("silu", "swish"):
        found.append(f"the activation {text.hidden_act}")
    biases = {name for name in ALL_BIASES if getattr(text, name, False)}
    return found + [f"{name}=true" for name in sorted(biases - architecture.biases)]


def _slides(text: Any) -> bool:
    """Whether an attention sees less than a sequence can have."""
    window = getattr(text, "sliding_window", None)
    types = getattr(text, "layer_types", None) or ["sliding_attention"]
    return bool(window) and "sliding_attention" in types and window < text.max_position_embeddings
