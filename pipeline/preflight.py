"""Checks that need the world: files, the model's layout, folders. Writes nothing."""

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.files import is_file, is_folder
from pipeline.models.prunable import heads_of
from pipeline.models.source import ModelSource, locate
from pipeline.stages.calibrate import prepare, require_tokenizer


def check(config: Config) -> ModelSource:
    """Find the model and check the configuration against it and this machine.

    Raises ``ConfigError`` with every problem.
    """
    problems: list[str] = []

    def collect(part: Callable[[], list[str]]) -> None:
        try:
            problems.extend(part())
        except ConfigError as error:
            problems.extend(error.problems)

    located: list[ModelSource] = []
    model = config.model

    def find() -> list[str]:
        located.append(locate(model.path, model.gguf_file, model.revision, model.trust_remote_code))
        return []

    collect(find)
    collect(lambda: _device(config))
    collect(lambda: _folders(config))
    file_problems = _calibration_file(config)
    problems.extend(file_problems)
    if located:
        source = located[0]
        collect(lambda: _groups(config, source))
        if not file_problems:
            collect(lambda: _windows(config, source))
    if problems:
        raise ConfigError(problems)
    return located[0]


def _device(config: Config) -> list[str]:
    import torch

    if config.model.device == "cuda" and not torch.cuda.is_available():
        return ["model.device: cuda is asked for and there is no CUDA device; use auto or cpu"]
    return []


def _folders(config: Config) -> list[str]:
    problems = []
    for key, value in (
        ("store.dir", config.store.dir),
        ("run.dir", config.run.dir or "outputs/runs"),
    ):
        folder = Path(value).absolute()
        try:
            while not folder.exists():
                folder = folder.parent
        except OSError as error:
            problems.append(f"{key}: {value} cannot be made: {error.strerror}")
            continue
        if not folder.is_dir():
            problems.append(f"{key}: {value} cannot be made: {folder} is a file")
        elif not os.access(folder, os.W_OK | os.X_OK):
            problems.append(f"{key}: {value} cannot be written: no permission in {folder}")
    return problems


def _calibration_file(config: Config) -> list[str]:
    path = config.calibration.path
    if path is None or is_file(path):
        return []
    what = "is a folder, not a file" if is_folder(path) else "does not exist"
    return [f"calibration.path: {path} {what}"]


def _groups(config: Config, source: ModelSource) -> list[str]:
    prune, heads = config.prune, heads_of(source.config)
    attn_width, mlp_width = heads.query_heads * heads.head_dim, source.config.intermediate_size
    problems = []
    if prune.mlp_group_size >= mlp_width:
        problems.append(
            f"prune.mlp_group_size: {prune.mlp_group_size} is wrong; allowed is a number from "
            f"1 to {mlp_width - 1}: this model's MLPs have {mlp_width} channels"
        )
    if prune.attn_group_size % heads.granule or prune.attn_group_size > attn_width:
        problems.append(
            f"prune.attn_group_size: {prune.attn_group_size} is wrong; allowed is a multiple of "
            f"{heads.granule} up to {attn_width}: a key/value head of this model serves "
            f"{heads.query_heads // heads.key_value_heads} query heads of {heads.head_dim} channels"
        )
    return problems


def _windows(config: Config, source: ModelSource) -> list[str]:
    """The context length; and, for a local file, that it gives the windows asked for."""
    context = getattr(source.config, "max_position_embeddings", None)
    require_tokenizer(config.calibration, source)
    key, length = "calibration.seqlen", config.calibration.seqlen
    if config.calibration.path is not None:
        windows, _ = prepare(config.calibration, source)
        length = max(ids.shape[1] for ids in windows.values())
        if config.calibration.dataset == "tokens":
            key = "calibration.path"
    if context is not None and length > context:
        return [
            f"{key}: windows of {length} tokens are longer than the model's context; allowed is up "
            f"to {context}"
        ]
    return []
