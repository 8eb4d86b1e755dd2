"""What ``launch.py --help`` prints: what there is to choose, each with a line."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.overrides import SWEEPS, chosen_options, groups
from pipeline.config.schema import schema

HEAD = """\
python launch.py [GROUP=OPTION ...] [KEY=VALUE ...]

Prunes a model as it is configured, evaluates it and draws what came of it. Without a word that is
the small model that comes with the project. The same command again goes on where it stopped.
"""
TAIL = """\
Keys, e.g. prune.target_ratio=15: docs/configuration.md has every one with its default.
Values with commas are a sweep of your own: python launch.py -m prune.target_ratio=10,20

  plan=true      show what would run, what is done and what it costs; run nothing
  --cfg job      show the whole configuration of a command line
  multipruner    the other command: status, compare, export, ... (multipruner --help)
"""
GROUPS = """\
Groups (* where nothing is given; model=builtin and others choose calibration, probe and evaluate
that suit them):"""
SWEEP = "sweep"
LINES = {
    "paper": "The paper's settings for one of its models.",
    "protocol": "Amounts and kind of calibration text as a method's authors have them.",
    "prune": "Which method decides what goes.",
}
"""Of groups whose keys do not say it: they set those of others, or each option has its own."""
WIDTH = 100
INDENT = " " * 4


def help_text() -> str:
    """The whole text."""
    return "\n".join([HEAD, GROUPS, *_groups(), *_sweeps(), TAIL])


def _groups() -> Iterator[str]:
    """Those that are chosen in any case first."""
    chosen = chosen_options()
    there = groups()
    sections = schema().model_fields
    for name in dict.fromkeys([*chosen, *sorted(there)]):
        if name == SWEEP or name not in there:
            continue
        says = LINES.get(name) or (sections[name].annotation.__doc__ or "")
        yield f"  {name}: {' '.join(says.split())}"
        options = [f"{each}*" if chosen.get(name) == each else each for each in there[name]]
        yield _wrapped(", ".join(options), INDENT)
    yield ""


def _sweeps() -> Iterator[str]:
    """Each with what it asks."""
    yield "Sweeps: python launch.py -m sweep=NAME"
    options = groups()[SWEEP]
    width = max(map(len, options))
    for name in options:
        start = f"  {name:<{width}}  "
        yield start + _about(SWEEPS / SWEEP / f"{name}.yaml", WIDTH - len(start))
    yield ""


def _about(path: Path, width: int) -> str:
    """What a file says of itself, as much as there is room for."""
    comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
    lines = [line.removeprefix("# ") for line in comments]
    text = next((line for line in lines if not line.startswith(("@package", "python "))), "")
    return textwrap.shorten(text, width, placeholder=" ...")


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
