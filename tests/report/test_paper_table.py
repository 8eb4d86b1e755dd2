"""Tables that go into a paper: what is in them, what is bold, and that they are valid text."""

import re
from pathlib import Path

import pytest
from support_compare import METHODS, write_method, write_run, write_sweep
from support_report import HELD_OUT, WIKITEXT2

from pipeline.commands import cli
from pipeline.report.compare.paper_formats import to_latex, to_markdown
from pipeline.report.compare.paper_table import PaperTable, paper_table
from pipeline.report.compare.records import read_run

ACCURACIES = {"multipruner": 0.5, "blockpruner": 0.4, "random": 0.45, "shortgpt": 0.5}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Four methods at two ratios, and one run that failed."""
    done = [
        write_method(
            tmp_path / f"outputs/runs/{method}-{ratio}", method, ratio, on=WIKITEXT2,
            ppl=10 + place + ratio / 10, accuracy=ACCURACIES[method] - ratio / 1000,
        )
        for ratio in (20, 10)
        for place, method in enumerate(METHODS)
    ]  # fmt: skip
    failed = write_method(tmp_path / "outputs/runs/failed", "random", 30, status="failed")
    return [*done, failed]


def of(*folders: Path) -> PaperTable:
    return paper_table([read_run(folder) for folder in folders])


def column(table: PaperTable, title: str) -> list[list[str]]:
    """Texts of a column, block by block; the best ones have a star."""
    place = table.columns.index(title)
    return [
        [f"{row[place].text}{'*' * row[place].is_best}" for row in block] for block in table.blocks
    ]


def test_dense_is_first_then_every_target_with_its_methods(folders: list[Path]) -> None:
    table = of(*folders)
    assert column(table, "Method") == [["Dense"], list(METHODS), list(METHODS)]
    removed = column(table, "Removed (%)")
    assert removed[0] == ["0.0"]
    assert removed[1][0].startswith("10.")
    assert removed[2][0].startswith("20.")
    assert "Left out, as not finished: 1." in table.notes


def test_the_best_of_every_target_and_column_is_marked(folders: list[Path]) -> None:
    table = of(*folders)
    assert column(table, "WikiText-2 ↓") == [
        ["14.20"],
        ["11.00*", "12.00", "13.00", "14.00"],
        ["12.00*", "13.00", "14.00", "15.00"],
    ]
    assert column(table, "PIQA ↑")[1] == [
        "49.0 ± 1.0*", "39.0 ± 1.0", "44.0 ± 1.0", "49.0 ± 1.0*",
    ]  # fmt: skip
    assert column(table, "Mean ↑")[1][0] == "49.0 ± 0.6*"
    assert column(table, "Parameters")[1][0].endswith(" M")
    (dense,), speeds, _ = column(table, "Prefill speed-up ↑")
    assert dense == "1.00"
    assert all(re.fullmatch(r"1\.1\d \(1\.1\d–1\.1\d\)\*?", speed) for speed in speeds)  # noqa: RUF001
    assert sum(speed.endswith("*") for speed in speeds) >= 1


def test_a_run_alone_is_not_the_best_of_anything(folders: list[Path]) -> None:
    cells = [cell for block in of(folders[0]).blocks for row in block for cell in row]
    assert not any(cell.is_best for cell in cells)


def test_what_was_measured_otherwise_is_not_in_a_column_of_others(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", 20, accuracy=0.5, on=WIKITEXT2),
        write_run(tmp_path / "b", 20, (0, 100, 0), accuracy=0.4, on=WIKITEXT2),
        write_run(tmp_path / "c", 20, (100, 0, 0), evaluated=["piqa"], on=HELD_OUT, device="cpu"),
    ]
    table = of(*runs)
    nothing = "–"  # noqa: RUF001
    for title in ("WikiText-2 ↓", "PIQA ↑", "Mean ↑", "Decode speed-up ↑"):
        texts = column(table, title)[1]
        assert texts[2] == nothing
        assert nothing not in texts[:2]
    assert column(table, "heldout.txt ↓")[1][:2] == [nothing, nothing]


def test_several_models_have_a_column_and_a_dense_row_each(tmp_path: Path) -> None:
    table = of(
        write_run(tmp_path / "a", 20), write_run(tmp_path / "b", 20, model__path="acme/other")
    )
    assert column(table, "Model") == [["tiny-1b"], ["tiny-1b"], ["other"], ["other"]]
    assert table.texts == 2


def test_latex_is_whole_and_escaped(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", 20, calibration__dataset="a_b & 5% $x$ {y} #1 ~ ^ \\end"),
        write_run(tmp_path / "b", 20, accuracy=0.1),
    ]
    text = to_latex(of(*runs))
    assert (
        r"a\_b \& 5\% \$x\$ \{y\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}end"
        in text
    )
    lines = text.splitlines()
    rules = [line for line in lines if line in ("\\toprule", "\\midrule", "\\bottomrule")]
    assert rules == ["\\toprule", "\\midrule", "\\midrule", "\\bottomrule"]
    rows = [line for line in lines if line.endswith("\\\\")]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns[1])}
    assert text.count("\\textbf{") >= 4
    assert not {"±", "–", "−", "×", "↓", "↑"} & set(text)  # noqa: RUF001


def test_markdown_is_one_table_and_escaped(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", 20, calibration__dataset="a|b *c* <i>"),
        write_run(tmp_path / "b", 20, accuracy=0.1),
    ]
    text = to_markdown(of(*runs))
    assert r"calibration a\|b \*c\* &lt;i&gt;" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert table[1].startswith("| :-- | --: |")
    assert "**14.20**" not in text


@pytest.mark.parametrize(
    ("option", "start"), [("--latex", "% needs"), ("--markdown", "| Method |")]
)
def test_standard_output_has_the_table_alone_and_no_file_is_written(
    tmp_path: Path,
    folders: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    start: str,
) -> None:
    write_sweep(tmp_path / "outputs/sweeps/s", folders)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "s", option]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(start)
    assert "see:" not in said.out
    assert said.out.count("multipruner") == 2
    assert said.err == ""
    assert not list(tmp_path.rglob("comparison.*"))


def test_a_folder_for_a_table_that_goes_nowhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "outputs/runs/a", 10)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "a", "--latex", "--out", "here"]) == 2
    assert "--out: means nothing with --latex" in capsys.readouterr().err
