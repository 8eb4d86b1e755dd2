"""What recovery learns from: text of several sources, or instructions with answers."""
