"""What a run exported, put where the user wants it, with its model card."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.export import targets
from pipeline.export.publish import publish
from pipeline.files import Json
from pipeline.models.source import ModelSource
from pipeline.plan.run import Run
from pipeline.pruning.origin import Exported, Origin
from pipeline.report.card import PICTURE, Card, model_card
from pipeline.report.data import RunReport
from pipeline.settings.flat import flat
from pipeline.stages.base import PlannedStage
from pipeline.stages.export import FOLDER, ExportConfig
from pipeline.tracking.tracker import Exported as ExportedFiles

LICENCE = re.compile(r"^license:\s*[\"']?([\w.+ -]+)", re.MULTILINE)


def publish_exports(run: Run, report: RunReport) -> list[ExportedFiles]:
    """Put every finished export into its folder, with a card."""
    picture = run.folder.path / PICTURE
    exported = []
    ratio = f"{report.state.ratio_percent:.1f}pct"
    for planned, folder in run.exports:
        result = run.store.finished(planned)
        if result is None:
            continue
        card = model_card(report, _card(run, planned, result))
        more = {"README.md": card.encode(), PICTURE: picture.read_bytes()}
        files = run.store.folder(planned) / FOLDER
        about = {"key": planned.key, "result": result, "model": _model(run, report)}
        publish(files, folder, more, run.plan.key, about)
        upload = run.config.of(ExportConfig).upload
        name = f"{run.folder.path.name}-{result['target']}"
        exported.append(ExportedFiles(name, folder, planned.key, (ratio,), upload, result))
    return exported


def _model(run: Run, report: RunReport) -> dict[str, Any]:
    """What was exported, for whoever prunes it again: what is gone of the first dense model."""
    origin = run.source.origin or Origin(run.source.name, report.shape.total_params)
    return Exported(origin, origin.removed_percent(report.state.params)).to_json()


def _card(run: Run, planned: PlannedStage, result: Mapping[str, Json]) -> Card:
    target = targets()[planned.recipe["target"]]
    hub = run.source.hub_commit
    settings = run.config.model_dump(mode="json")
    shown: dict[str, Any] = {
        key: value for key, value in flat({"prune": settings["prune"]}).items() if value is not None
    }
    calibration = settings["calibration"]
    shown["calibration"] = _text_name(calibration)
    shown["calibration.seqlen"] = calibration["seqlen"]
    how_to_open = target.how_to_open
    for placeholder, said in {
        "{name}": _example_name(run),
        "{code}": ", trust_remote_code=True" if result.get("needs_code") else "",
        "{auto}": str(result.get("opens_with", "AutoModelForCausalLM")),
    }.items():
        how_to_open = how_to_open.replace(placeholder, said)
    return Card(
        base_model=hub.partition("@")[0] if hub else run.source.name,
        licence=_licence(run.source),
        how_to_open=how_to_open,
        settings=shown,
        facts=list(facts(result)),
    )


def _text_name(calibration: Mapping[str, Any]) -> str:
    """The calibration text without a path."""
    path = calibration.get("path")
    return Path(path).name if path else str(calibration["dataset"])


def _example_name(run: Run) -> str:
    return f"{run.source.name}-pruned"


def facts(result: Mapping[str, Json]) -> Iterator[str]:
    """What there is to know of the files, in sentences."""
    yield f"{result['bytes'] / 1e9:.2f} GB, {result.get('dtype', '')}.".replace(", .", ".")
    if "needs_code" in result:
        yield (
            "Layers differ, so one file of code goes with it: read modeling_pruned.py."
            if result["needs_code"]
            else "All layers are alike: an ordinary model of its family, no code of its own."
        )
    if result.get("zero_heads"):
        yield f"{result['zero_heads']} attention heads that went are there again as zeros."
    if "logits_differ_by" in result:
        yield (
            "Opened in another process and compared with the pruned model in memory: logits of "
            f"{result['tokens']} tokens differ by at most {result['logits_differ_by']:.1e} of the "
            "largest, in one pass and from the cache."
        )
    if "dense_divergence_nats" in result:
        yield (
            f"Rounding to {result['dtype']} moves its next-token distribution by "
            f"{result['divergence_nats']:.2g} nats; the dense model's by "
            f"{result['dense_divergence_nats']:.2g}."
        )
    for name, speeds in (result.get("llama_cpp") or {}).items():
        if isinstance(speeds, dict):
            before, after = speeds["dense_tokens_per_s"], speeds["pruned_tokens_per_s"]
            low, high = speeds["speed_up"]["low"], speeds["speed_up"]["high"]
            yield (
                f"llama.cpp on a CPU, {name}: {before:.1f} tokens per second dense, {after:.1f} "
                f"pruned, {low:.2f} to {high:.2f} times as fast."
            )
    if "checked" in result:
        yield f"Checked: {result['checked']}."


def _licence(source: ModelSource) -> str | None:
    """What the base model's card says, or its GGUF file."""
    if source.gguf_file:
        named = source.gguf_field("general.license")
        return str(named) if named else None
    try:
        found = LICENCE.search((source.folder / "README.md").read_text(encoding="utf-8")[:4000])
    except (OSError, UnicodeDecodeError):
        return None
    return found[1].strip() if found else None
