"""Models that open elsewhere, without this project."""
