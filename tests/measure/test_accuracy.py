"""lm-eval on the model in memory: the same questions and the same scores as lm-eval alone."""

import importlib
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
import torch
from datasets import Dataset
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from support_inputs import problems_of, save_tokenizer, write_jsonl
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.errors import StageError
from pipeline.measure.accuracy import TaskSet, lm_eval_version, missing_data
from pipeline.measure.likelihood import Answer, Likelihoods
from pipeline.measure.tasks import TASKS
from pipeline.models.prunable import PrunableModel

Request = tuple[str, str]
LM_EVAL_TASKS = Path(lm_eval.__file__).parent / "tasks"
DEFINITIONS = {
    "arc_challenge": "arc/arc_challenge.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
}

ARC_ROW = {
    "question": "What is cold?",
    "choices": {"text": ["Ice", "Fire", "Tea"], "label": ["A", "B", "C"]},
    "answerKey": "A",
}
ARC_ASKS = [("Question: What is cold?\nAnswer:", f" {c}") for c in ("Ice", "Fire", "Tea")]
HELLASWAG_ROW = {
    "activity_label": "Tea",
    "ctx_a": "A cup [title] stands.",
    "ctx_b": "somebody",
    "endings": ["drinks [substeps] it.", "flies off.", "is a cup.", "sings."],
    "label": "0",
}
ROWS: dict[str, tuple[dict[str, Any], list[Request]]] = {
    "arc_challenge": (ARC_ROW, ARC_ASKS),
    "arc_easy": (ARC_ROW, ARC_ASKS),
    "boolq": (
        {"passage": "Ice is cold.", "question": "is ice cold", "label": 1},
        [("Ice is cold.\nQuestion: is ice cold?\nAnswer:", f" {c}") for c in ("no", "yes")],
    ),
    "hellaswag": (
        HELLASWAG_ROW,
        [
            ("Tea: A cup. stands. Somebody", f" {c}")
            for c in ("drinks it.", "flies off.", "is a cup.", "sings.")
        ],
    ),
    "lambada_openai": ({"text": "the ice is very cold"}, [("the ice is very", " cold")]),
    "openbookqa": (
        {
            "question_stem": "Ice is",
            "choices": {"text": ["cold", "hot"], "label": ["A", "B"]},
            "answerKey": "A",
        },
        [("Ice is", " cold"), ("Ice is", " hot")],
    ),
    "piqa": (
        {"goal": "Cool a drink", "sol1": "add ice", "sol2": "add fire", "label": 0},
        [("Question: Cool a drink\nAnswer:", f" {c}") for c in ("add ice", "add fire")],
    ),
    "winogrande": (
        {"sentence": "The _ is cold.", "option1": "ice", "option2": "fire", "answer": "1"},
        [("The ice", " is cold."), ("The fire", " is cold.")],
    ),
}
"""A row of each task, and what lm-eval 0.4.13 asks about it: (context, continuation)."""


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def saved_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def tokenizer(saved_tokenizer: Path) -> PreTrainedTokenizerFast:
    """One token a character, and no padding token."""
    return AutoTokenizer.from_pretrained(saved_tokenizer)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What lm-eval is to ask. Of our answers the first choice is always the best."""
    requests: list[Request] = []
    loglikelihood = HFLM.loglikelihood

    def noting(self: HFLM, instances: Any, **settings: Any) -> list[tuple[float, bool]]:
        requests.extend(instance.args for instance in instances)
        return loglikelihood(self, instances, **settings)

    def first_is_best(asked: Likelihoods, *_: object) -> list[Answer]:
        return [(-float(i), False) for i in range(len(asked))]

    monkeypatch.setattr(HFLM, "loglikelihood", noting)
    monkeypatch.setattr(Likelihoods, "of", first_is_best)
    return requests


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Eight rows of every task: the rows above, in eight shades."""
    folder = tmp_path / "data"
    for name, (row, _) in ROWS.items():
        (folder / name).mkdir(parents=True)
        rows = [
            json.loads(json.dumps(row).replace("cold", f"cold{'!?;:,.-+'[i]}")) for i in range(8)
        ]
        write_jsonl(folder / name / f"{TASKS[name].split}.jsonl", rows)
    return folder


STORIES = [
    {
        "context": f"Ann saw a {animal}.",
        "choices": [f"The {animal} ran.", f"It was a big old {animal} with a red hat.", "Yes"],
        "label": i % 3,
    }
    for i, animal in enumerate(
        ("dog", "cat", "bird", "horse", "mouse", "fox", "cow", "goose", "hen", "pig", "frog", "bee")
    )
]


