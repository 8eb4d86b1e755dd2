"""Instructions with answers, as the reference tunes on them."""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.data.rows import SEED, json_lines, text_of
from pipeline.errors import ConfigError, StageError
from pipeline.files import Json
from pipeline.recovery.base import Examples
from pipeline.recovery.text.sections import InstructionsConfig
from pipeline.recovery.text.windows import Text, held_out_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
"""Alpaca's prompts, as the reference puts them."""
NAME_IT = "; name the field as recover.instructions.{}_field"
ANSWER = "### Response:"
"""What an answer follows."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What is asked, with what else was said, and the answer."""

    prompt: str
    answer: str


def read_instructions(
    settings: InstructionsConfig,
    tokenizer: "PreTrainedTokenizerBase",
    tokens: int,
    seed: int,
    taken: Collection[str] = (),
) -> Text:
    """Prompts with answers, of which the answers are learnt; ``tokens`` in all at most.

    Split and shuffled as the reference does: rows kept apart are drawn with seed 42, and the others
    come in an order that ``seed`` decides. What is asked in ``taken`` is left out: rows of Alpaca
    that decisions were made on.
    """
    from datasets import Dataset

    asked = {row.partition(ANSWER)[0] for row in taken}
    rows = [row for row in instructions(settings) if row.prompt.partition(ANSWER)[0] not in asked]
    apart = min(settings.held_out, max(len(rows) // 10, 1))
    if len(rows) <= apart:
        raise ConfigError([f"recover.instructions: {len(rows)} rows are too few; give two or more"])
    numbers = Dataset.from_dict({"row": list(range(len(rows)))})
    split = numbers.train_test_split(test_size=apart, shuffle=True, seed=SEED)
    order = list(split["train"]["row"])
    random.Random(seed).shuffle(order)  # noqa: S311
    taken, ids = [], []
    for number in order:  # numbers among the rows that are not taken
        taken.append(number)
        ids.append(_tokens(rows[number], tokenizer, settings.seqlen))
        tokens -= len(ids[-1][0])
        if tokens <= 0:
            break
    kept = list(split["test"]["row"])
    held_out = [_tokens(rows[number], tokenizer, settings.seqlen) for number in kept]
    numbered = {"instructions": taken, held_out_of("instructions"): kept}
    return Text(_padded(ids), {"instructions": _padded(held_out)}, numbered)


def instructions(settings: InstructionsConfig) -> Iterator[Instruction]:
    """All rows. Raises ``ConfigError`` for one without the fields."""
    try:
        yield from _instructions(settings)
    except ConfigError as error:
        problems = [f"recover.instructions.path: {problem}" for problem in error.problems]
        raise ConfigError(problems) from error


def _instructions(settings: InstructionsConfig) -> Iterator[Instruction]:
    if settings.path is not None:
        rows = json_lines(Path(settings.path))
    else:
        rows = ((f"row {number}", row) for number, row in enumerate(alpaca_cleaned()))
    for place, row in rows:
        asked = text_of(place, row, settings.instruction_field, NAME_IT.format("instruction"))
        about = row.get(settings.input_field) or ""
        answer = text_of(place, row, settings.output_field, NAME_IT.format("output"))
        prompt = WITH_INPUT if about else WITHOUT_INPUT
        yield Instruction(prompt.format(instruction=asked, input=about), answer)


def alpaca_cleaned() -> Sequence[Json]:
    """Instructions with answers, from the hub. Raises ``StageError`` where they cannot be had."""
    from datasets import load_dataset

    try:
        return list(load_dataset("yahma/alpaca-cleaned", split="train"))
    except Exception as error:
        raise StageError(
            f"yahma/alpaca-cleaned cannot be had from the hub ({type(error).__name__}: {error}); "
            "give instructions of your own: recover.instructions.path=FILE.jsonl"
        ) from error


def _tokens(
    row: Instruction, tokenizer: "PreTrainedTokenizerBase", most: int
) -> tuple[list[int], int]:
    """Tokens of prompt and answer, with an end where there is room, and those of the prompt."""
    ids: list[int] = tokenizer(f"{row.prompt}{row.answer}", verbose=False)["input_ids"][:most]
    end = tokenizer.eos_token_id
    if end is not None and len(ids) < most and ids[-1] != end:
        ids = [*ids, end]
    return ids, min(len(tokenizer(row.prompt, verbose=False)["input_ids"]), len(ids))


def _padded(rows: Sequence[tuple[list[int], int]]) -> Examples:
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    learnt = torch.zeros_like(ids, dtype=torch.bool)
    for at, (tokens, prompt) in enumerate(rows):
        ids[at, : len(tokens)] = torch.tensor(tokens)
        learnt[at, prompt : len(tokens)] = True
    return Examples(ids, lengths, learnt)
