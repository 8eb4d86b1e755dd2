"""Loading weights, and the one model in memory."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from pipeline.errors import StageError
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import ModelSource, fetch
from pipeline.models.variants import Lineage, Variant, dense_lineage
from pipeline.pruning.state import PruningState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Offload = Literal["none", "cpu", "disk"]
"""Where the weights of blocks stay that are not on the device."""


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
    wrong = {
        "are missing from its files": sorted(info["missing_keys"]),
        "have another shape than its configuration says": sorted(
            entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]
        ),
        "are in its files and not in its architecture": sorted(info["unexpected_keys"]),
    }
    problems = [
        f"{len(names)} weights {problem}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"  # noqa: PLR2004
        for problem, names in wrong.items()
        if names
    ]
    if problems:
        raise StageError(f"the model in {source.folder} is not whole: {'; '.join(problems)}")


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" where there is a CUDA device, else into "cpu"."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@dataclass(frozen=True, slots=True)
class DenseLoader:
    """Loads a model's own weights, from which every variant without other weights can be cut."""

    source: ModelSource
    dtype: str
    device: str
    attn_implementation: str
    offload: Offload
    reorder: bool
    """Whether the most important channels and heads are put first."""

    def __call__(self, _variant: Variant) -> PrunableModel:
        """The dense model. Raises ``StageError`` where it cannot be loaded."""
        model = load(self.source, self.dtype, self.device, self.attn_implementation, self.offload)
        if self.reorder:
            model.reorder()
        return model

    def lineage(self, weights: str) -> Lineage:
        """How what it loads came about; ``weights`` is the digest of the model's files."""
        return dense_lineage(weights, reordered=self.reorder)


class LiveModel:
    """One model in memory, brought to whatever variant is asked for.

    ``load`` gives a model that can still be cut to the variant that it is given. ``lineage`` is
    how the weights came about that are cut here. A pickled one takes no model along.
    """

    def __init__(self, load: Callable[[Variant], PrunableModel], lineage: Lineage = ()) -> None:
        self.load, self.lineage = load, lineage
        self._model: PrunableModel | None = None
        self._base: Lineage = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return LiveModel, (self.load, self.lineage)

    def cut(self, state: PruningState) -> Variant:
        """This model's weights cut down to ``state``."""
        return Variant.cut(state, self.lineage)

    def at(self, variant: Variant) -> PrunableModel:
        """The model as ``variant``. What was removed comes back only by loading again."""
        model = self._model
        is_near = model is not None and self._base == variant.base
        if model is None or not is_near or not model.state.can_become(variant.state):
            self._model = model = None  # frees its memory before the next one is loaded
            self._model = model = self.load(variant)
            self._base = variant.base
        model.prune_to(variant.state)
        return model


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
