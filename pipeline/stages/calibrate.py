"""Stage calibrate: the token windows on which perplexity is measured, and their hashes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pipeline.data.rows import SEED
from pipeline.files import Json
from pipeline.models.digests import tokenizer_digest
from pipeline.settings.core import Config
from pipeline.settings.section import Section, SomeText
from pipeline.stages.base import Inputs, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.shared.phases import needs_windows

DRAWN = ("field", "block_samples", "width_samples", "block_windows", "width_windows", "seqlen")
"""Keys that decide which windows are cut of a text."""


class CalibrationConfig(Section):
    """The text on which perplexity is measured while pruning."""

    key: ClassVar[str] = "calibration"

    dataset: Literal["alpaca", "wikitext2", "c4", "ptb", "text", "tokens"]
    """A dataset as the reference draws it, a text file of your own, or ready token ids."""
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

    @classmethod
    def problems(cls, given: Mapping[str, Json]) -> Iterator[str]:
        """Data sets that no hub has need a file; ready tokens are not drawn."""
        dataset = given.get("dataset")
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
    content = planning.digest(Path(settings.path)) if settings.path else "hub"
    if settings.dataset == "tokens":
        return {"dataset": "tokens", "content": content, "eos_id": source.eos_id}
    return {
        "dataset": settings.dataset,
        "content": content,
        "format": Path(settings.path).suffix if settings.path else None,
        "tokenizer": tokenizer_digest(source, planning.digest),
        **{name: getattr(settings, name) for name in DRAWN},
        **({} if settings.seed == SEED else {"seed": settings.seed}),
    }


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Draw, tokenise, cut and store the windows."""
    from pipeline.stages.shared.calibration import prepare, write

    windows, eos_id = prepare(config.of(CalibrationConfig), inputs.source)
    return write(out_dir, windows, eos_id)


def check(folder: Path, result: Json) -> None:
    """The windows are those of the result."""
    from pipeline.stages.shared.calibration import Calibration

    hashes = Calibration.read(folder).hashes
    if hashes != {kind: result[kind]["sha256"] for kind in hashes}:
        raise ValueError(hashes)


STAGE = Stage("calibrate", 0, recipe, run, section=CalibrationConfig, check=check)
