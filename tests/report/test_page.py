import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support_report import ATTACK, Tags, bare, broken, full

from pipeline.measure.record import Record
from pipeline.report.data import Evaluated, RunReport
from pipeline.report.output import write_report
from pipeline.report.pages.run import run_page
from pipeline.report.wording import TIMES


def classes(text: str, name: str) -> int:
    """How many elements of the page have exactly this class."""
    return sum(attributes.get("class") == name for _, attributes in Tags(text).tags)


@pytest.mark.parametrize("make", [full, bare, broken])
def test_the_page_refers_to_nothing_outside(make: Callable[[], RunReport]) -> None:
    text = run_page(make())
    assert not re.search(r"https?:|//[a-z]", text.replace("// ", ""), re.IGNORECASE)
    assert "@import" not in text
    tags = Tags(text).tags
    assert not any("src" in attributes for _, attributes in tags)
    links = [a["href"] for _, a in tags if "href" in a]
    assert links == ["data:,"]
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


@pytest.mark.parametrize("make", [full, bare, broken])
def test_there_is_no_number_that_cannot_be_drawn(make: Callable[[], RunReport]) -> None:
    text = run_page(make())
    assert not re.search(r"\b(nan|inf|None)\b", text)


def attacked(record: Record | None) -> Record:
    assert record
    texts = tuple(replace(text, name=ATTACK, text=ATTACK, split=ATTACK) for text in record.texts)
    tasks = tuple(replace(task, task=ATTACK + task.task) for task in record.tasks)
    return replace(record, texts=texts, tasks=tasks)


def test_what_comes_from_the_run_is_escaped() -> None:
    report = full()
    assert report.pruned
    report = replace(
        report,
        name=ATTACK,
        model_name=ATTACK,
        device=ATTACK,
        settings={ATTACK: {ATTACK: ATTACK}},
        counts={ATTACK: ATTACK},
        pruned=replace(report.pruned, made_by={ATTACK: ATTACK}),
        evaluations=tuple(
            Evaluated(*(attacked(record) for record in (each.dense, each.pruned)))
            for each in report.evaluations
        ),
    )
    text, plain = run_page(report), run_page(full())
    assert Tags(text).names().count("script") == Tags(plain).names().count("script") == 1
    assert "img" not in Tags(text).names()
    assert "&lt;/script&gt;&lt;script&gt;" in text
    assert "{{7*7}}" in text


def test_only_the_pages_own_script_may_run() -> None:
    policy = next(a["content"] for _, a in Tags(run_page(full())).tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_the_page_has_the_numbers_of_the_run() -> None:
    text = run_page(full())
    for part in ("19.0 %", "+102 %", f"1.23{TIMES}", "63,713,088", "59.7 ± 2.0 %", "412", "8.3 %"):
        assert part in text
    assert "calibration.seqlen" in text
    assert text.count("<tr><td data-sort") == 30
    assert classes(text, "chart along-run") == 4
    assert classes(text, "cell") == 20
    assert classes(text, "loss") == 20 + 10 + 10


def test_sections_without_data_are_left_out() -> None:
    text = run_page(bare())
    for part in (
        "Sensitivity of the dense model",
        "<h2>Settings",
        "<h2>Run<",
        "Held-out",
        "Prefill",
    ):
        assert part not in text
    assert "What is left of every layer" in text
    text = run_page(replace(bare(), steps=()))
    assert "Along the way" not in text
    assert 'id="steps"' not in text


def test_settings_that_are_named_like_secrets_are_not_shown() -> None:
    settings = {"tracking": {"api_key": "s3cr3t", "name": "x"}, "recover": {"next_token": 0.125}}
    text = run_page(replace(full(), settings=settings))
    assert "s3cr3t" not in text
    assert "tracking.api_key" in text
    assert "0.125" in text, "a weight of a loss"


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    path = write_report(full(), tmp_path)[0]
    assert path == tmp_path / "report.html"
    said, drawn_of, rest = re.split(
        r'(<meta name="drawn-of" content="\w+">\n)', path.read_text("utf-8")
    )
    assert said + rest == run_page(full())
    path.write_text(drawn_of)
    assert write_report(full(), tmp_path)[0].read_text() == drawn_of
    write_report(replace(full(), name="other"), tmp_path)
    assert drawn_of not in path.read_text("utf-8")
