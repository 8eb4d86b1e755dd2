"""L1 norms of rows: MultiPruner's default (arXiv 2501.09949)."""

from pipeline.orders.base import Order

L1 = Order("l1", lambda block, _: block.row_norms(), is_stored=False)
