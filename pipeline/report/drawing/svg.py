"""Drawings as SVG: inside a page, or as a file of its own."""

import re
from html import escape

from pipeline.report.drawing.shapes import (
    TEXT_SIZE,
    Attributes,
    Circle,
    Drawing,
    Group,
    Look,
    Path,
    Shape,
    Text,
)

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
NARROWEST, WIDEST = 0.7, 1.2
"""A page may scale a drawing so much, and its text with it."""


def svg_file(drawing: Drawing) -> str:
    """A whole file, which browsers and editors open."""
    size = f'width="{_short(drawing.width)}" height="{_short(drawing.height)}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {_root(drawing)}>'
        f"{''.join(_markup(shape, False) for shape in drawing.shapes)}</svg>\n"
    )


def svg_element(drawing: Drawing) -> str:
    """An element of a page, with the attributes that the page's script acts on."""
    limits = (
        f"min-width:{_short(drawing.width * NARROWEST)}px;"
        f"max-width:{_short(drawing.width * WIDEST)}px"
    )
    return (
        f'<svg {_root(drawing)} style="{limits}"{_attributes(drawing.attributes)}>'
        f"{''.join(_markup(shape, True) for shape in drawing.shapes)}</svg>"
    )


def svg_icon(drawing: Drawing) -> str:
    """A small element among words."""
    size = f'width="{_short(drawing.width)}" height="{_short(drawing.height)}"'
    return (
        f'<svg class="key" {size} aria-hidden="true">'
        f"{''.join(_markup(shape, False) for shape in drawing.shapes)}</svg>"
    )


def _root(drawing: Drawing) -> str:
    return (
        f'viewBox="0 0 {_short(drawing.width)} {_short(drawing.height)}" '
        f'font-family="{FONTS}" font-size="{_short(TEXT_SIZE)}"'
    )


def _markup(shape: Shape, for_page: bool) -> str:
    attributes = _attributes(shape.attributes) if for_page else ""
    match shape:
        case Path():
            return f'<path d="{_path(shape)}"{_look(shape.look)}{attributes}/>'
        case Circle():
            place = f'cx="{_short(shape.x)}" cy="{_short(shape.y)}" r="{_short(shape.radius)}"'
            return f"<circle {place}{_look(shape.look)}{attributes}/>"
        case Text():
            return f"<text{_text_attributes(shape)}{attributes}>{_escaped(shape.text)}</text>"
        case Group():
            if shape.hidden and not for_page:
                return ""
            if shape.place != (0.0, 0.0):
                x, y = map(_short, shape.place)
                attributes += f' transform="translate({x},{y})"'
            if shape.hidden:
                attributes += ' visibility="hidden"'
            return f"<g{attributes}>{''.join(_markup(s, for_page) for s in shape.shapes)}</g>"


def _path(path: Path) -> str:
    parts = []
    for points in path.parts:
        steps = [f"{_short(x)},{_short(y)}" for x, y in points]
        parts.append(f"M{'L'.join(steps)}{'z' if path.closed else ''}")
    return "".join(parts)


def _look(look: Look) -> str:
    text = f' fill="{look.fill or "none"}"'
    if look.stroke:
        text += f' stroke="{look.stroke}" stroke-width="{_short(look.width)}"'
        if look.dashes:
            text += f' stroke-dasharray="{" ".join(map(_short, look.dashes))}"'
        text += ' stroke-linejoin="round"'
        if look.round_caps:
            text += ' stroke-linecap="round"'
    return text if look.opacity == 1 else f'{text} opacity="{look.opacity:g}"'


def _text_attributes(text: Text) -> str:
    attributes = f' x="{_short(text.x)}" y="{_short(text.y)}" fill="{text.colour}"'
    if text.anchor != "start":
        attributes += f' text-anchor="{text.anchor}"'
    if text.size != TEXT_SIZE:
        attributes += f' font-size="{_short(text.size)}"'
    return f'{attributes} font-weight="600"' if text.bold else attributes


def _attributes(attributes: Attributes) -> str:
    return "".join(f' {name}="{_escaped(value)}"' for name, value in attributes.items())


def _escaped(text: str) -> str:
    """Without what XML has no place for; several spaces stay several."""
    spaced = UNPRINTABLE.sub("", text).replace("  ", "\u00a0 ")
    return escape(spaced).replace("\n", "&#10;")


def _short(value: float) -> str:
    """A tenth of a pixel is more than anybody sees."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
