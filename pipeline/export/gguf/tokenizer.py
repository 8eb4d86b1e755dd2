"""A tokenizer in GGUF's keys, so that llama.cpp makes the same ids of a text.

llama.cpp has the rules by which text is cut before byte pairs are merged built in, and the file
only names them. So they are recognised here, by what they are and not by who made them; rules that
it does not have are refused.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gguf import GGUFReader, GGUFValueType, GGUFWriter, TokenType

from pipeline.errors import ConfigError
from pipeline.models.beginnings import around
from pipeline.models.source import ModelSource

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LLAMA3 = CONTRACTIONS + WORDS + r"\p{N}{1,3}" + REST
QWEN2 = CONTRACTIONS + WORDS + r"\p{N}" + REST

BYTES, GPT2, DIGITS = "bytes", "gpt2", "digits"
PRE: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((DIGITS, GPT2), False): "smollm",
    ((LLAMA3, BYTES), True): "llama-bpe",
    ((LLAMA3, BYTES), False): "smaug-bpe",
    ((QWEN2, BYTES), False): "qwen2",
}
"""What llama.cpp calls a way to cut text: steps, and whether whole words pass over the merges."""
NEWLINES = r"\n+"
SPACE = "▁"
LONGEST_RUN = 64
"""Newlines in a row that are looked at."""


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of a tokenizer."""

    model: str
    """llama.cpp's kind: gpt2 (merged bytes), llama (SentencePiece BPE) or t5 (unigram)."""
    tokens: list[str]
    types: list[TokenType]
    pre: str = "default"
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool | None = None
    charsmap: bytes = b""
    squeezes_spaces: bool = False
    warnings: tuple[str, ...] = ()


class UnknownTokenizerError(Exception):
    """llama.cpp has nothing that makes the same ids; the message says of what."""


def problems(source: ModelSource) -> list[str]:
    """Why a model's tokenizer cannot be written; empty where it can."""
    if source.gguf_file:
        return []
    if not source.tokenizer_files:
        return [
            f"{source.folder} has no tokenizer, and a GGUF file without one takes no text; "
            "put the model's tokenizer.json there, or take export=hf"
        ]
    try:
        _vocabulary(source)
    except UnknownTokenizerError as error:
        return [f"llama.cpp has no tokenizer with {error}; take export=hf"]
    except ConfigError as error:
        return list(error.problems)
    return []


def known_differences(source: ModelSource) -> tuple[str, ...]:
    """What llama.cpp is known to do otherwise with some texts, in words."""
    return () if source.gguf_file else _vocabulary(source).warnings


def add(writer: GGUFWriter, source: ModelSource, size: int) -> list[str]:
    """Write the keys for a model of ``size`` token ids, and tell of what llama.cpp does otherwise.

    A model that came as GGUF gives its own keys on. Without a tokenizer only ids can be given.
    """
    if source.gguf_file:
        _hand_on(writer, GGUFReader(source.folder / source.gguf_file))
        return []
    if not source.tokenizer_files:
        writer.add_tokenizer_model("none")
        return ["the model has no tokenizer: the file takes token ids, no text"]
    vocabulary = _vocabulary(source)
    missing = range(len(vocabulary.tokens), size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list([*vocabulary.tokens, *(f"[PAD{i}]" for i in missing)])
    writer.add_token_types([*vocabulary.types, *(TokenType.UNUSED for _ in missing)])
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores([*vocabulary.scores, *(-1e6 for _ in missing)])
    if vocabulary.space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.model == "t5":
        writer.add_remove_extra_whitespaces(vocabulary.squeezes_spaces)
        if vocabulary.charsmap:
            writer.add_precompiled_charsmap(vocabulary.charsmap)
    _add_special(writer, source.own_tokenizer)
    return list(vocabulary.warnings)


def _hand_on(writer: GGUFWriter, reader: GGUFReader) -> None:
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            kind, *inner = field.types
            element = inner[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, element)


def _add_special(writer: GGUFWriter, tokenizer: Any) -> None:
    ids = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
    }
    for put, token in ids.items():
        if token is not None:
            put(token)
    before, after = around(tokenizer)
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)


def _vocabulary(source: ModelSource) -> Vocabulary:
    """What llama.cpp needs to know. Raises ``UnknownTokenizerError``."""
    tokenizer = source.own_tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnknownTokenizerError("Python code of its own in place of a tokenizer.json")
    described = json.loads(backend.to_str())
    tokens, types = _listed(described, tokenizer, source.vocabulary_size)
    before, after = around(tokenizer)
    if before not in ([], [tokenizer.bos_token_id]) or after not in ([], [tokenizer.eos_token_id]):
        raise UnknownTokenizerError(f"the ids {before} before and {after} after every text")
    model = described["model"]
    if model["type"] == "Unigram":
        return _unigram(described, tokens, types)
    if model["type"] != "BPE":
        raise UnknownTokenizerError(f"a vocabulary of the kind {model['type']}")
    if model.get("byte_fallback"):
        return _sentencepiece(described, tokens, types, tokenizer.unk_token)
    return _byte_level(described, tokens, types)


