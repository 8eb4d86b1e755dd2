#!/usr/bin/env python3
"""One step of scoring, side by side with one forward pass per candidate.

python benchmarks/scoring.py step builtin                     # minutes on 2 CPU cores
python benchmarks/scoring.py step smollm2 --gguf FILE --windows 1 --seqlen 256 --forwards 6
python benchmarks/scoring.py step llama2_7b --dtype float16 --windows 22 --forwards 4   # GPU
python benchmarks/scoring.py layers builtin                   # scaling with layers
python benchmarks/scoring.py tokens builtin                   # scaling with tokens
python benchmarks/scoring.py race smollm2 --gguf FILE --tokens FILE.json --steps 20

Every table is one run on one machine. "forward" is the plain way: the model's own forward pass
without each candidate, a window at a time, with the loss from its logits; ``--forwards N`` takes N
evenly spaced candidates and scales. The floor is the arithmetic of half of those passes at the rate
of a large matrix product, measured in the same run. Tokens are random: the time does not depend on
them, except for a race, which takes real ones. Needs torch and transformers alone; weights of
llama2_7b are random.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.criteria.perplexity import PerplexityScorer, Search, losses_in
from pipeline.models.blocks import Context
from pipeline.models.loading import DTYPES, LiveModel, load, resolve_device
from pipeline.models.prunable import PrunableModel
from pipeline.models.source import locate
from pipeline.pruning.state import PruningState
from pipeline.pruning.steps import Step
from pipeline.pruning.units import ATTN, BLOCKS, MLP, MLP_CHANNELS, Candidate
from pipeline.scoring.losses import LocalLosses
from pipeline.scoring.perplexity import Windows

BUILTIN = Path(__file__).resolve().parents[1] / "pipeline" / "builtin" / "stories-5m"
LLAMA2_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
)
MATRIX = {"cpu": 2048, "cuda": 8192}
"""Side of the product that measures the matrix rate."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["step", "layers", "tokens", "race"])
    parser.add_argument("model", choices=["builtin", "smollm2", "llama2_7b"])
    parser.add_argument("--gguf", type=Path, help="SmolLM2's GGUF file")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seqlen", type=int, default=None, help="256 for builtin, else 2048")
    parser.add_argument("--forwards", type=int, default=None, help="candidates of the plain way")
    parser.add_argument("--group", type=int, default=None, help="MLP channels of a candidate")
    parser.add_argument("--tokens", type=Path, help='windows for race: {"block": [[int]]}')
    parser.add_argument("--steps", type=int, default=10, help="steps of the race")
    parser.add_argument("--memory-fraction", type=float, default=0.7)
    arguments = parser.parse_args()
    bench = Bench(arguments)
    tables = {
        "step": step_table,
        "layers": layers_table,
        "tokens": tokens_table,
        "race": race_table,
    }
    tables[arguments.table](bench)
    return 0


class Bench:
    """A model, and what is measured of it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = resolve_device(arguments.device)
        self.seqlen = arguments.seqlen or (256 if arguments.model == "builtin" else 2048)
        torch.backends.cuda.matmul.allow_tf32 = False
        self.model = _load(arguments, self.device)
        self.rate = _matrix_rate(self.device, DTYPES[arguments.dtype])
        name = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        threads = f", {torch.get_num_threads()} threads" if self.device == "cpu" else ""
        print(
            f"{arguments.model} in {arguments.dtype} on {name}{threads}, torch "
            f"{torch.__version__}; matrix product {self.rate / 1e12:.3g} TFLOP/s"
        )

    def windows(self, seqlen: int | None = None) -> Windows:
        """Random tokens."""
        shape = (self.arguments.windows, seqlen or self.seqlen)
        vocabulary = self.model.model.config.vocab_size
        ids = torch.randint(3, vocabulary, shape, generator=torch.Generator().manual_seed(0))
        return Windows(ids, 2)

    def candidates(self, kind: str) -> list[Candidate]:
        """Candidates of a block step or of a step of MLP channels."""
        if kind == "block":
            return self.model.state.candidates(BLOCKS, 0)
        group = self.arguments.group or self.model.shape.widths("mlp")[0] // 8
        return self.model.state.candidates(MLP_CHANNELS, group)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way of scoring a step took."""

    seconds: float
    peak_bytes: int | None


