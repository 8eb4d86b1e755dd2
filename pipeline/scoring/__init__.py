"""Perplexity of every candidate. Knows a live model and tokens; no stages, no files, no jobs."""
