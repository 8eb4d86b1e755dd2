"""Windows of a held-out text, for ``pipeline.scoring.one_pass.perplexity``."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.data.datasets import ROW_SEPARATOR, dataset_rows
from pipeline.data.rows import read_rows
from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.given import file_problem, read_text
from pipeline.scoring.perplexity import Windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WIKITEXT2 = "wikitext2"
"""The name that stands for WikiText-2's raw test text."""
WIKITEXT2_FILE = Path("wikitext2", "wiki.test.raw")
"""Its local copy, below the folder of local data."""


def missing_text(text: str, data_dir: Path | None) -> list[str]:
    """What keeps ``text_rows`` from finding the text, in words; empty where nothing does."""
    path = text_file(text, data_dir)
    problem = path and file_problem(path)
    if not problem:
        return []
    hint = "" if text == WIKITEXT2 else f"; give a .txt or .jsonl file, or {WIKITEXT2}"
    return [f"{text}: the file {path} {problem}{hint}"]


def text_rows(text: str, data_dir: Path | None) -> list[str]:
    """The rows of ``text``: ``wikitext2``, or a file.

    ``wikitext2`` is the raw test text, row by row as the hub has it, from ``data_dir`` or the hub.
    Of a .jsonl file each row's field "text" is taken; any other file is one row. Raises
    ``ConfigError`` for a file that is missing or not what its name says, ``StageError`` where the
    hub does not answer.
    """
    if problems := missing_text(text, data_dir):
        raise ConfigError(problems)
    path = text_file(text, data_dir)
    if text == WIKITEXT2 or path is None:
        return dataset_rows(WIKITEXT2, path, None)
    if path.suffix == ".jsonl":
        return [row["text"] for row in read_rows(path, ["text"], None, _text_problem)]
    return [read_text(path)]


def _text_problem(row: Mapping[str, Json]) -> str | None:
    return None if isinstance(row["text"], str) else "its field 'text' is no text"


def text_file(text: str, data_dir: Path | None) -> Path | None:
    """The local file of ``text``; None where it comes from the hub."""
    if text == WIKITEXT2:
        return data_dir and data_dir / WIKITEXT2_FILE
    return Path(text)


def text_problem(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[str],
    seqlen: int,
    most_tokens: int | None,
    vocabulary_size: int,
) -> str | None:
    """What keeps rows from giving windows of ids that the model has; None where nothing does.

    The beginning of a text usually is enough to tell; a long text is not tokenised for it.
    """
    if len(tokenizer) <= vocabulary_size:
        beginning = ROW_SEPARATOR.join(rows)[: seqlen * CHARACTERS_OF_A_TOKEN]
        with suppress(ConfigError):
            text_windows(tokenizer, [beginning], seqlen, most_tokens)
            return None
    try:
        windows = text_windows(tokenizer, rows, seqlen, most_tokens)
    except ConfigError as error:
        return str(error)
    highest = int(windows.ids.max())
    if highest < vocabulary_size:
        return None
    return (
        f"the tokenizer gives the id {highest}, which is not in the model's vocabulary of "
        f"{vocabulary_size}: they do not belong together"
    )


CHARACTERS_OF_A_TOKEN = 16
"""More than the tokens of a usual text have."""


def text_windows(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[str],
    seqlen: int,
    most_tokens: int | None = None,
) -> Windows:
    """Full windows of the rows' tokens, ``[windows, seqlen]``; every target counts.

    As the field takes perplexity on WikiText-2 (GPTQ, arXiv 2210.17323, and everyone since): rows
    are joined by an empty line and tokenised once, windows do not overlap, and what is left after
    the last full one is dropped. At most ``most_tokens`` tokens from the start are used (None:
    all). Raises ``ConfigError`` where that does not fill one window.
    """
    ids: list[int] = tokenizer(ROW_SEPARATOR.join(rows), verbose=False)["input_ids"]
    windows = len(ids[:most_tokens]) // seqlen
    if windows == 0:
        at_most = "" if most_tokens is None else f", of which at most {most_tokens} are used"
        raise ConfigError(
            [
                f"the text has {len(ids)} tokens{at_most}, and one window needs {seqlen}: "
                "give more text or tokens, or a shorter window"
            ]
        )
    return Windows(torch.tensor(ids[: windows * seqlen]).view(windows, seqlen), eos_id=None)
