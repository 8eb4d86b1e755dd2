"""Searches as they are launched: what they find, what they share, and how they go on."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support_inputs import (
    MODEL,
    TINY,
    configured,
    problems_of,
    save_model,
    save_tokenizer,
    write_tokens,
)
from torch.nn.functional import cross_entropy

import launch
from pipeline.api import open_run
from pipeline.errors import StageError
from pipeline.evolution.moves import resized
from pipeline.jobs.checking import units_of_store
from pipeline.plan.preflight import Preflight
from pipeline.pruning.evaluations import Evaluations
from pipeline.pruning.shape import ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import Candidate

Json = dict[str, Any]
TARGET = ("prune.target_ratio=16", "prune.mlp_group_size=4", "prune.attn_group_size=8")
QUIET = ("probe=none", "tracking=none", "score.enabled=false")
EVALUATED = ("evaluate.text=held_out.txt", "evaluate.seqlen=24")
PROBED = ("probe.every=2", "probe.text=held_out.txt", "probe.seqlen=24")
SWITCH = (
    "prune=level_switch", "prune.generations=4", "prune.offspring=6", "prune.survivors=[3,2]",
)  # fmt: skip
GREEDY = "outputs/runs/greedy/pruning_config.json"
EVOL = ("prune=multipruner_evol", "prune.population=6", "prune.generations=4")

pytestmark = pytest.mark.xdist_group("launched searches")


def _last_ones(arguments: Sequence[str]) -> list[str]:
    """Of a key that is given twice the last value."""
    return [f"{key}={value}" for key, value in dict(a.split("=", 1) for a in arguments).items()]


@dataclass(frozen=True)
class Place:
    """Where runs are launched from, with a model of six layers, its tokenizer and token ids."""

    path: Path

    def launch(self, name: str, *arguments: str, store: str = "store") -> int:
        given = _last_ones((*TINY, *QUIET, *TARGET, *arguments))
        sys.argv = ["launch.py", *given, f"run.name={name}", f"store.dir={store}"]
        return launch.main()

    def read(self, name: str, file: str) -> Json:
        return json.loads((self.path / "outputs" / "runs" / name / file).read_text("utf-8"))

    def steps(self, name: str) -> list[Json]:
        lines = (self.path / "outputs" / "runs" / name / "steps.jsonl").read_text("utf-8")
        return [json.loads(line) for line in lines.splitlines()]

    def evaluations(self, store: str) -> set[Path]:
        found = (self.path / store).glob("evaluations/*/states/*.json")
        return {path.relative_to(self.path / store) for path in found}


@pytest.fixture(scope="module")
def module_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """MultiPruner, then both searches with two seeds each."""
    place = Place(tmp_path_factory.mktemp("searches"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.path)
        patch.setattr(sys, "argv", [])
        patch.setattr("pipeline.evolution.base.PIECES", (48, 96))
        save_model(Path("model"), num_hidden_layers=6, initializer_range=0.3)
        save_tokenizer(Path("model"))
        Path("held_out.txt").write_text("It was a text of a few words. " * 9)
        generator = torch.Generator().manual_seed(0)
        block, width = (torch.randint(4, 104, (n, 24), generator=generator) for n in (6, 3))
        write_tokens(Path("tokens.json"), block.tolist(), width.tolist())
        assert place.launch("greedy", "evaluate=none") == 0
        for seed in (0, 1):
            probed = PROBED if seed else ()
            given = (*SWITCH, f"prune.seed={seed}", *EVALUATED, *probed)
            assert place.launch(f"switch-{seed}", *given) == 0
            assert place.launch(f"evol-{seed}", *EVOL, f"prune.seed={seed}", "evaluate=none") == 0
    return place


@pytest.fixture
def place(module_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(module_place.path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr("pipeline.evolution.base.PIECES", (48, 96))
    return module_place


@torch.no_grad()
def perplexity_of(place: Place, name: str, kind: str) -> float:
    """Of a run's model, which is cut for good, on the windows of the token file."""
    ids = torch.tensor(json.loads((place.path / "tokens.json").read_text("utf-8"))[kind])
    logits = open_run(place.path / "outputs" / "runs" / name).model()(ids).logits
    losses = cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")
    counted = ids[:, 1:] != MODEL["eos_token_id"]
    return float(((losses * counted).sum(1) / counted.sum(1)).mean().exp())


