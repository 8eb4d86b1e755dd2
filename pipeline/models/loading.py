"""Loading weights, and the one model in memory."""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from pipeline.errors import ConfigError, StageError
from pipeline.models.checks import WEIGHTS, one_line, other_head
from pipeline.models.gguf_reading import quick_gguf
from pipeline.models.modelling import opener
from pipeline.models.ordering import ChannelOrder, expert_order
from pipeline.models.prunable import PrunableModel
from pipeline.models.quiet import quiet_transformers
from pipeline.models.source import ModelSource, fetch
from pipeline.models.tensors import read_tensors, stored
from pipeline.models.variants import REORDERED, Lineage, Variant, dense_lineage
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import ExpertOrder, PruningState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Offload = Literal["none", "cpu", "disk"]
"""Where the weights of blocks stay that are not on the device."""


class Kept(Protocol):
    """Weights that take long to read, in safetensors from the second time on."""

    def find(self, file: Path, dtype: str) -> Path | None:
        """The folder with the weights of a file in a number format; None where there is none."""

    def keep(self, file: Path, dtype: str, write: Callable[[Path], None]) -> None:
        """Have ``write`` write them into the folder that it is given, and keep that."""


def load(
    source: ModelSource,
    dtype: str,
    device: str,
    attn_implementation: str,
    offload: Offload = "none",
    kept: Kept | None = None,
) -> PrunableModel:
    """Load a model ready for pruning onto ``device`` ("cpu" or "cuda").

    What a GGUF file holds is taken from ``kept`` where it is there, the same to the last bit.

    The whole model is in CPU memory first, and one block twice while its weights go to where
    ``offload`` keeps them; with "disk" CPU memory is free of the blocks after that. On a CPU "cpu"
    changes nothing. Raises ``StageError`` where it cannot be loaded.
    """
    fetch(source)
    try:
        how = {"dtype": DTYPES[dtype], "attn_implementation": attn_implementation}
        return _placed(_loaded(source, dtype, kept, how), device, offload)
    except torch.OutOfMemoryError as error:
        raise StageError(
            f"the model does not fit on {device} in {dtype}; use model.dtype=bfloat16 or float16, "
            "model.offload=cpu, a larger device, or model.device=cpu"
        ) from error
    except StageError:
        raise
    except Exception as error:  # as below
        raise StageError(
            f"the model in {source.folder} cannot be loaded: {one_line(error)}"
        ) from error


def _whole(
    source: ModelSource, how: Mapping[str, Any], folder: Path | None = None
) -> "PreTrainedModel":
    model, problems = _read(source, folder, **how)
    if problems:
        raise StageError(_not_whole(source, problems))
    return model


def _loaded(
    source: ModelSource, dtype: str, kept: Kept | None, how: Mapping[str, Any]
) -> "PreTrainedModel":
    """The whole model in CPU memory. A GGUF file takes long to read: what it holds is kept."""
    if not source.gguf_file:
        return _whole(source, how)
    if kept and (folder := kept.find(source.config_file, dtype)):
        return _whole(source, how, folder)
    with _without_gguf_bar(), quick_gguf(tokens=False):
        model = _whole(source, how)
    if kept:
        kept.keep(source.config_file, dtype, functools.partial(_write, model))
    return model


def _write(model: "PreTrainedModel", folder: Path) -> None:
    """A model's weights, a tied one once, its buffers, and how it generates."""
    from safetensors.torch import save_file

    save_file(stored(model), folder / WEIGHTS, metadata={"format": "pt"})
    assert model.generation_config is not None
    model.generation_config.save_pretrained(folder)


def _placed(model: "PreTrainedModel", device: str, offload: Offload) -> PrunableModel:
    if offload == "none" or (offload == "cpu" and device == "cpu"):
        return PrunableModel(model.to(device))
    prunable = PrunableModel(model)
    prunable.offload(torch.device(device), offload)
    return prunable


def incomplete(source: ModelSource) -> list[str]:
    """What keeps the weights in a local folder from being the model that its configuration says.

    Reads the headers of the files, as loading does, and no weights. Raises ``ConfigError`` where
    the model could not be loaded.
    """
    if source.gguf_file or source.hub_commit:
        return []
    try:
        model, problems = _read(source, device_map="meta")
        tied = model._tied_weights_keys if source.ties_embeddings else None
        if not problems and tied and (name := other_head(source.folder, tied)):
            problems = [
                f"its configuration says tie_word_embeddings, and {name} in its files is another "
                "than the embeddings: set it to false, or leave that weight out of the files"
            ]
    except Exception as error:  # whatever a wrong value leads transformers to
        raise ConfigError(
            [f"model.path: the model in {source.folder} cannot be loaded: {one_line(error)}"]
        ) from error
    return [f"model.path: {_not_whole(source, problems)}"] if problems else []


