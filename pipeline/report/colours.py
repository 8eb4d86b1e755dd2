"""Colours of picture and page: Okabe and Ito's, which colour-blind people can tell apart."""

DIMENSIONS = {"blocks": "#0072b2", "mlp_channels": "#d55e00", "heads": "#009e73"}
TINTS = {"blocks": "#dcebf5", "mlp_channels": "#fbe7d9", "heads": "#d9f0e9"}
"""The same, for areas behind a curve."""
MARKS = {
    "importance": "#334155",
    "perplexity": "#334155",
    "accuracy": "#334155",
    "prefill": "#6a3d9a",
    "decode": "#a0522d",
}
UNITS = {"attn": "#009e73", "mlp": "#d55e00", "attn_width": "#009e73", "mlp_width": "#d55e00"}
KEPT = "#64748b"
GRID = "#e2e8f0"
INK = "#1e293b"
MUTED = "#64748b"
GROUPS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a3d9a", "#334155",
)  # fmt: skip
"""Lines that are compared; where there are more, they come again with other marks."""
PUBLISHED = "#64748b"
