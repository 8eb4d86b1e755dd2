"""Stages export_TARGET: the pruned model in files that open elsewhere, checked before they count.

There is one for each target that is enabled. Its folder has the files in ``model``.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import StageError
from pipeline.export import targets
from pipeline.export.base import GIGABYTE, Exporting, Target, TargetConfig
from pipeline.files import Json, encode, replace
from pipeline.models.digests import tokenizer_digest
from pipeline.pruning.state import PruningState
from pipeline.settings.core import Config
from pipeline.settings.section import Execution, Section
from pipeline.stages.base import Inputs, PlannedStage, Planning, Recipe, Stage
from pipeline.stages.evaluate import given_state, pruned_recipe
from pipeline.stages.shared.recovered import recovered, recovered_recipe, recoveries

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.packing import PackedModel

FOLDER = "model"
CHECKED_WINDOWS, CHECKED_TOKENS = 2, 128
"""How much of the calibration windows an exported model is compared on."""


class ExportConfig(Section):
    """The pruned model in files that open elsewhere."""

    key: ClassVar[str] = "export"

    dir: Execution[str | None] = None
    """Folder below which every target gets one of its own; null is export/ in the run's folder."""
    pad: bool = False
    """An ordinary model of the family, with zeros where channels and heads went: opens anywhere
    without code, and saves whole layers only."""
    upload: Execution[bool] = False
    """With tracking=wandb: upload the files; else the artifact refers to where they are."""

    def of(self, target: Target) -> TargetConfig:
        """The section of a target."""
        own = getattr(self, target.name)
        assert isinstance(own, TargetConfig)
        return own

    @property
    def wanted(self) -> list[Target]:
        """Targets that are enabled."""
        return [target for target in targets().values() if self.of(target).enabled]


def plan(stage: Stage, planning: Planning) -> Iterator[PlannedStage]:
    """One for each target."""
    settings = planning.config.of(ExportConfig)
    if pruned_recipe(planning) is not None:
        for target in settings.wanted:
            needs = (*planning.those(["calibrate", "prune"]), *recoveries(planning))
            yield PlannedStage(stage, f"export_{target.name}", recipe_of(planning, target), needs)


def recipe_of(planning: Planning, target: Target) -> Recipe:
    """What decides the files: the model, what is removed, and how it is written."""
    settings = planning.config.of(ExportConfig)
    own = settings.of(target).model_dump(mode="json")
    pruned = pruned_recipe(planning) or {}
    tokenizer = tokenizer_digest(planning.source, planning.digest)
    return {
        "target": target.name,
        "version": target.version,
        "settings": {key: value for key, value in own.items() if key != "enabled"},
        "pad": settings.pad,
        "model": planning.model,
        "tokenizer": tokenizer,
        **pruned,
        **recovered_recipe(planning),
    }


def places(
    config: Config, planned: Iterable[PlannedStage], run_folder: Path
) -> Iterator[tuple[PlannedStage, Path]]:
    """The exports among stages of a run, and the folder of each."""
    base = config.of(ExportConfig).dir
    for each in planned:
        if each.stage is STAGE:
            yield each, (Path(base) if base else run_folder / "export") / each.recipe["target"]


def run(config: Config, inputs: Inputs, out_dir: Path) -> Json:
    """Write the files, open them elsewhere, and only then give them their name."""
    from pipeline.models.packing import PackedModel

    target = targets()[inputs.stage.recipe["target"]]
    state = given_state(config, inputs)
    variant = recovered(inputs, inputs.live.cut(state))
    packed = PackedModel.of(inputs.live.at(variant), inputs.source.config)
    if config.of(ExportConfig).pad:
        packed = packed.padded(["attn", "mlp"], whole=True)
        inputs.listener.on_note("export.pad: zeros where channels went; whole layers are saved")
    exporting = Exporting(
        packed,
        inputs.source,
        config.of(ExportConfig).of(target),
        config.model.dtype,
        _windows(inputs),
        inputs.listener.on_note,
        lambda: _dense(inputs),
    )
    writing, done = out_dir / f".{FOLDER}", out_dir / FOLDER
    for folder in (writing, done):
        shutil.rmtree(folder, ignore_errors=True)
    writing.mkdir(parents=True)
    _require_room(writing, state, config.model.dtype)
    inputs.listener.on_note(f"writing {inputs.source.name} for {target.name}")
    inputs.listener.on_doing("writing")
    written = target.write(exporting, writing)
    replace(
        writing / "pruning_config.json",
        encode(state.to_pruning_config(inputs.live.experts(state.shape))),
    )
    inputs.listener.on_note(f"opening it elsewhere: {target.name}")
    inputs.listener.on_doing("opening it elsewhere")
    checked = target.check(exporting, writing)
    writing.rename(done)
    size = sum(path.stat().st_size for path in done.rglob("*") if path.is_file())
    return {"target": target.name, "bytes": size, **written, **checked}


def _dense(inputs: Inputs) -> "PackedModel":
    from pipeline.models.packing import PackedModel

    dense = inputs.live.cut(PruningState.dense(inputs.source.shape))
    return PackedModel.of(inputs.live.at(dense), inputs.source.config)


def _require_room(folder: Path, state: PruningState, dtype: str) -> None:
    """Raise ``StageError`` where the disk cannot hold the weights."""
    from pipeline.models.loading import DTYPES

    needed, free = state.params * DTYPES[dtype].itemsize, shutil.disk_usage(folder).free
    if needed > free:
        raise StageError(
            f"the exported model needs {needed / GIGABYTE:.1f} GB in {folder.parent}, and "
            f"{free / GIGABYTE:.1f} GB are free"
        )


def _windows(inputs: Inputs) -> "Tensor":
    """Calibration windows; made-up ones where nothing is calibrated."""
    import torch

    from pipeline.stages.shared.calibration import Calibration

    if folder := inputs.results.get("calibrate"):
        ids = Calibration.read(folder).of("width").ids
        return ids[:CHECKED_WINDOWS, :CHECKED_TOKENS]
    generator = torch.Generator().manual_seed(0)
    shape = (CHECKED_WINDOWS, CHECKED_TOKENS)
    return torch.randint(inputs.source.vocabulary_size, shape, generator=generator)


SECTION = ExportConfig.with_sections({name: each.section for name, each in targets().items()})
"""With the section of every target."""
STAGE = Stage(
    "export", 70, lambda _: None, run, needs=("prune", "calibrate"), section=SECTION, plan=plan,
    facts=lambda result: {"exports": {result["target"]: result}},
)  # fmt: skip
