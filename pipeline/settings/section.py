"""The base of every section of the configuration."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.files import Json

BUILTIN = Path(__file__).parents[1] / "builtin"
"""The model and data that come with the project: ``${builtin:NAME}`` in configurations."""


class Section(BaseModel):
    """Keys that belong together. A stage declares its own, named by ``key``."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    key: ClassVar[str]
    """The section's name in the configuration."""

    @classmethod
    def problems(cls, given: Mapping[str, Json]) -> Iterable[str]:  # noqa: ARG003
        """Messages on what is wrong between keys of this section, as they were given."""
        return ()


S = TypeVar("S", bound=Section)
