"""What every technique that trains can be told."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.recovery.base import TechniqueConfig
from pipeline.settings.section import Execution

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Schedule = Literal["linear", "cosine"]
WarmupSteps = Annotated[int, Field(ge=0)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Batch = Annotated[int, Field(ge=1, le=65536)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


def _are_betas(value: list[float]) -> list[float]:
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):  # noqa: PLR2004
        raise ValueError("allowed are two numbers from 0 to below 1, e.g. [0.9,0.999]")
    return value


class TrainingConfig(TechniqueConfig):
    """AdamW over examples, epoch by epoch."""

    lr: Rate | Literal["auto"] = 1e-4
    """Highest learning rate; "auto" tries a few on a small part of the text each and takes the one
    with the lowest held-out perplexity."""
    schedule: Schedule = "linear"
    """How the rate falls to 0 after the warm-up."""
    warmup_steps: WarmupSteps = 100
    """Steps in which the rate rises from 0."""
    epochs: Epochs = 2
    """Times that every example is learnt from."""
    batch: Batch = 32
    """Sequences of a step."""
    micro_batch: Execution[int | None] = Field(None, ge=1)
    """Sequences that are computed at a time; null: what suits the device. It halves by itself where
    memory runs out; the step stays the same."""
    betas: Annotated[list[float], AfterValidator(_are_betas)] = Field([0.9, 0.999])
    """AdamW's decay of the mean and of the mean square of gradients."""
    weight_decay: Weight = 0.0
    """AdamW's decoupled weight decay."""
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Gradients with a higher norm are scaled down to it."""
    compute: Literal["auto", "bfloat16", "float32"] = "auto"
    """Format of matrix products; what is trained is in float32. auto: bfloat16 on a GPU and for
    models in 16 bits, else float32."""
    activation_checkpointing: Execution[bool | None] = None
    """Compute every block twice in the place of keeping its activations; null: where a model on a
    GPU has more than a thousand million parameters."""
    measurements: int = Field(10, ge=1, le=1000)
    """Times along the way that held-out perplexity is taken; the best state is the result."""


class AdaptersConfig(TrainingConfig):
    """Training with low-rank adapters (LoRA, arXiv 2106.09685), merged in the end."""

    rank: int = Field(16, ge=1, le=4096)
    """Rank of the adapters of every linear layer of the blocks."""
    alpha: int = Field(32, ge=1)
    """What an adapter adds is multiplied by alpha / rank."""
    dropout: Dropout = 0.05
    """Of what enters the adapters, while they are trained."""


def offload_refused(name: str, offload: str) -> str | None:
    """Why a technique cannot train a model whose weights are not on its device, in words."""
    if offload == "none":
        return None
    return f"recover.{name} trains weights that are on the device: type model.offload=none"
