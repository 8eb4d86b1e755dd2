"""Whether a model's files are what they say. Reads no weights, but to compare two of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.files import Json, is_file
from pipeline.given import file_problem, read_object
from pipeline.models.families import family_of
from pipeline.models.unsupported import (
    QUANTISED,
    a_gguf_file,
    adapter,
    no_safetensors,
    quantised,
    unknown_architecture,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from pipeline.models.families.base import Family

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OBJECTS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
"""JSON files that a folder may have: each holds an object."""
WEIGHT_FORMATS = ("F64", "F32", "F16", "BF16")
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
"""Values of ``config.json`` that count something."""
MOST = {"num_hidden_layers": 1000, "hidden_size": 1_000_000, "head_dim": 100_000}
"""Of more no model can be made in our time, not even one without weights."""


def check_folder(folder: Path, *, has_weights: bool) -> None:
    """Raise ``ConfigError`` for files of a model that are not what their names say.

    ``has_weights`` says whether the weights are there, too, as in every folder of the user's.
    """
    path = folder / "config.json"
    if problem := adapter(folder):
        raise ConfigError([f"model.path: {problem}"])
    if not is_file(path):
        problem = file_problem(path)
        said = (
            "has no config.json"
            if problem == "does not exist"
            else f"has a config.json that {problem}"
        )
        raise ConfigError([f"model.path: {folder} {said}; {a_gguf_file(folder)}"])
    values = _of_model(path)
    if not isinstance(values.get("model_type"), str):
        raise ConfigError([f"model.path: {path} names no model_type"])
    if problem := unknown_architecture(values["model_type"], values):
        raise ConfigError([f"model.path: {problem}"])
    family = family_of(values["model_type"])
    if problem := _quantised(values, family, folder):
        raise ConfigError([f"model.path: {path}: {problem}"])  # its weights are no longer judged
    problems = [f"{path}: {problem}" for problem in _wrong_values(values, family)]
    for name in OBJECTS:
        if is_there(folder / name):
            problems += _problems_of(folder / name)
    if has_weights:
        problems += _weight_files(folder)
    if problems:
        raise ConfigError([f"model.path: {problem}" for problem in problems])


def is_there(path: Path) -> bool:
    """Whether there is anything of this name: also what cannot be read."""
    return path.is_symlink() or path.exists()


def _of_model(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except ConfigError as error:
        raise ConfigError([f"model.path: {problem}" for problem in error.problems]) from error


def _problems_of(path: Path) -> tuple[str, ...]:
    try:
        read_object(path)
    except ConfigError as error:
        return error.problems
    return ()


def _quantised(values: Mapping[str, Json], family: "Family", folder: Path) -> str | None:
    nested: Json = values.get(family.text_config) if family.text_config else {}
    for stated in (values, nested if isinstance(nested, Mapping) else {}):
        for key in QUANTISED:
            if stated.get(key) is not None:
                return quantised(key, stated[key], folder)
    return None


def _wrong_values(values: Mapping[str, Json], family: "Family") -> Iterator[str]:
    """Values that transformers would take, and no model can be made of, or not in our time."""
    nested: Json = values.get(family.text_config) if family.text_config else values
    if not isinstance(nested, Mapping):
        return
    for key in SIZES:
        size, most = nested.get(key), MOST.get(key)
        if type(size) is int and (size < 1 or (most and size > most)):
            allowed = f"from 1 to {most}" if most else "of at least 1"
            yield f"{key} is {size}; allowed is a whole number {allowed}"
    if "rope_theta" in nested:
        yield from _wrong_theta(nested["rope_theta"])
    epsilon: Json = nested.get("rms_norm_eps")
    if _is_number(epsilon) and epsilon < 0:
        yield f"rms_norm_eps is {epsilon}; allowed is a number of at least 0"


def check_config(config: "PretrainedConfig", family: "Family") -> list[str]:
    """What is wrong with values that transformers reads, and would stumble over later or never."""
    from transformers.activations import ACT2FN

    text = family.text(config)
    problems = []
    vocabulary = family.vocabulary_size(config)
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        given = getattr(text, key, None)
        ids = given if isinstance(given, list) else [given]
        least = -1 if key == "pad_token_id" else 0  # models of 2023 have -1 for none
        if not ids or any(
            i is not None and (type(i) is not int or not least <= i < vocabulary) for i in ids
        ):
            problems.append(
                f"{key} is {given}, and the model's vocabulary has the ids 0 to {vocabulary - 1}"
            )
    activation = getattr(text, "hidden_act", None)
    if activation is not None and activation not in ACT2FN:
        problems.append(f"hidden_act is {activation!r}; known are {', '.join(sorted(ACT2FN))}")
    return problems + list(_wrong_rope(getattr(text, "rope_parameters", None)))


def _wrong_rope(given: Json) -> Iterator[str]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if given is None:
        return
    kinds = ("default", *ROPE_INIT_FUNCTIONS)
    if not isinstance(given, Mapping):
        yield f"rope_parameters is {given!r}; allowed is a group of values"
        return
    nested = [each for each in given.values() if isinstance(each, Mapping)]
    for values in nested or [given]:
        kind, theta = values.get("rope_type", "default"), values.get("rope_theta")
        if kind not in kinds:
            yield f"rope_type is {kind!r}; known are {', '.join(kinds)}"
        if theta is not None:
            yield from _wrong_theta(theta)


def _wrong_theta(theta: Json) -> Iterator[str]:
    if not _is_number(theta) or theta <= 0:
        yield f"rope_theta is {theta!r}; allowed is a number above 0"


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _weight_files(folder: Path) -> list[str]:
    """What is wrong with the files that hold weights, and with their index."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return [no_safetensors(folder)]
    problems = [problem for path in files for problem in _header_problems(path)]
    index = folder / INDEX
    if is_there(index):
        problems += _index_problems(index, [path.name for path in files])
    elif not is_there(folder / WEIGHTS):
        problems.append(
            f"{folder} has {files[0].name}, and neither {WEIGHTS} nor {INDEX}, which says what is "
            "in which file"
        )
    return problems


