"""The keys that say what recovery learns from."""

from pydantic import Field

from pipeline.data.sources import SourceName, TextSource
from pipeline.settings.section import Section, SomeText

MIXED = {"alpaca": TextSource(dataset="alpaca"), "c4": TextSource(dataset="c4")}
OF_ANOTHER_KIND = {"wikitext2": TextSource(dataset="wikitext2")}


class RecoveryTextConfig(Section):
    """Text to learn from, and text that tells whether it helped."""

    sources: dict[SourceName, TextSource] = Field(default_factory=dict)
    """What is learnt from, each by a name of yours, with dataset, path, field and share; {} takes
    Alpaca and C4, half each."""
    held_out: dict[SourceName, TextSource] = Field(default_factory=dict)
    """What tells whether it helped, best of another kind; {} takes WikiText-2's train text where
    sources is {}, else rows of the sources that are kept apart."""
    held_out_tokens: int = Field(default=16_384, ge=2)
    """Tokens of each of those texts, at most."""
    seqlen: int = Field(default=1024, ge=2)
    """Tokens in a window."""

    @property
    def learnt_from(self) -> dict[str, TextSource]:
        """What is learnt from, by name."""
        return self.sources or MIXED

    @property
    def kept_apart(self) -> dict[str, TextSource]:
        """Held-out text, by name; nothing where rows of ``learnt_from`` are kept apart."""
        return self.held_out or ({} if self.sources else OF_ANOTHER_KIND)


class InstructionsConfig(Section):
    """Instructions with answers, for techniques that learn from them."""

    path: SomeText | None = None
    """.jsonl file of your own; null takes yahma/alpaca-cleaned from the hub."""
    instruction_field: SomeText = "instruction"
    """Field of what is asked."""
    input_field: SomeText = "input"
    """Field of what it is asked about; rows without it, or with nothing in it, have none."""
    output_field: SomeText = "output"
    """Field of the answer, which alone is learnt."""
    seqlen: int = Field(default=256, ge=2)
    """Tokens of a prompt with its answer, at most; what is longer is cut off."""
    held_out: int = Field(default=2000, ge=1)
    """Rows that are kept apart, to tell whether it helped; at most a tenth of all."""
