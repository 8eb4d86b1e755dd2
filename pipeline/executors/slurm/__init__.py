"""SLURM: all that asks it, parses it or speaks of it."""