def test_level_switch_finds_the_steps_of_multipruner_and_keeps_the_ratio(place: Place) -> None:
    greedy, summary = place.read("greedy", "summary.json"), place.read("switch-0", "summary.json")
    assert summary["candidates_scored"] == 0, "all its greedy steps are on disk"
    assert summary["params"] == greedy["params"]
    search = place.read("switch-0", "search.json")
    best = [entry["best"] for entry in search["history"]]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0], "with these numbers it finds something"
    for side, name in (("start", "greedy"), ("found", "switch-0")):
        shown = search[side]
        wanted = {kind: perplexity_of(place, name, kind) for kind in ("block", "width")}
        assert shown["perplexity"] == pytest.approx(wanted["block"], rel=1e-4)
        assert shown["held_out_perplexity"] == pytest.approx(wanted["width"], rel=1e-4)
    evaluation = summary["evaluation"]
    assert evaluation["pruned"]["ppl"] != evaluation["dense"]["ppl"]


def test_evol_reaches_the_target_and_no_group_could_stay(place: Place) -> None:
    for seed in (0, 1):
        search, steps = (place.read(f"evol-{seed}", "search.json"), place.steps(f"evol-{seed}"))
        state = state_of(place, f"evol-{seed}")
        assert state.ratio_percent == search["found"]["ratio_percent"] >= 16
        for kind, size in (("attn", 8), ("mlp", 4)):
            for layer in state.left(kind):
                if state.widths(kind)[layer] < state.shape.widths(kind)[layer]:
                    assert resized(state, kind, layer, size).ratio_percent < 16
        blocks = [step for step in steps if step["dimension"] == "blocks"]
        assert blocks[-1]["ratio_percent"] >= 8, "half of the target"
        first = search["finalists"][0]
        assert first["ranks"] == min(each["ranks"] for each in search["finalists"])
        figures = {key: first[key] for key in search["found"]}
        assert figures == search["found"]
        ratios = [point["ratio_percent"] for point in search["front"]]
        ppls = [point["perplexity"] for point in search["front"]]
        assert (ratios, ppls) == (sorted(ratios), sorted(ppls))
        assert all(14 <= ratio <= 18 for ratio in ratios)
        page = (place.path / "outputs" / "runs" / f"evol-{seed}" / "report.html").read_text("utf-8")
        assert "Last front of the search" in page


@pytest.mark.parametrize("name", ["switch-0", "switch-1", "evol-0", "evol-1"])
def test_the_steps_of_a_run_lead_to_the_state_that_was_found(place: Place, name: str) -> None:
    search, steps = place.read(name, "search.json"), place.steps(name)
    led = search["steps_of_phases"]
    criteria = [step.get("criterion", "perplexity") for step in steps]
    assert criteria == ["perplexity"] * led + [search["search"]] * (len(steps) - led)
    state = PruningState.dense(shape_of(place))
    for number, step in enumerate(steps):
        state = state.without(Candidate.from_json(step))
        assert (step["step"], step["params"]) == (number, state.params)
    assert state == state_of(place, name)
    if len(steps) > led and search["measure"] == "perplexity":
        assert steps[-1]["score"] == search["found"]["perplexity"]


def shape_of(place: Place) -> ModelShape:
    return Preflight().check(configured(*TINY, *TARGET)).shape


def state_of(place: Place, name: str) -> PruningState:
    given = place.read(name, "pruning_config.json")
    return PruningState.from_pruning_config(shape_of(place), given)


def test_what_was_found_is_probed_along_the_way_to_it(place: Place) -> None:
    steps = place.steps("switch-1")
    due = [number % 2 == 1 or number == len(steps) - 1 for number in range(len(steps))]
    assert ["ppl" in step for step in steps] == due
    evaluation = place.read("switch-1", "summary.json")["evaluation"]
    assert steps[-1]["ppl"] == evaluation["pruned"]["ppl"] != evaluation["dense"]["ppl"]
    page = (place.path / "outputs" / "runs" / "switch-1" / "report.html").read_text("utf-8")
    assert "Best state of the search" in page


def test_another_seed_finds_what_the_first_one_evaluated(place: Place) -> None:
    for search in ("switch", "evol"):
        first, other = (place.read(f"{search}-{seed}", "summary.json") for seed in (0, 1))
        assert first["states_evaluated"] > 0
        assert other["evaluations_found"] > 0
    computed = sum(
        place.read(f"{search}-{seed}", "summary.json")["states_evaluated"]
        for search in ("switch", "evol")
        for seed in (0, 1)
    )
    assert computed == len(place.evaluations("store")), "none was computed twice"


