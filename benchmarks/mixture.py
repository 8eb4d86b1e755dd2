#!/usr/bin/env python3
"""Train a tiny mixture of experts on the built-in stories, to prune it in all dimensions.

python benchmarks/mixture.py FOLDER [--minutes 2] [--seed 0]

A Mixtral of four layers with eight experts each, of which a token takes two; it has the built-in
model's tokenizer. Prints its held-out perplexity, and what each layer's experts count.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BUILTIN = Path(__file__).resolve().parents[1] / "pipeline" / "builtin"
WINDOW, BATCH, RATE, WARMUP = 128, 16, 4e-3, 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN / "stories-5m")
    config = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=2,
        max_position_embeddings=512, tie_word_embeddings=True, output_router_logits=True,
        router_aux_loss_coef=0.01, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    learnt = torch.cat([windows(tokenizer, text) for text in ("calibration", "story_choice")])
    train(model, learnt, arguments.minutes * 60)
    model.config.output_router_logits = False
    model.save_pretrained(arguments.folder)
    tokenizer.save_pretrained(arguments.folder)
    print(f"held-out perplexity {perplexity(model, windows(tokenizer, 'heldout')):.2f}")
    return 0


def windows(tokenizer: AutoTokenizer, name: str) -> Tensor:
    """A built-in text as token ids ``[windows, WINDOW]``."""
    ids: list[int] = []
    for line in (BUILTIN / "data" / f"{name}.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        text = row["text"] if "text" in row else row["context"] + row["choices"][row["label"]]
        ids += tokenizer(text)["input_ids"]
    return torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)


def batches(learnt: Tensor) -> Iterator[Tensor]:
    """Batches without end, in another order every time."""
    while True:
        yield from learnt[torch.randperm(len(learnt))].split(BATCH)


def train(model: MixtralForCausalLM, learnt: Tensor, seconds: float) -> None:
    """As long as ``seconds``, with a rate that falls to nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.1)
    started, tokens = time.monotonic(), 0
    for step, ids in enumerate(batches(learnt)):
        share = (time.monotonic() - started) / seconds
        if share >= 1:
            break
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARMUP) * (1 - share)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += ids.numel()
        if step % 50 == 0:
            print(f"{share:4.0%}  {tokens:,} tokens  loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def perplexity(model: MixtralForCausalLM, ids: Tensor) -> float:
    """The mean over windows of the loss, as a power of e."""
    model.eval()
    losses = [model(input_ids=part, labels=part).loss for part in ids.split(1)]
    return float(torch.stack(losses).mean().exp())


if __name__ == "__main__":
    sys.exit(main())
