"""Figures as a page shows them: drawn for the width that they have there, below their headings."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report.charts import by_section
from pipeline.report.charts.base import Figure, Key, LayerMap, Scale, Section
from pipeline.report.drawing import draw
from pipeline.report.drawing.cells import rows_of_layers
from pipeline.report.drawing.marks import sample
from pipeline.report.drawing.shapes import Drawing
from pipeline.report.drawing.svg import svg_element

WIDTH, GAP = 1222.0, 28.0
"""Of a section on a wide screen, and between two figures; as page.css has it."""


@dataclass(frozen=True, slots=True)
class ShownKey:
    """An entry of a legend."""

    sample: Drawing
    label: str


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """One figure with the words around it."""

    title: str
    subtitle: str
    label: str
    svg: str
    keys: list[ShownKey]
    notes: list[str]
    scale: Scale
    is_hidden: bool
    """Until somebody chooses its scale."""
    is_wide: bool
    """Whether it has a row of its own."""


@dataclass(frozen=True, slots=True)
class ShownSection:
    """Figures below one heading."""

    section: Section
    keys: list[ShownKey]
    figures: list[ShownFigure]
    columns: str
    """As CSS writes them."""

    @property
    def has_scales(self) -> bool:
        """Whether there is something to choose."""
        return any(figure.scale != "both" for figure in self.figures)


def shown(figures: Iterable[Figure]) -> list[ShownSection]:
    """All figures, drawn."""
    return [_section(section, members) for section, members in by_section(figures)]


def _section(section: Section, figures: list[Figure]) -> ShownSection:
    keys = dict.fromkeys(key for figure in figures for key in figure.keys)
    relative = {figure.title for figure in figures if figure.scale == "relative"}
    weights = [1.0] * section.columns or [figure.weight for figure in figures]
    free = WIDTH - GAP * (len(weights) - 1)
    drawn = []
    for place, figure in enumerate(figures):
        # of two columns, a figure that is alone in the last row gets both
        alone = section.columns == 2 and place % 2 == 0 and figure is figures[-1]  # noqa: PLR2004
        share = weights[place % len(weights)] / sum(weights)
        width = WIDTH if alone else free * share
        drawn.append(_figure(figure, width, figure.title in relative, alone))
    columns = " ".join(f"minmax(0, {weight:g}fr)" for weight in weights)
    return ShownSection(section, _keys(keys), drawn, columns)


def _figure(figure: Figure, width: float, has_choice: bool, is_wide: bool) -> ShownFigure:
    rows = rows_of_layers(figure, width) if isinstance(figure, LayerMap) else 1
    return ShownFigure(
        title=figure.title,
        subtitle=figure.subtitle,
        label=figure.label,
        svg=svg_element(draw(figure, width, figure.section.height * rows)),
        keys=_keys(figure.own_keys),
        notes=[note for note in figure.notes if note],
        scale=figure.scale if has_choice else "both",
        is_hidden=has_choice and figure.scale == "absolute",
        is_wide=is_wide,
    )


def _keys(keys: Iterable[Key]) -> list[ShownKey]:
    return [ShownKey(sample(key), key.label) for key in keys]
