"""Colours of pictures and pages: Okabe and Ito's, which colour-blind people can tell apart."""

from zlib import crc32

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
OTHERS = ("#cc79a7", "#b8860b", "#56b4e9", "#6a3d9a", "#a0522d")
"""For what has no colour of its own below."""
DIMENSIONS = {"blocks": BLUE, "mlp_channels": ORANGE, "heads": GREEN}
KINDS = {"attn": GREEN, "mlp": ORANGE}
"""Of blocks."""
GONE = BLUE
"""A whole block that went."""
KEPT = "#64748b"
GRID = "#e2e8f0"
INK = "#1e293b"
MUTED = "#64748b"
PLAIN_LINE = "#334155"
PREFILL, DECODE = "#6a3d9a", "#a0522d"
GROUPS = (BLUE, ORANGE, GREEN, "#cc79a7", "#b8860b", "#56b4e9", "#6a3d9a", "#334155")
"""Lines that are compared; where there are more, they come again with other marks."""
PUBLISHED = "#64748b"
RECOVERED = "#cc79a7"
TINT_SHARE = 0.14


def dimension(name: str) -> str:
    """The colour of a dimension; of one that no colour is set for, always the same other one."""
    return DIMENSIONS.get(name) or _other(name)


def kind(name: str) -> str:
    """The colour of a kind of block, or of what is cut from it."""
    return KINDS.get(name) or _other(name)


def group(place: int) -> str:
    """The colour of a line among those that are compared."""
    return GROUPS[place % len(GROUPS)]


def tint(colour: str) -> str:
    """The colour mixed with much white, for areas behind a curve."""
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * TINT_SHARE):02x}" for part in parts)


def _other(name: str) -> str:
    return OTHERS[crc32(name.encode()) % len(OTHERS)]
