"""GGUF files, read quickly: the package takes seconds for the lists of a tokenizer."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

LONG = 4096
"""Entries of a list that only tokenizers have."""


@contextmanager
def quick_gguf(*, tokens: bool) -> Iterator[None]:
    """Whoever reads a GGUF file meanwhile, transformers too, does it quickly.

    Without ``tokens`` the long lists, of tokens and merges, are empty; so is no list that says how
    large the vocabulary is.
    """
    import gguf

    original = gguf.GGUFReader
    gguf.GGUFReader = _readers()[tokens]
    try:
        yield
    finally:
        gguf.GGUFReader = original


def gguf_field(path: Path, key: str) -> Any:
    """What a GGUF file says of itself under a key, but for long lists; None where it does not."""
    field = _readers()[False](path).fields.get(key)
    return field.contents() if field else None


@cache
def _readers() -> dict[bool, Any]:
    """Readers of GGUF files, without the long lists and with them."""
    import numpy as np
    from gguf import GGUFReader, GGUFValueType

    class Reader(GGUFReader):  # type: ignore[misc]  # gguf has no types
        """Reads from a plain array: slices of numpy's memory maps take three times as long."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data: Any = np.asarray(mapped)

    class WithoutTokens(Reader):
        def _get_field_parts(self, offset: int, kind: int) -> Any:
            if kind == GGUFValueType.ARRAY and self.byte_order == "I":
                of, length = struct.unpack_from("<IQ", self._data, offset)
                if length >= LONG and any(name.endswith(".vocab_size") for name in self.fields):
                    size = self._size_of_list(GGUFValueType(of), length, offset + 12)
                    return 12 + size, [], [], [GGUFValueType.ARRAY, GGUFValueType(of)]
            return super()._get_field_parts(offset, kind)

        def _size_of_list(self, of: Any, length: int, start: int) -> int:
            """Bytes of a list's entries. Raises ``struct.error`` where the file ends before."""
            if of != GGUFValueType.STRING:
                return length * int(np.dtype(self.gguf_scalar_to_np[of]).itemsize)
            end, read_length, data = start, struct.Struct("<Q").unpack_from, memoryview(self._data)
            for _ in range(length):
                end += 8 + int(read_length(data, end)[0])
            return end - start

    return {False: WithoutTokens, True: Reader}
