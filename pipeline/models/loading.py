"""Loading weights, and the digest that stands for them in keys."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from pipeline.errors import StageError
from pipeline.files import encode, key_of, publish, read_json, sha256_of_file
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import ModelSource, fetch
from pipeline.pruning.state import PruningState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Offload = Literal["none", "cpu", "disk"]
"""Where the weights of blocks stay that are not on the device."""
CONFIG_KEYS_WITHOUT_EFFECT = (
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "architectures",
    "use_cache",
)


def load(
    source: ModelSource,
    dtype: str,
    device: str,
    attn_implementation: str,
    offload: Offload = "none",
) -> PrunableModel:
    """Load a model ready for pruning onto ``device`` ("cpu" or "cuda").

    The whole model is in CPU memory first, and one block twice while its weights go to where
    ``offload`` keeps them; with "disk" CPU memory is free of the blocks after that. On a CPU "cpu"
    changes nothing. Raises ``StageError`` where it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    fetch(source)
    try:
        with _quiet_transformers():
            model, info = AutoModelForCausalLM.from_pretrained(
                source.folder,
                dtype=DTYPES[dtype],
                attn_implementation=attn_implementation,
                use_safetensors=None if source.gguf_file else True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **source.keywords,
            )
        _check_loaded(source, info)
        return _placed(model, device, offload)
    except torch.OutOfMemoryError as error:
        raise StageError(
            f"the model does not fit on {device} in {dtype}; use model.dtype=bfloat16 or float16, "
            "model.offload=cpu, a larger device, or model.device=cpu"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise StageError(f"the model in {source.folder} cannot be loaded: {error}") from error


def _placed(model: "PreTrainedModel", device: str, offload: Offload) -> PrunableModel:
    if offload == "none" or (offload == "cpu" and device == "cpu"):
        return PrunableModel(model.to(device))
    prunable = PrunableModel(model)
    prunable.offload(torch.device(device), offload)
    return prunable


def _check_loaded(source: ModelSource, info: Mapping[str, Any]) -> None:
    """Raise ``StageError`` for weights that the files lack: transformers makes up random ones."""
    found = {
        "are missing from its files": sorted(info["missing_keys"]),
        "have another shape than its configuration says": sorted(
            entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]
        ),
        "are in its files and not in its architecture": sorted(info["unexpected_keys"]),
    }
    problems = [
        f"{len(names)} weights {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"  # noqa: PLR2004
        for what, names in found.items()
        if names
    ]
    if problems:
        raise StageError(f"the model in {source.folder} is not whole: {'; '.join(problems)}")


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" where there is a CUDA device, else into "cpu"."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def weights_digest(source: ModelSource, digests: "Digests") -> str:
    """What stands for a model's weights and architecture in keys, wherever the files are.

    A hub model is named by repository and commit; other files by their content.
    """
    if source.hub_commit:
        return f"hub:{source.hub_commit}"
    files = {path.name: digests.of(path) for path in source.weight_files}
    payload: dict[str, Any] = {"files": files}
    if not source.gguf_file:
        config = read_json(source.folder / "config.json")
        payload["config"] = {k: v for k, v in config.items() if k not in CONFIG_KEYS_WITHOUT_EFFECT}
    return f"files:{key_of(payload)}"


class Digests:
    """SHA-256 of files, remembered on disk while path, size and modification time stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """The digest of a file."""
        stat = path.stat()
        what = {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        entry = self.folder / f"{key_of(what)}.json"
        try:
            digest: str = read_json(entry)["sha256"]
        except FileNotFoundError:
            digest = sha256_of_file(path)
            self._new[entry] = encode({**what, "sha256": digest})
        return digest

    def save(self) -> None:
        """Remember the new ones."""
        for entry, text in self._new.items():
            publish(entry, text)


class LiveModel:
    """One model in memory, brought to whatever state is asked for.

    ``load`` gives a model, dense or pruned, that can still become the state that it is given.
    """

    def __init__(self, load: Callable[[PruningState], PrunableModel]) -> None:
        self.load = load
        self._model: PrunableModel | None = None

    def at(self, state: PruningState) -> PrunableModel:
        """The model in ``state``. What was removed comes back only by loading again."""
        if self._model is None or not self._model.state.can_become(state):
            self._model = None  # frees its memory before the next one is loaded
            self._model = self.load(state)
        self._model.prune_to(state)
        return self._model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' own progress bars and its notes on GGUF: ours say what goes on."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as transformers_logging

    gguf_bar = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = functools.partial(gguf_bar, disable=True)
    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = gguf_bar
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
