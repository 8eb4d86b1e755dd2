"""multipruner compare: which run to take, of a sweep or of several runs."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.commands.base import RUN_OR_SWEEP, Command
from pipeline.errors import ConfigError
from pipeline.jobs.comparing import gather, show


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", nargs="+", help=RUN_OR_SWEEP)
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="where to write; else the sweep's folder, or outputs/comparison",
    )  # fmt: skip
    parser.add_argument(
        "--workload", metavar="NAME",
        help="whose latency to compare; else each run's main workload",
    )  # fmt: skip
    papers = parser.add_mutually_exclusive_group()
    for name, title in (("latex", "LaTeX (booktabs)"), ("markdown", "Markdown")):
        papers.add_argument(
            f"--{name}", dest="format", action="store_const", const=name,
            help=f"print a table for a paper in {title} and nothing else; no file is written",
        )  # fmt: skip


def _run_command(parsed: Namespace) -> None:
    if parsed.format:
        _print_table(parsed)
    else:
        _write_and_show(parsed)


def _print_table(parsed: Namespace) -> None:
    """The table for a paper on standard output, where nothing else is, so that it can be kept."""
    from pipeline.report.compare.paper_formats import FORMATS
    from pipeline.report.compare.paper_table import paper_table

    if parsed.out:
        raise ConfigError([
            f"--out: means nothing with --{parsed.format}, which writes no file; "
            "leave it out, and redirect the table: > FILE"
        ])  # fmt: skip
    comparison, _ = gather(parsed.target, None, parsed.workload)
    sys.stdout.write(FORMATS[parsed.format](paper_table(comparison.runs)))


def _write_and_show(parsed: Namespace) -> None:
    from pipeline.report.output import write_comparison
    from pipeline.screen import screen

    comparison, folder = gather(parsed.target, parsed.out, parsed.workload)
    console = screen()
    show(comparison, console, write_comparison(comparison, folder))


COMMAND = Command(
    "compare",
    "which run to take: table, page, picture and CSV of a sweep or several runs",
    _arguments,
    _run_command,
)
