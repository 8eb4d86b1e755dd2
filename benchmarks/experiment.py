#!/usr/bin/env python3
"""A whole experiment from the shell and back, and where its time went.

python benchmarks/experiment.py llama2_7b --windows 11 5 prune.target_ratio=7       # GPU
python benchmarks/experiment.py llama2_7b prune.target_ratio=22 prune.search=race
python benchmarks/experiment.py smollm2 --gguf FILE --tokens FILE.json prune.target_ratio=22
python benchmarks/experiment.py tiny prune.target_ratio=10              # a CPU, a minute

Builds the model in a folder of its own (llama2_7b: random weights in safetensors; what blocks write
into the residual stream is scaled block by block, and the output layer remembers the calibration
windows, so that a block that goes is missed as in a trained model), runs launch.py on it
as a user would, with probe=latency after every step, and then the same command again. Everything is
timed in new processes; reading files is as warm as writing them left it. Overrides go to launch.py.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 4096,
}  # fmt: skip
SETTINGS = {
    "llama2_7b": ["+paper=llama2_7b", "model.dtype=float16"],
    "tiny": ["prune.mlp_group_size=64", "prune.attn_group_size=32"],
    "smollm2": ["prune.mlp_group_size=256", "prune.attn_group_size=192", "model.dtype=float32"],
}
SEQLEN = {"llama2_7b": 2048, "tiny": 128}
SHARD_TENSORS = 40
GOLDEN_RATIO = 0.618034
CONFIDENCE = 12.0
"""The logit of a token that is remembered, where its hidden state is as it was."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(SETTINGS))
    parser.add_argument("--folder", type=Path, default=Path("outputs/experiment"))
    parser.add_argument("--windows", type=int, nargs=2, default=(22, 11),
                        help="random calibration windows for blocks and for widths")  # fmt: skip
    parser.add_argument("--gguf", type=Path, help="SmolLM2's GGUF file")
    parser.add_argument(
        "--tokens", type=Path, help="calibration windows in the place of random ones"
    )
    parser.add_argument("--again", type=int, default=1, help="how often it is repeated when done")
    arguments, overrides = parser.parse_known_args()
    folder = arguments.folder / arguments.model
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.model == "smollm2":
        of_model = [f"model.path={arguments.gguf.parent.absolute()}",
                    f"model.gguf_file={arguments.gguf.name}"]  # fmt: skip
    tokens = arguments.tokens or random_tokens(arguments.model, folder, arguments.windows)
    if arguments.model != "smollm2":
        build(arguments.model, folder / "model", tokens)
        of_model = [f"model.path={folder.absolute()}/model"]
    command = [
        sys.executable, str(ROOT / "launch.py"), *SETTINGS[arguments.model],
        "model=hf", *of_model, "calibration=tokens", f"calibration.path={tokens.absolute()}",
        "probe=latency", "evaluate=none", "tracking=none", "run.name=experiment",
        f"run.dir={folder.absolute()}/runs", f"store.dir={folder.absolute()}/store", *overrides,
    ]  # fmt: skip
    print("$", " ".join(command), flush=True)
    whole = timed(command, folder / "first.log")
    table(folder / "runs", whole)
    for _ in range(arguments.again):
        print(f"{'the same command again':40} {timed(command, folder / 'again.log'):8.1f} s")
    return 0


def timed(command: list[str], log: Path) -> float:
    """Seconds of a command; ends the program where it fails."""
    started = time.monotonic()
    with log.open("w") as stream:
        done = subprocess.run(command, stdout=stream, stderr=stream, check=False)  # noqa: S603
    seconds = time.monotonic() - started
    if done.returncode:
        print(log.read_text()[-3000:])
        raise SystemExit(f"launch.py ended with {done.returncode}")
    return seconds