def _header_problems(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    if problem := file_problem(path):
        return [f"{path} {problem}"]
    try:
        with safe_open(path, "pt") as file:
            formats = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # what cannot be mapped
        return [f"{path} is not a whole safetensors file: {one_line(error)}"]
    wrong = {name: kind for name, kind in formats.items() if kind not in WEIGHT_FORMATS}
    if not wrong:
        return []
    name = min(wrong)
    return [
        f"{path} has {len(wrong)} weights in another format than {', '.join(WEIGHT_FORMATS)}: "
        f"{name} is {wrong[name]}"
    ]


def _index_problems(index: Path, files: Sequence[str]) -> list[str]:
    try:
        listed = read_object(index).get("weight_map")
    except ConfigError as error:
        return list(error.problems)
    if not isinstance(listed, dict) or not listed:
        return [f"{index} has no weight_map, which says in which file each weight is"]
    if not all(isinstance(name, str) for name in listed.values()):
        return [f"{index}: weight_map holds something that is no file's name"]
    lacking = sorted(set(listed.values()) - set(files))
    return [f"{index.parent} lacks {', '.join(lacking)}"] if lacking else []


def other_head(folder: Path, tied: Mapping[str, str]) -> str | None:
    """A weight that is another in the files than the one it is tied to; None if there is none.

    ``tied`` has the names of both: transformers would take the second for the first, silently.
    """
    from safetensors import safe_open

    where = _files_of_weights(folder)
    for name, origin in tied.items():
        if name not in where or origin not in where:
            continue
        with safe_open(where[name], "pt") as one, safe_open(where[origin], "pt") as other:
            mine, theirs = one.get_slice(name), other.get_slice(origin)
            if mine.get_shape() != theirs.get_shape():
                return name
            rows = mine.get_shape()[0]
            for start in range(0, rows, ROWS_COMPARED):
                part = slice(start, start + ROWS_COMPARED)
                if not bool(mine[part].equal(theirs[part])):
                    return name
    return None


ROWS_COMPARED = 4096


def _files_of_weights(folder: Path) -> dict[str, Path]:
    """By the weight's name, the file from which transformers takes it."""
    from safetensors import safe_open

    if not is_file(folder / WEIGHTS):
        return {
            name: folder / file for name, file in read_object(folder / INDEX)["weight_map"].items()
        }
    with safe_open(folder / WEIGHTS, "pt") as file:
        return dict.fromkeys(file.keys(), folder / WEIGHTS)


def one_line(error: Exception, most: int = 300) -> str:
    """An error's whole message in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= most else f"{text[:most]}...").rstrip(".")
