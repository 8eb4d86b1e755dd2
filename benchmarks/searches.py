#!/usr/bin/env python3
"""Searches over states against chance with the same budget: medians over seeds.

python benchmarks/searches.py                              # the built-in model, minutes on 2 cores
python benchmarks/searches.py --seeds 1 --only level_switch --level-switch prune.generations=9
python benchmarks/searches.py --golden GOLDEN.json model=hf model.path=FOLDER model.gguf_file=FILE
python benchmarks/searches.py model=smollm2_135m prune.mlp_group_size=256 prune.attn_group_size=192

Launches every search with every seed as a user would, in this process. Before the clock of any
search starts MultiPruner's own steps are walked; they are kept in ``--folder`` from one call to the
next. Chance draws as many states as the search beside it computed in all (in tokens), each one to
eight moves away from the greedy state, and keeps the best. Every seed has a store with the greedy
steps alone, so that its seconds are those of a whole search; with ``--shared`` all have one, and
what a seed meets that another one evaluated is found. Overrides go to launch.py; ``--golden`` takes
calibration windows, group sizes and ratio from a recorded reference run.
"""

import argparse
import contextlib
import json
import math
import random
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import launch
from pipeline.evolution.base import Evaluate, Found, Given, Search, plain
from pipeline.evolution.moves import moved
from pipeline.files import Json
from pipeline.methods import methods
from pipeline.methods.level_switch import LevelSwitchConfig, LevelSwitchMethod

MOST_MOVES = 8
"""Between the greedy state and one by chance."""
QUIET = ("probe=none", "evaluate=none", "tracking=none", "run.pictures=[]", "score.enabled=false")
KEYS = ("perplexity", "held_out_perplexity", "held_out_divergence")
"""What is shown of a state."""


@dataclass(frozen=True)
class Chance(Search):
    """The best of states by chance."""

    measure: Any
    states: int
    seed: int
    name = "chance"

    def identity(self) -> dict[str, Json]:
        """All settings."""
        settings = {"measure": self.measure, "states": self.states, "seed": self.seed}
        return {"search": self.name, **settings}

    def most_states(self, rungs: int) -> list[float]:
        """All of them."""
        return [float(self.states)] * rungs

    def find(self, given: Given, evaluate: Evaluate) -> Found:
        """From the greedy state, each by itself."""
        draw = random.Random(f"{self.name} {self.seed}")
        states = [given.last]
        while len(states) < self.states:
            state = given.last
            for _ in range(draw.randint(1, MOST_MOVES)):
                state = moved(state, given.space, draw) or state
            states.append(state)
        evaluate.ahead(self.most_states(evaluate.rungs), "chance")
        scores = evaluate(states, self.measure)
        best = min(range(len(states)), key=scores.__getitem__)
        told = ((1, scores[0]), (len(states), scores[best]))
        history = [
            {"generation": at, "evaluations": count, "best": plain(score)}
            for at, (count, score) in enumerate(told)
        ]
        return Found(states[best], history)


class ChanceMethod(LevelSwitchMethod):
    """MultiPruner's phases, then chance; ``generations`` is the number of states."""

    name = "chance"
    section = LevelSwitchConfig

    def search(self, settings: LevelSwitchConfig) -> Search:  # type: ignore[override]
        """Chance."""
        return Chance(settings.fitness, settings.generations, settings.seed)


