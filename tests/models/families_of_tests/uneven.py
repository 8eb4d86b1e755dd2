"""Llama with layers that differ: widths from transformers' per-layer configuration."""

from dataclasses import replace

from pipeline.models.families import llama

FAMILY = replace(llama.FAMILY, model_types=("uneven",))