def _listed(
    described: dict[str, Any], tokenizer: Any, size: int
) -> tuple[list[str], list[TokenType]]:
    """Every token by its id with what it is; ids that no token has are unused ones."""
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    if beyond := sorted(index for index in by_id if index >= size):
        raise UnknownTokenizerError(
            f"ids that the model does not have ({by_id[beyond[0]]} is {beyond[0]} of {size})"
        )
    length = max(by_id) + 1
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(length)]
    types = [TokenType.NORMAL if i in by_id else TokenType.UNUSED for i in range(length)]
    for added in described["added_tokens"]:
        special = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        types[added["id"]] = special
    return tokens, types


def _byte_level(described: dict[str, Any], tokens: list[str], types: list[TokenType]) -> Vocabulary:
    """Merged bytes, as GPT-2 has them."""
    model = described["model"]
    steps = _steps(described["pre_tokenizer"])
    lines_first = steps[0] == NEWLINES
    key = (tuple(steps[1:] if lines_first else steps), bool(model.get("ignore_merges")))
    normalizer = described["normalizer"]
    composes = normalizer == {"type": "NFC"}
    if key not in PRE:
        raise UnknownTokenizerError(
            f"the way that tokenizer.json cuts text ({' then '.join(steps)})"
        )
    if normalizer and not composes:
        raise UnknownTokenizerError(f"the normaliser {normalizer['type']} before merged bytes")
    if lines_first:
        _cut_newlines_first(model, tokens, types)
    warnings = _told_of_stripping(described)
    if composes:
        warnings.append(
            "llama.cpp does not compose characters (Unicode NFC) as the tokenizer does: text with "
            "combining accents gets other ids"
        )
    return Vocabulary(
        "gpt2", tokens, types, pre=PRE[key], merges=_merges(model), warnings=tuple(warnings)
    )


def _cut_newlines_first(model: dict[str, Any], tokens: list[str], types: list[TokenType]) -> None:
    """Make tokens of newlines user-defined ones, which llama.cpp cuts out before all else.

    It takes the longest that fits, from the left: where merging gives the same of every run.
    """
    runs = {token: index for token, index in model["vocab"].items() if set(token) == {"Ċ"}}
    longest = max(map(len, runs), default=0)
    for length in range(1, LONGEST_RUN + 1):
        merged = _merged("Ċ" * length, model["merges"])
        left = length
        for token in merged:
            if len(token) != min(left, longest):
                raise UnknownTokenizerError(f"merges that make {len(token)} of {left} newlines")
            left -= len(token)
    for token, index in runs.items():
        tokens[index], types[index] = "\n" * len(token), TokenType.USER_DEFINED


def _merged(text: str, merges: Sequence[Sequence[str]]) -> list[str]:
    parts = list(text)
    for left, right in (pair for pair in merges if set("".join(pair)) == set(text)):
        index = 0
        while index < len(parts) - 1:
            if (parts[index], parts[index + 1]) == (left, right):
                parts[index : index + 2] = [left + right]
            index += 1
    return parts


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[str]:
    """The steps by which text is cut: names, or regular expressions."""
    if pre_tokenizer is None:
        return ["nothing"]
    kind = pre_tokenizer["type"]
    if kind == "Sequence":
        return [step for inner in pre_tokenizer["pretokenizers"] for step in _steps(inner)]
    if kind == "ByteLevel" and not pre_tokenizer["add_prefix_space"]:
        return [GPT2 if pre_tokenizer.get("use_regex", True) else BYTES]
    if kind == "Digits" and pre_tokenizer["individual_digits"]:
        return [DIGITS]
    isolates = kind == "Split" and pre_tokenizer["behavior"] == "Isolated"
    if isolates and not pre_tokenizer["invert"] and "Regex" in pre_tokenizer["pattern"]:
        return [str(pre_tokenizer["pattern"]["Regex"])]
    return [json.dumps(pre_tokenizer)]


def _merges(model: dict[str, Any]) -> tuple[str, ...]:
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    return tuple(pairs)