@pytest.mark.parametrize(("name", "how"), [("switch-0", SWITCH), ("evol-0", EVOL)])
def test_a_search_that_was_killed_goes_on_and_finds_the_same(
    place: Place, name: str, how: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record, left = f"store-of-{name}", Evaluations.record, [9]

    def dying(*given: Any) -> Any:
        if not left[0]:
            raise StageError("killed")
        left[0] -= 1
        return record(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluations, "record", dying)
        assert place.launch(f"killed-{name}", *how, "evaluate=none", store=store) == 1
    assert len(place.evaluations(store)) == 9
    assert place.launch(f"killed-{name}", *how, "evaluate=none", store=store) == 0
    again = f"killed-{name}"
    for file in ("search.json", "pruning_config.json"):
        assert place.read(again, file) == place.read(name, file)
    assert place.steps(again) == place.steps(name)
    summary = place.read(again, "summary.json")
    assert summary["evaluations_found"] == 9
    assert summary["states_evaluated"] == len(place.evaluations(store)) - 9


def test_a_damaged_evaluation_is_made_again_and_decides_the_same(place: Place) -> None:
    store = Path("store-of-damage")
    shutil.copytree(place.path / "store", store)
    shutil.rmtree(store / "stages" / "prune")
    stored = sorted(store.glob("evaluations/*/states/*.json"))
    damaged, other = stored[0], stored[1]
    damaged.write_text(damaged.read_text("utf-8").replace('"losses": [', '"losses": [1.5,'))
    other.write_bytes(other.read_bytes()[:40])
    told = {damage.path for unit in units_of_store(store) for damage in unit.damages()}
    assert told == {damaged, other}
    for name, how in (("switch-0", SWITCH), ("evol-0", EVOL), ("switch-1", SWITCH)):
        seed = f"prune.seed={name[-1]}"
        assert place.launch(f"mended-{name}", *how, seed, "evaluate=none", store=str(store)) == 0
        assert place.read(f"mended-{name}", "search.json") == place.read(name, "search.json")
    names = [f"mended-{name}" for name in ("switch-0", "evol-0", "switch-1")]
    computed = [place.read(name, "summary.json")["states_evaluated"] for name in names]
    assert 0 < sum(computed) <= 2


def test_a_search_may_start_from_any_state_of_the_ratio(place: Place) -> None:
    start = "prune.start=outputs/runs/evol-0/pruning_config.json"
    target = f"prune.target_ratio={place.read('evol-0', 'summary.json')['ratio_percent'] - 0.01}"
    by = "prune.fitness=perplexity"
    assert place.launch("started", *SWITCH, start, target, by, "evaluate=none") == 0
    search = place.read("started", "search.json")
    assert search["start"] == place.read("evol-0", "search.json")["found"]
    assert search["steps_of_phases"] == 0
    assert place.read("started", "summary.json")["params"] == state_of(place, "evol-0").params


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            (*EVOL, "prune.population=7"),
            "prune.population: 7 is wrong; allowed is an even number from 4 on: children come from "
            "pairs of states",
        ),
        (
            (*EVOL, "prune.block_share=1"),
            "prune.block_share: 1 is wrong; allowed is a number below 1",
        ),
        (
            (*SWITCH, "prune.survivors=[8,2]"),
            "prune.survivors: 8 is wrong; allowed is up to 6: prune.offspring has no more children",
        ),
        (
            (*SWITCH, "prune.survivors=[2]"),
            "prune.survivors: [2] is wrong; allowed are two numbers from 1 on, the second not "
            "above the first, e.g. [8,2]: children that are evaluated on 16k tokens, and those on "
            "all",
        ),
        (
            (*SWITCH, "prune.start=absent.json"),
            "prune.start: absent.json does not exist",
        ),
        (
            (*SWITCH, f"prune.start={GREEDY}", "prune.target_ratio=40"),
            f"prune.start: {GREEDY} has 16.57 % removed, less than prune.target_ratio=40, and the "
            "search keeps the ratio; give a target up to 16.57, or another state",
        ),
    ],
)  # fmt: skip
def test_what_a_search_cannot_do_is_said_in_one_line(
    place: Place, arguments: Sequence[str], problem: str
) -> None:
    def check() -> None:
        Preflight().check(configured(*TINY, *QUIET, *TARGET, *_last_ones(arguments)))

    assert problems_of(check) == [problem]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "bad.json is not a JSON object"),
        ("{}", "bad.json: pruned_attn_idx: None is not a list of layer numbers"),
    ],
)
def test_a_wrong_file_to_start_from_is_named_once(place: Place, content: str, said: str) -> None:
    (place.path / "bad.json").write_text(content)

    def check() -> None:
        Preflight().check(configured(*TINY, *QUIET, *TARGET, *SWITCH, "prune.start=bad.json"))

    assert problems_of(check)[0] == f"prune.start: {said}"
