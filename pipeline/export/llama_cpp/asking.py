"""Questions to llama.cpp, each answered by a process of its own: a file may end it."""

import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StageError
from pipeline.export.llama_cpp.engine import Engine, EngineError, Logits, why_not
from pipeline.measure.intervals import Interval

REFUSED = 3
"""Exit status where llama.cpp refuses, with its reason on standard error."""
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Speeds:
    """Tokens per second of several files, measured in turns: ``[files][rounds]``."""

    prefill: list[list[float]]
    decode: list[list[float]]


def available() -> bool:
    """Whether llama.cpp can be asked here; ``why_not`` of the engine says why not."""
    return why_not() is None


def logits(
    path: Path, windows: Sequence[Sequence[int]], *, one_by_one: int, threads: int
) -> Logits:
    """Of windows of equal length ``[windows, tokens, vocabulary]``, with a float32 cache.

    So many of the last tokens are decoded one by one. Raises ``StageError`` where llama.cpp does
    not open or run the file.
    """
    asked = {"windows": [list(map(int, ids)) for ids in windows], "one_by_one": one_by_one}
    found: Logits = _ask("logits", [path], threads, asked)["logits"]
    return found


def tokenized(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts, with what the model puts around each."""
    answered = _ask("tokenized", [path], 1, {"texts": list(texts)})
    ends = np.cumsum(answered["lengths"])
    return [ids.tolist() for ids in np.split(answered["ids"], ends[:-1])]


def generated(path: Path, ids: Sequence[int], tokens: int, *, threads: int) -> list[int]:
    """The most likely next token, so many times."""
    asked = {"ids": list(map(int, ids)), "tokens": tokens}
    found: list[int] = _ask("generated", [path], threads, asked)["ids"].tolist()
    return found


def speed(
    paths: Sequence[Path], *, threads: int, prompt_tokens: int, output_tokens: int, rounds: int
) -> Speeds:
    """Time files in turns, as llama.cpp runs them (float16 cache), all in one process.

    Each round gives each file one prefill of random ids and greedy decoding after it; every second
    round has the files in the other order. One round before those is not counted.
    """
    asked = {"prompt": prompt_tokens, "output": output_tokens, "rounds": rounds}
    answered = _ask("speed", paths, threads, asked)
    return Speeds(answered["prefill"].tolist(), answered["decode"].tolist())


def speed_up(before: Sequence[float], after: Sequence[float]) -> Interval:
    """How many times as fast ``after`` is, of rounds in which both were timed one after the other.

    The median of the rounds' ratios: what slows a whole round cancels.
    """
    return Interval.of([fast / slow for slow, fast in zip(before, after, strict=True)])


def _ask(question: str, paths: Sequence[Path], threads: int, values: Values) -> Values:
    if reason := why_not():
        raise StageError(f"llama.cpp cannot be asked: {reason}")
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch, "question.json"), Path(scratch, "answer.npz")
        whole = {
            "question": question, "paths": [str(path.absolute()) for path in paths],
            "threads": threads, "answer": str(answered), **values,
        }  # fmt: skip
        asked.write_text(json.dumps(whole), encoding="utf-8")
        command = [sys.executable, "-m", "pipeline.export.llama_cpp", str(asked)]
        done = subprocess.run(  # noqa: S603 - this module
            command, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise StageError(f"llama.cpp does not run {_names(paths)}: {_reason(done)}")
        with np.load(answered) as arrays:
            return dict(arrays)


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stderr.strip().splitlines() or ["it says nothing"]
    if done.returncode == REFUSED:
        return lines[-1]
    said = next((line for line in lines if "GGML_ASSERT" in line), lines[-1])
    if done.returncode < 0:
        return f"it was ended by {signal.Signals(-done.returncode).name}: {said}"
    return said


def answer(path: Path) -> int:
    """Answer a question that ``_ask`` wrote; the exit status."""
    asked = json.loads(path.read_text(encoding="utf-8"))
    kinds = {
        "logits": _logits, "tokenized": _tokenized, "generated": _generated, "speed": _speed,
    }  # fmt: skip
    try:
        found = kinds[asked["question"]]([Path(p) for p in asked["paths"]], asked)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    np.savez(asked["answer"], allow_pickle=False, **found)
    return 0


def _logits(paths: list[Path], asked: Values) -> dict[str, NDArray[Any]]:
    windows = asked["windows"]
    with Engine(paths[0], len(windows[0]), asked["threads"]) as engine:
        return {"logits": np.stack([engine.logits(ids, asked["one_by_one"]) for ids in windows])}


def _tokenized(paths: list[Path], asked: Values) -> dict[str, NDArray[Any]]:
    with Engine(paths[0], 32, asked["threads"]) as engine:
        found = [engine.tokenize(text) for text in asked["texts"]]
    ids = [token for tokens in found for token in tokens]
    return {"ids": np.array(ids, np.int64), "lengths": np.array([len(tokens) for tokens in found])}


def _generated(paths: list[Path], asked: Values) -> dict[str, NDArray[Any]]:
    ids, tokens = asked["ids"], asked["tokens"]
    with Engine(paths[0], len(ids) + tokens, asked["threads"]) as engine:
        return {"ids": np.array(engine.generate(ids, tokens))}


def _speed(paths: list[Path], asked: Values) -> dict[str, NDArray[Any]]:
    prompt, output, rounds = asked["prompt"], asked["output"], asked["rounds"]
    engines = [Engine(path, prompt + output, asked["threads"], "f16") for path in paths]
    vocabulary = min(engine.vocabulary for engine in engines)
    chosen = random.Random(0)  # noqa: S311 - nothing secret
    ids = [chosen.randrange(vocabulary) for _ in range(prompt)]
    times = np.zeros((2, len(engines), rounds))
    for turn in range(-1, rounds):
        order = list(enumerate(engines))
        for index, engine in order if turn % 2 else order[::-1]:
            seconds = engine.seconds(ids, output)
            if turn >= 0:
                times[:, index, turn] = seconds
    for engine in engines:
        engine.close()
    return {"prefill": prompt / times[0], "decode": output / times[1]}
