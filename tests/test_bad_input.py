"""What launch.py does with what goes wrong: the exit status, what it says, what it leaves."""

import errno
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support_inputs import (
    REPOSITORY,
    edit_config,
    edit_weights,
    files_under,
    raw,
    save_model,
    write_tokens,
)

import launch
from pipeline.errors import ConfigError
from pipeline.stages.shared import calibration

LAUNCH = REPOSITORY / "launch.py"
SECRET = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105

ARGUMENTS = (
    "model=hf",
    "run.pictures=[]",
    "model.path=model",
    "calibration=tokens",
    "calibration.path=tokens.json",
    "prune.target_ratio=20",
    "prune.distribution=[1,1,1]",
    "prune.mlp_group_size=4",
    "prune.attn_group_size=8",
    "run.dir=run",
    "store.dir=store",
)
"""Prunes the model of ``place`` in a few steps, into ``run`` and ``store``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it printed."""

    status: int
    out: str
    errors: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.out + self.errors

    def errors_alone(self) -> list[str]:
        """Lines of the standard error; the other output has only how the run went."""
        assert not re.search("error|warning|Traceback|failed to", self.out)
        return self.errors.splitlines()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without tokenizer, saved once."""
    return save_model(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def place(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a model and token ids."""
    shutil.copytree(saved, tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*arguments: str, **environment: str) -> Outcome:
    """Type the command: a process of its own."""
    done = subprocess.run(
        [sys.executable, LAUNCH, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a whole command line in this process."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
        capfd.readouterr()
        status = launch.main()
        printed = capfd.readouterr()
        return Outcome(status, printed.out, printed.err)

    return run


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Do what launch.py does with a configuration, in this process."""

    def run(*overrides: str) -> Outcome:
        capfd.readouterr()
        work = raw(*ARGUMENTS, *overrides)
        status = launch.report_errors(lambda: launch.run(work, []), "python launch.py AGAIN")
        printed = capfd.readouterr()
        return Outcome(status, printed.out, printed.err)

    return run


def done_in(folder: str) -> str:
    """How a run ends that ended well: with where its results are."""
    return f"done: {folder}\nsee: {folder}/report.html\n"


def assert_done(outcome: Outcome, folder: str) -> None:
    assert outcome.status == 0
    assert outcome.text.endswith(done_in(folder))


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text("utf-8").splitlines()]


# ---- a wrong configuration


def test_every_mistake_of_a_command_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = typed(
        "calibration=text",
        "+paper=nope",
        "modle=hf",
        "prune.traget_ratio=10",
        "prune.distribution=[44,52",
        "prune.target_ratio=nan",
        "prune.mlp_group_size=1.5",
        "model.dtype=float64",
        f"model.revision={SECRET}",
        "tracking.api_key=hunter2",
        WANDB_API_KEY=SECRET,
    )
    assert done.status == 2
    lines = done.text.splitlines()
    assert lines[0] == "The configuration is wrong:"
    assert sorted(line.strip().partition(":")[0] for line in lines[1:]) == [
        "calibration.path",
        "model.dtype",
        "model.revision",
        "modle",
        "paper",
        "prune.distribution",
        "prune.mlp_group_size",
        "prune.target_ratio",
        "prune.traget_ratio",
        "tracking.api_key",
    ]
    assert "hunter2" not in done.text
    assert SECRET not in done.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("warm")
def test_text_without_a_tokenizer_is_a_wrong_configuration(place: Path) -> None:
    (place / "text.txt").write_text("some text " * 100)
    before = files_under(place)
    done = typed(*ARGUMENTS, "calibration=text", "calibration.path=text.txt")
    assert done.status == 2
    assert done.text.splitlines()[1].startswith("  model.path: model has no tokenizer; ")
    assert "Traceback" not in done.text
    assert files_under(place) == before


def test_what_hydra_refuses_is_a_wrong_configuration(main: Callable[..., Outcome]) -> None:
    for argument, said in (
        ("~paper=llama2_7b", "paper: "),
        ("+prune.target_ratio=3", "prune.target_ratio"),
        ("hydra.nothing=3", "hydra.nothing"),
    ):
        done = main(argument, "modle=hf")
        assert done.status == 2
        assert "modle: no such key" in done.text
        assert said in done.text


def test_a_value_that_refers_to_nothing_is_named_together_with_what_else_is_wrong(
    main: Callable[..., Outcome],
) -> None:
    done = main("model.path=${model.folder}", "prune.target_ratio=abc", "modle=hf")
    assert done.status == 2
    for key in ("model.path", "prune.target_ratio", "modle"):
        assert f"\n  {key}: " in done.text


def test_a_configuration_that_is_only_shown_is_checked(main: Callable[..., Outcome]) -> None:
    assert main("--cfg", "job", "prune.target_ratio=15").status == 0
    done = main("--cfg", "job", "prune.traget_ratio=15")
    assert done.status == 2
    assert "prune.traget_ratio: no such key; did you mean prune.target_ratio?" in done.text


def test_a_wrong_sweep_writes_nothing(main: Callable[..., Outcome], place: Path) -> None:
    before = files_under(place)
    done = main("-m", *ARGUMENTS, "prune.target_ratio=abc,def")
    assert done.status == 2
    assert "'abc'" in done.text
    assert "'def'" in done.text
    assert files_under(place) == before


def test_a_sweep_of_too_many_combinations_is_counted_and_not_composed(
    main: Callable[..., Outcome], place: Path
) -> None:
    before = files_under(place)
    values = ("prune.target_ratio=range(1,99)", "prune.mlp_group_size=range(1,1000)")
    done = main("-m", *ARGUMENTS, *values)
    assert done.status == 2
    assert done.text.splitlines()[1] == (
        "  sweep.most: these are 97,902 combinations, and allowed are 500; sweep fewer values, or "
        "plan all of them with sweep.most=97902"
    )
    assert files_under(place) == before
    done = main("-m", *ARGUMENTS, "prune.target_ratio=20,21", "sweep.most=1")
    assert "these are 2 combinations, and allowed are 1; " in done.text
    assert main("-m", *ARGUMENTS, "run.dir=null", "plan=true", "sweep.most=1").status == 0


def test_a_sweep_names_what_it_varies_with_brackets_and_all(
    main: Callable[..., Outcome], place: Path
) -> None:
    orders = "prune.order=[blocks,mlp_channels,heads],[mlp_channels,blocks,heads]"
    done = main("-m", *ARGUMENTS, "run.dir=null", orders, "evaluate=none")
    assert done.status == 0
    assert "1 of 2: order [blocks,mlp_channels,heads]: " in done.text


def test_a_run_in_a_folder_of_any_name_ends_with_that_name(
    place: Path, run: Callable[..., Outcome]
) -> None:
    assert_done(run('run.dir="x[/y]"'), "x[/y]")
    assert_done(run("run.dir='z[red]:smile:'"), "z[red]:smile:")


def test_flags_may_stand_behind_overrides(main: Callable[..., Outcome]) -> None:
    done = main("prune.target_ratio=15", "--cfg", "job")
    assert done.status == 0
    assert "target_ratio: 15" in done.text


def test_a_problem_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise ConfigError(["run.dir: a\nb\x1b[31m does not exist", "x: " + "long " * 999])

    assert launch.report_errors(refuse, "python launch.py AGAIN") == 2
    _, first, second = capsys.readouterr().err.splitlines()
    assert first == "  run.dir: a\\nb\\x1b[31m does not exist"
    assert len(second) < 1000


# ---- generated bad inputs


@pytest.fixture(scope="module")
def bad_inputs() -> ModuleType:
    path = REPOSITORY / "benchmarks" / "bad_inputs.py"
    spec = importlib.util.spec_from_file_location("bad_inputs", path)
    assert spec
    assert spec.loader
    module = sys.modules["bad_inputs"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_bad_inputs_are_refused_in_a_line_each_and_leave_nothing(
    bad_inputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = bad_inputs.make_base(tmp_path / "base")
    endings = {case: bad_inputs.run(case, base) for case in bad_inputs.cases(12, seed=7)}
    wrong = {case: ending for case, ending in endings.items() if ending.outcome != "refused"}
    assert not wrong


# ---- a run folder that belongs to another run


@pytest.mark.usefixtures("warm")
def test_a_run_folder_is_not_given_to_another_configuration(
    place: Path, run: Callable[..., Outcome]
) -> None:
    assert run().status == 0
    before = files_under(place)
    done = typed(*ARGUMENTS, "prune.target_ratio=10", "scoring.memory_fraction=0.2")
    assert done.status == 2
    assert done.text.splitlines()[1] == (
        "  run.dir: run belongs to another configuration "
        "(prune.target_ratio is 20.0 there and 10.0 here); choose another run.name or run.dir"
    )
    assert files_under(place) == before


def test_a_refused_run_folder_leaves_a_store_as_it_is(
    place: Path, run: Callable[..., Outcome]
) -> None:
    assert run().status == 0
    before = files_under(place)
    assert run("prune.target_ratio=10", "store.dir=another_store").status == 2
    assert files_under(place) == before


def test_a_run_folder_whose_model_has_changed_is_refused_with_that_reason(
    place: Path, run: Callable[..., Outcome]
) -> None:
    assert run().status == 0
    edit_weights(place / "model", lambda weights: weights["lm_head.weight"].mul_(2))
    done = run()
    assert done.status == 2
    assert "its model or calibration file has changed since" in done.text


@pytest.mark.parametrize("content", ["", "[]", '{"key": 3}'])
def test_a_run_folder_with_a_broken_owner_file_is_refused(
    content: str, place: Path, run: Callable[..., Outcome]
) -> None:
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text(content)
    done = run()
    assert done.status == 2
    assert "run.dir: run belongs to another configuration, as far as can be told: " in done.text


# ---- a run that cannot be finished


@pytest.mark.usefixtures("warm")
def test_a_target_out_of_reach_ends_with_how_far_it_goes_and_keeps_the_steps(place: Path) -> None:
    done = typed(*ARGUMENTS, "prune.target_ratio=99", "prune.distribution=[0,0,1]")
    assert done.status == 1
    assert "Traceback" not in done.text
    taken = steps(place / "run")
    assert [step["dimension"] for step in taken] == ["heads", "heads"]
    summary = json.loads((place / "run" / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("failed", 2)
    assert summary["stages"]["prune"]["status"] == "failed"
    (line,) = done.errors_alone()
    assert line.startswith("error: prune.target_ratio=99 cannot be reached: ")
    most = re.search(r"at most ([\d.]+) % can go", line)
    assert most
    assert float(most[1]) == pytest.approx(taken[-1]["ratio_percent"], abs=0.01)
    assert summary["error"] in line


def test_a_target_out_of_reach_keeps_steps_that_another_run_has_computed(
    place: Path, run: Callable[..., Outcome]
) -> None:
    run("prune.target_ratio=99", "prune.distribution=[0,0,1]")
    assert run("prune.target_ratio=98", "prune.distribution=[0,0,1]", "run.dir=again").status == 1
    assert steps(place / "again") == steps(place / "run")
    assert json.loads((place / "again" / "summary.json").read_text())["steps_computed"] == 0


def test_the_target_that_is_named_as_in_reach_is_reached_with_the_same_steps(
    place: Path, run: Callable[..., Outcome]
) -> None:
    done = run("prune.target_ratio=99", "prune.distribution=[0,0,1]")
    named = re.search(r"a target up to ([\d.]+) reuses them", done.text)
    assert named
    again = run(f"prune.target_ratio={named[1]}", "prune.distribution=[0,0,1]", "run.dir=again")
    assert_done(again, "again")
    assert steps(place / "again") == steps(place / "run")


def test_a_target_out_of_reach_without_a_step(place: Path, run: Callable[..., Outcome]) -> None:
    done = run("prune.distribution=[0,0,1]", "prune.attn_group_size=16")
    assert done.status == 1
    assert "cannot be reached" in done.text
    assert json.loads((place / "run" / "summary.json").read_text())["steps"] == 0


@pytest.mark.usefixtures("warm")
def test_weights_that_are_not_numbers_end_the_run_with_what_may_be_at_fault(place: Path) -> None:
    edit_weights(place / "model", lambda weights: weights["lm_head.weight"].fill_(torch.nan))
    done = typed(*ARGUMENTS)
    assert done.status == 1
    (line,) = done.errors_alone()
    assert line.startswith("error: none of the 4 candidates has a finite perplexity: ")
    assert "model.dtype" in line
    assert json.loads((place / "run" / "summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("lost", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_model_of_which_weights_are_missing_is_not_run_with_random_ones(
    lost: str, place: Path, run: Callable[..., Outcome]
) -> None:
    edit_weights(place / "model", lambda weights: weights.pop(lost))
    done = run()
    assert done.status != 0
    assert lost in done.text


def test_a_model_with_fewer_layers_than_its_configuration_is_not_run_with_random_ones(
    place: Path, run: Callable[..., Outcome]
) -> None:
    edit_config(place / "model", num_hidden_layers=3)
    done = run()
    assert done.status != 0
    assert "model.layers.2." in done.text


def test_weights_of_another_shape_than_the_configuration_are_named(
    place: Path, run: Callable[..., Outcome]
) -> None:
    edit_config(place / "model", intermediate_size=28)
    done = run()
    assert done.status != 0
    assert "proj.weight" in done.text


# ---- a disk that is full


@pytest.fixture(scope="module")
def undisturbed(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps that the command takes where nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    places = {
        "model.path": saved,
        "calibration.path": write_tokens(folder / "tokens.json"),
        "run.dir": folder / "run",
        "store.dir": folder / "store",
    }
    launch.run(raw(*ARGUMENTS, *(f"{key}={path}" for key, path in places.items())), [])
    return steps(folder / "run")


def no_space(path: object = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path and str(path))


def leftovers(*folders: str) -> list[Path]:
    return [path for folder in folders for path in Path(folder).rglob("*.tmp")]


AGAIN = [
    "error: No space left on device.*; everything up to the last step is kept; "
    "to go on, type the same again:",
    "  python launch.py AGAIN",
]


@pytest.mark.parametrize("written", [0, 3, 9, 18, 27])
def test_a_disk_that_fills_up_is_said_in_one_line_and_the_run_goes_on_where_there_is_room(
    written: int,
    place: Path,
    run: Callable[..., Outcome],
    undisturbed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk takes a number of files, and then no more."""
    sync, room = os.fsync, written

    def fsync(descriptor: int) -> None:
        nonlocal room
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            if room == 0:
                raise no_space()
            room -= 1
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.files.os.fsync", fsync)
        done = run()
    assert done.status == 1
    first, second = done.errors_alone()
    assert re.fullmatch(AGAIN[0], first)
    assert second == AGAIN[1]
    assert leftovers("store", "run") == []

    assert_done(run(), "run")
    assert steps(place / "run") == undisturbed


@pytest.mark.parametrize("name", ["config.yaml", "00000.json", "summary.json", "done.json"])
def test_a_file_that_cannot_be_made_is_named(
    name: str, place: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = io.open

    def full(file: Any, mode: str = "r", *args: Any, **keywords: Any) -> Any:
        if "w" in mode and f".{name}." in str(file):
            raise no_space(file)
        return opened(file, mode, *args, **keywords)

    monkeypatch.setattr("io.open", full)
    done = run()
    assert done.status == 1
    first, second = done.errors_alone()
    assert re.fullmatch(AGAIN[0], first)
    assert name in first
    assert second == AGAIN[1]
    assert leftovers("store", "run") == []


def test_a_name_that_cannot_be_given_leaves_no_temporary_file(
    place: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise no_space(target)

    monkeypatch.setattr(Path, "replace", full)
    assert run().status == 1
    assert leftovers("store", "run") == []


def test_a_disk_that_is_full_when_the_token_windows_are_written(
    place: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise no_space(path)

    monkeypatch.setattr(calibration, "replace", full)
    done = run()
    assert done.status == 1
    assert "No space left on device" in done.text


# ---- how errors are reported


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_place_that_cannot_be_written_is_named(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        raise OSError(number, os.strerror(number), "/data/run")

    assert launch.report_errors(write, "python launch.py AGAIN") == 1
    assert capsys.readouterr().err.startswith(f"error: {os.strerror(number)} (/data/run); ")


def test_an_interrupted_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert launch.report_errors(interrupted, "python launch.py AGAIN") == 1
    assert capsys.readouterr().err == (
        "interrupted; everything up to the last step is kept; "
        "to go on, type the same again:\n  python launch.py AGAIN\n"
    )


def test_a_defect_of_the_program_is_not_hidden() -> None:
    def defect() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        launch.report_errors(defect, "python launch.py AGAIN")


def test_a_wrong_value_is_told_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, launch; sys.argv[1:] = ['prune.target_ratio=200']; status = launch.main(); "
        "sys.exit(status if {'torch', 'transformers'}.isdisjoint(sys.modules) else 'too late')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "prune.target_ratio: 200 is wrong" in done.stderr) == (2, True)


def test_python_without_the_packages_says_what_to_type() -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(LAUNCH)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {sys.executable} does not have the packages")
    assert "make install; then in every shell: . .venv/bin/activate" in done.stderr
    assert len(done.stderr.splitlines()) == 1