@pytest.fixture
def stories(tmp_path: Path) -> dict[str, Path]:
    return {"stories": write_jsonl(tmp_path / "stories.jsonl", STORIES)}


def by_hand(
    model: PrunableModel, tokenizer: PreTrainedTokenizerFast, rows: Iterable[dict[str, Any]]
) -> tuple[float, float]:
    """acc and acc_norm from the model's own logits, a forward pass for every choice."""
    right, right_norm = [], []
    for row in rows:
        scores = [likelihood(model, tokenizer, row["context"], f" {c}") for c in row["choices"]]
        norms = [s / (1 + len(c)) for s, c in zip(scores, row["choices"], strict=True)]
        right.append(np.argmax(scores) == row["label"])
        right_norm.append(np.argmax(norms) == row["label"])
    return float(np.mean(right)), float(np.mean(right_norm))


def likelihood(model: PrunableModel, tokenizer: Any, context: str, choice: str) -> float:
    ids = torch.tensor(tokenizer(context + choice)["input_ids"])
    start = len(tokenizer(context)["input_ids"])
    logs = model.model(ids[None, :-1]).logits[0].log_softmax(dim=-1)
    return logs.gather(1, ids[1:, None])[start - 1 :].sum().item()


# ---- questions


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_task_asks_what_lm_eval_asks(build, tokenizer, tmp_path, asked, name) -> None:
    row, requests = ROWS[name]
    (tmp_path / name).mkdir()
    write_jsonl(tmp_path / name / f"{TASKS[name].split}.jsonl", [row | {"other": {"field": 1}}])
    (score,) = TaskSet([name], tmp_path, None, 4).evaluate(build(), tokenizer)
    assert asked == requests
    assert (score.task, score.items) == (name, 1)
    right = 0.0 if name in ("boolq", "lambada_openai") else 1.0  # the first choice, greedy decoding
    assert score.acc == right


def test_local_copies_of_the_real_data_ask_what_lm_eval_asks_of_them(
    build, tokenizer, shared: Path, tmp_path, asked
) -> None:
    names = sorted(TASKS)
    TaskSet(names, shared / "data", 3, 4).evaluate(build(), tokenizer)
    ours = list(asked)
    asked.clear()
    files = {}
    for name in names:
        (files[name],) = (shared / "data" / name).glob(f"{TASKS[name].split}*.jsonl")
    by_lm_eval_alone(names, files, 3, build(), tokenizer, tmp_path)
    assert ours == asked
    assert len(ours) == 3 * (4 + 4 + 2 + 4 + 1 + 4 + 2 + 2)


def by_lm_eval_alone(
    names: list[str],
    files: dict[str, Path],
    limit: int | None,
    model: PrunableModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """What ``lm_eval.simple_evaluate`` says, with its own definitions on local files."""
    for name in names:
        lines = {
            "include": str(LM_EVAL_TASKS / DEFINITIONS[name]),
            "task": f"{name}_local",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {TASKS[name].split: str(files[name])},
                "cache_dir": str(folder / "cache"),
            },
            "training_split": None,
            "validation_split": TASKS[name].split,
            "test_split": TASKS[name].split,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(lines), encoding="utf-8")
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=model.model, tokenizer=tokenizer, batch_size=4),
        tasks=[f"{name}_local" for name in names],
        task_manager=TaskManager(include_defaults=False, include_path=str(folder)),
        limit=limit,
        bootstrap_iters=2,
        log_samples=False,
    )
    return results["results"]


def test_only_the_first_items_are_asked(build, tokenizer, data_dir, asked) -> None:
    scores = TaskSet(["piqa", "hellaswag"], data_dir, 3, 4).evaluate(build(), tokenizer)
    assert [score.items for score in scores] == [3, 3]
    assert len(asked) == 3 * 2 + 3 * 4


@pytest.mark.parametrize(
    ("context", "choice", "request_"),
    [
        ("A dog", "ran", ("A dog", " ran")),
        ("A dog ", "ran", ("A dog ", "ran")),
        ("A dog\n", "ran", ("A dog\n", "ran")),
        ("A dog", " ran", ("A dog", " ran")),
        ("", "ran", ("", "ran")),
    ],
)
def test_a_choice_follows_its_context_after_white_space(
    build, tokenizer, tmp_path, asked, context, choice, request_
) -> None:
    row = {"context": context, "choices": [choice, " x"], "label": 0}
    file = write_jsonl(tmp_path / "own.jsonl", [row])
    TaskSet(["own"], None, None, 4, {"own": file}).evaluate(build(), tokenizer)
    assert asked[0] == request_


# ---- scores


