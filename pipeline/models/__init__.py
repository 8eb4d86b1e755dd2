"""Where a family keeps its blocks, loading, physical pruning. Only here projections have names."""
