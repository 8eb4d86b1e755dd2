"""A launch with ``prune.until``: from the command line to the run that was found."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from support_inputs import TINY, save_model, write_tokens

import launch
from pipeline.plan.run import Run, settings_of
from pipeline.report.compare.records import ComparedRun, read_run
from pipeline.runs.session import needs_conclusion
from pipeline.studies import until

PROBED = "probe.workloads={default: {batch: 1, prompt_tokens: 4, output_tokens: 2}}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", num_hidden_layers=4)
    write_tokens(tmp_path / "tokens.json")
    return tmp_path


@pytest.mark.usefixtures("warm")
def test_the_least_ratio_is_found_timed_again_elsewhere_and_taken_up_where_it_was_left(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processes: list[str] = []

    def speed(run: ComparedRun, *_: object) -> Mapping[str, float]:
        """As if all time were in the weights; it must have been timed all the same."""
        assert run.pruned.latency
        assert run.removed_percent is not None
        processes.append(run.pruned.latency.taken)
        value = 1 / (1 - run.removed_percent / 100)
        ends = {"decode_speedup_low": value, "decode_speedup_high": value}
        return {"decode_speedup": value, **ends, "ratio_percent": run.removed_percent}

    monkeypatch.setattr(until, "outcome_of", speed)
    arguments = (
        *TINY, "prune=finercut", "evaluate=none", "prune.until.decode_speedup=1.3", "probe=none",
        PROBED, "probe.repeats=1",
    )  # fmt: skip
    monkeypatch.setattr("sys.argv", ["launch.py", *arguments])
    monkeypatch.setattr(until, "REPEATS", 1)
    assert launch.main() == 0
    said = capsys.readouterr().out
    (folder,) = (place / "outputs/sweeps").iterdir()
    (facts,) = json.loads((folder / "found.json").read_text()).values()
    found = Path(facts["found"]["run"])
    assert json.loads((found / "found.json").read_text()) == facts
    removed = read_run(found).removed_percent
    assert removed is not None
    assert 1 / (1 - removed / 100) >= 1.3
    below = [each for each in facts["tried"] if each["measured"][0]["decode_speedup"] < 1.3]
    assert (
        facts["found"]["target_ratio"] - below[-1]["measured"][0]["ratio_percent"]
        < 1.5 * facts["step"]
    )
    assert "in another process" in said
    assert "prune.until is met at prune.target_ratio=" in said
    assert said.splitlines()[-1] == f"see: {found.relative_to(place)}/report.html"

    launched = len(processes)
    assert launch.main() == 0
    assert len(processes) == launched, "nothing is done again"
    assert capsys.readouterr().out.count("generation") == 0

    again = {**settings_of(found)["probe"], "again": 1}
    measured_again = Run.open(found, other={"probe": again})
    assert measured_again.is_complete
    assert needs_conclusion(measured_again), "what its folder says is of another measurement"
    assert not needs_conclusion(Run.open(found))
