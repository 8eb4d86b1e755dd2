"""Random states of tiny models of every family, pruned for good."""

from support_export import golden, ids, packed

__all__ = ["golden", "ids", "packed"]
