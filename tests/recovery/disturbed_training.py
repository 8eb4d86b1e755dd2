"""Training that is killed, divided over two ranks, or left by one of them: every process a fork.

python disturbed_training.py KILLS SEED

Prints what came of it as JSON. Everything is imported once, so that a process takes little time
besides its work.
"""

import json
import os
import random
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama
from safetensors.torch import save_file
from support_forks import KILLED, wait
from support_recovery import counting, examples, recovered, recovering

import pipeline.recovery.training.distillation
from pipeline.distributed.ranks import Leader
from pipeline.distributed.rendezvous import Ranks
from pipeline.distributed.start import over_ranks
from pipeline.errors import PipelineError
from pipeline.files import sha256_of_file
from pipeline.recovery.training import loop

SLOWER = 1.1
"""The latest moment to kill, in times that an undisturbed process takes."""
SETTINGS: dict[str, dict[str, Any]] = {
    "distill": {"lr": 3e-3, "batch": 4, "epochs": 2, "warmup_steps": 2, "measurements": 4},
    "lora": {
        "lr": 3e-3,
        "batch": 8,
        "epochs": 4,
        "warmup_steps": 2,
        "measurements": 4,
        "dropout": 0.2,
    },
}
LENGTHS = [*range(5, 13), *range(5, 13), *[12] * 16]


def learn(name: str, folder: Path, leader: Leader | None = None, **settings: Any) -> None:
    """Leave the weights and what is known of them in ``folder``."""
    learnt, held_out = examples(counting(32, 12, 3), LENGTHS, 2), counting(5, 12, 3, seed=1)
    job = recovering(name, folder, learnt, held_out, leader=leader, **SETTINGS[name] | settings)
    known, weights = recovered(job, name)
    save_file(weights, folder / "weights.safetensors")
    (folder / "known.json").write_text(json.dumps(known), "utf-8")


def fork(work: Any) -> int:
    """A process that does ``work``; its id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except PipelineError as error:
            Path("error").write_text(str(error), "utf-8")
        finally:
            os._exit(status)
    return pid


def killed(name: str, kills: int, moments: random.Random) -> dict[str, Any]:
    """What is left of processes that were killed at random moments and started again."""
    undisturbed = Path(name)
    status, whole_s = wait(fork(partial(learn, name, undisturbed)))
    assert status == 0
    wanted = sha256_of_file(undisturbed / "weights.safetensors")
    rounds, resumed = [], 0
    while kills > 0:
        folder = Path(f"{name}-{len(rounds)}")
        status = KILLED
        while status == KILLED:
            resumed += (folder / f"{name}.checkpoint.safetensors").exists()
            latest = moments.uniform(0, SLOWER * whole_s) if kills > 0 else None
            status, _ = wait(fork(partial(learn, name, folder)), latest)
            kills -= status == KILLED
        assert status == 0
        same = sha256_of_file(folder / "weights.safetensors") == wanted
        left = sorted(path.name for path in folder.iterdir() if "checkpoint" in path.name)
        curve = [steps_of(each) for each in (folder, undisturbed)]
        rounds.append({"same": same, "left": left, "same_curve": curve[0] == curve[1]})
    return {"rounds": rounds, "resumed": resumed}


def steps_of(folder: Path) -> list[Any]:
    """The learning curve without times."""
    lines = (folder / "learning.jsonl").read_text("utf-8").splitlines()
    return [
        [line[key] for key in ("tokens", "loss", "lr", "held_out")]
        for line in map(json.loads, lines)
    ]


def ranks(name: str, folder: Path, kill_after_s: float | None = None, **settings: Any) -> list[int]:
    """Exit statuses of two ranks; the second one is killed while the first one goes on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    pids = [
        fork(
            partial(
                over_ranks,
                partial(learn, name, folder, **settings),
                Ranks(rank, 2, rank, 2, address),
            )
        )
        for rank in (1, 0)
    ]
    if kill_after_s is not None:
        while not (folder / "learning.jsonl").exists():
            time.sleep(0.02)
    return [wait(pid, after)[0] for pid, after in zip(pids, (kill_after_s, None), strict=True)]


def main() -> None:
    kills, seed = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    assert transformers.models.llama.modeling_llama
    assert pipeline.recovery.training.distillation
    import peft  # noqa: F401 - so that no fork has to

    loop.CHECKPOINT_S = 0.0
    moments = random.Random(seed)
    found: dict[str, Any] = {
        "distill": killed("distill", kills // 2, moments),
        "lora": killed("lora", kills - kills // 2, moments),
    }
    found["statuses"] = ranks("distill", Path("ranked"))
    known = (json.loads(Path(each, "known.json").read_bytes()) for each in ("distill", "ranked"))
    found["alone"], found["ranked"] = known
    found["left"] = ranks("distill", Path("left"), 0.0, epochs=900)
    found["error"] = Path("error").read_text("utf-8")
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