def table(runs: Path, whole: float) -> None:
    """Where the seconds of the run's first launch went."""
    summary = json.loads(next(runs.glob("summary.json")).read_text())
    rows = {"from the shell and back": whole}
    rows |= {f"stage {name}": stage["seconds"] for name, stage in summary["stages"].items()}
    share = summary["probe_share"] or 0.0
    prune = summary["stages"]["prune"]["seconds"]
    rows["of pruning: probes"] = share * prune
    rows["of pruning: scoring and the rest"] = (1 - share) * prune
    rows["start, plan, report"] = whole - sum(s["seconds"] for s in summary["stages"].values())
    for name, seconds in rows.items():
        print(f"{name:40} {seconds:8.1f} s")
    print(f"{'steps':40} {summary['steps']:8}")
    print(f"{'candidates scored':40} {summary['candidates_scored']:8}")
    print(f"{'states measured':40} {summary['states_measured']:8}")
    print(f"{'probes, share of pruning':40} {100 * share:8.1f} %", flush=True)


def config_of(name: str) -> Any:
    """The shape of a model that is built here."""
    from scoring import LLAMA2_7B  # beside this file
    from transformers import LlamaConfig

    return LLAMA2_7B if name == "llama2_7b" else LlamaConfig(**TINY)


def build(name: str, folder: Path, tokens: Path) -> None:
    """Random weights with the shape of a model, unless they are there."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    if (folder / "config.json").exists():
        return
    folder.mkdir()
    started = time.monotonic()
    config = config_of(name)
    config.dtype = torch.float16
    with torch.device("meta"):
        shapes = {
            key: p.shape for key, p in AutoModelForCausalLM.from_config(config).named_parameters()
        }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    index: dict[str, str] = {}
    names = list(shapes)
    for first in range(0, len(names), SHARD_TENSORS):
        shard = {}
        for key in names[first : first + SHARD_TENSORS]:
            shard[key] = weight(key, shapes[key], generator).cpu()
        file = f"model-{first // SHARD_TENSORS:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    config.save_pretrained(folder)
    remember(folder, tokens, index["lm_head.weight"], device)
    print(f"{'random weights written':40} {time.monotonic() - started:8.1f} s")


def weight(key: str, shape: Any, generator: Any) -> Any:
    """A random tensor; norms are one, and out-projections have a scale of their own."""
    import torch

    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.float16)
    scale = shape[-1] ** -0.5
    if key.endswith(("o_proj.weight", "down_proj.weight")):
        block = 2 * int(key.split(".")[2]) + key.endswith("down_proj.weight")
        scale *= 0.1 + 0.9 * (block * GOLDEN_RATIO % 1)  # spread evenly: no near-ties
    values = torch.randn(shape, generator=generator, device=generator.device) * scale
    return values.to(torch.float16)


def remember(folder: Path, tokens: Path, file: str, device: str) -> None:
    """Make the row of each token in the output layer the mean of the hidden states it follows."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map=device)
    head = torch.zeros_like(model.lm_head.weight, dtype=torch.float32)
    count = torch.zeros(len(head), 1, device=device)
    with torch.no_grad():
        texts = json.loads(tokens.read_text())
        for window in (*texts["block"], *texts["width"]):
            ids = torch.tensor(window, device=device)
            hidden = model.model(ids[None]).last_hidden_state[0, :-1].float()
            head.index_add_(0, ids[1:], hidden)
            count.index_add_(0, ids[1:], torch.ones(len(ids) - 1, 1, device=device))
    head *= CONFIDENCE / (count.clamp(min=1) * head.shape[1])
    shard = load_file(folder / file)
    shard["lm_head.weight"] = head.to(shard["lm_head.weight"].dtype).cpu()
    save_file(shard, folder / file, metadata={"format": "pt"})


def random_tokens(name: str, folder: Path, windows: tuple[int, int]) -> Path:
    """Calibration windows of random ids."""
    import random

    ids = random.Random(0)
    vocabulary, seqlen = config_of(name).vocab_size, SEQLEN[name]
    block, width = (
        [[ids.randrange(3, vocabulary) for _ in range(seqlen)] for _ in range(count)]
        for count in windows
    )
    path = folder / f"tokens-{windows[0]}-{windows[1]}.json"
    path.write_text(json.dumps({"block": block, "width": width}))
    return path


if __name__ == "__main__":
    sys.exit(main())