def test_scores_are_those_of_lm_eval_alone(build, tokenizer, data_dir, tmp_path) -> None:
    names = sorted(TASKS)
    scores = TaskSet(names, data_dir, None, 4).evaluate(build(), tokenizer)
    assert [score.task for score in scores] == names
    files = {name: data_dir / name / f"{TASKS[name].split}.jsonl" for name in names}
    alone = by_lm_eval_alone(names, files, None, build(), tokenizer, tmp_path)
    for score in scores:
        expected = alone[f"{score.task}_local"]
        assert score.items == expected["sample_len"] == 8
        assert score.acc == expected["acc,none"]
        assert score.acc_stderr == pytest.approx(expected["acc_stderr,none"])
        assert score.acc_norm == expected.get("acc_norm,none")
        assert score.acc_norm_stderr == pytest.approx(expected.get("acc_norm_stderr,none"))
    without_norm = {score.task for score in scores if score.acc_norm is None}
    assert without_norm == {"boolq", "lambada_openai", "winogrande"}


STATES = ({}, {"mlp": (0,), "attn_widths": {1: 16}}, {"attn": (0, 1, 2)})


def test_pruned_states_have_lm_evals_scores_of_requests_that_are_read_once(
    pruned, tokenizer, data_dir, tmp_path, monkeypatch
) -> None:
    names, models = ["arc_easy", "lambada_openai"], [pruned(**state) for state in STATES]
    tasks = TaskSet(names, data_dir, None, 4)
    files = {name: data_dir / name / f"{TASKS[name].split}.jsonl" for name in names}
    found = [tasks.evaluate(models[0], tokenizer)]
    with monkeypatch.context() as patched:
        patched.setattr(HFLM, "tok_encode", None)  # nothing is tokenised again
        found += [tasks.evaluate(model, tokenizer) for model in models[1:]]
    for model, scores in zip(models, found, strict=True):
        alone = by_lm_eval_alone(names, files, None, model, tokenizer, tmp_path)
        for score in scores:
            assert score.acc == alone[f"{score.task}_local"]["acc,none"]
            assert score.acc_norm == alone[f"{score.task}_local"].get("acc_norm,none")


def test_one_set_scores_every_state_anew(pruned, tokenizer, stories) -> None:
    tasks = TaskSet(["stories"], None, None, 4, stories)
    found, expected = [], []
    for state in STATES:
        model = pruned(**state)
        (score,) = tasks.evaluate(model, tokenizer)
        found.append((score.acc, score.acc_norm))
        expected.append(by_hand(model, tokenizer, STORIES))
    assert found == expected
    assert len(set(found)) > 1
    (again,) = tasks.evaluate(pruned(), tokenizer)
    assert (again.acc, again.acc_norm) == found[0]


def test_standard_errors_are_those_of_a_mean(pruned, tokenizer, stories) -> None:
    (score,) = TaskSet(["stories"], None, None, 4, stories).evaluate(pruned(), tokenizer)
    for acc, stderr in ((score.acc, score.acc_stderr), (score.acc_norm, score.acc_norm_stderr)):
        assert stderr == pytest.approx((acc * (1 - acc) / 11) ** 0.5)


def test_every_items_result_is_kept(pruned, tokenizer, stories, data_dir) -> None:
    model = pruned()
    (score,) = TaskSet(["stories"], None, None, 4, stories).evaluate(model, tokenizer)
    alone = [by_hand(model, tokenizer, [story]) for story in STORIES]
    assert score.acc_items == "".join(f"{acc:.0f}" for acc, _ in alone)
    assert score.acc_norm_items == "".join(f"{acc_norm:.0f}" for _, acc_norm in alone)
    assert score.right_items == score.acc_norm_items
    assert "1" in score.right_items
    (plain,) = TaskSet(["winogrande"], data_dir, None, 4).evaluate(model, tokenizer)
    assert plain.acc_norm_items is None
    assert plain.right_items == plain.acc_items
    assert len(plain.acc_items) == 8


def test_a_single_item_has_no_spread(pruned, tokenizer, stories) -> None:
    (score,) = TaskSet(["stories"], None, 1, 4, stories).evaluate(pruned(), tokenizer)
    assert (score.items, score.acc_stderr, score.acc_norm_stderr) == (1, 0.0, 0.0)


def test_smaller_batches_where_memory_runs_out(build, tokenizer, stories, monkeypatch) -> None:
    tasks = TaskSet(["stories"], None, None, 16, stories)
    model = build()
    expected = tasks.evaluate(model, tokenizer)
    sizes = memory_for(2, model, monkeypatch)
    assert tasks.evaluate(model, tokenizer) == expected
    assert sizes[:4] == [16, 8, 4, 2]
    memory_for(0, model, monkeypatch)
    with pytest.raises(StageError, match="out of memory while scoring one sequence on cpu"):
        tasks.evaluate(model, tokenizer)


