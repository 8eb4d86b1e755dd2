"""From a configuration to the stages it needs, each with the recipe that decides its result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.files import key_of, sha256_of_file
from pipeline.methods import method_of
from pipeline.models.loading import Digests, weights_digest
from pipeline.models.source import ModelSource
from pipeline.pruning.steps import PERPLEXITY
from pipeline.stages.measuring import What
from pipeline.stages.search import criterion_of, decisions_identity
from pipeline.store.results import Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of one run, in an order in which they can run."""

    stages: tuple[Stage, ...]
    weights: str
    """Digest that stands for the model's weights and architecture."""

    @property
    def by_name(self) -> dict[str, Stage]:
        """The stages by name."""
        return {stage.name: stage for stage in self.stages}

    @property
    def key(self) -> str:
        """What the run is about: the pruning, or where there is none the evaluation."""
        return self.by_name.get("prune", self.stages[-1]).key


def plan(config: Config, source: ModelSource, digests: Digests) -> Plan:
    """Plan a run: hash files, load no model. ``model.device`` must not be "auto"."""
    weights = weights_digest(source, digests)
    method = method_of(config.prune)
    model = {
        "weights": weights,
        "weight_reorder": method.weight_reorder(config.prune),
        "dtype": config.model.dtype,
        "device": config.model.device,
        "attn_implementation": config.model.attn_implementation,
    }
    if config.evaluate.pruning_config:
        given = {"pruning_config": sha256_of_file(Path(config.evaluate.pruning_config))}
        what = What.of_evaluation(config).recipe(config, digests.of)
        return Plan((Stage("evaluate", {"model": model, **given, "what": what}),), weights)
    calibrate = Stage("calibrate", _calibrate_recipe(config, source, digests))
    base = {"model": model, "calibrate": calibrate.key, **decisions_identity(config)}
    search = base | method.units_recipe(config.prune)
    target = method.target_recipe(config.prune)
    probes = _probes(config, digests)
    stages = [calibrate]
    if config.score.enabled and criterion_of(config).name == PERPLEXITY:
        stages.append(Stage("score", search, (calibrate,)))
    evaluation = {"model": model, "what": What.of_evaluation(config).recipe(config, digests.of)}
    baseline = []
    if config.sweep.name and config.evaluate.enabled:
        baseline = [Stage("dense", evaluation)]
    stages += baseline
    walks = _walks(config, base | {"probe": probes}, calibrate)
    prune = Stage("prune", search | target, (calibrate, *walks[-1:]))
    stages += [*walks, prune]
    if probes:
        stages.append(Stage("probe", {"prune": prune.key, **probes}, (prune,)))
    if config.evaluate.enabled:
        recipe = evaluation | {"prune": prune.key}
        stages.append(Stage("evaluate", recipe, (prune, *baseline)))
    return Plan(tuple(stages), weights)


def _probes(config: Config, digests: Digests) -> dict[str, Any] | None:
    if not config.probe.every:
        return None
    what = What.of_probe(config).recipe(config, digests.of)
    return {"every": config.probe.every, "what": what}


def _walks(config: Config, base: dict[str, Any], calibrate: Stage) -> list[Stage]:
    """A stage for each dimension that the run shares with others of its sweep."""
    walks: list[Stage] = []
    path: list[list[Any]] = []
    for phase in method_of(config.prune).phases(config.prune):
        identity = phase.identity()
        dimension = identity.pop("dimension")
        if dimension in config.sweep.reach:
            to = config.sweep.reach[dimension]
            recipe = base | {"from": list(path), "to": to, **identity}
            walks.append(Stage(dimension, recipe, (calibrate, *walks[-1:])))
        path.append([dimension, *identity.values(), phase.end_percent])
    return walks


def _calibrate_recipe(config: Config, source: ModelSource, digests: Digests) -> dict[str, object]:
    settings = config.calibration
    content = digests.of(Path(settings.path)) if settings.path else "hub"
    if settings.dataset == "tokens":
        return {"dataset": "tokens", "content": content, "eos_id": source.eos_id}
    tokenizer = {path.name: digests.of(path) for path in source.tokenizer_files}
    return {
        "dataset": settings.dataset,
        "content": content,
        "format": Path(settings.path).suffix if settings.path else None,
        "tokenizer": key_of(tokenizer),
        **{
            name: getattr(settings, name)
            for name in (
                "field",
                "block_samples",
                "width_samples",
                "block_windows",
                "width_windows",
                "seqlen",
            )
        },
    }