def step_table(bench: Bench) -> None:
    """Every way of scoring a block step and a step of MLP channels."""
    header = ("step", "way", "candidates", "s/step", "cand./s", "speed-up", "peak GB", "of rate")
    print(_row(header), _row(["-" * 11] * len(header)), sep="\n")
    windows = bench.windows()
    for kind in ("block", "MLP"):
        candidates = bench.candidates(kind)
        flops = len(candidates) * forward_flops(bench.model, windows.ids.shape)
        plain = forwards(bench, candidates, windows)
        ways = {"forward": plain}
        for name, dtype in _ways(bench):
            ways[name] = one_pass(bench, candidates, windows, dtype)
        for name, measured in ways.items():
            share = flops * (1 if name == "forward" else 0.5) / measured.seconds / bench.rate
            peak = "" if measured.peak_bytes is None else f"{measured.peak_bytes / 1e9:.1f}"
            print(
                _row(
                    (
                        kind,
                        name,
                        len(candidates),
                        f"{measured.seconds:.3g}",
                        f"{len(candidates) / measured.seconds:.3g}",
                        f"{plain.seconds / measured.seconds:.2f}",
                        peak,
                        f"{share:.0%}",
                    )
                )
            )
        print(
            _row((kind, "floor", len(candidates), f"{flops / 2 / bench.rate:.3g}", "", "", "", ""))
        )


