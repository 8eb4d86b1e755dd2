"""From a configuration to the stages it needs, each with the recipe that decides its result."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.execution.store import Stage
from pipeline.files import key_of
from pipeline.models.loading import Digests, weights_digest
from pipeline.models.source import ModelSource
from pipeline.stages.search import DECISION_VERSION


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of one run, in an order in which they can run."""

    stages: tuple[Stage, ...]
    weights: str
    """Digest that stands for the model's weights and architecture."""

    @property
    def result(self) -> Stage:
        """The stage whose result the run is about."""
        return self.stages[-1]


def plan(config: Config, source: ModelSource, digests: Digests) -> Plan:
    """Plan a run: hash files, load no model. ``model.device`` must not be "auto"."""
    weights = weights_digest(source, digests)
    calibrate = Stage("calibrate", _calibrate_recipe(config, source, digests))
    model = {
        "weights": weights,
        "dtype": config.model.dtype,
        "device": config.model.device,
        "attn_implementation": config.model.attn_implementation,
    }
    search = {
        "decision_version": DECISION_VERSION,
        "model": model,
        "calibrate": calibrate.key,
        "weight_reorder": config.prune.weight_reorder,
        "search": config.prune.search,
        "mlp_group_size": config.prune.mlp_group_size,
        "attn_group_size": config.prune.attn_group_size,
    }
    score = Stage("score", search, (calibrate,))
    target = {
        "target_ratio": config.prune.target_ratio,
        "distribution": [
            share / sum(config.prune.distribution) for share in config.prune.distribution
        ],
    }
    prune = Stage("prune", search | target, (calibrate,))
    stages = (calibrate, score, prune) if config.score.enabled else (calibrate, prune)
    return Plan(stages, weights)


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
