"""multipruner export: the model of a finished run, in files that open elsewhere."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.base import Command, run_folder
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.plan.run import Run


def _arguments(parser: ArgumentParser) -> None:
    from pipeline.export import targets

    parser.add_argument("run", help="folder or name of a run")
    parser.add_argument(
        "--to", required=True, metavar="TARGETS", help=f"one or several: {','.join(targets())}"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="where every target gets a folder of its own; else export/ in the run's folder",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings",
        help="settings of targets, e.g. export.hf.dtype=float16",
    )  # fmt: skip


def _run(parsed: Namespace) -> None:
    from pipeline.plan.run import launched_from
    from pipeline.runs.display import display_on
    from pipeline.runs.session import run_part, show_exports
    from pipeline.screen import screen

    out = parsed.out.absolute() if parsed.out else None
    path = run_folder(parsed.run).absolute()
    wanted = _wanted(parsed.to.split(","), out, parsed.settings)
    console = screen(wraps=True)
    with launched_from(path):
        run = _with_exports(path, wanted)
        display = display_on(console, 100.0)
        run_part(run, [planned.name for planned, _ in run.exports], display, lambda _: None)
    show_exports(run, console)


def _wanted(names: list[str], out: Path | None, settings: list[str]) -> dict[str, Any]:
    """The section ``export`` that the arguments ask for. Raises ``ConfigError``."""
    import yaml

    from pipeline.export import targets
    from pipeline.stages.export import ExportConfig

    problems = [
        f"--to: {name!r} is not there; allowed: {', '.join(targets())}"
        for name in names
        if name not in targets()
    ]
    section: dict[str, Any] = {name: {"enabled": True} for name in names}
    section["dir"] = str(out) if out else None
    for setting in settings:
        key, separator, value = setting.partition("=")
        parts = key.split(".")
        if not separator or parts[0] != ExportConfig.key or len(parts) not in (2, 3):
            problems.append(f"--set: {setting!r} is wrong; allowed is export.TARGET.KEY=VALUE")
            continue
        place = section if len(parts) == 2 else section.setdefault(parts[1], {})  # noqa: PLR2004
        place[parts[-1]] = yaml.safe_load(value)
    if problems:
        raise ConfigError(problems)
    return section


def _with_exports(path: Path, wanted: dict[str, Any]) -> "Run":
    """The finished run with these exports, and its model on whatever device is here."""
    from dataclasses import replace

    from pipeline.models.loading import resolve_device
    from pipeline.plan.run import Run
    from pipeline.stages.export import STAGE, ExportConfig

    run = Run.open(path, other={ExportConfig.key: wanted})
    run.check_exports()
    run.require(planned for planned in run.plan.stages if planned.stage is not STAGE)
    model = run.config.model.model_copy(update={"device": resolve_device("auto")})
    return replace(run, config=run.config.model_copy(update={"model": model}))


COMMAND = Command(
    "export", "the model of a finished run, in files that open elsewhere", _arguments, _run
)
