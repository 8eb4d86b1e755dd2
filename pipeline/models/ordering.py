"""The order in which a model's channels and heads stand, where it cannot be made of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DamagedError
from pipeline.files import key_of, read_object, understood

if TYPE_CHECKING:
    from torch import Tensor

FILE = "channel_order.json"
"""Beside the ``pruning_config.json`` that counts channels and heads in this order."""


@dataclass(frozen=True)
class ChannelOrder:
    """For each block its groups of channels, the most important first.

    A group is the least that can go: one MLP channel, or a key/value head with its query heads.
    """

    name: str
    """What they are ordered by."""
    groups: Mapping[str, tuple[int, ...]]
    """By the block's name, e.g. ``attn.3``: the place that each group has in the dense model."""

    @classmethod
    def by(cls, name: str, scores: "Mapping[str, Tensor]") -> "ChannelOrder":
        """The highest of ``scores`` (``[groups]`` by block) first; equal ones keep their order."""
        ordered = {
            block: tuple(each.argsort(descending=True, stable=True).tolist())
            for block, each in scores.items()
        }
        return cls(name, ordered)

    @cached_property
    def digest(self) -> str:
        """Equal for equal orders, whatever they were made by."""
        return key_of({block: list(places) for block, places in self.groups.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the digest."""
        groups = {block: list(places) for block, places in self.groups.items()}
        return {"order": self.name, "digest": self.digest, "groups": groups}

    @classmethod
    def read(cls, path: Path) -> "ChannelOrder | None":
        """What ``to_json`` gave, from a file; None where there is none. Raises ``DamagedError``."""
        data = read_object(path)
        if data is None:
            return None

        def parse() -> ChannelOrder:
            groups = {block: tuple(places) for block, places in data["groups"].items()}
            return cls(data["order"], groups)

        order = understood(path, parse)
        if understood(path, lambda: order.digest) != data.get("digest"):
            raise DamagedError(path, "its content is not what was written there")
        return order
