"""What stands for a model's files in keys, wherever the files are."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.files import key_of, read_json
from pipeline.models.source import ModelSource

Digest = Callable[[Path], str]
"""SHA-256 of a file's content."""

CONFIG_KEYS_WITHOUT_EFFECT = (
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "architectures",
    "use_cache",
)


def weights_digest(source: ModelSource, digest: Digest) -> str:
    """What stands for a model's weights and architecture.

    A hub model is named by repository and commit; other files by their content.
    """
    if source.hub_commit:
        return f"hub:{source.hub_commit}"
    with ThreadPoolExecutor() as pool:
        digests = pool.map(digest, source.weight_files)
    names = (path.name for path in source.weight_files)
    payload: dict[str, Any] = {"files": dict(zip(names, digests, strict=True))}
    if not source.gguf_file:
        config = read_json(source.folder / "config.json")
        payload["config"] = {k: v for k, v in config.items() if k not in CONFIG_KEYS_WITHOUT_EFFECT}
    return f"files:{key_of(payload)}"


def tokenizer_digest(source: ModelSource, digest: Digest) -> str:
    """What stands for the files that decide how text becomes tokens."""
    return key_of({path.name: digest(path) for path in source.tokenizer_files})


def bos_recipe(source: ModelSource) -> dict[str, str]:
    """What decides how text begins, for recipes; nothing where the tokenizer's files say it all."""
    return {"bos": rule} if (rule := source.bos_rule) else {}
