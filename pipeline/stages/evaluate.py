"""Stage evaluate: the dense and the pruned model side by side, on full tasks and text."""

from pathlib import Path

from pipeline.config.schema import Config
from pipeline.files import Json, encode, read_json, replace
from pipeline.measure.accuracy import lm_eval_version
from pipeline.pruning.state import PruningState
from pipeline.stages.base import Inputs
from pipeline.stages.measuring import Measurements, What


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write ``evaluation.json``. The dense model is measured once for all runs of a model."""
    measurements = Measurements(config, inputs, What.of_evaluation(config))
    shape = inputs.source.shape
    pruned = PruningState.from_pruning_config(shape, read_json(_pruning_config(config, inputs)))
    records = {
        "dense": measurements.of(PruningState.dense(shape)),
        "pruned": measurements.of(pruned),
    }
    evaluation = {name: record.to_json() for name, record in records.items()}
    evaluation["pruned"]["ratio_percent"] = pruned.ratio_percent
    evaluation["settings"] = {
        "tasks": config.evaluate.tasks,
        "limit": config.evaluate.limit,
        "text": config.evaluate.text,
        "seqlen": config.evaluate.seqlen,
        "lm_eval": lm_eval_version(),
    }
    replace(out_dir / "evaluation.json", encode(evaluation))
    replace(out_dir / "pruning_config.json", encode(pruned.to_pruning_config()))
    return {name: {"accuracy": r.accuracy, "ppl": r.ppl} for name, r in records.items()}


def _pruning_config(config: Config, inputs: Inputs) -> Path:
    if config.evaluate.pruning_config:
        return Path(config.evaluate.pruning_config)
    return inputs.results["prune"] / "pruning_config.json"