def _sentencepiece(
    described: dict[str, Any], tokens: list[str], types: list[TokenType], unknown: str | None
) -> Vocabulary:
    """Llama-2's: pieces with spaces as ``▁``, and bytes for what no piece has.

    llama.cpp merges the neighbours whose piece has the highest score, whichever two they are. So
    every way to put a piece together must be among the merges, in the order of the pieces.
    """
    model = described["model"]
    prefix, warnings = _spaces(described)
    pairs = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    known = set(pairs)
    order = [piece for piece, _ in groupby(left + right for left, right in pairs)]
    ranks = {piece: rank for rank, piece in enumerate(order)}
    if len(ranks) != len(order):
        raise UnknownTokenizerError("merges that are not in the order of their pieces")
    vocabulary = model["vocab"]
    for piece in vocabulary:
        for cut in range(1, len(piece)):
            pair = piece[:cut], piece[cut:]
            both = pair[0] in vocabulary and pair[1] in vocabulary
            if both and pair not in known and not _is_apart(piece, vocabulary[piece], types):
                raise UnknownTokenizerError(
                    f"merges other than SentencePiece's ({' + '.join(pair)} is not among them)"
                )
    types = _piece_types(tokens, types, unknown)
    scores = tuple(float(-ranks.get(token, len(order))) for token in tokens)
    return Vocabulary(
        "llama", tokens, types, scores=scores, space_prefix=prefix,
        warnings=(*warnings, *_told_of_stripping(described)),
    )  # fmt: skip


def _is_apart(piece: str, index: int, types: list[TokenType]) -> bool:
    """Whether a piece is no text that could come of merging: an added token, or a byte."""
    return types[index] is not TokenType.NORMAL or _is_byte(piece)


def _is_byte(piece: str) -> bool:
    return len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">")


def _piece_types(tokens: list[str], types: list[TokenType], unknown: str | None) -> list[TokenType]:
    found = []
    for token, kind in zip(tokens, types, strict=True):
        if token == unknown:
            found.append(TokenType.UNKNOWN)
        elif kind is TokenType.NORMAL and _is_byte(token):
            found.append(TokenType.BYTE)
        else:
            found.append(kind)
    return found


def _spaces(described: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether a space is put before text, where spaces become ``▁`` and that is all; warnings."""
    pre_tokenizer = described["pre_tokenizer"]
    steps = _normalizers(described)
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepended = {"type": "Prepend", "prepend": SPACE}
    if pre_tokenizer is None and steps in ([replaced], [prepended, replaced]):
        return len(steps) > 1, []
    if pre_tokenizer and not steps and not pre_tokenizer.get("split", True):
        return _metaspace(pre_tokenizer)
    raise UnknownTokenizerError("the way that tokenizer.json treats spaces, with bytes as fallback")


def _metaspace(pre_tokenizer: dict[str, Any]) -> tuple[bool, list[str]]:
    if pre_tokenizer["type"] != "Metaspace" or pre_tokenizer["replacement"] != SPACE:
        raise UnknownTokenizerError("the way that tokenizer.json treats spaces")
    if pre_tokenizer["prepend_scheme"] == "never":
        return False, []
    return True, [
        "llama.cpp puts a space before every text, as SentencePiece does; transformers' tokenizer "
        "leaves it out before a text that begins with one"
    ]


def _normalizers(described: dict[str, Any]) -> list[dict[str, Any]]:
    normalizer = described["normalizer"]
    return normalizer.get("normalizers", [normalizer]) if normalizer else []


def _unigram(described: dict[str, Any], tokens: list[str], types: list[TokenType]) -> Vocabulary:
    """SentencePiece's unigram model, as T5 has it."""
    model, pre_tokenizer = described["model"], described["pre_tokenizer"]
    if model.get("byte_fallback"):
        raise UnknownTokenizerError("a unigram vocabulary with bytes for what no piece has")
    if pre_tokenizer is None:
        raise UnknownTokenizerError("a unigram vocabulary and no rule for spaces")
    prefix, warnings = _metaspace(pre_tokenizer)
    charsmap, squeezes = b"", False
    for step in _normalizers(described):
        if step["type"] == "Precompiled":
            charsmap = base64.b64decode(step["precompiled_charsmap"])
        elif step["type"] == "Replace" and step["pattern"] == {"Regex": " {2,}"}:
            squeezes = True
        else:
            raise UnknownTokenizerError(
                f"the normaliser {step['type']} before a unigram vocabulary"
            )
    scores = [0.0] * len(tokens)
    for index, (_, score) in enumerate(model["vocab"]):
        scores[index] = float(score)
    types = list(types)
    types[model["unk_id"]] = TokenType.UNKNOWN
    return Vocabulary(
        "t5", tokens, types, scores=tuple(scores), charsmap=charsmap, squeezes_spaces=squeezes,
        space_prefix=prefix, warnings=(*warnings, *_told_of_stripping(described)),
    )  # fmt: skip


def _told_of_stripping(described: dict[str, Any]) -> list[str]:
    names = [
        added["content"]
        for added in described["added_tokens"]
        if added["lstrip"] or added["rstrip"] or added["single_word"]
    ]
    if not names:
        return []
    return [f"llama.cpp keeps the spaces beside {names[0]}, which the tokenizer drops"]
