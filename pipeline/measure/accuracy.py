"""Zero-shot accuracy by lm-eval, on the model in memory."""

import importlib.metadata
import importlib.util
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, StageError
from pipeline.files import is_file
from pipeline.given import file_problem
from pipeline.measure.record import TaskScore
from pipeline.measure.rows import rows_of_lm_eval, rows_of_user
from pipeline.measure.tasks import TASKS, definition_of, tasks_folder

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task
    from transformers import PreTrainedTokenizerBase

    from pipeline.measure.likelihood import Answer, Likelihoods
    from pipeline.models.prunable import PrunableModel

INSTALL = 'install it with: pip install "lm-eval[hf]==0.4.13"'
CHARACTERS = 4
"""Of a token, about."""
NO_FILES: Mapping[str, Path] = MappingProxyType({})


def lm_eval_version() -> str | None:
    """The version that is installed, for records; None where there is none."""
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        return None


def missing_data(
    names: Sequence[str], data_dir: Path | None, files: Mapping[str, Path] = NO_FILES
) -> list[str]:
    """What keeps the tasks from being measured, in words; empty where nothing does.

    Unknown names with the known ones, and each local file that is not there. ``data_dir`` holds
    local copies, TASK/SPLIT.jsonl or TASK/SPLIT_*.jsonl; with None they come from the hub, which
    is not asked here. ``files`` are multiple-choice tasks of one's own. Reads no file.
    """
    problems = []
    is_there = importlib.util.find_spec("lm_eval") is not None
    if names and not is_there:
        problems.append(f"tasks need the Python package lm-eval; {INSTALL}")
    for name in names:
        if name in files:
            problems += _file_problems(name, files[name])
        elif is_there or name in TASKS:
            problems += _problems_of_lm_eval(name, data_dir, files)
    return problems


def _problems_of_lm_eval(
    name: str, data_dir: Path | None, files: Mapping[str, Path]
) -> Sequence[str]:
    try:
        definition_of(name, files)
    except ConfigError as error:
        return error.problems
    return [] if data_dir is None else _data_problems(name, data_dir)


def _file_problems(name: str, path: Path) -> list[str]:
    if name in TASKS:
        return [f"{name}: is a task of lm-eval; give the task of {path} another name"]
    problem = file_problem(path)
    return [f"{name}: the file {path} {problem}"] if problem else []


def _data_problems(name: str, data_dir: Path) -> list[str]:
    files = local_files(name, data_dir)
    expected = data_dir / name / f"{definition_of(name).split}.jsonl"
    if len(files) < 2:  # noqa: PLR2004 - which of two is meant, nobody can tell
        path = files[0] if files else expected
        problem = file_problem(path)
        return [f"{name}: the file {path} {problem}"] if problem else []
    return [
        f"{name}: there are {', '.join(path.name for path in files)} in {expected.parent}; name "
        f"the one to take {expected.name}"
    ]


def wrong_rows(
    names: Sequence[str],
    data_dir: Path | None,
    limit: int | None,
    files: Mapping[str, Path] = NO_FILES,
) -> list[str]:
    """What is wrong in the local files that ``missing_data`` finds nothing wrong with, in words.

    Reads the rows that would be measured, and neither lm-eval nor a tokenizer.
    """
    problems = []
    for name in names:
        try:
            if name in files:
                rows_of_user(files[name], limit)
            elif data_dir is not None:
                (path,) = local_files(name, data_dir)
                rows_of_lm_eval(path, name, definition_of(name).fields, limit)
        except ConfigError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    return problems


def too_long_choices(
    tokenizer: "PreTrainedTokenizerBase",
    files: Mapping[str, Path],
    limit: int | None,
    context_length: int | None,
) -> list[str]:
    """Choices of the user's own tasks that no context has room for, in words."""
    problems = []
    for name, path in files.items():
        for choice in (c for row in rows_of_user(path, limit) for c in row["choices"]):
            if context_length is None or len(choice.encode()) < context_length:  # a token is a byte
                continue
            tokens = len(tokenizer(choice, add_special_tokens=False)["input_ids"])
            if tokens > context_length:
                problems.append(
                    f"{name}: {path} has a choice of {tokens} tokens, and the model's context has "
                    f"{context_length}"
                )
                break
    return problems


