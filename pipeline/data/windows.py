"""How token ids become windows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cut(
    ids: Sequence[int], seqlen: int, most: int | None = None, begin: Sequence[int] = ()
) -> "Tensor":
    """Full windows ``[windows, seqlen]`` of ids, ``most`` at most; what is left is dropped.

    Each begins with the ids ``begin``. None fits, and there is no window, where those fill it.
    """
    import torch

    room = seqlen - len(begin)
    count = len(ids) // room if room > 0 else 0
    count = count if most is None else min(count, most)
    windows = torch.tensor(ids[: count * room], dtype=torch.int64).view(count, max(room, 0))
    return torch.cat([torch.tensor(begin, dtype=torch.int64).expand(count, -1), windows], dim=1)


def not_in_vocabulary(highest: int, size: int) -> str | None:
    """Why a model with so many ids cannot read this one, the highest of a text; None if it can."""
    if highest < size:
        return None
    return (
        f"the tokenizer gives the id {highest}, which is not in the model's vocabulary of {size}: "
        "they do not belong together"
    )
