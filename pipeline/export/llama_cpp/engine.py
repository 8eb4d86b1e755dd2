"""llama.cpp in this process: the C functions of the ``xllamacpp`` package, by ctypes.

A file that it cannot run may end the process: what others rely on goes through ``asking``, which
has one for it. No torch here, so that it starts at once.
"""

import ctypes
import importlib.metadata
import importlib.util
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "xllamacpp"
CHECKED = {"2026.10.11549"}
"""Versions whose structures were compared with ``CONTEXT`` and ``BATCH``."""
INSTALL = f"pip install {PACKAGE}=={max(CHECKED)}"

CONTEXT: dict[str, tuple[int, Any, float]] = {
    "n_ctx": (0, ctypes.c_uint32, 512),
    "n_batch": (4, ctypes.c_uint32, 2048),
    "n_ubatch": (8, ctypes.c_uint32, 512),
    "n_seq_max": (12, ctypes.c_uint32, 1),
    "n_outputs_max_per_seq": (24, ctypes.c_uint32, 1),
    "n_threads": (28, ctypes.c_int32, 4),
    "n_threads_batch": (32, ctypes.c_int32, 4),
    "rope_scaling_type": (40, ctypes.c_int32, -1),
    "flash_attn_type": (52, ctypes.c_int32, -1),
    "yarn_ext_factor": (64, ctypes.c_float, -1.0),
    "defrag_thold": (84, ctypes.c_float, -1.0),
    "type_k": (104, ctypes.c_int32, 1),
    "type_v": (108, ctypes.c_int32, 1),
}
"""Fields of ``llama_context_params``: where, what, and the default that must be found there."""
STRUCTURE_BYTES = 512
"""More than any of llama.cpp's structures has: what is passed beyond their end is not looked at."""
CACHE_TYPES = {"f32": 0, "f16": 1}
NO_FLASH_ATTENTION = 0
LOG_LEVEL_ERROR = 4
LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

Logits = NDArray[np.float32]


class EngineError(Exception):
    """llama.cpp cannot do what is asked of it; the message is its own."""


class _Structure(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * STRUCTURE_BYTES),)

    def at(self, name: str) -> Any:
        """A field of the context's parameters, to read from and write to."""
        offset, kind, _ = CONTEXT[name]
        return kind.from_buffer(self, offset)


