"""What is timed. Imports nothing heavy: a configuration is checked with it."""

from dataclasses import dataclass

TIMING = 2
"""Raised by hand when the same settings would be timed in another way."""


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """What is timed."""

    workload: str
    """What the configuration calls it."""
    batch: int
    """Sequences that are prefilled and decoded together."""
    prompt_tokens: int
    """Tokens of each prompt."""
    output_tokens: int
    """Tokens decoded for each prompt."""
    repeats: int
    """Generations that are timed, at most."""
    warmup: int
    """Generations before those, which are not; graphs are warm from being captured."""
    again: int = 0
    """Which of several measurements of the same it is."""

    def identity(self) -> dict[str, int]:
        """What decides what the figures mean; not how the workload is called."""
        return {
            "timing": TIMING,
            "batch": self.batch,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "repeats": self.repeats,
            "warmup": self.warmup,
            **({"again": self.again} if self.again else {}),
        }
