"""Stage calibrate: the token windows on which perplexity is measured, and their hashes."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pipeline.data.rows import IN_WIKITEXT2_TEST, SEED
from pipeline.data.sources import SourceName, TextSource, content, read_as, sources_problems
from pipeline.files import Json
from pipeline.given import read_text
from pipeline.models.digests import tokenizer_digest
from pipeline.settings.core import Config
from pipeline.settings.section import Section, SomeText
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.shared.phases import needs_windows

DRAWN = ("field", "block_samples", "width_samples", "block_windows", "width_windows", "seqlen")
"""Keys that decide which windows are cut of a text."""
DRAWN_MIXED = ("block_windows", "width_windows", "seqlen", "seed")
"""The same of several sources."""


class CalibrationConfig(Section):
    """The text on which perplexity is measured while pruning."""

    key: ClassVar[str] = "calibration"

    dataset: Literal["alpaca", "wikitext2", "c4", "ptb", "text", "tokens", "mixed"]
    """A dataset as the reference draws it, a text file of your own, ready token ids, or several
    sources."""
    sources: dict[SourceName, TextSource] = Field(default_factory=dict)
    """Of mixed, each by a name of yours, with dataset, path, field and share. All of their rows may
    be drawn, and as many are as the windows need."""
    path: SomeText | None = None
    """Local file: required for ptb, text and tokens, else taken instead of the hub."""
    field: SomeText | None = None
    """Field of a .jsonl file that holds the text; null takes the dataset's own, or "text"."""
    block_samples: int = Field(256, ge=1)
    """Rows drawn for block pruning."""
    width_samples: int = Field(128, ge=1)
    """Rows drawn for MLP channels and heads."""
    block_windows: int | None = Field(None, ge=1)
    """Most windows kept of the rows for block pruning; null keeps all."""
    width_windows: int | None = Field(None, ge=1)
    """Most windows kept of the rows for MLP channels and heads; null keeps all."""
    seqlen: int = Field(2048, ge=2)
    """Tokens in a window."""
    seed: int = SEED
    """Of the draw of rows; another one draws others. 42 is the reference's."""

    @property
    def is_local(self) -> bool:
        """Whether all of it is read from local files."""
        sources = self.sources.values()
        return all(each.path for each in sources) if sources else self.path is not None

    @property
    def of_hub(self) -> list[tuple[str, str | None]]:
        """Datasets that are read from the hub, each with the field of its text."""
        if self.sources:
            return [(each.dataset, each.field) for each in self.sources.values() if not each.path]
        return [] if self.path else [(self.dataset, self.field)]

    @classmethod
    def problems(cls, given: Mapping[str, Json]) -> Iterator[str]:
        """Data sets that no hub has need a file; ready tokens are not drawn."""
        dataset = given.get("dataset")
        if dataset == "mixed":
            yield from sources_problems("calibration.sources", given.get("sources"))
            for key in ("block_windows", "width_windows"):
                if given.get(key) is None:
                    yield f"calibration.{key}: null is wrong; mixed needs a number of windows"
            if not given.get("sources"):
                yield "calibration.sources: mixed needs one: +calibration.sources.NAME.path=FILE"
        elif given.get("sources"):
            yield (
                f"calibration.sources: means nothing to calibration={dataset}; type "
                "calibration=mixed"
            )
        if given.get("path") is None and dataset in ("ptb", "text", "tokens"):
            yield (
                f"calibration.path: calibration={dataset} needs a local file: calibration.path=FILE"
            )
        if dataset == "tokens" and given.get("seed", SEED) != SEED:
            yield (
                f"calibration.seed: {given['seed']} means nothing to calibration=tokens, of which "
                f"no rows are drawn; allowed is {SEED}"
            )


def recipe(planning: Planning) -> Recipe | None:
    """Text or ids by their content, and how windows are made of them; where they are needed."""
    if not prunes(planning.config) or not needs_windows(planning.config):
        return None
    settings, source = planning.config.of(CalibrationConfig), planning.source
    stands_for = content(settings.path, planning.digest)
    if settings.dataset == "tokens":
        return {"dataset": "tokens", "content": stands_for, "eos_id": source.eos_id}
    if settings.dataset == "mixed":
        contents = {name: read_as(each, planning.digest) for name, each in settings.sources.items()}
        drawn = {key: getattr(settings, key) for key in DRAWN_MIXED}
        tokenizer = tokenizer_digest(source, planning.digest)
        return {"dataset": "mixed", "sources": contents, "tokenizer": tokenizer, **drawn}
    return {
        "dataset": settings.dataset,
        "content": stands_for,
        "format": Path(settings.path).suffix if settings.path else None,
        "tokenizer": tokenizer_digest(source, planning.digest),
        **{name: getattr(settings, name) for name in DRAWN},
        **({} if settings.seed == SEED else {"seed": settings.seed}),
    }


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Draw, tokenise, cut and store the windows."""
    from pipeline.stages.shared.calibration import prepare, rows_read, write

    settings = config.of(CalibrationConfig)
    windows, eos_id = prepare(settings, inputs.source)
    facts = write(out_dir, windows, eos_id)
    if settings.dataset != "mixed":
        return facts
    rows = {
        name: sorted(each) for name, each in rows_read(settings, inputs.source.tokenizer).items()
    }
    return {**facts, "rows": rows}


def replay(config: Config, inputs: Inputs) -> None:
    """Warn where decisions are made on text that models are compared on."""
    settings = config.of(CalibrationConfig)
    texts: list[tuple[str, str | None]] = [
        (each.dataset, each.path) for each in settings.sources.values()
    ]
    for dataset, path in texts or [(settings.dataset, settings.path)]:
        if path:
            is_test = _is_wikitext2_test(Path(path), inputs.digest(Path(path)))
        else:
            is_test = dataset == "wikitext2"
        if is_test:
            inputs.listener.on_warning(
                "calibration reads WikiText-2's test text, on which models are compared: what is "
                "measured there favours this run; another text: calibration=alpaca"
            )


@cache
def _is_wikitext2_test(path: Path, _digest: str) -> bool:
    return IN_WIKITEXT2_TEST in read_text(path)


def check(folder: Path, result: Json) -> None:
    """The windows are those of the result."""
    from pipeline.stages.shared.calibration import Calibration

    hashes = Calibration.read(folder).hashes
    if hashes != {kind: result[kind]["sha256"] for kind in hashes}:
        raise ValueError(hashes)


STAGE = Stage("calibrate", 0, recipe, run, section=CalibrationConfig, check=check, replay=replay)
