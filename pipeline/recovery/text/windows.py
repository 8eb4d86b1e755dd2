"""Text of several sources, in windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.data.datasets import rows_to_learn_from
from pipeline.data.mixing import RowsInOrder
from pipeline.data.rows import IN_WIKITEXT2_TEST
from pipeline.data.sources import TextSource
from pipeline.errors import ConfigError
from pipeline.recovery.base import Examples
from pipeline.recovery.text.sections import RecoveryTextConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TEXT = "recover.calibration"
"""The section that says what is learnt from."""


@dataclass(frozen=True, slots=True)
class Text:
    """What was read."""

    train: Examples
    held_out: Mapping[str, Examples]
    rows: dict[str, list[int]]
    """By source, which rows were taken: their numbers in the file or dataset, from 0. Those of
    held-out text stand under ``held_out_of`` its source."""

    def in_words(self) -> str:
        """How much there is to learn from, and of what."""
        kept = {held_out_of(name) for name in self.rows}
        rows = (f"{len(each):,} rows of {name}" for name, each in self.rows.items()
                if name not in kept)  # fmt: skip
        return f"{int(self.train.learnt.sum()):,} tokens to learn from, {', '.join(rows)}"


def held_out_of(name: str) -> str:
    """What rows of a source that are kept apart are called."""
    return f"{name}, held out"


def read_source(section: str, source: TextSource) -> list[str]:
    """All rows of a source. Raises ``ConfigError`` for what must not be learnt from.

    ``section`` is where the configuration names it.
    """
    path = Path(source.path) if source.path else None
    rows = rows_to_learn_from(section, source.dataset, path, source.field)
    if any(IN_WIKITEXT2_TEST in row for row in rows):
        raise ConfigError(
            [
                f"{section}.path: {source.path} is WikiText-2's test text, on which models "
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
    begin: Sequence[int] = (),
) -> Text:
    """Windows of every source by its share, ``tokens`` in all at most, and of held-out text.

    Rows come in an order that ``seed`` decides, each followed by the end-of-sequence token; those
    in ``taken``, by source, decisions were made on. Windows begin with the ids ``begin``, and those
    of all sources are mixed. Raises ``ConfigError`` where a source has no window.
    """
    shares = sum(source.share for source in settings.learnt_from.values())
    windows, held_out, numbers = [], {}, {}
    for name, source in settings.learnt_from.items():
        kept_out = taken.get(name, frozenset())
        section = f"{TEXT}.sources.{name}"
        rows = RowsInOrder(section, read_source(section, source), seed, tokenizer, kept_out, begin)
        if not settings.kept_apart:
            held_out[name] = rows.windows(settings.seqlen, settings.held_out_tokens)
            numbers[held_out_of(name)] = rows.read()
        windows.append(rows.windows(settings.seqlen, round(tokens * source.share / shares)))
        numbers[name] = rows.read()
    for name, source in settings.kept_apart.items():
        section = f"{TEXT}.held_out.{name}"
        rows = RowsInOrder(section, read_source(section, source), seed, tokenizer, begin=begin)
        held_out[name] = rows.windows(settings.seqlen, settings.held_out_tokens)
        numbers[held_out_of(name)] = rows.read()
    ids = torch.cat(windows)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    of_all = {name: whole(part) for name, part in held_out.items()}
    return Text(whole(ids[order]), of_all, {name: list(each) for name, each in numbers.items()})


def whole(windows: Tensor) -> Examples:
    """Windows ``[windows, tokens]``, of which every token is learnt."""
    lengths = torch.full((len(windows),), windows.shape[1])
    return Examples(windows, lengths, torch.ones_like(windows, dtype=torch.bool))
