"""Models: where a family keeps its blocks, loading, physical pruning. Nothing outside names a projection."""
