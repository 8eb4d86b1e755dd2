"""lm-eval's tasks that can be measured: where each is defined, and what its rows hold."""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import MOST_NAMED, ConfigError

if TYPE_CHECKING:
    from lm_eval.tasks._index import Entry


@dataclass(frozen=True, slots=True)
class Definition:
    """Where lm-eval defines a task, and what its rows hold."""

    folder: str
    """Below ``lm_eval/tasks``."""
    split: str
    """The split that lm-eval evaluates."""
    fields: tuple[str, ...] = ()
    """What prompts, choices and answers are made of; empty where only lm-eval knows."""


ARC = ("question", "choices", "answerKey")
TASKS = {
    "arc_challenge": Definition("arc", "test", ARC),
    "arc_easy": Definition("arc", "test", ARC),
    "boolq": Definition("super_glue/boolq", "validation", ("passage", "question", "label")),
    "hellaswag": Definition(
        "hellaswag", "validation", ("activity_label", "ctx_a", "ctx_b", "endings", "label")
    ),
    "lambada_openai": Definition("lambada", "test", ("text",)),
    "openbookqa": Definition("openbookqa", "test", ("question_stem", "choices", "answerKey")),
    "piqa": Definition("piqa", "validation", ("goal", "sol1", "sol2", "label")),
    "winogrande": Definition(
        "winogrande", "validation", ("sentence", "option1", "option2", "answer")
    ),
}
"""Those whose rows are checked before a run. Prompts and metrics are lm-eval's own."""
NAMED = re.compile(rb"""^["']?(task|group)["']?:[ \t]*["']?([^\s"'\[#]+)""", re.MULTILINE)
"""In a file of lm-eval: what it defines."""
BY_LIKELIHOOD = ("multiple_choice", "loglikelihood")


def definition_of(name: str, own: Iterable[str] = ()) -> Definition:
    """Of any of lm-eval's tasks that is scored by likelihood and has an accuracy.

    Raises ``ConfigError`` that says what another name is; ``own`` are tasks of the user's.
    """
    return TASKS.get(name) or _found(name, tuple(own))


def tasks_folder() -> Path:
    """Where lm-eval, which is not imported for that, has its definitions."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "tasks"


def unknown(name: str, own: Iterable[str] = ()) -> str | None:
    """The message for a name that neither lm-eval nor the user has a task of; imports nothing.

    None where there is one, and where lm-eval is not there to tell.
    """
    if name in {*TASKS, *own} or importlib.util.find_spec("lm_eval") is None or name in _files():
        return None
    near = get_close_matches(name, {*TASKS, *own, *_files()}, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"{name}: no such task; known are {', '.join(sorted({*TASKS, *own}))}, and all others "
        f"of lm-eval's that have choices or one answer (lm-eval ls tasks){hint}"
    )


@cache
def _found(name: str, own: tuple[str, ...]) -> Definition:
    if problem := unknown(name, own):
        raise ConfigError([problem])
    path = _files()[name]
    from lm_eval.tasks import TaskManager

    # only the task's own folder: to read all of lm-eval's takes 10 s
    manager = TaskManager(include_defaults=False, include_path=str(path.parent))
    settings = manager.task_index[name].cfg or {}
    names = list(_tasks_of(name, manager.task_index))
    if problem := _of_group(names) if names != [name] else _problem(settings):
        raise ConfigError([f"{name}: {problem}"])
    split = settings.get("test_split") or settings.get("validation_split")
    return Definition(str(path.parent.relative_to(tasks_folder())), str(split))


def _tasks_of(name: str, index: "Mapping[str, Entry]") -> Iterator[str]:
    """A task, or the tasks of a group or tag."""
    entry = index.get(name)
    members = (entry.cfg or {}).get("task") if entry else None
    if isinstance(members, list):
        for each in members:
            yield from _tasks_of(str(each["task"] if isinstance(each, dict) else each), index)
    elif entry and entry.yaml_path is None:
        yield from sorted(entry.tags)
    else:
        yield name


def _of_group(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"is a group of lm-eval's; name tasks of it: {', '.join(names[:MOST_NAMED])}{more}"


def _problem(settings: dict[str, Any]) -> str | None:
    """Why a task cannot be measured, in words."""
    output = settings.get("output_type", "generate_until")
    if "class" in settings or output not in BY_LIKELIHOOD:
        return "is not scored by the likelihood of given answers, as all tasks here are"
    metrics = settings.get("metric_list") or [{"metric": "acc"}]
    if not any(each.get("metric") == "acc" for each in metrics):
        return "has no accuracy (lm-eval's metric acc)"
    if not settings.get("test_split") and not settings.get("validation_split"):
        return "has neither a test nor a validation split"
    return None


@cache
def _files() -> dict[str, Path]:
    """The file of every name that lm-eval defines; takes half a second, parsing them ten."""
    found: dict[str, Path] = {}
    for path in sorted(tasks_folder().rglob("*.yaml")):
        for _, name in NAMED.findall(path.read_bytes()):
            found.setdefault(name.decode("utf-8", "replace"), path)
    return found