def _read(
    source: ModelSource, kept: Path | None = None, **how: Any
) -> tuple["PreTrainedModel", list[str]]:
    """The model as transformers loads it, and what of it the files lack: that is random.

    ``kept`` is a folder with its weights in safetensors, to be read in the place of its own files.
    """
    keywords = source.keywords
    if kept or not source.gguf_file:
        keywords = {"trust_remote_code": False, "use_safetensors": True}
    with quiet_transformers():
        model, info = opener(source.config).from_pretrained(
            kept or source.folder,
            config=source.config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **how,
            **keywords,
        )
    return model, list(_lacking(info))


def _lacking(info: Mapping[str, Any]) -> Iterator[str]:
    """What transformers would make up or leave out, in words."""
    wrong = {
        "are missing from its files": sorted(info["missing_keys"]),
        "have another shape than its configuration says": sorted(
            entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]
        ),
        "are in its files and not in its architecture": sorted(info["unexpected_keys"]),
    }
    for problem, names in wrong.items():
        if names:
            shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"  # noqa: PLR2004
            yield f"{len(names)} weights {problem}: {shown}"


def _not_whole(source: ModelSource, problems: Sequence[str]) -> str:
    return f"the model in {source.folder} is not whole: {'; '.join(problems)}"


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
    reorder: bool | ChannelOrder
    """Whether the most important channels and heads are put first: by L1 norms, or as they are
    given."""
    kept: Kept | None = None
    """Where weights are kept that take long to read."""

    def __call__(self, variant: Variant) -> PrunableModel:
        """The dense model, in order where ``variant`` is. Raises ``StageError``: not loadable."""
        model = load(
            self.source,
            self.dtype,
            self.device,
            self.attn_implementation,
            self.offload,
            self.kept,
        )
        if self.reorder and any(origin.how == REORDERED for origin in variant.base):
            model.reorder(self.reorder if isinstance(self.reorder, ChannelOrder) else None)
        return model

    def lineage(self, weights: str) -> Lineage:
        """How what it loads came about; ``weights`` is the digest of the model's files."""
        order = self.reorder
        reordered = order.digest if isinstance(order, ChannelOrder) else order
        return dense_lineage(weights, reordered=reordered)


class LiveModel:
    """One model in memory, brought to whatever variant is asked for.

    ``load`` gives a model that can still be cut to the variant that it is given. ``lineage`` is
    how the weights came about that are cut here. A pickled one takes no model along.
    """

    def __init__(
        self,
        load: Callable[[Variant], PrunableModel],
        lineage: Lineage = (),
        values: Mapping[str, Path] | None = None,
    ) -> None:
        self.load, self.lineage = load, lineage
        self.values = dict(values or {})
        """Files of the values that recovered weights have, by their digests."""
        self._model: PrunableModel | None = None
        self._twin: PrunableModel | None = None
        self._base: Lineage = ()
        self._values: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LiveModel, (self.load, self.lineage, self.values)

    @property
    def order(self) -> ChannelOrder | None:
        """The order that is stored with its run, in which its channels and experts stand."""
        reorder = self.load.reorder if isinstance(self.load, DenseLoader) else None
        return reorder if isinstance(reorder, ChannelOrder) else None

    def experts(self, shape: ModelShape) -> ExpertOrder:
        """By the layer of a mixture the place that each of its experts has in its files."""
        return expert_order(self.order, shape)

    def cut(self, state: PruningState) -> Variant:
        """This model's weights cut down to ``state``."""
        return Variant.cut(state, self.lineage)

    def at(self, variant: Variant) -> PrunableModel:
        """The model as ``variant``. What was removed or changed comes back only by loading again.

        Raises ``DamagedError`` where the file of a recovered one's values is not whole.
        """
        base = variant.before_recovery.base
        model = self._model
        is_near = self._base == base and self._values in (None, variant.values)
        if model is None or not is_near or not model.state.can_become(variant.state):
            self._model = model = None  # frees its memory before the next one is loaded
            self._model = model = self.load(variant.before_recovery)
            self._base, self._values = base, None
        model.prune_to(variant.state)
        if variant.values != self._values:
            assert variant.values
            model.put(read_tensors(self.values[variant.values]))
            self._values = variant.values
        return model

    def changed(self, how: str, variant: Variant, weights: Path, digest: str) -> Variant:
        """What ``variant`` became: ``weights`` has the values that differ from the cut model's."""
        self.values[digest] = weights
        return variant.recovered(how, digest)

    def forget(self) -> None:
        """Load anew whatever is asked for next: somebody changed the model that is in memory."""
        self._model = None

    def twin(self, variant: Variant) -> PrunableModel:
        """A second model as ``variant``, which stays in memory beside the first."""
        if self._twin is None:
            model = self._model
            is_here = model is not None and self._base == variant.base and self._values is None
            is_here = is_here and model is not None and model.state == variant.state
            self._twin = copy.deepcopy(model) if is_here else self.load(variant)
        assert self._twin is not None
        return self._twin

    def drop_twin(self) -> None:
        """Free the memory of the second model."""
        self._twin = None


@contextmanager
def _without_gguf_bar() -> Iterator[None]:
    """Without transformers' progress bar of GGUF, which has no switch: ours says what goes on."""
    from transformers import modeling_gguf_pytorch_utils

    bar = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
