"""What recovery learns from: text of several sources, or instructions with answers."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.data.datasets import rows_to_learn_from
from pipeline.data.mixing import RowsInOrder
from pipeline.data.rows import IN_WIKITEXT2_TEST, SEED, json_lines, text_of
from pipeline.data.sources import TextSource
from pipeline.errors import ConfigError, StageError
from pipeline.files import Json
from pipeline.recovery.base import Examples
from pipeline.recovery.sections import InstructionsConfig, RecoveryTextConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Text:
    """What was read."""

    train: Examples
    held_out: Mapping[str, Examples]
    rows: Json
    """By source, which rows were taken: their numbers in the file or dataset, from 0."""


Reader = Callable[[TextSource], Sequence[str]]
"""Gives all rows of a source."""


def read_source(source: TextSource) -> list[str]:
    """All rows of a source. Raises ``ConfigError`` for what must not be learnt from."""
    path = Path(source.path) if source.path else None
    rows = rows_to_learn_from(source.dataset, path, source.field)
    if any(IN_WIKITEXT2_TEST in row for row in rows):
        raise ConfigError(
            [
                f"recover.calibration: {source.path} is WikiText-2's test text, on which models "
                "are compared, and nothing may be learnt from it; take its train or valid text"
            ]
        )
    return rows


def read_text(
    settings: RecoveryTextConfig,
    tokenizer: "PreTrainedTokenizerBase",
    tokens: int,
    seed: int,
    taken: Mapping[str, frozenset[int]],
    read: Reader = read_source,
) -> Text:
    """Windows of every source by its share, ``tokens`` in all at most, and of held-out text.

    Rows come in an order that ``seed`` decides, each followed by the end-of-sequence token; those
    in ``taken``, by source, decisions were made on. Windows of all sources are mixed. Raises
    ``ConfigError`` where a source has no window.
    """
    shares = sum(source.share for source in settings.learnt_from.values())
    windows, held_out, numbers = [], {}, {}
    for name, source in settings.learnt_from.items():
        rows = RowsInOrder(name, read(source), seed, tokenizer, taken.get(name, frozenset()))
        if not settings.kept_apart:
            held_out[name] = rows.windows(settings.seqlen, settings.held_out_tokens)
            numbers[f"{name}, held out"] = rows.read()
        windows.append(rows.windows(settings.seqlen, round(tokens * source.share / shares)))
        numbers[name] = rows.read()
    for name, source in settings.kept_apart.items():
        rows = RowsInOrder(name, read(source), seed, tokenizer)
        held_out[name] = rows.windows(settings.seqlen, settings.held_out_tokens)
        numbers[f"{name}, held out"] = rows.read()
    ids = torch.cat(windows)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    of_all = {name: whole(part) for name, part in held_out.items()}
    return Text(whole(ids[order]), of_all, {name: list(each) for name, each in numbers.items()})


def whole(windows: Tensor) -> Examples:
    """Windows ``[windows, tokens]``, of which every token is learnt."""
    lengths = torch.full((len(windows),), windows.shape[1])
    return Examples(windows, lengths, torch.ones_like(windows, dtype=torch.bool))


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
) -> Text:
    """Prompts with answers, of which the answers are learnt; ``tokens`` in all at most.

    Split and shuffled as the reference does: rows kept apart are drawn with seed 42, and the others
    come in an order that ``seed`` decides.
    """
    from datasets import Dataset

    rows = list(_instructions(settings))
    apart = min(settings.held_out, max(len(rows) // 10, 1))
    if len(rows) <= apart:
        raise ConfigError([f"recover.instructions: {len(rows)} rows are too few; give two or more"])
    numbers = Dataset.from_dict({"row": list(range(len(rows)))})
    split = numbers.train_test_split(test_size=apart, shuffle=True, seed=SEED)
    order = list(split["train"]["row"])
    random.Random(seed).shuffle(order)  # noqa: S311
    taken, ids = [], []
    for number in order:
        taken.append(number)
        ids.append(_tokens(rows[number], tokenizer, settings.seqlen))
        tokens -= len(ids[-1][0])
        if tokens <= 0:
            break
    kept = list(split["test"]["row"])
    held_out = [_tokens(rows[number], tokenizer, settings.seqlen) for number in kept]
    numbered = {"instructions": taken, "instructions, held out": kept}
    return Text(_padded(ids), {"instructions": _padded(held_out)}, numbered)


def _instructions(settings: InstructionsConfig) -> Iterator[Instruction]:
    if settings.path is not None:
        rows = json_lines(Path(settings.path))
    else:
        rows = ((f"row {number}", row) for number, row in enumerate(alpaca_cleaned()))
    for place, row in rows:
        asked = text_of(place, row, settings.instruction_field, "; name it as recover.instructions")
        about = row.get(settings.input_field) or ""
        answer = text_of(place, row, settings.output_field, "; name it as recover.instructions")
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
