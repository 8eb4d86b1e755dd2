"""Calibration text as the published reference draws it: which rows, and how they become windows."""

import random
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.rows import SEED, json_lines, text_of
from pipeline.data.windows import cut
from pipeline.errors import ConfigError, StageError
from pipeline.given import read_json, read_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

ROW_SEPARATOR = "\n\n"
ALPACA_LEAST_ROWS = 10  # fewer have no such split


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset as the reference loads it, and the split that it takes its rows from."""

    path: str
    name: str | None
    field: str
    split: str
    data_files: str | None = None


# C4 has no test split, which the reference asks for: validation stands in. PTB is a script, which
# `datasets` no longer runs: it comes from a local file only.
HUB_DATASETS = {
    "alpaca": HubDataset("tatsu-lab/alpaca", None, "text", "train"),
    "wikitext2": HubDataset("Salesforce/wikitext", "wikitext-2-raw-v1", "text", "test"),
    "c4": HubDataset(
        "allenai/c4", None, "text", "validation", "en/c4-validation.00000-of-00008.json.gz"
    ),
}


LEARNT_FROM = {
    "alpaca": HUB_DATASETS["alpaca"],
    "wikitext2": HubDataset("Salesforce/wikitext", "wikitext-2-raw-v1", "text", "train"),
    "c4": HubDataset("allenai/c4", None, "text", "train", "en/c4-train.00000-of-01024.json.gz"),
}
"""The same, what may be learnt from: never what models are evaluated on."""

CALIBRATION = "calibration.path"


def local_rows(
    path: Path, field: str, split: Callable[[str], list[str]], section: str = "calibration"
) -> list[str]:
    """Rows of a local file: each object's ``field`` in a .jsonl, else what ``split`` makes of it.

    Raises ``ConfigError`` for a file that is not what its name says; ``section`` is where the
    configuration names it.
    """
    advice = f"; name the field as {section}.field"
    try:
        if path.suffix == ".jsonl":
            return [text_of(place, row, field, advice) for place, row in json_lines(path)]
        return split(read_text(path))
    except ConfigError as error:
        raise ConfigError([f"{section}.path: {problem}" for problem in error.problems]) from error


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines."""
    return [row.rstrip("\n") for row in re.split(r"\n\s*\n", text) if row.strip()]


def wikitext_rows(text: str) -> list[str]:
    """As the hub has WikiText: a row is a line with its line end, and empty for a blank line."""
    lines = text.removesuffix("\n").split("\n")
    return [f"{line}\n" if line.strip() else "" for line in lines]


