"""The learning rate along the way, and what is drawn on it."""

import math
from dataclasses import dataclass

from pipeline.files import key_of


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate, step by step."""

    lr: float
    kind: str
    warmup_steps: int
    steps: int

    def at(self, step: int) -> float:
        """Of a step, counted from 0, as transformers' schedules of the same names."""
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        gone = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        share = 1 - gone if self.kind == "linear" else (1 + math.cos(math.pi * gone)) / 2
        return self.lr * max(0.0, share)


def seed_of(*numbers: int) -> int:
    """A seed for each tuple of numbers."""
    return int(key_of({"seed": list(numbers)}), 16) % 2**63
