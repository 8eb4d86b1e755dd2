"""Lines of ``steps.jsonl``: what is written, and what of earlier versions is read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.pruning.records import Measured, StepRecord, read_steps, to_jsonl
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import ATTN, LAYER, MLP, Candidate

SCORED = (
    ScoredCandidate(Candidate(ATTN, 0, 0), 12.5),
    ScoredCandidate(Candidate(MLP, 1, 0), 11.25, estimated=True),
    ScoredCandidate(Candidate(MLP, 2, 0), None),
)
RECORD = StepRecord(
    step=3,
    dimension="blocks",
    decision=Step(Candidate(ATTN, 0, 0), 12.5, SCORED, audited=Candidate(MLP, 1, 0)),
    ratio_percent=7.5,
    params=1000,
    source=("key", 3),
)
LINE: dict[str, Any] = {
    "step": 3,
    "dimension": "blocks",
    "unit": "attn",
    "layer": 0,
    "width_after": 0,
    "importance": 12.5,
    "ratio_percent": 7.5,
    "params": 1000,
    "candidates": [
        {"unit": "attn", "layer": 0, "width_after": 0, "ppl": 12.5},
        {"unit": "mlp", "layer": 1, "width_after": 0, "ppl": 11.25, "estimated": True},
        {"unit": "mlp", "layer": 2, "width_after": 0, "ppl": None},
    ],
    "audited": {"unit": "mlp", "layer": 1, "width_after": 0},
    "source": ["key", 3],
}
"""As versions before ``schema_version`` wrote it."""


def written(tmp_path: Path, *records: StepRecord) -> Path:
    path = tmp_path / "steps.jsonl"
    path.write_text(to_jsonl(records), encoding="utf-8")
    return path


def test_a_line_is_what_it_was_and_ends_with_its_version(tmp_path: Path) -> None:
    line = json.loads(written(tmp_path, RECORD).read_text("utf-8"))
    assert list(line.items()) == [*LINE.items(), ("schema_version", 2)]


def test_a_line_without_a_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(LINE) + "\n", encoding="utf-8")
    assert read_steps(path) == [RECORD]


def test_a_version_to_come_is_named(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(LINE | {"schema_version": 3}) + "\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="schema_version 3; known are versions up to 2"):
        read_steps(path)


def test_what_a_probe_measured_comes_before_the_version(tmp_path: Path) -> None:
    measured = Measured(9.5, 0.5, {"batch": 1}, None)
    record = replace(RECORD, source=None, measured=measured)
    path = written(tmp_path, record)
    line = json.loads(path.read_text("utf-8"))
    assert list(line)[-5:] == ["ppl", "accuracy", "latency", "memory", "schema_version"]
    assert "source" not in line
    assert read_steps(path) == [record]


def test_another_criterion_has_a_score_in_the_place_of_perplexity(tmp_path: Path) -> None:
    scored = tuple(replace(each, kept=True) for each in SCORED)
    decision = Step(Candidate(LAYER, 0, 0), 0.25, scored, criterion="block_influence")
    record = replace(RECORD, decision=decision)
    path = written(tmp_path, record)
    line = json.loads(path.read_text("utf-8"))
    assert line["unit"] == "layer"
    assert (line["criterion"], line["score"]) == ("block_influence", 0.25)
    assert line["candidates"][0]["score"] == 12.5
    assert line["candidates"][0]["kept"]
    assert "importance" not in line
    assert "ppl" not in line["candidates"][0]
    assert record.decision.perplexity is None
    assert read_steps(path) == [record]


def test_a_unit_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(LINE | {"unit": "neuron"}) + "\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="'neuron'; known are attn, mlp"):
        read_steps(path)
