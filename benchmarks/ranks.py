#!/usr/bin/env python3
"""Steps on more and more ranks of one machine, each with one CPU thread or one GPU.

python benchmarks/ranks.py --ranks 1 2                                         # the built-in model
python benchmarks/ranks.py FOLDER [--gguf FILE] --tokens FILE.json --ranks 1 2 4 8   # GPUs

Starts itself under torchrun once for each number, and scores a block step and a step of MLP
channels in every way: exhaustively, in mixed precision (float32 models on GPUs), as a race. The
time is of a second step, when every rank has its model; nothing is kept from the first. Idle is the
share of it in which a rank scores nothing: the least and the most of any. FILE.json has calibration
windows, {"block": [[int]]}; without it they are random. The model may be one that
benchmarks/experiment.py has built.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.criteria.perplexity import PerplexityScorer, Search
from pipeline.distributed import ranks as distributed
from pipeline.distributed.ranks import Group, Leader, losses_of
from pipeline.distributed.rendezvous import ranks_of_torchrun
from pipeline.distributed.start import over_ranks
from pipeline.models.loading import DTYPES, DenseLoader, LiveModel, resolve_device
from pipeline.models.source import locate
from pipeline.models.variants import dense_lineage
from pipeline.pruning.state import PruningState
from pipeline.pruning.units import BLOCKS, MLP_CHANNELS
from pipeline.scoring.losses import Losses
from pipeline.scoring.perplexity import Windows

BUILTIN = ROOT / "pipeline" / "builtin" / "stories-5m"
FOLDER = "RANKS_BENCHMARK"
"""The environment's variable with the folder where the ranks write; set in the ranks alone."""
GROUPS = 11
"""Groups that the channels of an MLP are cut into."""
WAYS = ("exhaustive", "mixed", "race")
HEADER = ("step", "way", "ranks", "s/step", "speed-up", "idle", "KB exchanged", "choices")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=BUILTIN)
    parser.add_argument("--gguf", help="the name of a GGUF file in the model's folder")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--windows", type=int, default=22)
    parser.add_argument("--seqlen", type=int, default=256, help="of random windows")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--memory-fraction", type=float, default=0.5)
    arguments = parser.parse_args()
    if FOLDER in os.environ:
        if resolve_device("auto") == "cpu":
            torch.set_num_threads(1)
        recorder = Recorder(Path(os.environ[FOLDER]))
        over_ranks(lambda leader: measure(arguments, leader, recorder),
                   ranks_of_torchrun(os.environ))  # fmt: skip
        return 0
    print(_row(HEADER), _row(["---"] * len(HEADER)), sep="\n")
    alone: dict[tuple[str, str], Any] = {}
    for number in arguments.ranks:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                       f"--nproc-per-node={number}", __file__, *sys.argv[1:]]  # fmt: skip
            environment = os.environ | {FOLDER: folder, "OMP_WAIT_POLICY": "PASSIVE"}
            done = subprocess.run(  # noqa: S603 - our own interpreter and file
                command, env=environment, check=False, capture_output=True, text=True
            )
            if done.returncode:
                print(done.stderr[-3000:])
                return 1
            busy = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(number)]
            for row in json.loads(Path(folder, "rows.json").read_text()):
                one = alone.setdefault((row["step"], row["way"]), row)
                idle = [1 - sum(b[slice(*row["calls"])]) / row["seconds"] for b in busy]
                same = "same" if row["chosen"] == one["chosen"] else "OTHER"
                print(_row((row["step"], row["way"], number, f"{row['seconds']:.2f}",
                            f"{one['seconds'] / row['seconds']:.2f}",
                            f"{min(idle):.0%} to {max(idle):.0%}",
                            f"{row['bytes'] / 1e3:.0f}", same)), flush=True)  # fmt: skip
    return 0


class Recorder:
    """What this rank does: how long each call of the scorer took, and the bytes it exchanged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / f"{os.environ.get('RANK', '0')}.json"
        self.busy: list[float] = []
        self.bytes = 0
        scored, exchange, gather = distributed._scored, Group.exchange, Group.gather

        def timed(score: Callable[[], Any], share: Any) -> Any:
            started = time.perf_counter()
            out = scored(score, share)  # losses are on the CPU: the GPU is done
            self.busy.append(time.perf_counter() - started)
            self.file.write_text(json.dumps(self.busy))
            return out

        def told(group: Group, command: Any) -> Any:
            if group.ranks.rank == 0:
                self.bytes += len(pickle.dumps(command)) * (group.ranks.size - 1)
            return exchange(group, command)

        def gathered(group: Group, mine: Any, shares: Any) -> Any:
            parts = gather(group, mine, shares)
            self.bytes += sum(part.nbytes for part in parts) * (group.ranks.size - 1)
            return parts

        distributed._scored = timed
        Group.exchange = told  # type: ignore[method-assign,assignment]
        Group.gather = gathered  # type: ignore[method-assign,assignment]


def measure(arguments: Any, leader: Leader | None, recorder: Recorder) -> None:
    """Score second steps, and write what they took; rank 0 alone does."""
    device = resolve_device("auto")
    source = locate(str(arguments.model), arguments.gguf, None)
    loader = DenseLoader(source, arguments.dtype, device, "sdpa", "none", reorder=True)
    live = LiveModel(loader, dense_lineage("benchmark", reordered=True))
    windows = Windows(_ids(arguments, source), None)
    dense = PruningState.dense(source.shape)
    group = source.shape.widths("mlp")[0] // GROUPS
    ways = arguments.way or [
        way for way in WAYS if way != "mixed" or (device == "cuda" and arguments.dtype == "float32")
    ]
    rows = []
    for way in ways:
        exact = losses_of(leader, live, arguments.memory_fraction, device, keep=False)
        low = exact
        if way == "mixed":
            low = losses_of(leader, live, arguments.memory_fraction, device,
                            keep=False, cast_to=torch.float16)  # fmt: skip
        if leader is None:
            exact, low = counted(exact), counted(low)
        search: Search = "race" if way == "race" else "exhaustive"
        scorer = PerplexityScorer(search, exact, low, 0, windows, lambda _: None)
        for step, dimension, size in (("block", BLOCKS, 0), ("MLP", MLP_CHANNELS, group)):
            first = scorer.step(0, dense, dense.candidates(dimension, size), None)
            state = dense.without(first.chosen)
            calls, before, started = len(recorder.busy), recorder.bytes, time.perf_counter()
            second = scorer.step(1, state, state.candidates(dimension, size), first)
            rows.append({
                "step": step, "way": way, "seconds": time.perf_counter() - started,
                "calls": [calls, len(recorder.busy)], "bytes": recorder.bytes - before,
                "chosen": [first.chosen.to_json(), second.chosen.to_json()],
            })  # fmt: skip
    (recorder.folder / "rows.json").write_text(json.dumps(rows))


def counted(losses: Losses) -> Losses:
    """A single process's losses, timed as a rank's are."""
    return lambda *asked: distributed._scored(lambda: losses(*asked), asked[1])[0]


def _ids(arguments: Any, source: Any) -> torch.Tensor:
    if arguments.tokens:
        return torch.tensor(json.loads(arguments.tokens.read_text())["block"])
    shape = (arguments.windows, arguments.seqlen)
    vocabulary = source.config.get_text_config().vocab_size
    return torch.randint(3, vocabulary, shape, generator=torch.Generator().manual_seed(0))


def _row(cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
