"""Text of several kinds, each by a name: the keys that say what, and how it is read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.models.digests import Digest
from pipeline.settings.section import LIKE_A_FOLDER, Section, SomeText

SourceName = Annotated[str, Field(max_length=64), LIKE_A_FOLDER]


class TextSource(Section):
    """Text of one kind."""

    dataset: Literal["alpaca", "c4", "wikitext2", "text"] = "text"
    """A dataset, or a text file of your own."""
    path: SomeText | None = None
    """Local file: required for text, else taken instead of the hub."""
    field: SomeText | None = None
    """Field of a .jsonl file that holds the text; null takes the dataset's own, or "text"."""
    share: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How much of it is taken, beside the shares of the other sources."""


def content(path: str | None, digest: Digest) -> str:
    """What stands for what is read: the file's digest, or the hub."""
    return digest(Path(path)) if path else "hub"


def read_as(section: Section, digest: Digest) -> dict[str, Any]:
    """What decides what is read of a section with a ``path``, wherever the file is."""
    values = section.model_dump(mode="json", exclude={"path"})
    return {**values, "is": content(getattr(section, "path", None), digest)}


def sources_problems(key: str, given: object) -> Iterator[str]:
    """What is wrong with sources as they were given under ``key``: text without a file."""
    for name, source in given.items() if isinstance(given, Mapping) else ():
        is_own = isinstance(source, Mapping) and source.get("dataset", "text") == "text"
        if is_own and not source.get("path"):
            yield f"{key}.{name}.path: dataset text needs a local file: {key}.{name}.path=FILE"
