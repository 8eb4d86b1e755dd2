"""Searches over states inside one run: what they propose, what they keep. No files, no model."""