def ptb_rows(text: str) -> list[str]:
    """One sentence a line."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def dataset_rows(
    dataset: str, path: Path | None, field: str | None, own_copy: str = CALIBRATION
) -> list[str]:
    """The rows of a dataset that the reference draws from, from a local file or the hub.

    Where there is neither, the message names ``own_copy`` as where to give a local file.
    """
    return list(numbered_rows(dataset, path, field, own_copy).values())


def numbered_rows(
    dataset: str, path: Path | None, field: str | None, own_copy: str = CALIBRATION
) -> dict[int, str]:
    """The same, by their numbers in the whole dataset."""
    rows = all_rows(dataset, path, field, own_copy)
    numbers = _alpaca_test_split(len(rows)) if dataset == "alpaca" else range(len(rows))
    return {number: rows[number] for number in numbers}


def all_rows(
    dataset: str, path: Path | None, field: str | None, own_copy: str = CALIBRATION
) -> list[str]:
    """All rows of a dataset that decisions may be made on, from a local file or the hub."""
    return _all_rows(HUB_DATASETS.get(dataset), dataset, path, field, own_copy)


def rows_to_learn_from(
    section: str, dataset: str, path: Path | None, field: str | None
) -> list[str]:
    """All rows of a dataset that weights may be fitted to, from a local file or the hub.

    ``section`` is where the configuration names it.
    """
    hub = LEARNT_FROM.get(dataset)
    return _all_rows(hub, dataset, path, field, f"{section}.path", section)


def _all_rows(
    hub: HubDataset | None,
    dataset: str,
    path: Path | None,
    field: str | None,
    own_copy: str,
    section: str = "calibration",
) -> list[str]:
    wanted = field or (hub.field if hub else "text")
    if path is not None:
        split = {"wikitext2": wikitext_rows, "ptb": ptb_rows}.get(dataset, paragraphs)
        return local_rows(path, wanted, split, section)
    assert hub is not None, "checked with the configuration"
    return _from_hub(hub, wanted, own_copy)


def _from_hub(hub: HubDataset, field: str, own_copy: str) -> list[str]:
    from datasets import load_dataset

    try:
        rows = load_dataset(
            hub.path,
            hub.name,
            data_files=hub.data_files and {hub.split: hub.data_files},
            split=hub.split,
        )
    except Exception as error:
        raise StageError(
            f"the dataset {hub.path} cannot be had from the hub ({type(error).__name__}: {error}); "
            f"on a machine without internet give a local copy as {own_copy}"
        ) from error
    return list(rows[field])


def _alpaca_test_split(rows: int) -> list[int]:
    """Alpaca has one split; the reference takes a tenth of it as test."""
    from datasets import Dataset

    if rows < ALPACA_LEAST_ROWS:
        return []
    held_out = Dataset.from_dict({"row": list(range(rows))}).train_test_split(0.2, seed=SEED)
    return list(held_out["test"].train_test_split(0.5, seed=SEED)["train"]["row"])


def draw_places(
    rows: int, width_samples: int, block_samples: int, seed: int = SEED
) -> tuple[list[int], list[int]]:
    """Where the rows for width pruning and those for block pruning stand, drawn in this order.

    Raises ``ConfigError`` where there are fewer rows than are to be drawn.
    """
    if rows < max(width_samples, block_samples):
        raise ConfigError(
            [
                f"calibration.block_samples and .width_samples: {block_samples} and "
                f"{width_samples} rows are drawn; allowed is at most {rows}, all there are"
            ]
        )
    generator = random.Random(seed)  # noqa: S311 - the reference's draw
    width = generator.sample(range(rows), width_samples)
    return width, generator.sample(range(rows), block_samples)


def joined_ids(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[str], begin: Sequence[int] = ()
) -> list[int]:
    """The ids of rows that are joined to one text.

    What the tokenizer puts before a text is there, unless every window of it will ``begin`` so.
    """
    text = ROW_SEPARATOR.join(rows)
    ids: list[int] = tokenizer(text, verbose=False, add_special_tokens=not begin)["input_ids"]
    return ids


def cut_windows(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[str],
    seqlen: int,
    most: int | None,
    begin: Sequence[int] = (),
) -> "Tensor":
    """Join rows, tokenise once, cut into full windows ``[windows, seqlen]``; drop the rest.

    Each window begins with the ids ``begin``.
    """
    ids = joined_ids(tokenizer, rows, begin)
    windows = cut(ids, seqlen, most, begin)
    if len(windows) == 0:
        raise ConfigError(
            [
                f"calibration: the text has {len(ids)} tokens, and one window needs {seqlen}: "
                "give more text, more calibration.block_samples and .width_samples, or a shorter "
                ".seqlen"
            ]
        )
    return windows


def rows_until(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[str],
    tokens: int | None,
    begin: Sequence[int] = (),
) -> int:
    """How many rows from the start ``cut_windows`` reads for so many tokens; None: all."""
    if tokens is None:
        return len(rows)

    def is_enough(count: int) -> bool:
        ids = joined_ids(tokenizer, rows[:count], begin)
        return len(ids) > tokens  # one more: how a row ends may change with what follows it

    return bisect_left(range(len(rows)), True, key=is_enough)


def read_tokens(path: Path, vocab_size: int) -> "dict[str, Tensor]":
    """Windows of token ids from JSON ``{"block": [[int]], "width": [[int]]}``.

    Raises ``ConfigError`` that names everything that is wrong with the file.
    """
    import torch

    try:
        data = read_json(path)
    except ConfigError as error:
        raise ConfigError([f"calibration.path: {problem}" for problem in error.problems]) from error
    problems: list[str] = []
    tensors = {}
    for key in ("block", "width"):
        rows = data.get(key) if isinstance(data, dict) else None
        if problem := _tokens_problem(rows, vocab_size):
            problems.append(f"calibration.path: {path}: {key!r} {problem}")
        else:
            tensors[key] = torch.tensor(rows)
    if problems:
        raise ConfigError(problems)
    return tensors


def _tokens_problem(rows: Any, vocab_size: int) -> str | None:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        return "must be a list of rows of token ids, at least one"
    if not all(type(i) is int for row in rows for i in row):
        return "holds something that is not a whole number"
    if len({len(row) for row in rows}) > 1:
        return f"has rows of unequal length, from {min(map(len, rows))} to {max(map(len, rows))}"
    if len(rows[0]) == 1 or not rows[0]:
        return "has rows of fewer than 2 tokens"
    low, high = min(map(min, rows)), max(map(max, rows))
    if low < 0 or high >= vocab_size:
        return f"has token ids from {low} to {high}; this model's run from 0 to {vocab_size - 1}"
    return None
