"""Distillation: the pruned model learns to answer as the dense one does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.files import Json
from pipeline.recovery.base import Recovering, Technique
from pipeline.recovery.training.settings import (
    AdaptersConfig,
    Batch,
    Dropout,
    Epochs,
    Rate,
    Schedule,
    WarmupSteps,
    Weight,
    offload_refused,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.models.source import ModelSource


class DistillConfig(AdaptersConfig):
    """Text, with the dense model as the teacher (arXiv 1503.02531)."""

    train: Literal["layers", "all", "lora"] = "layers"
    """What is trained. layers: every weight but those of embeddings and output head, so tokens that
    the text hardly has stay what they were. all: those, too. lora: low-rank adapters, which take
    less memory."""
    teacher: Literal["live", "stored"] = "live"
    """live: the dense model is in memory, too, and answers every time. stored: its most probable
    tokens are taken once and kept on disk until the end; with noise=0."""
    top_tokens: int = Field(64, ge=1)
    """Tokens of a stored answer; all others count as one."""
    logits: Weight = 1.0
    """Weight of the divergence from the teacher's distribution, times the squared temperature."""
    temperature: float = Field(1.0, gt=0, le=100)
    """What both models' logits are divided by for it."""
    next_token: Weight = 0.3
    """Weight of the cross entropy of the text's own next token."""
    hidden: Weight = 0.0
    """Weight of the squared distance from the teacher's last hidden states, by their squared
    norm."""
    noise: float = Field(0.05, ge=0, lt=1)
    """Share of the tokens that both models read as others of the text, drawn anew in every step:
    so a little text shows much of what the dense model knows."""
    lr: Rate | Literal["auto"] = 4e-4
    schedule: Schedule = "cosine"
    warmup_steps: WarmupSteps = 20
    epochs: Epochs = 5
    batch: Batch = 8
    dropout: Dropout = 0.0


def run(recovering: Recovering) -> Mapping[str, Json]:
    """Train on what the dense model answers."""
    from pipeline.recovery.training.adapters import Adapters, Weights
    from pipeline.recovery.training.distillation import Distillation
    from pipeline.recovery.training.loop import Job
    from pipeline.recovery.training.run import train

    settings: DistillConfig = recovering.settings
    stored = _stored(recovering) if settings.teacher == "stored" else None
    job = Job(
        TECHNIQUE.name,
        settings,
        Adapters(settings.rank, settings.alpha, settings.dropout, recovering.seed)
        if settings.train == "lora"
        else Weights(of_tokens=settings.train == "all"),
        Distillation(
            settings.logits,
            settings.temperature,
            settings.next_token,
            settings.hidden,
            recovering.train,
            stored,
        ),
        recovering.train,
        recovering.held_out,
        recovering.seed,
        recovering.folder,
        settings.noise,
    )
    try:
        known = train(recovering, job)
    finally:
        recovering.live.drop_twin()
    if stored:
        stored.unlink()
    return known


def _stored(recovering: Recovering) -> "Path":
    """The file of the dense model's answers, written once."""
    from pipeline.recovery.training.distillation import dense_twin, store_answers
    from pipeline.recovery.training.loop import training_ahead

    settings: DistillConfig = recovering.settings
    path = recovering.folder / "answers.safetensors"
    if not path.exists():
        recovering.note("the dense model's answers are taken once")
        dense = dense_twin(recovering.live, recovering.live.at(recovering.variant))
        watching, kind = recovering.watching, "the dense model's answers"
        training = training_ahead(settings, recovering.train, recovering.held_out)
        watching.on_ahead({kind: recovering.train.ids.numel(), **training})
        watching.on_doing(kind)
        store_answers(
            dense,
            recovering.train,
            settings.top_tokens,
            settings.temperature,
            path,
            lambda tokens: watching.on_progress(kind, tokens),
        )
        recovering.live.drop_twin()
    return path


def _refused(_source: "ModelSource", settings: DistillConfig, offload: str) -> str | None:
    if settings.hidden and settings.teacher == "stored":
        return "recover.distill.hidden needs the dense model's states: recover.distill.teacher=live"
    if settings.noise and settings.teacher == "stored":
        return (
            f"recover.distill.noise={settings.noise:g} needs the dense model's answers to each "
            "text as it is read: type recover.distill.noise=0 or recover.distill.teacher=live"
        )
    if not (settings.logits or settings.next_token or settings.hidden):
        return "recover.distill has nothing to learn: give logits, next_token or hidden a weight"
    return offload_refused(TECHNIQUE.name, offload)


TECHNIQUE = Technique("distill", DistillConfig, becomes="distilled", run=run, refused=_refused)
