"""How a run stands whose stages run in the process that was started for it."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from support_inputs import TINY, raw, save_model, write_tokens

import launch
from pipeline.commands import logs
from pipeline.jobs import following
from pipeline.jobs.status import of_run, places, run_state
from pipeline.store.leases import lease
from pipeline.store.run_folder import TRACKING
from pipeline.store.summary import Summary

GROUPS = ("prune.mlp_group_size=8", "prune.attn_group_size=8")
ONE_STEP = (*GROUPS, "score.enabled=false", "prune.target_ratio=1", "run.dir=run")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    launch.run(raw(*TINY, *ONE_STEP), [])
    return Path("run")


def standing(run: Path) -> dict[str, str]:
    return {status.stage: status.state for status in of_run(run)}


def test_it_is_running_interrupted_failed_or_done(run: Path) -> None:
    assert standing(run) == {"calibrate": "done", "prune": "done"}
    assert following.steps(run) == 1
    prune = places(run)[1].folder
    (prune / "done.json").unlink()
    assert standing(run) == {"calibrate": "done", "prune": "interrupted"}
    with lease(prune):
        assert standing(run)["prune"] == "running"
    with ExitStack() as held:
        held.enter_context(lease(run / TRACKING))
        assert standing(run)["prune"] == "pending"
        assert run_state(of_run(run)) == "pending"
    summary = Summary.checked(run)
    assert summary
    failed = summary.stages["prune"].model_copy(update={"status": "failed"})
    stages = {**summary.stages, "prune": failed}
    for error, state in (("too hot", "failed"), ("KeyboardInterrupt", "interrupted")):
        update = {"status": "failed", "error": error, "stages": stages}
        summary.model_copy(update=update).write(run)
        (status,) = [status for status in of_run(run) if status.stage == "prune"]
        assert status.state == state
        assert (status.reason == error) == (state == "failed")


def test_its_logs_are_its_steps(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    logs.show(run, None, follow=True)
    said = capsys.readouterr().out
    assert "in that terminal" in said
    assert "step   0 " in said
    assert said.endswith("prune: done\n")