def no_first_token(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Why lm-eval could not put a sequence to the model, in words; None where it could."""
    if tokenizer.eos_token or tokenizer.bos_token:
        return None
    return (
        "the tokenizer names neither a beginning- nor an end-of-sequence token, one of which "
        "lm-eval puts before a text; name it in tokenizer_config.json, as bos_token or eos_token"
    )


def local_files(name: str, data_dir: Path) -> list[Path]:
    """The file of the whole split, or else those of parts of it."""
    folder, split = data_dir / name, definition_of(name).split
    whole = folder / f"{split}.jsonl"
    return [whole] if is_file(whole) else sorted(folder.glob(f"{split}_*.jsonl"))


@dataclass(frozen=True, slots=True)
class _Item:
    """One question: what lm-eval asks the model about it."""

    doc: dict[str, Any]
    requests: "list[Instance]"


class TaskSet:
    """Tasks whose data and requests are built once, to be evaluated at many states of a model.

    ``names`` are lm-eval's (see ``definition_of``) or of ``files``. ``data_dir`` holds local copies
    (see ``missing_data``); with None they come from the hub. ``limit`` takes the first items of
    each task, as lm-eval does; None takes all. ``batch_size`` sequences are scored together, fewer
    where memory runs out; None takes what suits the device.

    A file holds rows ``{"context": str, "choices": [str, ...], "label": int}``. A choice is scored
    by its likelihood after the context; a space is put between the two where neither has white
    space there. acc_norm divides the log-likelihood by the characters of what follows the context.

    Raises ``ConfigError`` with everything that ``missing_data`` finds or with what is wrong in a
    file, and ``StageError`` where the hub does not give a dataset.
    """

    def __init__(
        self,
        names: Sequence[str],
        data_dir: Path | None,
        limit: int | None,
        batch_size: int | None,
        files: Mapping[str, Path] = NO_FILES,
    ) -> None:
        if problems := missing_data(names, data_dir, files):
            raise ConfigError(problems)
        self._batch_size = batch_size
        with _quiet(), _own_random_state():
            self._tasks = {
                name: _task_of_file(name, files[name], limit)
                if name in files
                else _task_of_lm_eval(name, data_dir, limit)
                for name in names
            }
            self._items = {name: _items(name, task, limit) for name, task in self._tasks.items()}
        self._asked: dict[str, Likelihoods] = {}
        self._asked_by: tuple[object, ...] = ()

    @property
    def tokens(self) -> float:
        """That a model reads, about: they are counted in characters here."""
        requests = (r for items in self._items.values() for item in items for r in item.requests)
        return sum(len(text) for request in requests for text in request.args) / CHARACTERS

    def evaluate(
        self,
        model: "PrunableModel",
        tokenizer: "PreTrainedTokenizerBase",
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> tuple[TaskScore, ...]:
        """The model's scores as it is, in the order of the names.

        Zero-shot and without a chat template. ``on_progress`` is called with the share that was
        done since the last call. Nothing is kept over calls but the questions, as this
        tokenizer reads them, and the global random generators are left alone. Raises ``StageError``
        where one sequence does not fit into memory, a choice not into the model's context, or the
        tokenizer has no token that a sequence could start with.
        """
        with _quiet(), _own_random_state():
            asked = self._asked_of(model, tokenizer)
            total = sum(each.tokens for each in asked.values())
            return tuple(
                _score(
                    name,
                    task,
                    self._items[name],
                    asked[name].of(model, lambda tokens: on_progress(tokens / total)),
                )
                for name, task in self._tasks.items()
            )

    def _asked_of(
        self, model: "PrunableModel", tokenizer: "PreTrainedTokenizerBase"
    ) -> "dict[str, Likelihoods]":
        """Every task's requests, for all states of a model."""
        from pipeline.measure.likelihood import Likelihoods

        asked_by = (tokenizer, model.device, model.context_length)
        if self._asked_by != asked_by:
            with _padding_token(tokenizer):
                self._asked = {
                    name: Likelihoods(
                        name,
                        [request for item in items for request in item.requests],
                        model,
                        tokenizer,
                        self._batch_size,
                    )
                    for name, items in self._items.items()
                }
            self._asked_by = asked_by
        return self._asked


def _task_of_lm_eval(name: str, data_dir: Path | None, limit: int | None) -> "Task":
    """lm-eval's own task, on our copy of its data."""
    from lm_eval.tasks import TaskManager

    defined = definition_of(name)
    # Only the task's own folder: to read all of lm-eval's takes 10 s.
    folder = tasks_folder() / defined.folder
    manager = TaskManager(include_defaults=False, include_path=str(folder))
    most = limit if name in TASKS else None  # others may leave rows out: items are counted after
    if data_dir is None:
        rows = partial(_hub_rows, name, manager.task_index[name].cfg, defined.split, most)
    else:
        (path,) = local_files(name, data_dir)
        rows = partial(_local_rows, path, name, defined.fields, most)
    # A task takes other settings than its own only as a member of a group.
    group = {"group": "measured", "task": [{"task": name, **_settings_of_data(rows)}]}
    return manager.load(group)["tasks"][name]


def _task_of_file(name: str, path: Path, limit: int | None) -> "Task":
    """A multiple-choice task of the user's own."""
    from lm_eval.api.task import ConfigurableTask

    mean = {"aggregation": "mean", "higher_is_better": True}
    settings = {
        "task": name,
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_norm", **mean}],
    }
    return ConfigurableTask(config=settings | _settings_of_data(partial(_own_rows, path, limit)))


def _settings_of_data(rows: "Callable[[], Dataset]") -> dict[str, Any]:
    """Settings by which a task has no rows but these. lm-eval hands metadata to its loader."""
    return {
        "custom_dataset": lambda **_metadata: {"measured": rows()},
        "training_split": None,
        "validation_split": None,
        "test_split": "measured",
        "fewshot_split": None,
    }


def _hub_rows(name: str, settings: Mapping[str, Any], split: str, limit: int | None) -> "Dataset":
    from datasets import load_dataset

    path = settings["dataset_path"]
    try:
        rows = load_dataset(
            path, settings.get("dataset_name"), split=split, **settings.get("dataset_kwargs") or {}
        )
    except Exception as error:
        raise StageError(
            f"the dataset {path} cannot be had from the hub ({type(error).__name__}: {error}); on "
            f"a machine without internet have its rows in DIR/{name}/{split}.jsonl, and give "
            "evaluate.data_dir=DIR"
        ) from error
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def _local_rows(path: Path, name: str, fields: tuple[str, ...], limit: int | None) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_list(rows_of_lm_eval(path, name, fields, limit))


def _own_rows(path: Path, limit: int | None) -> "Dataset":
    from datasets import Dataset

    rows = rows_of_user(path, limit)
    return Dataset.from_list(
        [row | {"choices": [_spaced(row["context"], c) for c in row["choices"]]} for row in rows]
    )


def _spaced(context: str, choice: str) -> str:
    apart = not context or context[-1].isspace() or choice[0].isspace()
    return choice if apart else f" {choice}"


def _items(name: str, task: "Task", limit: int | None) -> list[_Item]:
    items = []
    for number, doc in enumerate(islice(task.eval_docs, limit)):
        context = task.fewshot_context(doc, num_fewshot=0)
        requests = task.construct_requests(doc=doc, ctx=context, metadata=(name, number, 1))
        items.append(_Item(doc, requests if isinstance(requests, list) else [requests]))
    return items


@contextmanager
def _padding_token(tokenizer: "PreTrainedTokenizerBase") -> Iterator[None]:
    """Lend the tokenizer a padding token: lm-eval would give it one for good, even a new one."""
    if problem := no_first_token(tokenizer):
        raise StageError(f"tasks cannot be measured: {problem}")
    lent = tokenizer.eos_token or tokenizer.bos_token
    own = tokenizer.pad_token
    tokenizer.pad_token = own or lent
    try:
        yield
    finally:
        tokenizer.pad_token = own


def _score(
    name: str, task: "Task", items: Sequence[_Item], answers: "Iterable[Answer]"
) -> TaskScore:
    answered = iter(answers)
    metrics = [
        task.process_results(item.doc, [next(answered) for _ in item.requests]) for item in items
    ]
    rights = [metric["acc"] for metric in metrics]
    acc, acc_stderr = _mean(rights)
    if "acc_norm" not in metrics[0]:
        return TaskScore(name, len(items), acc, acc_stderr, None, None, _marks(rights))
    rights_norm = [metric["acc_norm"] for metric in metrics]
    acc_norm, acc_norm_stderr = _mean(rights_norm)
    marks = _marks(rights), _marks(rights_norm)
    return TaskScore(name, len(items), acc, acc_stderr, acc_norm, acc_norm_stderr, *marks)


def _marks(rights: Sequence[float]) -> str:
    """A 1 for each item that was right, a 0 for each other."""
    return "".join("1" if right else "0" for right in rights)


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; that is 0 of a single item, whose spread cannot be told."""
    from lm_eval.api.metrics import mean, mean_stderr

    return mean(values), mean_stderr(values) if len(values) > 1 else 0.0


@contextmanager
def _own_random_state() -> Iterator[None]:
    """lm-eval draws from Python's generator: a name for a task, even for one that has a name."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes, warnings and progress bars of the libraries."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers")]
    levels = [logger.level for logger in loggers]
    bars = not are_progress_bars_disabled()
    disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            enable_progress_bars()
