"""The token windows on which perplexity is measured while pruning, and their hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.data.datasets import (
    all_rows,
    cut_windows,
    dataset_rows,
    draw_places,
    numbered_rows,
    read_tokens,
    rows_until,
)
from pipeline.data.mixing import RowsInOrder
from pipeline.data.sources import TextSource
from pipeline.data.windows import not_in_vocabulary
from pipeline.errors import ConfigError, DamagedError
from pipeline.files import Json, encode, read_json, replace
from pipeline.models.source import ModelSource
from pipeline.models.tensors import read_tensors
from pipeline.scoring.perplexity import Windows

if TYPE_CHECKING:
    from pipeline.stages.calibrate import CalibrationConfig

TOKENS_FILE = "tokens.safetensors"
FACTS_FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration windows of both kinds, as ``calibrate`` stored them."""

    block: Windows
    width: Windows
    hashes: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Calibration":
        """What ``calibrate`` wrote into ``folder``. Raises ``DamagedError`` for other windows."""
        facts = read_json(folder / FACTS_FILE)
        tokens = read_tensors(folder / TOKENS_FILE)
        hashes = {kind: facts[kind]["sha256"] for kind in ("block", "width")}
        for kind, wanted in hashes.items():
            if kind not in tokens or digest_of_windows(tokens[kind], facts["eos_id"]) != wanted:
                raise DamagedError(folder / TOKENS_FILE, f"its {kind} windows are others")
        block, width = (Windows(tokens[kind], facts["eos_id"]) for kind in ("block", "width"))
        return cls(block, width, hashes)

    def of(self, kind: str) -> Windows:
        """The windows for blocks, or those for widths."""
        return {"block": self.block, "width": self.width}[kind]


def write(
    out_dir: Path,
    windows: Mapping[str, Tensor],
    eos_id: int | None,
    more: Mapping[str, Json] = MappingProxyType({}),
) -> Json:
    """Store windows by kind where ``Calibration.read`` finds them; their sizes and hashes.

    ``more`` is noted with them.
    """
    replace(out_dir / TOKENS_FILE, save({kind: w.contiguous() for kind, w in windows.items()}))
    facts: Json = {"eos_id": eos_id, **more}
    for kind, ids in windows.items():
        facts[kind] = {
            "windows": ids.shape[0],
            "seqlen": ids.shape[1],
            "sha256": digest_of_windows(ids, eos_id),
        }
    replace(out_dir / FACTS_FILE, encode(facts))
    return facts


def prepare(
    settings: "CalibrationConfig", source: ModelSource
) -> tuple[dict[str, Tensor], int | None]:
    """Windows ``{"block", "width"}``, each ``[windows, seqlen]``, and the id that does not count.

    What was prepared in this process and has not changed since is given again. Raises
    ``ConfigError`` where text, tokenizer or settings do not give what was asked for.
    """
    require_tokenizer(settings, source)
    files = [source.config_file, *source.tokenizer_files]
    paths = [settings.path, *(each.path for each in settings.sources.values())]
    files += [Path(path) for path in paths if path]
    versions = tuple(_version(path) for path in files)
    kind, given = type(settings), settings.model_dump_json()
    windows, eos_id = _prepared(kind, given, source, versions)
    return dict(windows), eos_id


def _version(path: Path) -> tuple[Path, int, int]:
    state = path.stat()
    return path.resolve(), state.st_size, state.st_mtime_ns


@lru_cache(maxsize=8)
def _prepared(
    section: "type[CalibrationConfig]",
    given: str,
    source: ModelSource,
    _versions: tuple[tuple[Path, int, int], ...],
) -> tuple[dict[str, Tensor], int | None]:
    settings = section.model_validate_json(given)
    path = Path(settings.path) if settings.path else None
    if settings.dataset == "tokens":
        assert path is not None
        windows, eos = read_tokens(path, source.vocabulary_size), source.eos_id
    elif settings.dataset == "mixed":
        windows, _ = _mixed(settings, source)
        eos = source.tokenizer.eos_token_id
    else:
        tokenizer = source.tokenizer
        rows = dataset_rows(settings.dataset, path, settings.field)
        places = _places(settings, len(rows))
        width, block = ([rows[place] for place in each] for each in places)
        windows = {
            kind: cut_windows(tokenizer, texts, settings.seqlen, most, source.beginning.window)
            for kind, texts, most in (
                ("block", block, settings.block_windows),
                ("width", width, settings.width_windows),
            )
        }
        eos = tokenizer.eos_token_id
    eos = eos or None  # the reference takes an id of 0 for none
    for kind, ids in windows.items():
        if problem := not_in_vocabulary(int(ids.max()), source.vocabulary_size):
            raise ConfigError([f"model.path: {problem}"])
        if eos is not None and bool(ids[:, 1:].eq(eos).all(dim=1).any()):
            raise ConfigError(
                [f"calibration: a {kind} window holds nothing but end-of-sequence tokens ({eos})"]
            )
    return windows, eos


