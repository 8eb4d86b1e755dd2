"""MultiPruner experiments: prune a language model step by step, measure it, on one machine."""

__version__ = "0.1.0"
