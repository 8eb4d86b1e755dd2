"""The token windows on which perplexity is measured while pruning, and their hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from pipeline.data.datasets import cut_windows, dataset_rows, draw, read_tokens
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
            if kind not in tokens or _hash(tokens[kind], facts["eos_id"]) != wanted:
                raise DamagedError(folder / TOKENS_FILE, f"its {kind} windows are others")
        block, width = (Windows(tokens[kind], facts["eos_id"]) for kind in ("block", "width"))
        return cls(block, width, hashes)

    def of(self, kind: str) -> Windows:
        """The windows for blocks, or those for widths."""
        return {"block": self.block, "width": self.width}[kind]


def write(out_dir: Path, windows: Mapping[str, Tensor], eos_id: int | None) -> Json:
    """Store windows by kind where ``Calibration.read`` finds them; their sizes and hashes."""
    replace(out_dir / TOKENS_FILE, save({kind: w.contiguous() for kind, w in windows.items()}))
    facts: Json = {"eos_id": eos_id}
    for kind, ids in windows.items():
        facts[kind] = {
            "windows": ids.shape[0],
            "seqlen": ids.shape[1],
            "sha256": _hash(ids, eos_id),
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
    files += [Path(settings.path)] if settings.path else []
    versions = tuple(_version(path) for path in files)
    windows, eos_id = _prepared(settings, source, versions)
    return dict(windows), eos_id


def _version(path: Path) -> tuple[Path, int, int]:
    state = path.stat()
    return path.resolve(), state.st_size, state.st_mtime_ns


@lru_cache(maxsize=8)
def _prepared(
    settings: "CalibrationConfig", source: ModelSource, _versions: tuple[tuple[Path, int, int], ...]
) -> tuple[dict[str, Tensor], int | None]:
    path = Path(settings.path) if settings.path else None
    if settings.dataset == "tokens":
        assert path is not None
        windows, eos = read_tokens(path, source.vocabulary_size), source.eos_id
    else:
        tokenizer = source.tokenizer
        rows = dataset_rows(settings.dataset, path, settings.field)
        width_samples, block_samples = settings.width_samples, settings.block_samples
        if settings.dataset == "text":
            width_samples, block_samples = (
                min(n, len(rows)) for n in (width_samples, block_samples)
            )
        width, block = draw(rows, width_samples, block_samples, settings.seed)
        windows = {
            "block": cut_windows(tokenizer, block, settings.seqlen, settings.block_windows),
            "width": cut_windows(tokenizer, width, settings.seqlen, settings.width_windows),
        }
        eos = tokenizer.eos_token_id
    eos = eos or None  # the reference takes an id of 0 for none
    for kind, ids in windows.items():
        if int(ids.max()) >= source.vocabulary_size:
            raise ConfigError(
                [
                    f"model.path: the tokenizer gives the id {int(ids.max())}, which is not in the "
                    f"model's vocabulary of {source.vocabulary_size}: they do not belong together"
                ]
            )
        if eos is not None and bool(ids[:, 1:].eq(eos).all(dim=1).any()):
            raise ConfigError(
                [f"calibration: a {kind} window holds nothing but end-of-sequence tokens ({eos})"]
            )
    return windows, eos


def require_tokenizer(settings: "CalibrationConfig", source: ModelSource) -> None:
    """Raise ``ConfigError`` where text is to be tokenised and the model has no tokenizer."""
    if settings.dataset != "tokens" and not source.tokenizer_files:
        raise ConfigError(
            [
                f"model.path: {source.folder} has no tokenizer; add its files there, or give "
                "ready token ids: calibration=tokens calibration.path=FILE.json"
            ]
        )


def _hash(ids: Tensor, eos_id: int | None) -> str:
    digest = hashlib.sha256(f"{tuple(ids.shape)} {eos_id}\n".encode())
    digest.update(ids.to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()
