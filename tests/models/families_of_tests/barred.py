"""Phi-3, as if it could not lose heads."""

from dataclasses import replace

from pipeline.models.families import phi3
from pipeline.pruning.shape import BarredUnit

FAMILY = replace(
    phi3.FAMILY,
    barred=(
        BarredUnit(
            "attn_width",
            "its attention reads the number of heads from the configuration, one for all layers",
        ),
    ),
)
