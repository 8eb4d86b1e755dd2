"""The most memory that tensors take at one time, where the device does not count it itself."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside, as PyTorch does on a GPU.

    What kernels and the interpreter take beside them is not told.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        """Bytes at one time, at most."""
        self._now = 0
        self._known: dict[int, weakref.ref[UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for each in tree_leaves((args, kwargs)):
            self._see(each, is_new=False)
        made = func(*args, **kwargs)
        for each in tree_leaves(made):
            self._see(each, is_new=True)
        return made

    def _see(self, value: object, *, is_new: bool) -> None:
        """Count a tensor's memory once; that of one from before is not counted."""
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if id(storage) in self._known:
            return
        key, size = id(storage), storage.nbytes() if is_new else 0

        def freed(_: object) -> None:
            del self._known[key]
            self._now -= size

        self._known[key] = weakref.ref(storage, freed)
        self._now += size
        self.most = max(self.most, self._now)
