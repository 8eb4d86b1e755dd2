"""How a candidate is scored: one file for each criterion."""