def memory_for(sequences: int, model: PrunableModel, monkeypatch: Any) -> list[int]:
    """Let the model run out of memory beyond so many sequences; the sizes that were tried."""
    tried, forward = [], type(model.model).forward

    def limited(ids: torch.Tensor, **context: Any) -> Any:
        tried.append(len(ids))
        if len(ids) > sequences:
            raise torch.OutOfMemoryError
        return forward(model.model, ids, **context)

    monkeypatch.setattr(model.model, "forward", limited)
    return tried


def test_a_context_that_is_too_long_is_cut_and_a_choice_is_refused(
    build, tokenizer, tmp_path
) -> None:
    row = {"context": "a b " * 20, "choices": ["x" * 10, "y"], "label": 0}
    files = {"long": write_jsonl(tmp_path / "long.jsonl", [row])}
    tasks = TaskSet(["long"], None, None, 4, files)
    (score,) = tasks.evaluate(build(max_position_embeddings=11), tokenizer)
    assert score.items == 1
    with pytest.raises(
        StageError, match=r"long cannot be measured: a choice of 11 tokens .* of 10"
    ):
        tasks.evaluate(build(max_position_embeddings=10), tokenizer)


# ---- what it leaves alone


def test_global_random_state_is_left_alone(build, tokenizer, stories, data_dir) -> None:
    def states() -> list[Any]:
        return [
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        ]

    model = build()
    before = states()
    TaskSet(["stories", "hellaswag"], data_dir, 4, 4, stories).evaluate(model, tokenizer)
    assert states() == before


def test_model_and_tokenizer_are_left_alone(pruned, tokenizer, stories) -> None:
    model = pruned(attn=(0,), mlp_widths={1: 20}, tie_word_embeddings=False)
    weights = {name: (p.data_ptr(), p.clone()) for name, p in model.model.named_parameters()}
    TaskSet(["stories"], None, None, 4, stories).evaluate(model, tokenizer)
    assert (tokenizer.pad_token, len(tokenizer)) == (None, 102)
    for name, parameter in model.model.named_parameters():
        place, before = weights[name]
        assert parameter.data_ptr() == place
        assert torch.equal(parameter, before)


def test_it_is_quiet(build, tokenizer, stories, data_dir, capfd, caplog) -> None:
    tasks = TaskSet(["stories", "hellaswag", "boolq"], data_dir, None, 4, stories)
    tasks.evaluate(build(max_position_embeddings=50), tokenizer)  # too short for some questions
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


# ---- what is missing or wrong


def test_nothing_is_missing_where_everything_is_there(data_dir, stories) -> None:
    assert missing_data([*TASKS, "stories"], data_dir, stories) == []
    assert missing_data(list(TASKS), None) == []
    assert missing_data([], data_dir) == []


def test_every_missing_file_and_unknown_task_is_named(tmp_path: Path) -> None:
    problems = missing_data(
        ["piqa", "arc_easy", "xyzzy", "own"], tmp_path, {"own": tmp_path / "own.jsonl"}
    )
    assert problems[:2] == [
        f"piqa: the file {tmp_path}/piqa/validation.jsonl does not exist",
        f"arc_easy: the file {tmp_path}/arc_easy/test.jsonl does not exist",
    ]
    assert problems[2].startswith("xyzzy: no such task; known are arc_challenge, arc_easy, boolq,")
    assert "own" in problems[2]
    assert problems[3:] == [f"own: the file {tmp_path}/own.jsonl does not exist"]
    assert problems_of(lambda: TaskSet(["piqa"], tmp_path, None, 4)) == problems[:1]


def test_a_part_of_a_split_will_do_but_not_two(data_dir: Path) -> None:
    whole = data_dir / "piqa" / "validation.jsonl"
    part = whole.rename(whole.with_stem("validation_1000"))
    assert missing_data(["piqa"], data_dir) == []
    write_jsonl(part.with_stem("validation_2000"), [])
    (problem,) = missing_data(["piqa"], data_dir)
    assert "validation_1000.jsonl, validation_2000.jsonl" in problem
    part.rename(whole)
    assert missing_data(["piqa"], data_dir) == []


def test_a_task_of_ones_own_cannot_pass_for_lm_evals(stories) -> None:
    (problem,) = missing_data(["piqa"], None, {"piqa": stories["stories"]})
    assert problem.startswith("piqa: is a task of lm-eval; give the task of")


