"""The base of every section of the configuration."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from pipeline.files import Json

BUILTIN = Path(__file__).parents[1] / "builtin"
"""The model and data that come with the project: ``${builtin:NAME}`` in configurations."""


T = TypeVar("T")


class _NoResult:
    """The mark of ``Execution``."""


Execution = Annotated[T, _NoResult]
"""The type of a key, or of a section with all of its keys, that never decides a result.

Every other key does: it is part of a stage's recipe, tells runs apart and says whose a folder is.
"""


class Section(BaseModel):
    """Keys that belong together. A stage declares its own, named by ``key``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: ClassVar[str]
    """The section's name in the configuration."""

    moved: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions, and the dotted key of this section that each is now."""

    @classmethod
    def of_today(cls, values: Mapping[str, Json]) -> dict[str, Json]:
        """The section as an earlier version wrote it, with the keys of this one."""
        today = dict(values)
        for old, new in cls.moved.items():
            if old in today:
                inner = today
                *outer, last = new.split(".")
                for name in outer:
                    inner = inner.setdefault(name, {})
                inner.setdefault(last, today.pop(old))
        return today

    @classmethod
    def with_sections(cls, sections: Mapping[str, "type[Section]"]) -> type[Self]:
        """With sections in it by their names, each of which may be left out."""
        return cls.with_keys(
            **{name: (each, Field(default_factory=each)) for name, each in sections.items()}
        )

    @classmethod
    def with_keys(cls, **fields: Any) -> type[Self]:
        """A section with more keys, or with others in their place, each as pydantic takes it."""
        return create_model(cls.__name__, __base__=cls, __doc__=cls.__doc__, **fields)

    @classmethod
    def problems(cls, given: Mapping[str, Json]) -> Iterable[str]:  # noqa: ARG003
        """Messages on what is wrong between keys of this section, as they were given."""
        return ()

    @classmethod
    def idle(cls, given: Mapping[str, Json]) -> Mapping[str, str]:  # noqa: ARG003
        """Sections in this one that nothing reads with these values, each with why, in words."""
        return {}

    @classmethod
    def decides(cls, key: str) -> bool:
        """Whether a dotted key may decide a result: it is not declared as ``Execution``."""
        name, _, rest = key.partition(".")
        field = cls.model_fields.get(name)
        if field is None:  # of an earlier version
            return True
        inner = field.annotation
        if _NoResult in field.metadata:
            return False
        if rest and isinstance(inner, type) and issubclass(inner, Section):
            return inner.decides(rest)
        return True


S = TypeVar("S", bound=Section)


def matching(pattern: str, allowed: str) -> AfterValidator:
    """For text that has to match a pattern; ``allowed`` says in words what does."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"allowed is {allowed}")
        return text

    return AfterValidator(check)


SomeText = Annotated[str, Field(min_length=1)]
"""Text where an empty one would mean nothing; null leaves it out."""
LIKE_A_FOLDER = matching(
    "[A-Za-z0-9][A-Za-z0-9._-]*", "letters, digits, '.', '_' and '-', a letter or digit first"
)
"""For names that folders, files or columns are called by."""
Name = Annotated[str, Field(max_length=120), LIKE_A_FOLDER]
"""The name of a folder."""