def rows_read(settings: "CalibrationConfig", source: ModelSource) -> dict[str, frozenset[int]]:
    """Numbers of the rows that the windows are made of, in the whole file or dataset.

    By the name of the source; of a single one by that of the dataset.
    """
    if settings.dataset == "mixed":
        return _mixed(settings, source)[1]
    path = Path(settings.path) if settings.path else None
    rows = numbered_rows(settings.dataset, path, settings.field)
    numbers = list(rows)
    read: set[int] = set()
    begin = source.beginning.window
    most = (settings.width_windows, settings.block_windows)
    for places, windows in zip(_places(settings, len(numbers)), most, strict=True):
        drawn = [numbers[place] for place in places]
        texts = [rows[number] for number in drawn]
        wanted = None if windows is None else windows * (settings.seqlen - len(begin))
        read.update(drawn[: rows_until(source.tokenizer, texts, wanted, begin)])
    return {settings.dataset: frozenset(read)}


def texts_read(settings: "CalibrationConfig", source: ModelSource) -> list[str]:
    """The rows of Alpaca that the windows are made of; of other text none."""
    if settings.dataset == "mixed":
        alpaca = {n: s for n, s in settings.sources.items() if s.dataset == "alpaca"}
    else:
        one = settings.dataset == "alpaca"
        alpaca = {"alpaca": TextSource(dataset="alpaca", path=settings.path)} if one else {}
    if not alpaca:
        return []
    read = rows_read(settings, source)
    texts = []
    for name, text in alpaca.items():
        rows = all_rows("alpaca", Path(text.path) if text.path else None, text.field)
        texts += [rows[number] for number in read[name]]
    return texts


def _mixed(
    settings: "CalibrationConfig", source: ModelSource
) -> tuple[dict[str, Tensor], dict[str, frozenset[int]]]:
    """Windows of every source by its share, and the rows that they are made of."""
    windows: dict[str, list[Tensor]] = {"block": [], "width": []}
    read = {}
    counts = {
        "block": _shared_out(settings.block_windows or 0, settings.sources),
        "width": _shared_out(settings.width_windows or 0, settings.sources),
    }
    for name, text in settings.sources.items():
        path = Path(text.path) if text.path else None
        drawn = all_rows(text.dataset, path, text.field)
        begin = source.beginning.window
        rows = RowsInOrder(
            f"calibration.sources.{name}", drawn, settings.seed, source.tokenizer, begin=begin
        )
        for kind, of_sources in counts.items():
            count = of_sources[name]
            if count:
                tokens = count * settings.seqlen
                windows[kind].append(rows.windows(settings.seqlen, tokens, least=count))
        read[name] = frozenset(rows.read())
    return {kind: torch.cat(parts) for kind, parts in windows.items()}, read


def _shared_out(windows: int, sources: "Mapping[str, TextSource]") -> dict[str, int]:
    """How many of the windows each source has; what remains goes to the first ones."""
    shares = sum(source.share for source in sources.values())
    counts = {name: int(windows * source.share / shares) for name, source in sources.items()}
    for name in list(counts)[: windows - sum(counts.values())]:
        counts[name] += 1
    return counts


def _places(settings: "CalibrationConfig", rows: int) -> tuple[list[int], list[int]]:
    width, block = settings.width_samples, settings.block_samples
    if settings.dataset == "text":
        width, block = min(width, rows), min(block, rows)
    return draw_places(rows, width, block, settings.seed)


def require_tokenizer(settings: "CalibrationConfig", source: ModelSource) -> None:
    """Raise ``ConfigError`` where text is to be tokenised and the model has no tokenizer."""
    if settings.dataset != "tokens" and not source.tokenizer_files:
        raise ConfigError(
            [
                f"model.path: {source.folder} has no tokenizer; add its files there, or give "
                "ready token ids: calibration=tokens calibration.path=FILE.json"
            ]
        )


def digest_of_windows(ids: Tensor, eos_id: int | None) -> str:
    """Of the ids of windows ``[windows, seqlen]``, and of the id that does not count."""
    digest = hashlib.sha256(f"{tuple(ids.shape)} {eos_id}\n".encode())
    digest.update(ids.to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()
