"""Runs against runs: which one to take. Reads local records only, and knows plain data only."""
