"""Sections of the configuration: their base, those that no stage owns, messages, secrets."""
