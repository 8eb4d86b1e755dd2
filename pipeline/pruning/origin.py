"""Which dense model a model was pruned from, where it was pruned and exported here before."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import is_file
from pipeline.given import read_object

FILE = "export.json"
"""In the folder of an exported model: whose export it is, and what it was made of."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The model at the start of a chain of prunings."""

    name: str
    params: int
    """Parameters that it had."""

    def removed_percent(self, params: int) -> float:
        """What is gone of it, where so many parameters are left."""
        return (self.params - params) / self.params * 100

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> "Origin | None":
        """The inverse of ``to_json``; None of None."""
        return cls(str(data["name"]), int(data["params"])) if data else None


@dataclass(frozen=True, slots=True)
class Exported:
    """What the folder of an exported model says of it."""

    origin: Origin
    removed_percent: float
    """Of the origin."""

    @property
    def name(self) -> str:
        """What the model is called: folders of exports are all called by their target."""
        return f"{self.origin.name}-{self.removed_percent:.0f}pct"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"origin": self.origin.to_json(), "removed_percent": self.removed_percent}

    @classmethod
    def read(cls, folder: Path) -> "Exported | None":
        """None where the folder is no export, or one of an earlier version, which did not say."""
        if not is_file(folder / FILE):
            return None
        try:
            model = read_object(folder / FILE)["model"]
            origin = Origin.from_json(model["origin"])
            return cls(origin, float(model["removed_percent"])) if origin else None
        except (ConfigError, KeyError, TypeError, ValueError):
            return None
