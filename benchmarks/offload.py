#!/usr/bin/env python3
"""One block step of a Llama-2-7B-shaped model: resident against offloaded within a byte budget.

python benchmarks/offload.py [--budget-gb 8] [--windows 22] [--candidates 64] [--ways none cpu disk]

Random float16 weights; the first candidates of a dense model's block step, on random tokens. Prints
a line a way: seconds of the step (after a short one to warm up), peak bytes that PyTorch allocated
and reserved on the device (without the CUDA context, about 0.5 GB), slowdown against the resident
model, and the largest relative difference of a candidate's mean loss; the exit status is 1 where
that exceeds 1e-3. Without a GPU nothing is limited, and --tiny checks that the script runs.
"""

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.models.prunable import PrunableModel
from pipeline.pruning.units import BLOCKS
from pipeline.scoring.one_pass import OnePass
from pipeline.scoring.perplexity import Windows

LLAMA2_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
TINY = LLAMA2_7B | {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
CLOSE = 1e-3
GB = 1e9


@dataclass(frozen=True)
class Outcome:
    """One way's measurements; ``losses`` are float64 ``[candidates, windows]``."""

    seconds: float
    placed_s: float
    allocated: int
    reserved: int
    losses: Tensor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget-gb", type=float, default=8.0, help="for cpu and disk; 1e9 bytes")
    parser.add_argument("--windows", type=int, default=22)
    parser.add_argument("--seqlen", type=int, default=2048)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--memory-fraction", type=float, default=0.7)
    parser.add_argument(
        "--ways", nargs="+", default=["none", "cpu"], choices=["none", "cpu", "disk"]
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, to check the script")
    arguments = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}, {arguments.candidates} candidates, "
        f"{arguments.windows} windows of {arguments.seqlen}, budget {arguments.budget_gb} GB"
    )
    header = "way    seconds  slowdown  allocated GB  reserved GB  placing s  loss differs"
    print(header, flush=True)
    reference: Outcome | None = None
    exact = True
    for way in arguments.ways:
        outcome = measure(way, device, arguments)
        reference = reference or outcome
        difference = float((outcome.losses.mean(1) / reference.losses.mean(1) - 1).abs().max())
        exact = exact and difference <= CLOSE
        print(
            f"{way:5} {outcome.seconds:8.2f} {outcome.seconds / reference.seconds:9.3f} "
            f"{outcome.allocated / GB:13.2f} {outcome.reserved / GB:12.2f} "
            f"{outcome.placed_s:10.1f} {difference:13.1e}",
            flush=True,
        )
    return 0 if exact else 1


def measure(way: str, device: torch.device, arguments: argparse.Namespace) -> Outcome:
    """Score the step one way, in a model of its own."""
    on_gpu = device.type == "cuda"
    gc.collect()
    model = PrunableModel(random_model(TINY if arguments.tiny else LLAMA2_7B, device))
    if on_gpu:
        torch.cuda.empty_cache()
    started = time.monotonic()
    if way == "none":
        model.model.to(device)
    else:
        if on_gpu:
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(arguments.budget_gb * GB / total)
        model.offload(device, "cpu" if way == "cpu" else "disk")
    placed_s = time.monotonic() - started
    windows = random_windows(arguments.windows, arguments.seqlen, model.model.config.vocab_size)
    candidates = model.state.candidates(BLOCKS, 0)[: arguments.candidates]
    few = Windows(windows.ids[:1], None)
    OnePass(arguments.memory_fraction).losses(model, candidates[:2], few, lambda _: None)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    scorer = OnePass(arguments.memory_fraction)
    losses = scorer.losses(model, candidates, windows, lambda _: None)
    seconds = time.monotonic() - started
    peaks = (0, 0)
    if on_gpu:
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        torch.cuda.set_per_process_memory_fraction(1.0)
    return Outcome(seconds, placed_s, *peaks, losses)


@torch.no_grad()
def random_model(sizes: dict[str, int], device: torch.device) -> torch.nn.Module:
    """The same float16 weights in CPU memory every time; drawn on ``device``, which is faster."""
    config = LlamaConfig(**sizes, dtype=torch.float16)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    rotary = type(model.model.rotary_emb)(config)
    model = model.to_empty(device="cpu")
    model.model.rotary_emb = rotary
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1)
        else:
            drawn = torch.empty_like(parameter, device=device).normal_(0, 0.02, generator=generator)
            parameter.copy_(drawn)
    return model


def random_windows(count: int, seqlen: int, vocab_size: int) -> Windows:
    generator = torch.Generator().manual_seed(1)
    return Windows(torch.randint(vocab_size, (count, seqlen), generator=generator), None)


if __name__ == "__main__":
    sys.exit(main())