class _Batch(ctypes.Structure):
    """``llama_batch``: what is null is filled in by llama.cpp."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


def why_not() -> str | None:
    """Why llama.cpp cannot be asked here, in words; None where it can."""
    if importlib.util.find_spec(PACKAGE) is None:
        return f"the package {PACKAGE} is not installed ({INSTALL})"
    version = importlib.metadata.version(PACKAGE)
    if version not in CHECKED:
        return f"{PACKAGE} {version} was not tried with this project ({INSTALL})"
    return None


class _Library:
    """The functions that are used, with their types."""

    def __init__(self) -> None:
        if reason := why_not():
            raise EngineError(reason)
        self.errors: list[str] = []
        self.notes: list[str] = []
        spec = importlib.util.find_spec(PACKAGE)
        assert spec
        assert spec.submodule_search_locations
        (path,) = Path(spec.submodule_search_locations[0]).glob(f"{PACKAGE}*.so")
        self._c = ctypes.CDLL(str(path))
        self._log = LOG_CALLBACK(self._hear)
        self.call("llama_log_set", None, self._log, None)
        self.call("llama_backend_init", None)
        self._check_structures()

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call a function. Pointers are given as ``c_void_p``, structures as themselves."""
        function = self._c[name]
        function.restype = result
        return function(*arguments)

    def context_parameters(self) -> _Structure:
        """The defaults."""
        found = self.call("llama_context_default_params", _Structure)
        assert isinstance(found, _Structure)
        return found

    def _hear(self, level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == LOG_LEVEL_ERROR:
            self.errors.append(line)
        elif line:
            self.notes.append(line)

    def _check_structures(self) -> None:
        defaults = self.context_parameters()
        wrong = [n for n, (_, _, value) in CONTEXT.items() if defaults.at(n).value != value]
        tokens = (ctypes.c_int32 * 2)(5, 6)
        batch = self.call("llama_batch_get_one", _Batch, tokens, ctypes.c_int32(2))
        given = ctypes.addressof(tokens), 2
        if (ctypes.addressof(batch.token.contents), batch.n_tokens) != given or batch.logits:
            wrong.append("llama_batch")
        if wrong:
            raise EngineError(f"{PACKAGE} lays out {wrong[0]} otherwise than its version says")


@cache
def _library() -> _Library:
    return _Library()


class Engine:
    """A GGUF file, open, with a context of so many tokens. On the CPU alone."""

    def __init__(self, path: Path, context_tokens: int, threads: int, cache: str = "f32") -> None:
        self._lib = lib = _library()
        lib.errors.clear()
        lib.notes.clear()
        self._context = ctypes.c_void_p()
        parameters = lib.call("llama_model_default_params", _Structure)
        name = str(path).encode()
        self._model = self._opened("llama_model_load_from_file", ctypes.c_char_p(name), parameters)
        given = lib.context_parameters()
        wanted = {
            "n_ctx": context_tokens, "n_batch": context_tokens, "n_ubatch": context_tokens,
            "n_outputs_max_per_seq": context_tokens,
            "n_threads": threads, "n_threads_batch": threads,
            "type_k": CACHE_TYPES[cache], "type_v": CACHE_TYPES[cache],
        }  # fmt: skip
        if cache == "f32":  # to compare with: attention in float32 throughout
            wanted["flash_attn_type"] = NO_FLASH_ATTENTION
        for field, value in wanted.items():
            given.at(field).value = value
        self._context = self._opened("llama_init_from_model", self._model, given)
        self._check_context(wanted, cache)
        self._vocab = self._pointer("llama_model_get_vocab", self._model)
        self.vocabulary = int(lib.call("llama_vocab_n_tokens", ctypes.c_int32, self._vocab))

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        if self._context:
            self._lib.call("llama_free", None, self._context)
        if self._model:
            self._lib.call("llama_model_free", None, self._model)
        self._context, self._model = ctypes.c_void_p(), ctypes.c_void_p()

    def logits(self, ids: Sequence[int], one_by_one: int = 0) -> Logits:
        """Of one sequence ``[tokens, vocabulary]``; so many of its last tokens from the cache."""
        self._forget()
        start = max(1, len(ids) - one_by_one)
        self._decode(ids[:start], every=True)
        rows = [self._last(index) for index in range(start)]
        for token in ids[start:]:
            self._decode([token])
            rows.append(self._last())
        return np.stack(rows)

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """The most likely next token, so many times, whatever ends a text."""
        self._forget()
        made: list[int] = []
        self._decode(ids)
        while True:
            made.append(int(self._last().argmax()))
            if len(made) == tokens:
                return made
            self._decode(made[-1:])

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; ``special``: with what the model puts around every text.

        Special tokens that stand in the text count as such.
        """
        data = text.encode("utf-8")
        room = len(data) + 16
        ids = (ctypes.c_int32 * room)()
        length = ctypes.c_int32(len(data))
        flags = ctypes.c_bool(special), ctypes.c_bool(True)
        found = self._lib.call(
            "llama_tokenize", ctypes.c_int32, self._vocab, ctypes.c_char_p(data), length, ids,
            ctypes.c_int32(room), *flags,
        )  # fmt: skip
        if found < 0:
            raise EngineError(f"a text of {len(data)} bytes became {-found} tokens")
        return list(ids[:found])

    def seconds(self, prompt: Sequence[int], output_tokens: int) -> tuple[float, float]:
        """Time of one pass over the prompt, and of decoding so many tokens after it."""
        self._forget()
        start = time.perf_counter()
        self._decode(prompt)
        token = int(self._last().argmax())
        between = time.perf_counter()
        for _ in range(output_tokens):
            self._decode([token])
            token = int(self._last().argmax())
        return between - start, time.perf_counter() - between

    def _decode(self, ids: Sequence[int], *, every: bool = False) -> None:
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        flags = (ctypes.c_int8 * len(ids))(*(int(every or i == len(ids) - 1)
                                             for i in range(len(ids))))  # fmt: skip
        batch = _Batch(len(ids), tokens, None, None, None, None, flags)
        status = self._lib.call("llama_decode", ctypes.c_int32, self._context, batch)
        if status:
            raise EngineError(self._said(f"llama_decode returned {status}"))

    def _last(self, index: int = -1) -> Logits:
        row = self._lib.call(
            "llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), self._context,
            ctypes.c_int32(index),
        )  # fmt: skip
        if not row:
            raise EngineError(self._said("llama.cpp has no logits"))
        return np.ctypeslib.as_array(row, (self.vocabulary,)).copy()

    def _forget(self) -> None:
        memory = self._pointer("llama_get_memory", self._context)
        if memory:
            self._lib.call("llama_memory_clear", None, memory, ctypes.c_bool(True))

    def _opened(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        found = self._pointer(name, *arguments)
        if not found:
            self.close()
            raise EngineError(self._said("llama.cpp does not open the file"))
        return found

    def _pointer(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._lib.call(name, ctypes.c_void_p, *arguments))

    def _said(self, otherwise: str) -> str:
        return self._lib.errors[0] if self._lib.errors else otherwise

    def _check_context(self, wanted: dict[str, int], cache: str) -> None:
        """That llama.cpp took the parameters for what they are."""
        for name in ("n_batch", "n_ubatch", "n_threads", "n_threads_batch"):
            found = self._lib.call(f"llama_{name}", ctypes.c_int32, self._context)
            if found != wanted[name]:
                raise EngineError(f"llama.cpp took {name}={wanted[name]} for {found}")
        kinds = [note for note in self._lib.notes if "KV buffer size" not in note and "K (" in note]
        if not kinds or f"K ({cache})" not in kinds[-1] or f"V ({cache})" not in kinds[-1]:
            raise EngineError(f"llama.cpp did not take a {cache} cache: {kinds[-1:]}")
