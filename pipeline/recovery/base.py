"""What a technique is: it changes the weights that a pruned model has left, not its shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from pipeline.files import Json
from pipeline.settings.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.distributed.ranks import Leader
    from pipeline.models.loading import LiveModel
    from pipeline.models.source import ModelSource
    from pipeline.models.variants import Variant


class TechniqueConfig(Section):
    """What every technique can be told."""

    tokens: int = Field(350_000, ge=1)
    """Tokens of text to learn from, at most."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Sequences to learn from, padded on the right."""

    ids: "Tensor"
    """Token ids, int64 ``[examples, tokens]``."""
    lengths: "Tensor"
    """Tokens of each example, int64 ``[examples]``; what follows is padding."""
    learnt: "Tensor"
    """Which tokens a loss is taken of, as they are predicted; bool ``[examples, tokens]``."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far learning has come."""

    tokens: int
    """Tokens learnt from so far, padding not counted."""
    total_tokens: int
    loss: float | None = None
    """Mean of the last step; None where nothing was learnt since."""
    lr: float | None = None
    held_out: Mapping[str, float] | None = None
    """Perplexity on each held-out text, where it was just measured."""


class Watching(Protocol):
    """Is told how long it takes, as the listener of a stage is."""

    def on_ahead(self, ahead: Mapping[str, float]) -> None:
        """What is to be done from now on, in tokens, by kind of work."""

    def on_doing(self, what: str) -> None:
        """What is done now, for a person."""

    def on_progress(self, kind: str, tokens: float) -> None:
        """So much of that kind was done since the last call."""


class Unwatched:
    """Nobody is told."""

    def on_ahead(self, ahead: Mapping[str, float]) -> None: ...  # noqa: D102
    def on_doing(self, what: str) -> None: ...  # noqa: D102
    def on_progress(self, kind: str, tokens: float) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Recovering:
    """A pruned model that is being recovered."""

    live: "LiveModel"
    """Where models come from: ``live.at(variant)`` is the one to change, in place;
    ``live.twin(live.cut(dense))`` a second one, the dense model with channels in the same order."""
    variant: "Variant"
    """The model as the technique before left it, or as it was cut."""
    source: "ModelSource"
    settings: Any
    """The technique's own section."""
    train: Examples
    """What may be learnt from."""
    held_out: Mapping[str, Examples]
    """Of each held-out text, by name: nothing is learnt from them, and nothing that is reported is
    measured on them."""
    seed: int
    folder: Path
    """The stage's folder, the same one after a kill: for checkpoints, which are to be removed in
    the end. What is left in it is part of the result."""
    note: Callable[[str], None]
    """Tells a person something."""
    warn: Callable[[str], None]
    """Tells a person what must be known."""
    progress: Callable[[Progress], None]
    """Shows and records how far it is."""
    leader: "Leader | None" = None
    """The ranks that share the work; None where this process works alone."""
    watching: Watching = field(default_factory=Unwatched)
    """Is told how much there is to do, and how far it is."""


@dataclass(frozen=True)
class Technique:
    """A file of this folder declares one as ``TECHNIQUE``."""

    name: str
    """``recover.steps``, ``recover.NAME.*``, and the name of its file in ``conf/recover``."""
    section: type[TechniqueConfig]
    becomes: str
    """What the model's weights are called afterwards in their lineage, e.g. ``tuned``."""
    run: Callable[[Recovering], Mapping[str, Json]]
    """Changes the weights of ``live.at(variant)`` and returns what to know of it. Raises
    ``StageError``."""
    refused: "Callable[[ModelSource, Any, str], str | None]" = lambda *_: None
    """Why a model cannot be recovered with these settings, in words; None where it can. The last is
    ``model.offload``. Loads nothing."""
    learns_instructions: Callable[[Any], bool] = lambda _: False
    """Whether it learns from instructions and answers in the place of text."""
    version: int = 1
    """Raised by hand when the same model would become another one."""
