"""Random states of tiny models of every family, pruned for good."""

from support_export import ids, packed

__all__ = ["ids", "packed"]
