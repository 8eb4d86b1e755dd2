"""The learning rate along the way."""

import math
from dataclasses import dataclass


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
