"""How text begins for a model: what is put before a text, and before every window of one."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Bos = Literal["auto", "always", "never"]
"""What ``model.bos`` may be."""
Rule = Literal["windows", "always", "never"]
"""What decides how text begins, beside the tokenizer: before every window what the tokenizer puts
before a text; the same, and a beginning-of-sequence token from a tokenizer that puts nothing;
nothing ever."""

AS_PUBLISHED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Families, as transformers or a GGUF file calls them, of which the field publishes perplexities of
windows that begin in the middle of a text (GPTQ, arXiv 2210.17323, and everyone since): what the
tokenizer puts before a text is before the first one alone. They lose little by it. Others may lose
everything: Gemma gives no sensible text without its beginning-of-sequence token."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What stands before text, in token ids."""

    text: tuple[int, ...]
    """Before a text as a whole, e.g. a question of a task: the tokenizer puts it there."""
    window: tuple[int, ...]
    """Before every window of a longer text; empty where windows begin where the last one ended."""
    of_windows: Literal["every", "never"] | None = None
    """For records: each window has it, or it was left out. None where text is cut as the tokenizer
    gives it."""
    of_texts: Literal["every", "never"] | None = None
    """For records: what was changed of the tokenizer's own way with a text as a whole."""


def rule_of(bos: Bos, architecture: str) -> Rule | None:
    """What decides how text begins; None where it is cut as the tokenizer gives it."""
    if bos != "auto":
        return bos
    return None if architecture in AS_PUBLISHED else "windows"


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    inner = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    at = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
    return whole[:at], whole[at + len(inner) :]


def beginning_of(own: "PreTrainedTokenizerBase", rule: Rule | None) -> Beginning:
    """What stands before text by a rule; ``own`` is the model's tokenizer as it is.

    Raises ``ConfigError`` where a token is asked for that the tokenizer does not name.
    """
    before = tuple(around(own)[0])
    if rule is None:
        return Beginning(before, ())
    if rule == "never":
        left_out: Literal["never"] | None = "never" if before else None
        return Beginning((), (), left_out, left_out)
    if before or rule == "windows":
        return Beginning(before, before, "every" if before else None)
    if own.bos_token_id is None:
        raise ConfigError(
            [
                "model.bos: always is wrong: the model's tokenizer names no beginning-of-sequence "
                "token; allowed are auto and never"
            ]
        )
    token = (own.bos_token_id,)
    return Beginning(token, token, "every", "every")


def beginning_with(own: "PreTrainedTokenizerBase", before: Sequence[int]) -> Any:
    """A tokenizer that puts these ids before a text; ``own`` where it does already.

    Raises ``ConfigError`` where that cannot be changed.
    """
    found, after = around(own)
    if found == list(before):
        return own
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = copy.deepcopy(own)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ConfigError(
            [
                "model.bos: what this tokenizer puts before a text cannot be changed, it has "
                "Python code of its own in place of a tokenizer.json; allowed is auto"
            ]
        )
    names = {each: tokenizer.convert_ids_to_tokens(each) for each in (*before, *after)}
    single = [*(f"{names[i]}:0" for i in before), "$A:0", *(f"{names[i]}:0" for i in after)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single,
        pair=[*single, "$B:1"],
        special_tokens=[(name, token) for token, name in names.items()],
    )
    return tokenizer
