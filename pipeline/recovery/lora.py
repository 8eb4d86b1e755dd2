"""LoRA on instructions or text, as MultiPruner tunes its pruned models."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.files import Json
from pipeline.recovery.base import Recovering, Technique
from pipeline.recovery.training.settings import AdaptersConfig, offload_refused

if TYPE_CHECKING:
    from pipeline.models.source import ModelSource


class LoraConfig(AdaptersConfig):
    """Low-rank adapters on every linear layer of the blocks (arXiv 2501.09949)."""

    tokens: int = Field(20_000_000, ge=1)
    """Tokens to learn from, at most; all of Alpaca's instructions have fewer."""
    data: Literal["instructions", "text"] = "instructions"
    """What is learnt: the answers to instructions, or every token of text."""


def run(recovering: Recovering) -> Mapping[str, Json]:
    """Train adapters and merge them."""
    from pipeline.recovery.training.adapters import Adapters
    from pipeline.recovery.training.loop import Job
    from pipeline.recovery.training.losses import NextToken
    from pipeline.recovery.training.run import train

    settings: LoraConfig = recovering.settings
    adapters = Adapters(settings.rank, settings.alpha, settings.dropout, recovering.seed)
    job = Job(
        TECHNIQUE.name,
        settings,
        adapters,
        NextToken(),
        recovering.train,
        recovering.held_out,
        recovering.seed,
        recovering.folder,
    )
    return train(recovering, job)


def _refused(_source: "ModelSource", _settings: LoraConfig, offload: str) -> str | None:
    return offload_refused(TECHNIQUE.name, offload)


TECHNIQUE = Technique(
    "lora",
    LoraConfig,
    becomes="tuned",
    run=run,
    refused=_refused,
    learns_instructions=lambda settings: bool(settings.data == "instructions"),
)
