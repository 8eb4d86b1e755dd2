"""The model card of an exported model, in Markdown. Names no path of this machine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.data import RunReport
from pipeline.report.dense_and_pruned import dense_and_pruned
from pipeline.report.headline import headlines

PICTURE = "report.png"
CITATION = """\
```bibtex
@article{munoz2025multipruner,
  title={MultiPruner: Balanced Structure Removal in Foundation Models},
  author={Mu{\\~n}oz, J. Pablo and Yuan, Jinjie and Jain, Nilesh},
  journal={arXiv preprint arXiv:2501.09949},
  year={2025}
}
```"""


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says that the run's report does not."""

    base_model: str
    """Hub id, or the model's name."""
    licence: str | None
    """Of the base model, where its files say."""
    how_to_open: str
    """Markdown."""
    settings: Mapping[str, Any]
    """How it was pruned, by dotted keys."""
    facts: Sequence[str]
    """What writing and checking it came to, each a sentence."""


def model_card(report: RunReport, card: Card) -> str:
    """The text of ``README.md``."""
    return "\n".join(_lines(report, card)) + "\n"


def _lines(report: RunReport, card: Card) -> Iterator[str]:
    yield "---"
    yield f"base_model: {_quoted(card.base_model)}"
    if card.licence:
        yield f"license: {_quoted(card.licence)}"
    yield from ("library_name: transformers", "pipeline_tag: text-generation")
    yield from ("tags: [pruned, multipruner]", "---", "")
    yield f"# {report.model_name}, {report.state.ratio_percent:.1f} % removed"
    yield ""
    how = "" if report.techniques else " without training"
    then = f" Then recovered by {', '.join(report.techniques)}." if report.techniques else ""
    yield (
        f"{_plain(card.base_model)} made smaller{how}: blocks, MLP channels and "
        f"attention heads were removed step by step.{then}"
    )
    licence = _plain(card.licence) if card.licence else "see the base model"
    yield f"Licence of the base model: {licence}."
    yield ""
    for headline in headlines(report):
        value = f"{headline.value} {headline.quantity}".strip()
        yield f"- {headline.title}: {_plain(value)}"
        yield from (f"  - {_plain(detail)}" for detail in headline.details)
    yield from ("", f"![What was removed, what it cost and what it gained]({PICTURE})", "")
    yield from ("## How to open it", "", card.how_to_open.strip(), "")
    yield from (f"- {_plain(fact)}" for fact in card.facts)
    yield from (
        "",
        "## Dense and pruned",
        "",
    )
    rows = dense_and_pruned(report)
    cells = [
        (
            row.label,
            row.dense,
            row.pruned,
            f"{row.change} {row.interval}".strip(),
            f"{row.recovered} {row.back}".strip(),
        )
        for row in rows
    ]
    shown = 5 if any(row.recovered for row in rows) else 4
    for line in (
        ("", "dense", "pruned", "change", "recovered"),
        ("---", "---:", "---:", "---:", "---:"),
    ):
        yield f"| {' | '.join(line[:shown])} |"
    for line in cells:
        yield f"| {' | '.join(map(_plain, line[:shown]))} |"
    yield from ("", "## Settings", "", "| key | value |", "| --- | --- |")
    yield from (f"| {_plain(key)} | {_plain(str(value))} |" for key, value in card.settings.items())
    yield from ("", "`pruning_config.json` says which blocks and channels of the base model went.")
    yield from ("", "## Citation", "", CITATION)


def _plain(text: str) -> str:
    """Text that means nothing in Markdown or HTML."""
    for character in "\\`*_<>[]|":
        text = text.replace(character, f"\\{character}" if character not in "<>" else "")
    return " ".join(text.split())


def _quoted(text: str) -> str:
    """Text in YAML."""
    import json

    return json.dumps(text, ensure_ascii=False)
