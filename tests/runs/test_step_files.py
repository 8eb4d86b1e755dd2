"""``steps.jsonl`` while steps come faster than it can be written."""

import time
from pathlib import Path
from typing import Any

import pytest
from support_inputs import A_FIFTH, TINY, raw, save_model, save_tokenizer, write_tokens

import launch
from pipeline.pruning.records import read_steps
from pipeline.runs.listener import WRITING
from pipeline.runs.runner import StageRunner
from pipeline.store.run_folder import RunFolder

WRITE_S = 0.05


def test_writing_takes_a_share_of_the_time_and_a_finished_stage_leaves_all_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    write, take = RunFolder.write_steps, RunFolder.take
    written: list[int] = []
    after: dict[str, int] = {}

    def slowly(folder: RunFolder, steps: Any, records: Any) -> None:
        time.sleep(WRITE_S)
        written.append(len(steps))
        write(folder, steps, records)

    def taken(folder: RunFolder, planned: Any, stage_folder: Path) -> None:
        after[planned.name] = folder.steps_written()
        take(folder, planned, stage_folder)

    monkeypatch.setattr(RunFolder, "write_steps", slowly)
    monkeypatch.setattr(RunFolder, "take", taken)
    started = time.monotonic()
    small = ("prune.target_ratio=20", "prune.mlp_group_size=1", "prune.attn_group_size=8")
    launch.run(raw(*TINY, "prune=magnitude", *small, "run.dir=run"), [])
    took = time.monotonic() - started
    assert after["prune"] == len(read_steps(Path("run/steps.jsonl"))) > 20
    ends = len(after) + 1
    assert len(written) <= 1 + took / (WRITE_S / WRITING) + ends
    assert written[0] == 1


def test_steps_that_were_found_are_there_while_a_later_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tokenizer(save_model(tmp_path / "model"))
    write_tokens(tmp_path / "tokens.json")
    (tmp_path / "text.txt").write_text("The held-out text of a tiny model. " * 4)
    launch.run(raw(*TINY, *A_FIFTH, "run.dir=first"), [])
    compute, before = StageRunner._compute, {}

    def watched(runner: StageRunner, stage: Any, guard: Any) -> None:
        before[stage.name] = runner.folder.steps_written()
        compute(runner, stage, guard)

    monkeypatch.setattr(StageRunner, "_compute", watched)
    evaluated = ("evaluate.text=text.txt", "evaluate.seqlen=16")
    launch.run(raw(*TINY, *A_FIFTH, *evaluated, "run.dir=second"), [])
    assert before == {"evaluate": len(read_steps(Path("first/steps.jsonl")))}
