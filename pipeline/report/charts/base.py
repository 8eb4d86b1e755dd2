"""What a chart is. Data only: `pipeline.report.drawing` turns it into a picture or a page."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.report.compare.comparison import Comparison
    from pipeline.report.data import RunReport

Shape = Literal["circle", "square", "triangle", "triangle-down", "diamond", "cross", "ring"]
Dash = Literal["solid", "dashed", "dotted", "dash-dotted"]
Scale = Literal["relative", "absolute", "both"]

LOGARITHMIC_FROM = 20.0
"""Values that differ by this factor or more are drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands for one point."""

    colour: str
    shape: Shape = "circle"
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Stroke:
    """How a line is drawn."""

    colour: str
    dash: Dash = "solid"


@dataclass(frozen=True, slots=True)
class Area:
    """How an area is filled."""

    fill: str
    edge: str
    hatched: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: an area, a line, a marker, or a line with a marker on it."""

    label: str
    stroke: Stroke | None = None
    marker: Marker | None = None
    area: Area | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis."""

    title: str
    logarithmic: bool = False
    whole: bool = False
    """Whether only whole numbers have a tick, e.g. layers; half a step of room is left around."""
    names: tuple[str, ...] = ()
    """Of a whole axis: what stands at 0, 1, 2, ... in the place of numbers."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value."""

    x: float
    y: float
    tip: str
    """Everything to say when a reader points at it."""
    interval: tuple[float, float] | None = None
    """From where to where the true value may be, e.g. one standard error down and up."""
    marker: Marker | None = None
    """Where it differs from its line's."""
    ringed: bool = False
    """Whether a ring around it singles it out."""
    reach: tuple[float, float] | None = None
    """From where to where the true ``x`` may be."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points that are joined."""

    points: tuple[Point, ...]
    stroke: Stroke
    marker: Marker
    name: str = ""
    shaded: bool = False
    """Whether intervals are one area along the line; else every point has an error bar."""


@dataclass(frozen=True, slots=True)
class Stem:
    """A marker on a line that starts at a base value."""

    x: float
    base: float
    y: float | None
    """None where there is no number."""
    marker: Marker
    tip: str
    off_scale: bool = False
    """Whether the value lies beyond ``y``, where the axis ends."""


@dataclass(frozen=True, slots=True)
class Level:
    """A dashed horizontal line, e.g. what the dense model has."""

    value: float
    start: float | None = None
    """From here on; None for the whole width."""
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """A coloured stretch of the horizontal axis behind everything."""

    start: float
    end: float
    colour: str


@dataclass(frozen=True, slots=True)
class Section:
    """Charts below one heading, and how large they are. Lengths are in CSS pixels."""

    name: str
    title: str
    order: int
    columns: int
    """Charts side by side on a page; 0 for all of them, as wide as their weights say."""
    height: int
    """Of one chart on a page."""
    picture_columns: int
    picture_height: int
    """Of one row of charts in a picture, with captions and notes."""
    lead: str = ""
    """A sentence below the heading."""
    foot: str = ""
    """A sentence below the charts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines or stems over a horizontal axis."""

    section: Section
    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    stems: tuple[Stem, ...] = ()
    levels: tuple[Level, ...] = ()
    bands: tuple[Band, ...] = ()
    fronts: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Broad faint lines through points that no other point beats."""
    own_keys: tuple[Key, ...] = ()
    """Legend beside the chart's title."""
    keys: tuple[Key, ...] = ()
    """Legend of the section; what several charts name appears once."""
    notes: tuple[str, ...] = ()
    """Small print below the chart."""
    scale: Scale = "both"
    """Whether values are relative to the dense model's or plain ones; "both" without a choice."""
    weight: float = 1.0
    """Width among the charts of a section that share a row."""
    order: int = 100
    """Place in the section."""

    @property
    def subtitle(self) -> str:
        """The vertical axis in words; empty where the title says it."""
        words = [] if self.y.title in self.title.lower() else [self.y.title]
        return ", ".join([*words, *(["logarithmic"] if self.y.logarithmic else [])])

    @property
    def label(self) -> str:
        """The chart in words, for readers who do not see it."""
        return f"{self.title} over {self.x.title}"


@dataclass(frozen=True, slots=True)
class CellState:
    """How a block looks after some of the steps."""

    start: int
    """After so many steps it looks like this."""
    end: int | None
    """After so many no longer; None where it stays so."""
    kept_share: float
    """Share of the channels that is left; 0 where the block is gone."""
    lost: str | None
    """Colour of what took something away; None where all is there."""
    text: str
    tip: str

    @property
    def is_gone(self) -> bool:
        """Whether the whole block went."""
        return self.kept_share == 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One block of one layer."""

    row: int
    column: int
    states: tuple[CellState, ...]
    """In the order of the steps; the last is where the run ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMap:
    """What is left of the blocks of every layer: a row for each kind of block."""

    section: Section
    title: str
    columns: int
    """Layers."""
    rows: Mapping[str, float]
    """Share of the height by the row's name."""
    cells: tuple[Cell, ...]
    compact: bool = False
    """Whether cells are too small for text."""
    colour: str | None = None
    """What the map belongs to, e.g. a line of other charts."""
    subtitle: str = ""
    keys: tuple[Key, ...] = ()
    own_keys: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()
    weight: float = 1.0
    order: int = 100
    scale: Scale = "both"

    @property
    def label(self) -> str:
        """The map in words, for readers who do not see it."""
        return f"{self.title} {self.subtitle}: what is left of every layer".strip()


Figure = Chart | LayerMap


@dataclass(frozen=True, slots=True)
class Source:
    """What a file of this folder hands out as ``CHART``: figures of one run, and of several.

    A figure that there is no data for is left out.
    """

    of_run: "Callable[[RunReport], Iterable[Figure]] | None" = None
    of_comparison: "Callable[[Comparison], Iterable[Figure]] | None" = None


def is_logarithmic(values: Iterable[float]) -> bool:
    """Whether values need a logarithmic axis to be told apart."""
    known = list(values)
    return bool(known) and min(known) > 0 and max(known) / min(known) >= LOGARITHMIC_FROM
