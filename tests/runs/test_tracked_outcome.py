"""What the trackers of a run are given: where curves begin, tables, files, and alerts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_inputs import TINY, raw, save_model, write_tokens

import launch
from pipeline.errors import StageError
from pipeline.files import encode, replace
from pipeline.runs import session
from pipeline.stages import prune
from pipeline.store.folders import SWEEPS

SMALL = (
    "prune.target_ratio=12", "prune.mlp_group_size=8", "prune.attn_group_size=8", "run.dir=run",
    "sweep.name=ratios", "tracking.alerts=true",
)  # fmt: skip


class Recorder:
    """A tracker that keeps what it is told, by what is told."""

    def __init__(self) -> None:
        self.told: dict[str, list[Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **_: self.told.setdefault(name, []).append(values)


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model")
    write_tokens(tmp_path / "tokens.json")
    recorder = Recorder()
    monkeypatch.setattr(session, "open_tracker", lambda *_: recorder)
    listed = {"runs": [{"run": str(tmp_path / "run"), "overrides": []}]}
    replace(SWEEPS / "ratios" / "sweep.json", encode(listed))
    return recorder


def test_a_run_gives_its_curve_from_the_dense_model_on_and_all_that_it_decided(
    recorder: Recorder,
) -> None:
    launch.run(raw(*TINY, *SMALL), [])
    rows = [row for (row,) in recorder.told["log"]]
    assert [row["prune/step"] for row in rows] == list(range(len(rows)))
    assert all(row["prune/ppl"] > 1 for row in rows)
    assert rows[0]["prune/ratio_percent"] == 0
    tables = {name: (columns, list(table)) for name, columns, table in recorder.told["table"]}
    assert tables.keys() == {"steps_table", "candidates", "sensitivity"}
    columns, steps = tables["steps_table"]
    assert [row[columns.index("score")] for row in steps] == [row["prune/ppl"] for row in rows[1:]]
    assert all(len(row) == len(columns) for columns, table in tables.values() for row in table)
    ((name, files),) = recorder.told["files"]
    assert (name, [path.name for path in files]) == (
        "run-decisions", ["pruning_config.json", "steps.jsonl"]
    )  # fmt: skip
    assert recorder.told["page"] == [("page", Path("run/report.html"))]
    ((title, text),) = recorder.told["alert"]
    assert title == "run: sweep ratios is done"
    assert text == "1 runs; see: multipruner compare ratios"


def test_a_failure_is_told_where_alerts_are_wanted(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StageError("too hot")

    monkeypatch.setattr(prune, "to_jsonl", refuse)
    for wanted, told in (("false", None), ("true", [("run: failed", "too hot")])):
        with pytest.raises(StageError):
            launch.run(raw(*TINY, *SMALL[:-1], f"tracking.alerts={wanted}"), [])
        assert recorder.told.get("alert") == told
