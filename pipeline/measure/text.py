"""Windows of a held-out text, for ``pipeline.scoring.one_pass.perplexity``."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.datasets import HUB_DATASETS, ROW_SEPARATOR, dataset_rows, joined_ids
from pipeline.data.rows import read_rows
from pipeline.data.windows import cut, not_in_vocabulary
from pipeline.errors import ConfigError
from pipeline.files import Json
from pipeline.given import file_problem, read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pipeline.scoring.perplexity import Windows


@dataclass(frozen=True, slots=True)
class KnownText:
    """A text that has a name of its own."""

    title: str
    file: Path
    """Its local copy, below the folder of local data."""
    most_rows: int | None = None
    """Rows from the start that are taken; None: all."""

    @property
    def split(self) -> str:
        """The split of the hub's data set."""
        return HUB_DATASETS[self.file.parts[0]].split


KNOWN = {
    "wikitext2": KnownText("WikiText-2", Path("wikitext2", "wiki.test.raw")),
    # as many documents as GPTQ and everyone since takes
    "c4": KnownText("C4", Path("c4", "validation.jsonl"), 1100),
}
"""Texts by the names that stand for them."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text for perplexity, and how much of it is taken."""

    name: str
    """Its row, key and column."""
    source: str
    """One of ``KNOWN``, or a file."""
    most_tokens: int | None
    """From the start; None takes all."""
    seqlen: int
    """Tokens in a window."""

    @property
    def title(self) -> str:
        """What it is called."""
        known = KNOWN.get(self.source)
        return known.title if known else Path(self.source).name

    @property
    def split(self) -> str | None:
        """Of a known text."""
        known = KNOWN.get(self.source)
        return known.split if known else None

    def is_whole(self, tokens: int) -> bool:
        """Whether so many tokens in full windows are all that it has."""
        return self.most_tokens is None or tokens + self.seqlen <= self.most_tokens

    def file(self, data_dir: Path | None) -> Path | None:
        """The local file; None where it comes from the hub."""
        known = KNOWN.get(self.source)
        if known:
            return data_dir and data_dir / known.file
        return Path(self.source)

    def missing(self, data_dir: Path | None) -> list[str]:
        """What keeps ``rows`` from finding it, in words; empty where nothing does."""
        path = self.file(data_dir)
        problem = path and file_problem(path)
        if not problem:
            return []
        known = self.source in KNOWN
        hint = "" if known else f"; give a .txt or .jsonl file, or {' or '.join(KNOWN)}"
        return [f"{self.source}: the file {path} {problem}{hint}"]

    def rows(self, data_dir: Path | None) -> list[str]:
        """Its rows: of a known text as the hub has them, from ``data_dir`` or the hub.

        Of a .jsonl file each row's field "text" is taken; any other file is one row. Raises
        ``ConfigError`` for a file that is missing or not what its name says, ``StageError`` where
        the hub does not answer.
        """
        if problems := self.missing(data_dir):
            raise ConfigError(problems)
        path = self.file(data_dir)
        if self.source in KNOWN or path is None:
            known = KNOWN[self.source]
            own_copy = f"DIR/{known.file} with evaluate.data_dir=DIR"
            return dataset_rows(self.source, path, None, own_copy)[: known.most_rows]
        if path.suffix == ".jsonl":
            return [row["text"] for row in read_rows(path, ["text"], None, _text_problem)]
        return [read_text(path)]

    def problem(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        rows: Sequence[str],
        vocabulary_size: int,
        begin: Sequence[int] = (),
    ) -> str | None:
        """What keeps its rows from giving windows of ids that the model has; None if nothing.

        The beginning of a text usually is enough to tell; a long text is not tokenised for it.
        """
        if len(tokenizer) <= vocabulary_size:
            beginning = ROW_SEPARATOR.join(rows)[: self.seqlen * CHARACTERS_OF_A_TOKEN]
            with suppress(ConfigError):
                text_windows(tokenizer, [beginning], self.seqlen, self.most_tokens, begin)
                return None
        try:
            windows = text_windows(tokenizer, rows, self.seqlen, self.most_tokens, begin)
        except ConfigError as error:
            return str(error)
        return not_in_vocabulary(int(windows.ids.max()), vocabulary_size)


CHARACTERS_OF_A_TOKEN = 16
"""More than the tokens of a usual text have."""


def _text_problem(row: Mapping[str, Json]) -> str | None:
    return None if isinstance(row["text"], str) else "its field 'text' is no text"


def text_windows(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[str],
    seqlen: int,
    most_tokens: int | None = None,
    begin: Sequence[int] = (),
) -> "Windows":
    """Full windows of the rows' tokens, ``[windows, seqlen]``; every target counts.

    As the field takes perplexity on WikiText-2 (GPTQ, arXiv 2210.17323, and everyone since): rows
    are joined by an empty line and tokenised once, windows do not overlap, and what is left after
    the last full one is dropped. Where windows ``begin`` with something, these ids are the first of
    each. At most ``most_tokens`` tokens, those counted, are used (None: all). Raises
    ``ConfigError`` where that does not fill one window.
    """
    from pipeline.scoring.perplexity import Windows

    ids = joined_ids(tokenizer, rows, begin)
    most = None if most_tokens is None else most_tokens // seqlen
    windows = cut(ids, seqlen, most, begin)
    if len(windows) == 0:
        at_most = "" if most_tokens is None else f", of which at most {most_tokens} are used"
        raise ConfigError(
            [
                f"the text has {len(ids)} tokens{at_most}, and one window needs {seqlen}: "
                "give more text or tokens, or a shorter window"
            ]
        )
    return Windows(windows, eos_id=None)