def test_without_lm_eval_it_says_how_to_get_it(monkeypatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "lm_eval" else find_spec(name)
    )
    (problem,) = missing_data(["piqa"], None)
    assert "pip install" in problem
    assert missing_data([], None) == []


def test_a_row_that_lacks_a_field_is_named(data_dir: Path) -> None:
    file = write_jsonl(data_dir / "piqa" / "validation.jsonl", [ROWS["piqa"][0], {"goal": "x"}])
    (problem,) = problems_of(lambda: TaskSet(["piqa"], data_dir, None, 4))
    assert problem == f"{file}, line 2 lacks sol1, sol2, label (it has goal)"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"context": 1}, "context must be text"),
        ({"choices": "ab"}, "choices must be a list of two or more texts"),
        ({"choices": ["a"]}, "choices must be a list of two or more texts"),
        ({"choices": ["a", ""]}, "choices must be texts that are not empty"),
        ({"choices": ["a", 1]}, "choices must be texts that are not empty"),
        ({"label": 3}, "label must be the place of the right choice, from 0 to 2"),
        ({"label": "0"}, "label must be the place of the right choice, from 0 to 2"),
        ({"label": True}, "label must be the place of the right choice, from 0 to 2"),
    ],
)
def test_a_row_of_ones_own_that_is_no_question_is_named(tmp_path, change, problem) -> None:
    file = write_jsonl(tmp_path / "own.jsonl", [STORIES[0], STORIES[1] | change])
    found = problems_of(lambda: TaskSet(["own"], None, None, 4, {"own": file}))
    assert found == [f"{file}, line 2: {problem}"]


def test_a_tokenizer_that_cannot_start_a_sequence_is_refused(build, tokenizer, stories) -> None:
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(StageError, match="neither a beginning- nor an end-of-sequence token"):
        TaskSet(["stories"], None, None, 4, stories).evaluate(build(), tokenizer)


def test_the_version_is_lm_evals_own() -> None:
    assert lm_eval_version() == lm_eval.__version__


# ---- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """A hub that has the rows above, and what it was asked for."""
    asked: list[tuple[object, ...]] = []
    rows = {"baber/piqa": ROWS["piqa"][0], "allenai/ai2_arc": ARC_ROW}

    def load_dataset(path: str, name: str | None = None, *, split: str) -> Dataset:
        asked.append((path, name, split))
        return Dataset.from_list([rows[path]] * 5)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


def test_without_a_folder_data_comes_from_where_lm_eval_has_it(build, tokenizer, hub) -> None:
    names = ["piqa", "arc_challenge"]
    scores = TaskSet(names, None, None, 4).evaluate(build(), tokenizer)
    assert set(hub) == {
        ("baber/piqa", None, "validation"),
        ("allenai/ai2_arc", "ARC-Challenge", "test"),
    }
    assert [score.items for score in scores] == [5, 5]
    (score,) = TaskSet(["piqa"], None, 3, 4).evaluate(build(), tokenizer)
    assert score.items == 3


def test_a_hub_that_does_not_answer_is_said(monkeypatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(StageError, match=r"baber/piqa cannot be had from the hub .*no route"):
        TaskSet(["piqa"], None, None, 4)


def test_any_task_of_lm_evals_that_is_scored_by_likelihood(build, tokenizer, tmp_path) -> None:
    row = {"support": "Ice is cold.", "question": "What is cold?", "correct_answer": "Ice"}
    row |= {f"distractor{place}": word for place, word in enumerate(("Fire", "Tea", "Sun"), 1)}
    said = missing_data(["sciq"], tmp_path)
    assert said == [f"sciq: the file {tmp_path}/sciq/test.jsonl does not exist"]
    (tmp_path / "sciq").mkdir()
    write_jsonl(tmp_path / "sciq" / "test.jsonl", [row] * 3)
    assert missing_data(["sciq", "mmlu_anatomy"], None) == missing_data(["sciq"], tmp_path) == []
    (score,) = TaskSet(["sciq"], tmp_path, 2, 4).evaluate(build(), tokenizer)
    assert (score.task, score.items, len(score.right_items or "")) == ("sciq", 2, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsm8k", "not scored by the likelihood of given answers"),
        ("mmlu", "is a group of lm-eval's; name tasks of it: mmlu_"),
        ("wikitext", "not scored by the likelihood"),
        ("arc_eazy", "did you mean arc_easy?"),
    ],
)
def test_what_a_task_of_lm_evals_lacks_is_named(name: str, said: str) -> None:
    (problem,) = missing_data([name], None)
    assert problem.startswith(f"{name}: ")
    assert said in problem
