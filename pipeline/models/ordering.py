"""The order in which a model's channels and heads stand, where it cannot be made of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import given
from pipeline.errors import ConfigError, DamagedError
from pipeline.files import key_of, read_object, understood
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import ExpertOrder, PruningState

if TYPE_CHECKING:
    from torch import Tensor

FILE = "channel_order.json"
"""Beside the ``pruning_config.json`` that counts channels and heads in this order."""


@dataclass(frozen=True)
class ChannelOrder:
    """For each block its groups of channels, the most important first.

    A group is the least that can go: one MLP channel, a key/value head with its query heads, or an
    expert of a mixture.
    """

    name: str
    """What they are ordered by."""
    groups: Mapping[str, tuple[int, ...]]
    """By the block's name, e.g. ``attn.3``: the place that each group has in the dense model."""
    means: Mapping[str, tuple[float, ...]] | None = None
    """By the block's name what each channel is on average, by its place in the dense model: what
    is removed is made up for by biases. None: it is not."""

    @classmethod
    def by(
        cls,
        name: str,
        scores: "Mapping[str, Tensor]",
        means: "Mapping[str, Tensor] | None" = None,
    ) -> "ChannelOrder":
        """The highest of ``scores`` (``[groups]`` by block) first; equal ones keep their order."""
        ordered = {
            block: tuple(each.argsort(descending=True, stable=True).tolist())
            for block, each in scores.items()
        }
        if means is None:
            return cls(name, ordered)
        return cls(name, ordered, {block: tuple(each.tolist()) for block, each in means.items()})

    @cached_property
    def digest(self) -> str:
        """Equal for equal orders, whatever they were made by, with equal means."""
        return key_of(self._content())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the digest."""
        return {"order": self.name, "digest": self.digest, **self._content()}

    def _content(self) -> dict[str, Any]:
        content = {"groups": {block: list(places) for block, places in self.groups.items()}}
        if self.means is None:
            return content
        return {**content, "means": {block: list(each) for block, each in self.means.items()}}

    @classmethod
    def read(cls, path: Path) -> "ChannelOrder | None":
        """What ``to_json`` gave, from a file; None where there is none. Raises ``DamagedError``."""
        data = read_object(path)
        if data is None:
            return None

        def parse() -> ChannelOrder:
            groups = {block: tuple(places) for block, places in data["groups"].items()}
            means = data.get("means")
            means = means and {block: tuple(each) for block, each in means.items()}
            return cls(data["order"], groups, means)

        order = understood(path, parse)
        if understood(path, lambda: order.digest) != data.get("digest"):
            raise DamagedError(path, "its content is not what was written there")
        return order


def expert_order(order: ChannelOrder | None, shape: ModelShape) -> ExpertOrder:
    """By the layer of a mixture the place that each of its experts has in the dense model."""
    groups = order.groups if order else {}
    return {
        layer: groups.get(f"mlp.{layer}", range(block.width))
        for layer, block in shape.mixtures.items()
    }


def state_in(path: Path, shape: ModelShape, own: ChannelOrder | None = None) -> PruningState:
    """The state in a ``pruning_config.json``, with the order beside it; where none is, ``own``.

    Raises ``ConfigError`` with everything that is wrong, each after the path, and ``DamagedError``
    for the order.
    """
    config = given.read_object(path)
    order = ChannelOrder.read(path.parent / FILE) or own
    try:
        return PruningState.from_pruning_config(shape, config, expert_order(order, shape))
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error