def layers_table(bench: Bench) -> None:
    """A block step of the model with ever more of its layers gone."""
    dense, windows = len(bench.model.shape.layers), bench.windows()
    print(_row(("layers", "candidates", "s/step", "ms/cand.")))
    for layers in (dense, dense * 3 // 4, dense // 2, dense // 4):
        state = bench.model.state
        for layer in range(layers, dense):
            if layer not in state.removed_mlp:
                state = state.without(Candidate(ATTN, layer, 0))
                state = state.without(Candidate(MLP, layer, 0))
        bench.model.prune_to(state)
        candidates = bench.candidates("block")
        seconds = one_pass(bench, candidates, windows, None).seconds
        each = f"{seconds / len(candidates) * 1e3:.3g}"
        print(_row((layers, len(candidates), f"{seconds:.3g}", each)))


def tokens_table(bench: Bench) -> None:
    """A block step on ever longer windows."""
    print(_row(("windows", "seqlen", "s/step", "us/token")))
    for seqlen in (bench.seqlen // 8, bench.seqlen // 4, bench.seqlen // 2, bench.seqlen):
        windows = bench.windows(seqlen)
        candidates = bench.candidates("block")
        seconds = one_pass(bench, candidates, windows, None).seconds
        each = seconds / len(candidates) / windows.ids.numel() * 1e6
        print(_row((len(windows.ids), seqlen, f"{seconds:.3g}", f"{each:.3g}")))


def race_table(bench: Bench) -> None:
    """Block steps along the exhaustive path, exhaustively and as a race."""
    rows = json.loads(bench.arguments.tokens.read_text(encoding="utf-8"))["block"]
    windows, model = Windows(torch.tensor(rows), bench.model.model.config.eos_token_id), bench.model
    fraction = bench.arguments.memory_fraction
    ways = {
        name: PerplexityScorer(
            name,
            *losses_in("model", name, LiveModel(lambda _: model), fraction, bench.device, None),
            audit_every=0,
            windows=windows,
            on_progress=lambda _: None,
        )
        for name in get_args(Search)
    }
    last: dict[str, Step | None] = dict.fromkeys(ways)
    print(_row(("step", "candidates", "exhaustive", "race", "in full", "choice")))
    totals = dict.fromkeys(ways, 0.0)
    for index in range(bench.arguments.steps):
        took, steps = {}, {}
        candidates = bench.candidates("block")
        for name, way in ways.items():
            started = time.perf_counter()
            steps[name] = way.step(index, model.state, candidates, last[name])
            took[name] = time.perf_counter() - started
            totals[name] += took[name] if index else 0.0  # the first warms up
        last |= steps
        in_full = sum(not s.estimated for s in steps["race"].scored)
        same = "same" if steps["race"].chosen == steps["exhaustive"].chosen else "OTHER"
        seconds = [f"{took[name]:.2f}" for name in ways]
        print(_row((index, len(candidates), *seconds, in_full, same)))
        model.prune_to(model.state.without(steps["exhaustive"].chosen))
    print(_row(("2nd on", "", *(f"{totals[name]:.2f}" for name in ways), "", "")))


def one_pass(
    bench: Bench, candidates: Sequence[Candidate], windows: Windows, screen: torch.dtype | None
) -> Measured:
    """A step by the project's own scorer, without anything kept from a step before."""
    model, fraction = bench.model, bench.arguments.memory_fraction
    live = LiveModel(lambda _: model)
    exact = LocalLosses(live, fraction, keep=False)
    low = exact
    if screen is not None:
        twin = model.cast(screen)
        low = LocalLosses(LiveModel(lambda _: twin), fraction, keep=False)
    scorer = PerplexityScorer("exhaustive", exact, low, 0, windows, lambda _: None)

    def work(state: PruningState = model.state) -> None:
        scorer.step(0, state, candidates, None)

    return _measured(work)


@torch.no_grad()
def forwards(bench: Bench, candidates: Sequence[Candidate], windows: Windows) -> Measured:
    """The plain way, on evenly spaced candidates, scaled to all."""
    count = min(bench.arguments.forwards or len(candidates), len(candidates))
    some = [candidates[i * len(candidates) // count] for i in range(count)]
    blocks = {(block.kind, block.layer): block for block in bench.model.blocks}

    def work() -> None:
        for candidate in some:
            (cut,) = candidate.cuts
            block = blocks[cut.kind, cut.layer]
            block.residual = partial(_without, block.residual, cut.width_after)
            for ids in windows.ids.to(bench.device).split(1):
                logits = bench.model.model(ids, use_cache=False).logits[0, :-1].float()
                float(cross_entropy(logits, ids[0, 1:]))
            del block.residual

    measured = _measured(work)
    return Measured(measured.seconds * len(candidates) / count, measured.peak_bytes)


def _without(
    residual: Callable[..., Tensor], width: int, hidden: Tensor, context: Context
) -> Tensor:
    return residual(hidden, context, width) if width else torch.zeros_like(hidden)


def forward_flops(model: PrunableModel, shape: Sequence[int]) -> float:
    """Arithmetic of one forward pass over ``[windows, seqlen]`` tokens, loss included."""
    windows, seqlen = shape
    config = model.model.config
    weights = sum(p.numel() for block in model.blocks for p in block.body.parameters())
    weights += config.vocab_size * config.hidden_size
    attention = sum(2 * seqlen * block.width for block in model.blocks if block.kind == "attn")
    return windows * seqlen * (2 * weights + attention)


def _ways(bench: Bench) -> list[tuple[str, torch.dtype | None]]:
    ways: list[tuple[str, torch.dtype | None]] = [("one pass", None)]
    if bench.device == "cuda" and bench.arguments.dtype == "float32":
        ways.append(("mixed", torch.float16))
    return ways


def _load(arguments: argparse.Namespace, device: str) -> PrunableModel:
    if arguments.model == "llama2_7b":
        torch.set_default_dtype(DTYPES[arguments.dtype])
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(LLAMA2_7B, attn_implementation="sdpa")
        torch.set_default_dtype(torch.float32)
        return PrunableModel(model)
    if arguments.model == "smollm2":
        source = locate(str(arguments.gguf.parent), arguments.gguf.name, None)
    else:
        source = locate(str(BUILTIN), None, None)
    return load(source, arguments.dtype, device, "sdpa")


def _matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product: the best of five."""
    side = MATRIX[device]
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(_measured(lambda: a @ a).seconds for _ in range(5))


def _measured(work: Callable[[], object]) -> Measured:
    """Time and peak memory of ``work``, after a run that warms up."""
    on_gpu = torch.cuda.is_available()
    work()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return Measured(seconds, torch.cuda.max_memory_allocated() if on_gpu else None)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(f"{cell!s:>10}" for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
