"""What is stored and damaged is named, set aside and made again; nothing of it is believed."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import REPOSITORY

from pipeline.errors import DamagedError
from pipeline.files import (
    content_of,
    mended,
    publish_sealed,
    read_object,
    read_sealed,
    replace,
    sealed,
    set_aside,
)
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.trajectory import Trajectory, TrajectoryStore
from pipeline.pruning.units import ATTN, MLP, Candidate
from pipeline.store.digests import Digests
from pipeline.store.leases import awaited_lease
from pipeline.store.results import result_in

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import damage as harness

Json = dict[str, Any]


def read(path: Path) -> Json:
    return json.loads(path.read_text("utf-8"))


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), "utf-8")


# A file


PIPE = "something that is no file is in its place"
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_text(""), "it is empty"),
    "cut": (lambda path: path.write_text('{"a": '), "it is cut short or garbled, no JSON"),
    "garbled": (lambda path: path.write_bytes(b"\xff\x00"), "it is cut short or garbled, no JSON"),
    "nested": (lambda path: path.write_text("[" * 99999), "it is cut short or garbled, no JSON"),
    "a list": (lambda path: path.write_text("[]"), "it holds no object but list"),
    "a folder": (lambda path: path.mkdir(), "a folder is in its place"),
    "a pipe": (os.mkfifo, PIPE),
    "a link to nothing": (
        lambda path: path.symlink_to("nowhere"), "a link that leads nowhere is in its place"
    ),
    "a link to itself": (
        lambda path: path.symlink_to(path.name),
        "it cannot be read: Too many levels of symbolic links",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_object_is_damaged_and_says_why(kind: str, tmp_path: Path) -> None:
    make, reason = UNREADABLE[kind]
    path = tmp_path / "file.json"
    make(path)
    with pytest.raises(DamagedError) as caught:
        read_object(path)
    assert str(caught.value) == f"{path} is damaged: {reason}"


def test_what_is_not_there_is_absent(tmp_path: Path) -> None:
    assert content_of(tmp_path / "file") is None
    assert read_sealed(tmp_path / "folder" / "file.json", "place") is None


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.name)])
def test_what_is_in_the_place_of_a_folder_is_what_is_damaged(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "folder")
    for work in (
        lambda: content_of(tmp_path / "folder" / "file.json"),
        lambda: replace(tmp_path / "folder" / "deeper" / "file.json", "text"),
    ):
        with pytest.raises(DamagedError) as caught:
            work()
        assert caught.value.path == tmp_path / "folder"


CONTENT = {"chosen": {"layer": 1}, "scores": [1.5, None, 1e-300], "name": "ä"}


def test_a_seal_holds_for_its_content_and_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    assert publish_sealed(path, CONTENT, "here")
    assert not publish_sealed(path, {"other": 1}, "here"), "the first writer wins"
    assert read_sealed(path, "here", must=True) == CONTENT
    with pytest.raises(DamagedError, match="not what was written there"):
        read_sealed(path, "there")


def test_every_change_of_a_value_breaks_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    whole = json.loads(sealed(CONTENT, "here"))
    for changed in (
        {"chosen": {"layer": 2}}, {"scores": [1.5, None, 0.0]}, {"name": "a"}, {"more": 0},
        {"seal": "0" * 64}, {"seal": None},
    ):  # fmt: skip
        write(path, whole | changed)
        with pytest.raises(DamagedError):
            read_sealed(path, "here", must=True)


def test_a_file_of_an_earlier_version_has_no_seal_and_is_read(tmp_path: Path) -> None:
    write(tmp_path / "file.json", {"a": 1})
    assert read_sealed(tmp_path / "file.json", "here") == {"a": 1}
    with pytest.raises(DamagedError, match="has lost its digest"):
        read_sealed(tmp_path / "file.json", "here", must=True)


def test_what_is_damaged_is_set_aside_under_a_name_of_its_own(tmp_path: Path) -> None:
    path, marker = tmp_path / "file.json", tmp_path / "done.json"
    said = []
    for text in ("first", "second"):
        path.write_text(text)
        marker.write_text("")
        said.append(set_aside(DamagedError(path, "why", voided=marker)))
    assert said == [
        f"{path} is damaged: why; set aside as file.json.damaged",
        f"{path} is damaged: why; set aside as file.json.2.damaged",
    ]
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "file.json.2.damaged", "file.json.damaged",
    ]  # fmt: skip


def test_work_begins_again_without_what_is_damaged_and_ends_where_that_does_not_help(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.json"
    path.mkdir()
    said: list[str] = []
    mended(partial(replace, path, "text"), said.append)
    assert (path.read_text(), len(said)) == ("text", 1)

    def always() -> None:
        raise DamagedError(path, "why")

    with pytest.raises(DamagedError):
        mended(always, said.append)
    assert len(said) == 2


# A step


CANDIDATES = [Candidate(ATTN, 0, 0), Candidate(MLP, 0, 0), Candidate(MLP, 1, 0)]
SCORES = (3.0, 1.0, 2.0)
STEP = Step.choose([ScoredCandidate(*each) for each in zip(CANDIDATES, SCORES, strict=True)])


@pytest.fixture
def trajectory(tmp_path: Path) -> Trajectory:
    """One with two steps, as an earlier version wrote them: without digests."""
    trajectory = TrajectoryStore(tmp_path, awaited_lease).open({"start": "dense"})
    for index in range(2):
        trajectory.record(index, STEP, {}, lambda: None)
        content = read(trajectory.path_of(index))
        del content["seal"]
        write(trajectory.path_of(index), content)
    return trajectory


CHANGED: dict[str, Json] = {
    "another is chosen": {"chosen": CANDIDATES[0].to_json()},
    "another score": {"importance": 0.5},
    "a layer that there is not": {"chosen": {"unit": "mlp", "layer": 77, "width_after": 0}},
    "no such unit": {"chosen": {"unit": "wing", "layer": 0, "width_after": 0}},
    "no candidates": {"candidates": []},
    "candidates of another form": {"candidates": {"unit": "mlp"}},
    "scores that are text": {"candidates": [{**CANDIDATES[1].to_json(), "ppl": "low"}] * 2},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGED)
def test_a_step_that_is_no_decision_is_damaged_even_without_a_digest(
    change: str, trajectory: Trajectory
) -> None:
    assert trajectory.read(0, CANDIDATES) == STEP
    path = trajectory.path_of(0)
    write(path, read(path) | CHANGED[change])
    with pytest.raises(DamagedError, match=str(path)):
        trajectory.read(0, CANDIDATES)


def test_a_step_among_other_candidates_than_there_are_is_damaged(trajectory: Trajectory) -> None:
    with pytest.raises(DamagedError, match="cannot go after the steps before it"):
        trajectory.read(0, CANDIDATES[:2])


def test_a_step_of_another_place_is_damaged(trajectory: Trajectory) -> None:
    trajectory.path_of(2).unlink(missing_ok=True)
    trajectory.record(2, STEP, {}, lambda: None)
    shutil.copy(trajectory.path_of(2), trajectory.path_of(1))
    assert trajectory.read(2, CANDIDATES) == STEP
    with pytest.raises(DamagedError, match="not what was written there"):
        trajectory.read(1, CANDIDATES)


# The cache of digests


def test_a_digest_that_was_changed_is_not_believed_and_a_broken_cache_blocks_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "weights"
    file.write_text("weights")
    digests = Digests(tmp_path / "digests")
    wanted = digests.of(file)
    digests.save()
    (entry,) = (tmp_path / "digests").iterdir()
    write(entry, read(entry) | {"sha256": "0" * 64})
    assert digests.of(file) == wanted
    entry.unlink()
    entry.mkdir()
    again = Digests(tmp_path / "digests")
    assert again.of(file) == wanted
    again.save()
    assert read(entry)["sha256"] == wanted


# Whole runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> harness.Undisturbed:
    """A finished run, and what one that goes farther comes to."""
    torch.set_num_threads(1)
    return harness.Undisturbed(tmp_path_factory.mktemp("damage"), ())


def stage(name: str) -> Path:
    (folder,) = Path("outputs/store/stages").glob(f"{name}/*")
    return folder


def cut_lines(path: Path, lines: int) -> None:
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:lines]), "utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def folder_in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_damage_all_over_a_store_is_named_and_every_result_comes_out_as_it_was(
    whole: harness.Undisturbed,
) -> None:
    """The kinds that were once believed, or ended in a traceback."""
    with whole.a_copy():
        steps = sorted(Path("outputs/store/trajectories").glob("*/steps/00000.json"))
        records = sorted(Path("outputs/store/records").glob("*.json"))
        write(steps[0], read(steps[0]) | {"chosen": {"unit": "mlp", "layer": 77, "width_after": 0}})
        folder_in_place_of(steps[1])
        write(records[0], {"identity": {}, "record": {}})
        cut_lines(stage("prune") / "steps.jsonl", 3)
        flip(stage("calibrate") / "tokens.safetensors")
        write(stage("score") / "done.json", {"dense_ppl": {}})
        (stage("evaluate") / "evaluation.json").unlink()
        shutil.copy(stage("score") / "recipe.json", stage("probe") / "recipe.json")
        damaged = [
            steps[0], steps[1], stage("prune") / "steps.jsonl",
            stage("calibrate") / "tokens.safetensors", stage("score") / "done.json",
            stage("evaluate") / "evaluation.json", stage("probe") / "recipe.json",
        ]  # fmt: skip
        checked = harness.typed("check")
        assert checked.status == 1
        assert [path for path in (*damaged, records[0]) if str(path) not in checked.text] == []
        said = ""
        for name, arguments, wanted in (
            ("near", harness.NEAR, whole.near), ("far", harness.FAR, whole.far)
        ):  # fmt: skip
            outcome = harness.launched(arguments)
            assert outcome.status == 0, outcome.text
            assert harness.results(Path(), name) == wanted
            said += outcome.text
        assert [path for path in damaged if f"{path} is damaged" not in said] == []
        assert harness.typed("check").status == 0, "all was made again"


def test_results_of_an_earlier_version_are_found_and_checked_as_far_as_that_goes(
    whole: harness.Undisturbed,
) -> None:
    with whole.a_copy():
        for path in Path("outputs").rglob("*.json"):
            if path.name == "files.json":
                path.unlink()
            elif "seal" in (content := read(path)):
                write(path, {key: value for key, value in content.items() if key != "seal"})
        outcome = harness.launched(harness.NEAR)
        assert "damaged" not in outcome.text
        stages = read(Path("outputs/runs/near/summary.json"))["stages"]
        assert {entry["status"] for entry in stages.values()} == {"reused"}
        cut_lines(stage("prune") / "steps.jsonl", 0)
        outcome = harness.launched(harness.NEAR)
        assert f"{stage('prune') / 'steps.jsonl'} is damaged: it has 0 steps of" in outcome.text
        assert harness.results(Path(), "near") == whole.near


def test_a_run_folder_that_is_damaged_is_told_in_one_line_and_written_again(
    whole: harness.Undisturbed,
) -> None:
    with whole.a_copy():
        run = Path("outputs/runs/near")
        (run / "launch.json").write_text("")
        for command in ("status", "why", "logs", "retry", "cancel", "compare"):
            outcome = harness.typed(command, "near")
            assert (outcome.status in (1, 2), outcome.is_told_well) == (True, True), outcome.text
            assert f"{run}/launch.json is damaged: it is empty" in outcome.text
        (run / "run.json").write_text("{")
        (run / "stages.json").unlink()
        folder_in_place_of(run / "summary.json")
        outcome = harness.launched(harness.NEAR)
        assert outcome.status == 2, "nobody knows whose folder it is"
        shutil.copy(whole.place / run / "stages.json", run / "stages.json")
        outcome = harness.launched(harness.NEAR)
        assert outcome.status == 0, outcome.text
        assert f"{run}/run.json is damaged" in outcome.text
        assert harness.results(Path(), "near") == whole.near
        assert harness.typed("status", "near").status == 0


def test_check_sets_aside_what_is_damaged(whole: harness.Undisturbed) -> None:
    with whole.a_copy():
        assert harness.typed("check").status == 0
        path = stage("prune") / "pruning_config.json"
        path.write_text("{}")
        shutil.rmtree(stage("score") / "leases")
        (stage("score") / "leases").touch()
        assert harness.typed("check").status == 1
        assert path.exists(), "check alone changes nothing"
        repaired = harness.typed("check", "--repair", "outputs/store")
        assert repaired.status == 0
        assert f"{path} is damaged: it has 2 bytes instead of" in repaired.text
        assert path.with_name("pruning_config.json.damaged").read_text() == "{}"
        assert (stage("score") / "leases.damaged").is_file()
        assert result_in(path.parent) is None


def test_check_says_what_to_do_about_a_file_that_is_missing(whole: harness.Undisturbed) -> None:
    with whole.a_copy():
        later = next(Path("outputs/store/trajectories").glob("*/steps/00001.json"))
        later.with_name("00000.json").unlink()
        checked = harness.typed("check")
        assert checked.status == 1
        assert "the next launch that needs what is missing makes it" in checked.text


def test_a_run_folder_whose_values_were_changed_is_not_compared(whole: harness.Undisturbed) -> None:
    run = Path("outputs/runs/near")
    with whole.a_copy():
        cut_lines(run / "steps.jsonl", 2)
        (kept,) = run.glob("measured/evaluate/*/evaluation.json")
        write(kept, read(kept) | {"pruned": read(kept)["dense"]})
        summary = read(run / "summary.json")
        write(run / "summary.json", summary | {"steps": 2})
        checked = harness.typed("check", str(run))
        for path in (kept, run / "summary.json"):
            assert f"{path} is damaged" in checked.text
        compared = harness.typed("compare", "near")
        assert (compared.status, f"near: damaged ({run}" in compared.text) == (2, True)
        write(run / "summary.json", summary)
        assert f"{run}/steps.jsonl is damaged: it has 2 steps of" in harness.typed("check").text


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_generated_damages_are_all_told(tmp_path: Path) -> None:
    undisturbed = harness.Undisturbed(tmp_path)
    cases = [undisturbed.case(number, seed=7) for number in range(12)]
    assert [case for case in cases if case.faults] == []
