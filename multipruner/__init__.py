"""MultiPruner from Python: ``import multipruner``; see ``pipeline/api.py``."""

from pipeline.api import Comparison, Run, Sweep, compare, launch, open_run, open_sweep

__all__ = ["Comparison", "Run", "Sweep", "compare", "launch", "open_run", "open_sweep"]
