"""Stage score: how sensitive the dense model is to losing each unit, in every dimension.

These are the first steps of the trajectories that start from the dense model; the one of the run's
first dimension is the first step of the run, too, and computed once for both.
"""

from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import ClassVar

from pipeline.files import Json, encode, read_json, replace
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import PERPLEXITY
from pipeline.settings.core import Config
from pipeline.settings.section import Section
from pipeline.stages.base import Inputs, Listener, Planning, Recipe, Stage
from pipeline.stages.evaluate import prunes
from pipeline.stages.prune import search_recipe
from pipeline.stages.shared.phases import MATERIAL, criterion_of, in_common_order, phases_of

FILE = "sensitivity.json"
DENSE = "the dense model"
"""A kind of work, for whoever watches."""


class ScoreConfig(Section):
    """The sensitivity of the dense model."""

    key: ClassVar[str] = "score"

    enabled: bool = True
    """Whether every unit of the dense model is scored in all dimensions before pruning."""


def recipe(planning: Planning) -> Recipe | None:
    """The same as for the first steps of pruning; nothing where scores are no perplexities."""
    config = planning.config
    if not prunes(config) or not config.of(ScoreConfig).enabled:
        return None
    if criterion_of(config).name != PERPLEXITY:
        return None
    return search_recipe(planning)


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``sensitivity.json``: dense perplexity and every unit's, by dimension."""
    from pipeline.scoring.one_pass import perplexity
    from pipeline.stages.shared.search import Search

    search = Search(config, inputs)
    dense = PruningState.dense(inputs.source.shape)
    variant = inputs.live.cut(dense)
    sensitivity = {}
    phases, listener = in_common_order(phases_of(config, inputs.source)), inputs.listener
    ahead = Counter({DENSE: sum(search.windows(phase).ids.numel() for phase in phases)})
    for phase in phases:
        ahead.update(search.work(phase, dense, phase.candidates(dense)))
    listener.on_ahead(ahead)
    for phase in phases:
        model, windows = inputs.live.at(variant), search.windows(phase)
        listener.on_doing(f"{DENSE} on the text for {phase.dimension.replace('_', ' ')}")
        told = partial(_told, listener, windows.ids.numel())
        dense_ppl = perplexity(model, windows, told)
        with closing(search.walk(phase, dense)) as steps:
            first = next(steps, None)
        candidates = first.decision.scored_json()["candidates"] if first else []
        sensitivity[phase.dimension] = {"dense_ppl": dense_ppl, "candidates": candidates}
    replace(out_dir / FILE, encode(sensitivity))
    return {"dense_ppl": {d: sensitivity[d]["dense_ppl"] for d in sensitivity}}


def _told(listener: Listener, tokens: int, share: float) -> None:
    listener.on_progress(DENSE, share * tokens)


def replay(config: Config, inputs: Inputs) -> None:
    """Tell where the curve of perplexity begins."""
    first = phases_of(config, inputs.source)[0].dimension
    ppl = read_json(inputs.results[STAGE.name] / FILE)[first]["dense_ppl"]
    if ppl is not None:
        inputs.listener.on_dense_ppl(ppl)


def check(folder: Path, result: Json) -> None:
    """Dense perplexities are those of the file."""
    sensitivity = read_json(folder / FILE)
    if result["dense_ppl"] != {d: entry["dense_ppl"] for d, entry in sensitivity.items()}:
        raise ValueError(result)


STAGE = Stage(
    "score", 10, recipe, run, needs=MATERIAL, section=ScoreConfig,
    publishes=(FILE,), facts=lambda result: {"dense_ppl": result["dense_ppl"]},
    check=check, replay=replay,
)  # fmt: skip
