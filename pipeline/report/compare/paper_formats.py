"""A table for a paper, written as LaTeX (booktabs) or Markdown."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from pipeline.report.compare.paper_table import HIGHER, LOWER, RECOVERED, PaperCell, PaperTable
from pipeline.report.wording import MINUS, TIMES, TO

IN_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        "±": r"$\pm$",
        RECOVERED: r"\textdagger{}",
        TIMES: r"$\times$",
        MINUS: r"$-$",
        TO: "--",
        LOWER: r"$\downarrow$",
        HIGHER: r"$\uparrow$",
        "\n": " ",
    }
)
IN_MARKDOWN = str.maketrans(
    {
        **{character: f"\\{character}" for character in "\\|*_`[]~$"},
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "\n": " ",
    }
)


def to_latex(table: PaperTable) -> str:
    """A ``table`` environment; needs the package booktabs."""
    numbers = len(table.columns) - table.texts
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{' '.join(map(_latex, table.notes))}}}",
        f"\\begin{{tabular}}{{{'l' * table.texts}{'r' * numbers}}}",
        "\\toprule",
        _latex_row(map(_latex, table.columns)),
    ]
    for block in table.blocks:
        lines += ["\\midrule", *(_latex_row(map(_latex_cell, row)) for row in block)]
    lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    return text.translate(IN_LATEX)


def _latex_cell(cell: PaperCell) -> str:
    text = _latex(cell.text)
    return f"\\textbf{{{text}}}" if cell.is_best else text


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def to_markdown(table: PaperTable) -> str:
    """A table as GitHub and pandoc read it, and what to know below."""
    numbers = len(table.columns) - table.texts
    lines = [
        _markdown_row(map(_markdown, table.columns)),
        _markdown_row([":--"] * table.texts + ["--:"] * numbers),
        *(_markdown_row(map(_markdown_cell, row)) for block in table.blocks for row in block),
        "",
        *map(_markdown, table.notes),
    ]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    return text.translate(IN_MARKDOWN)


def _markdown_cell(cell: PaperCell) -> str:
    text = _markdown(cell.text)
    return f"**{text}**" if cell.is_best else text


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


FORMATS: Mapping[str, Callable[[PaperTable], str]] = MappingProxyType(
    {"latex": to_latex, "markdown": to_markdown}
)
"""By the option of ``multipruner compare``."""