@dataclass(frozen=True)
class Ran:
    """What one seed of a search came to."""

    shown: Json
    seconds: float
    computed: int
    found: int
    ratio_percent: float
    windows: int
    """Windows that states were evaluated on."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/searches"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument(
        "--level-switch", default="", help='e.g. "prune.generations=8 prune.offspring=12"'
    )
    parser.add_argument("--evol", default="", help='e.g. "prune.generations=8 prune.population=12"')
    parser.add_argument("--golden", type=Path, help="a recorded reference run")
    parser.add_argument("--shared", action="store_true", help="one store for all seeds")
    parser.add_argument("--no-chance", action="store_true", help="searches alone")
    arguments, overrides = parser.parse_known_args()
    methods()["chance"] = ChanceMethod()
    bench = Bench(arguments, overrides)
    print(f"greedy steps: {bench.greedy():.1f} s, with those that lay in the folder", flush=True)
    print(row(("search", "by", "ratio %", *HEAD)), row(["---"] * (3 + len(HEAD))), sep="\n")
    for name in arguments.only:
        sizes = arguments.evol if "evol" in name else arguments.level_switch
        how = (*SEARCHES[name], *sizes.split())
        runs = [bench.run(name, seed, how) for seed in range(arguments.seeds)]
        print(bench.row(name, runs), flush=True)
        if not arguments.no_chance:
            by_chance = [bench.chance(name, seed, run) for seed, run in enumerate(runs)]
            print(bench.row("chance", by_chance), flush=True)
    return 0


SEARCHES = {
    "level_switch": ("prune=level_switch", "prune.fitness=divergence"),
    "level_switch_ppl": ("prune=level_switch", "prune.fitness=perplexity"),
    "multipruner_evol": ("prune=multipruner_evol",),
}
HEAD = ("fitness, start to found", *(f"{key.replace('_', ' ')}, start to found" for key in KEYS),
        "full evaluations", "seconds", "found on disk")  # fmt: skip


class Bench:
    """Launches runs of one model."""

    def __init__(self, arguments: argparse.Namespace, overrides: list[str]) -> None:
        self.folder, self.shared = arguments.folder.absolute(), arguments.shared
        for old in [self.folder / "runs", *self.folder.glob("store-*")]:
            shutil.rmtree(old, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.overrides = [*(of_golden(arguments.golden, self.folder)), *overrides]

    def greedy(self) -> float:
        """Seconds of MultiPruner's walks, both with the shares of its own and half of it blocks."""
        started = time.monotonic()
        for name, least in (
            ("level_switch", ("prune=level_switch", "prune.generations=1", "prune.offspring=1",
                              "prune.survivors=[1,1]")),
            ("multipruner_evol", ("prune=multipruner_evol", "prune.generations=1",
                                  "prune.population=4")),
        ):  # fmt: skip
            self._launch(self.folder / "greedy", f"greedy-{name}", least)
        shutil.rmtree(self.folder / "greedy" / "evaluations", ignore_errors=True)
        return time.monotonic() - started

    def run(self, name: str, seed: int, how: tuple[str, ...]) -> Ran:
        """A search with a seed."""
        store = self.folder / ("greedy" if self.shared else f"store-{name}-{seed}")
        if not store.exists():
            shutil.copytree(self.folder / "greedy", store)
        return self._launch(store, f"{name}-{seed}", (*how, f"prune.seed={seed}"))

    def chance(self, name: str, seed: int, ran: Ran) -> Ran:
        """As many states by chance as a search computed."""
        states = max(1, round(self.full_evaluations(ran)))
        fitness = ran.shown["measure"]
        how = (
            *("prune=level_switch", "prune.method=chance", f"prune.fitness={fitness}"),
            *(f"prune.generations={states}", "prune.offspring=1", "prune.survivors=[1,1]"),
        )
        return self.run(f"chance-{name}", seed, how)

    def full_evaluations(self, ran: Ran) -> float:
        """What a run computed, as evaluations of a state on the whole text that is searched on."""
        (facts,) = (self.folder / "greedy" / "stages" / "calibrate").glob("*/calibration.json")
        windows = json.loads(facts.read_text())["block"]["windows"]
        return ran.windows / windows

    def row(self, name: str, runs: Sequence[Ran]) -> str:
        """Medians over seeds."""
        shown = [ran.shown for ran in runs]
        fitness = [(each["history"][0]["best"], each["history"][-1]["best"]) for each in shown]
        cells = [between(fitness)] + [
            between([(each["start"][key], each["found"][key]) for each in shown]) for key in KEYS
        ]
        asked = f"{median(self.full_evaluations(ran) for ran in runs):.0f}"
        seconds = f"{median(ran.seconds for ran in runs):.1f}"
        found = f"{median(ran.found for ran in runs):.0f} of {runs[0].computed + runs[0].found}"
        ratio = f"{median(ran.ratio_percent for ran in runs):.2f}"
        return row((name, shown[0]["measure"], ratio, *cells, asked, seconds, found))

    def _launch(self, store: Path, name: str, how: Sequence[str]) -> Ran:
        folder = self.folder / "runs" / name
        command = [*QUIET, *self.overrides, *how, f"run.dir={folder}", f"store.dir={store}"]
        sys.argv = ["launch.py", *command]
        before = windows_in(store)
        with (self.folder / f"{name}.log").open("w") as log, contextlib.redirect_stdout(log):
            if launch.main():
                raise SystemExit(f"launch.py failed; see {self.folder / name}.log")
        summary = json.loads((folder / "summary.json").read_text())
        shown = json.loads((folder / "search.json").read_text())
        seconds = summary["stages"]["prune"]["seconds"]
        counts = summary["states_evaluated"], summary["evaluations_found"]
        return Ran(shown, seconds, *counts, summary["ratio_percent"], windows_in(store) - before)


def windows_in(store: Path) -> int:
    """Windows of all evaluations in a store."""
    files = store.glob("evaluations/*/states/*.json")
    return sum(len(json.loads(file.read_text())["losses"]) for file in files)


def of_golden(path: Path | None, folder: Path) -> list[str]:
    """Arguments for what a recorded reference run had."""
    if path is None:
        return []
    golden = json.loads(path.read_text())
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps(golden["calibration"]))
    return [
        "calibration=tokens",
        f"calibration.path={tokens}",
        f"prune.target_ratio={golden['target_ratio_percent']}",
        f"prune.mlp_group_size={golden['mlp_channel_group_size']}",
        f"prune.attn_group_size={golden['attn_channel_group_size']}",
        f"prune.weight_reorder={str(golden['weight_reorder']).lower()}",
    ]


def between(pairs: Sequence[tuple[float | None, float | None]]) -> str:
    """Medians before and after; infinite where a state has no number."""
    before, after = (
        median(math.inf if each is None else each for each in side)
        for side in zip(*pairs, strict=True)
    )
    return f"{before:.4g} to {after:.4g}"


def row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
