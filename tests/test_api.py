"""The Python API: launches, tables, the live model, sweeps that grow, and the notebook of docs/."""

import ast
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support_inputs import REPOSITORY, TINY, save_model, write_tokens
from transformers import AutoModelForCausalLM

import multipruner
from pipeline.errors import ConfigError, StageError
from pipeline.plan.sweep import Sweep as PlannedSweep
from pipeline.store.folders import runs_of

SETTINGS = (
    *TINY,
    "run.pictures=[svg]",
    "prune.distribution=[40,60,0]",
    "prune.mlp_group_size=8",
    "prune.attn_group_size=8",
    "probe=latency",
    "probe.workloads.default.prompt_tokens=4",
    "probe.workloads.default.output_tokens=2",
    "probe.repeats=1",
)

pytestmark = pytest.mark.xdist_group("api")  # they share what takes long to make


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    save_model(folder / "model", num_hidden_layers=3)
    write_tokens(folder / "tokens.json")
    return folder


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(place)


@pytest.fixture
def run(there: None) -> multipruner.Run:
    return multipruner.launch(*SETTINGS, "prune.target_ratio=20", "run.name=first")


def test_a_launch_gives_back_a_run_that_is_done(run: multipruner.Run) -> None:
    assert (run.name, run.state) == ("first", "done")
    assert run.summary.ratio_percent >= 20
    assert run.report().read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "<svg" in run._repr_html_()
    assert multipruner.open_run("first").path.samefile(run.path)


def test_its_steps_and_its_curve_are_tables(run: multipruner.Run) -> None:
    steps, curve = run.steps, run.curve
    lines = (run.path / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(steps["score"]) == [json.loads(line)["importance"] for line in lines]
    assert list(steps["unit"].unique()) == ["mlp", "mlp_width"]
    assert len(curve) == len(steps) + 1, "the dense model comes first"
    assert curve.index[0] == 0
    assert list(curve["params"]) == sorted(curve["params"], reverse=True)
    assert (curve["decode_ms"] > 0).all()


def test_its_model_is_the_pruned_one(run: multipruner.Run, place: Path) -> None:
    model = run.model()
    dense = AutoModelForCausalLM.from_pretrained(place / "model")
    weights = [sum(p.numel() for p in m.parameters()) for m in (model, dense)]
    assert weights[0] < 0.85 * weights[1]
    ids = torch.arange(6)[None]
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 9)


def test_a_sweep_grows_by_what_is_asked_for(place: Path) -> None:
    sweep = multipruner.open_sweep("search")
    assert sweep.runs == ()
    first = sweep.launch(*SETTINGS, "prune.target_ratio=25")
    second = sweep.launch(*SETTINGS, "prune.target_ratio=15")
    assert [run.name for run in sweep.runs] == [first.name, second.name]
    shared = json.loads((first.path / "steps.jsonl").read_text().splitlines()[0])
    assert json.loads((second.path / "steps.jsonl").read_text().splitlines()[0]) == shared
    compared = multipruner.compare([sweep])
    assert set(compared.table["run"]) == {first.name, second.name}
    assert (compared.table["removed_percent"] >= 15).all()
    assert compared.page.exists()


def test_launches_into_one_sweep_at_a_time_lose_no_run(place: Path) -> None:
    def claim(number: int) -> None:
        run = SimpleNamespace(folder=SimpleNamespace(path=Path(f"outputs/runs/{number}")))
        overrides = {run.folder.path: (f"prune.target_ratio={number}",)}
        PlannedSweep("crowded", "a command", (run,), overrides).claim()

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = json.loads((place / "outputs/sweeps/crowded/sweep.json").read_text())["runs"]
    assert {Path(entry["run"]).name for entry in listed} == {str(n) for n in range(8)}
    assert runs_of(place / "outputs/sweeps/crowded") == []


def test_what_is_wrong_is_raised_with_every_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        multipruner.launch("prune.target_ratio=-1", "prune.no_such_key=1")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "prune.no_such_key",
        "prune.target_ratio",
    ]
    with pytest.raises(ConfigError, match="there is no run nowhere"):
        multipruner.open_run("nowhere")
    with pytest.raises(ConfigError, match="plan: a plan is printed"):
        multipruner.launch("plan=true")


def test_a_flag_of_the_command_line_is_answered_with_what_to_call() -> None:
    with pytest.raises(ConfigError, match=r"-m: is for the command line.*open_sweep"):
        multipruner.launch("-m", "prune.target_ratio=10,20")


def test_a_run_without_results_says_so(tmp_path: Path) -> None:
    (tmp_path / "launch.json").write_text("{}")
    run = multipruner.open_run(tmp_path)
    with pytest.raises(StageError, match="multipruner status"):
        run.summary  # noqa: B018
    with pytest.raises(StageError, match="multipruner status"):
        run.report()


@pytest.mark.slow
def test_the_notebook_of_the_docs_runs(place: Path) -> None:
    notebook = json.loads((REPOSITORY / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    shown = []
    for number, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        tree = ast.parse("".join(cell["source"]), f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)  # noqa: S102
        if last:
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))  # noqa: S307
    assert shown
    assert len(names["sweep"].runs) == 2  # type: ignore[attr-defined]
