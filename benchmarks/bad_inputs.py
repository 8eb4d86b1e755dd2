#!/usr/bin/env python3
"""Generated bad inputs: each must be refused with exit 2, in a line a problem, and leave nothing.

python benchmarks/bad_inputs.py [--count 300] [--seed 0] [--only KIND] [--show]

Every case is a folder with a tiny model and everything that a launch reads, in which one thing is
spoiled, and a command line. It goes through ``launch.main`` in a fork of this process, so that what
hangs or dies is a result, too. The table has kinds by outcomes; below it stand the cases that were
not refused as they should be, with what was printed. ``--show`` prints what was said to all.
"""

import argparse
import ctypes
import importlib
import json
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from pydantic.fields import FieldInfo
from safetensors.torch import load_file, save_file
from support_inputs import (
    edit_config,
    edit_weights,
    save_model,
    save_tokenizer,
    write_jsonl,
    write_tokens,
)

import launch
from pipeline.config.schema import _fields_of_all
from pipeline.stages import stages

TIMEOUT_S = 60
SLOW_S = 20
NOBODY = 65534
LONG = "9" * 5000
DEEP = "[" * 100_000 + "]" * 100_000
Argument = str
Spoil = Callable[[random.Random, Path], "list[Argument]"]

ARGUMENTS = (
    "model=hf", "model.path=model", "model.device=cpu", "calibration=tokens",
    "calibration.path=tokens.json", "prune.target_ratio=20", "prune.distribution=[1,1,1]",
    "prune.mlp_group_size=4", "prune.attn_group_size=8", "run.dir=run", "store.dir=store",
)  # fmt: skip
TEXT = ("calibration=text", "calibration.path=text.txt", "calibration.seqlen=16")
MEASURED = (
    "evaluate.text=held.jsonl", "evaluate.seqlen=16", "evaluate.tasks=[own]",
    "evaluate.task_files={own: own.jsonl}",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line in a spoiled folder."""

    kind: str
    label: str
    spoil: Callable[[Path], "list[Argument]"] = field(repr=False)
    as_nobody: bool = False
    """Run without root's rights."""


@dataclass(frozen=True)
class Ending:
    """How a case ended."""

    outcome: str
    """refused, or what was wrong with how it ended."""
    text: str


# ---- what is spoiled: overrides


def bad_override(rng: random.Random) -> tuple[str, list[Argument]]:
    """A key of the schema with a value that its type does not have."""
    key, info = rng.choice(sorted(_fields_of_all().items(), key=lambda item: item[0]))
    value = rng.choice(list(bad_values(info)))
    if key.startswith("cluster.") and key != "cluster.name":
        return f"{key}={value[:60]}", ["cluster=slurm", f"{key}={value}"]
    return f"{key}={value[:60]}", [f"{key}={value}"]


def bad_values(info: FieldInfo) -> Iterator[str]:
    """Values that a field of this type cannot have, as they are typed."""
    kinds = kinds_of(info.annotation)
    yield from ("{a: 1}", "${nowhere.at_all}", "[[1],[2]]", "${oc.env:NOT_THERE_AT_ALL}")
    if type(None) not in kinds:
        yield "null"
    if not {str, "literal"} & kinds:
        yield from ("abc", "'/m[/m]'", "''", "'a\nb'")
    if not {int, float} & kinds:
        yield from ("3", "nan", "1e999", LONG)
    if {int, float} & kinds and bool not in kinds:
        yield from ("nan", "-inf", "-1e30", "true", "'1'")
    if int in kinds and float not in kinds:
        yield from ("1.5", "-7", "1e3")
    if "literal" in kinds:
        yield from ("nope", "'[red]x[/red]'", "true", "''")
    if bool not in kinds:
        yield from ("false",)
    if str in kinds and "literal" not in kinds:
        yield "'a\0b'"
        yield "'a\udcffb'"


def kinds_of(annotation: Any) -> set[Any]:
    """The plain types that a field takes, with "literal" for a choice."""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return {"literal"}
    if origin is typing.Annotated:
        return kinds_of(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return {kind for arg in typing.get_args(annotation) for kind in kinds_of(arg)}
    return {origin or annotation}


FLAGS: tuple[tuple[Argument, ...], ...] = (
    ("hydra/launcher=nope",), ("hydra/launcher=basic", "-m"), ("hydra/sweeper=nope",),
    ("hydra/nope=basic",), ("hydra.nope=3",), ("hydra.mode=NOPE",), ("hydra.job.chdir=abc",),
    ("hydra.searchpath=[file:///nope]",), ("hydra.sweep.dir=/proc/nope", "-m"),
    ("hydra.run.dir=elsewhere",), ("hydra.output_subdir=.hydra",), ("hydra.sweeper.params=3", "-m"),
    ("hydra/job_logging=default",), ("hydra.job.name=[1]",), ("hydra=null",),
    ("-sc", "install=bash"), ("-sc", "nope=bash"), ("-sc",), ("--shell-completion",),
    ("--experimental-rerun", "nope"), ("--experimental-rerun",), ("-cn", "nope"), ("-cp", "nope"),
    ("-cd", "nope"), ("--config-dir", "tokens.json"), ("--info", "nope"), ("--cfg", "nope"),
    ("--cfg",), ("-p", "nope"), ("--package", "nope"), ("--nope",), ("-x",),
    ("-",), ("--",), ("=",), ("",), (" ",), ("a",), ("=3",), ("prune",), ("prune.target_ratio",),
    ("~prune.target_ratio",), ("~model.path",), ("~run",), ("~calibration",),
    ("~nope",), ("~cluster.name",), ("~prune.distribution=[1,1,1]", "~prune.distribution"),
    ("model=[hf,builtin]",), ("model=null",), ("model=",), ("model=''",), ("model={a: 1}",),
    ("model@x=hf",), ("+model=hf",), ("prune=nope",), ("prune=null",), ("prune=5",), ("prune={}",),
    ("++prune.target_ratio.x=1",), ("++prune.target_ratio.x.y=1",), ("++model.nope.x=3",),
    ("+prune.target_ratio=5",), ("prune.distribution[0]=1",), ("prune.distribution.0=abc",),
    ("prune.target_ratio=5,10",), ("prune.target_ratio=range(1,5)",), ("plan=1",), ("plan=yaml",),
    ("plan=[json]",), ("wait=1",), ("wait=maybe",), ("run=x",), ("run=null",), ("run={}",),
    ("store=null",), ("scoring=[]",), ("sweep=nope",), ("+sweep=nope",), ("+sweep=[ratio,x]",),
    ("+paper=nope",), ("+paper=[]",), ("cluster=nope",), ("cluster=slurm", "cluster.nope=1"),
    ("cluster=slurm", "cluster.constraint='a\nb'"), ("cluster=slurm", "cluster.partition=''"),
    ("cluster=slurm", "+cluster.parameters.'a b'=3"),
    ("cluster=slurm", "cluster.parameters={'a b': 3}"),
    ("cluster=slurm", "cluster.parameters={nice: [1]}"),
    ("cluster=slurm", "cluster.stages.prune=3"), ("cluster=slurm", "cluster.stages.nope.gpus=3"),
    ("cluster=slurm", "cluster.stages=null"), ("cluster.name=null",), ("cluster.name=[slurm]",),
    ("cluster.gpus=3",), ("prune.target_ratio=1", "prune.target_ratio=abc"),
    ("run.name=a/b",), ("run.name=..",), ("run.name=-x",), ("run.name='a\n'",),
    ("run.name=" + "a" * 121,), ("sweep.name=a/../b",), ("tracking.tags=[" + "a" * 65 + "]",),
    ("evaluate.tasks=[nope]",), ("evaluate.tasks=[own]",), ("probe.every=1", "probe.tasks=[nope]"),
    ("evaluate.task_files={own: 3}", "evaluate.tasks=[own]"), ("evaluate.tasks=own",),
    ("evaluate.task_files={piqa: own.jsonl}", "evaluate.tasks=[piqa]"),
    ("evaluate.task_files=[own.jsonl]",), ("+evaluate.task_files.own.x=own.jsonl",),
    ("prune.order=[heads,heads,blocks]",), ("prune.order=[heads]",),
    ("prune.order=['/m[/m]',a,b]",),
    ("prune.distribution=[0,0,0]",), ("prune.distribution=[1,1]",),
    ("prune.distribution=[1,1,-1]",),
    ("prune.distribution=[1e308,1e308,1e308]",), ("prune.distribution=[1,a,1]",),
    ("prune.target_ratio=100",), ("prune.target_ratio=0",), ("prune.target_ratio=" + LONG,),
    ("prune.target_ratio=-0.0",), ("prune.mlp_group_size=24",), ("prune.attn_group_size=" + LONG,),
    ("prune.mlp_group_size=100000000000000000000",), ("model.gguf_file=nope.gguf",),
    ("model.gguf_file=../tokens.json",), ("model.gguf_file=config.json",), ("model.gguf_file=''",),
    ("model.gguf_file=.",), ("model.revision=main",), ("model.path=a/b",), ("model.path=.",),
    ("model.path='pypi:'",), ("model.path='pypi:==1'",), ("model.path='pypi:a b==1'",),
    ("model.path='pypi:torch'",), ("model.path='pypi:../x'",), ("model.path=a/b/c",),
    ("model.path=//",), ("model.path='a /b'",), ("model.path=${model.path}",), ("model.path=???",),
    ("-m", "prune.target_ratio=5,abc"), ("-m", "prune.target_ratio="), ("-m", "run.name=x,y z"),
    ("-m", "prune.target_ratio=5,10", "run.name=same"), ("-m", "prune.target_ratio=choice()"),
    ("-m", "prune.target_ratio=5,10", "run.dir=same"), ("-m", "prune.target_ratio=range(5)"),
    ("-m", "model.path=model,nowhere"), ("-m", "run.dir=a[red]b,a[/red]", "model.path=nope"),
    ("-m", "prune.target_ratio=range(1,99)", "prune.mlp_group_size=range(1,1000)"),
)  # fmt: skip


def bad_command(rng: random.Random) -> tuple[str, list[Argument]]:
    """Something that is no configuration at all, or not of this project."""
    arguments = list(rng.choice(FLAGS))
    return " ".join(arguments)[:70], arguments


# ---- what is spoiled: the model

CONFIG_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_size": (0, -16, "16", 16.5, None, 17, [16], 10**12, True),
    "intermediate_size": (0, -1, "24", 24.5, None, [24, 24], 10**15),
    "num_hidden_layers": (0, -1, "2", 2.5, None, 10**9, [2], 3, 1),
    "num_attention_heads": (0, -4, 3, "4", None, 10**9, 4.0),
    "num_key_value_heads": (0, -2, 3, "2", 8, 10**9),
    "head_dim": (0, -4, "4", 4.5, 3, 10**9, [4]),
    "vocab_size": (0, -1, "104", None, 10**12, 103, 104.5),
    "max_position_embeddings": (0, -1, "64", 64.5, [64]),
    "rope_theta": ("10000", [], None, 0, -1.0, {"a": 1}),
    "rope_scaling": ("linear", 3, {"type": "nope"}, {"rope_type": "nope", "factor": 2}, ["linear"]),
    "rope_parameters": ("x", 3, {"rope_type": "nope", "rope_theta": 1e4}, {"rope_theta": "1e4"}),
    "hidden_act": ("nope", 3, None, ["silu"], ""),
    "rms_norm_eps": ("1e-6", None, [], -1.0),
    "pad_token_id": (104, -2, "0", 10**9, [0]),
    "bos_token_id": (104, "1", [1, 2], -7),
    "eos_token_id": (104, "3", -3, [3, 104], [], {"a": 3}),
    "tie_word_embeddings": (True, "true", 3, [True]),
    "quantization_config": (
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "nope"}, {}, 3,
    ),
    "attention_bias": (True, "yes", 3),
    "mlp_bias": (True, "yes"),
    "attention_dropout": ("x",),
    "model_type": ("gpt2", "nope", 3, None, [], "/m[/m]", "bert"),
    "dtype": ("float12", 3, []),
    "layer_types": (["nope"], "full_attention", ["full_attention"] * 3),
}  # fmt: skip


def bad_model_config(rng: random.Random) -> tuple[str, Spoil]:
    """One value of ``config.json`` that no such model can have."""
    key = rng.choice(list(CONFIG_VALUES))
    value = rng.choice(CONFIG_VALUES[key])

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        edit_config(place / "model", **{key: value})
        return []

    return f"{key}: {value!r}"[:70], spoil


JUNK: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"a": ',
    "a list": b"[1, 2]",
    "a number": b"3",
    "text": b'"text"',
    "null": b"null",
    "an empty object": b"{}",
    "binary": bytes(range(256)),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "surrogate": b'{"a\\ud800": "\\udfff"}',
    "deep": DEEP.encode(),
    "long number": b'{"a": ' + LONG.encode() + b"}",
    "nan": b'{"a": NaN}',
    "nul": b"\0" * 64,
}


OBJECTS = ("an empty object", "nan")
"""What is no damage to a file of settings, each of which may be left out."""


def bad_model_file(rng: random.Random) -> tuple[str, Spoil]:
    """A file of the model's folder that is something else."""
    name = rng.choice([
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "model.safetensors", "model.safetensors.index.json",
    ])  # fmt: skip
    how = rng.choice([*JUNK, "folder", "dangling", "loop", "fifo"])
    if name in ("generation_config.json", "tokenizer_config.json") and how in OBJECTS:
        how = "a list"

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        path = place / "model" / name
        path.unlink(missing_ok=True)
        put(path, how)
        return list(TEXT) if name.startswith("tokenizer") else []

    return f"{name}: {how}", spoil


def put(path: Path, how: str) -> None:
    """Something else in the place of a file."""
    if how == "folder":
        path.mkdir()
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "socket":
        os.mknod(path, 0o140644)
    else:
        path.write_bytes(JUNK[how])


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the bytes after it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file, and leave its bytes."""
    header, rest = header_of(path)
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


def shards(model: Path, **index: Any) -> None:
    """Two shards in the place of one file, and an index with what is given."""
    weights = load_file(model / "model.safetensors")
    names = sorted(weights)
    parts = {
        "model-00001-of-00002.safetensors": names[:5],
        "model-00002-of-00002.safetensors": names[5:],
    }
    for file, own in parts.items():
        save_file({n: weights[n] for n in own}, model / file, metadata={"format": "pt"})
    (model / "model.safetensors").unlink()
    weight_map = {name: file for file, own in parts.items() for name in own}
    whole = {"metadata": {"total_size": 1}, "weight_map": weight_map} | index
    (model / "model.safetensors.index.json").write_text(json.dumps(whole))


def bad_weights(rng: random.Random) -> tuple[str, Spoil]:
    """Weights that are not the model's that ``config.json`` describes."""
    names = sorted(SAVED_NAMES)
    name = rng.choice(names)
    second = "model-00002-of-00002.safetensors"
    choices: dict[str, Callable[[Path], object]] = {
        f"without {name}": lambda m: edit_weights(m, lambda w: w.pop(name)),
        f"another shape of {name}": lambda m: edit_weights(
            m, lambda w: w.update({name: torch.zeros(3, 5)})
        ),
        f"renamed {name}": lambda m: edit_weights(m, lambda w: w.update({"x" + name: w.pop(name)})),
        "one more": lambda m: edit_weights(m, lambda w: w.update({"model.extra": torch.zeros(2)})),
        f"int8 {name}": lambda m: edit_weights(
            m, lambda w: w.update({name: torch.zeros(w[name].shape, dtype=torch.int8)})
        ),
        "one more layer": lambda m: edit_weights(
            m, lambda w: w.update({
                n.replace("layers.1.", "layers.2."): t.clone()
                for n, t in list(w.items()) if "layers.1." in n
            })
        ),
        "cut": lambda m: os.truncate(
            m / "model.safetensors", rng.randrange(1, (m / "model.safetensors").stat().st_size)
        ),
        "offsets": lambda m: rewrite(
            m / "model.safetensors",
            lambda h: h[name].update(data_offsets=[v + 8 for v in h[name]["data_offsets"]]),
        ),
        "shape of the header": lambda m: rewrite(
            m / "model.safetensors", lambda h: h[name].update(shape=[*h[name]["shape"], 2])
        ),
        "dtype of the header": lambda m: rewrite(
            m / "model.safetensors", lambda h: h[name].update(dtype="F8")
        ),
        "a header that is none": lambda m: rewrite(m / "model.safetensors", lambda h: h.clear()),
        "no shard 2": lambda m: (shards(m), (m / second).unlink()),
        "no index": lambda m: (shards(m), (m / "model.safetensors.index.json").unlink(),
                               (m / second).unlink()),
        "index without weight_map": lambda m: shards(m, weight_map=None),
        "weight_map a list": lambda m: shards(m, weight_map=[second]),
        "weight_map of numbers": lambda m: shards(m, weight_map={name: 3}),
        "weight_map empty": lambda m: shards(m, weight_map={}),
        "weight_map lacks names": lambda m: shards(m, weight_map={name: second}),
        "weight_map elsewhere": lambda m: shards(m, weight_map={name: "../tokens.json"}),
        "pickled": lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"),
        "another lm_head of a tied model": lambda m: edit_config(m, tie_word_embeddings=True),
    }  # fmt: skip
    label = rng.choice(list(choices))

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        choices[label](place / "model")
        return []

    return label, spoil


SAVED_NAMES = ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight", *(
    f"model.layers.{layer}.{name}.weight" for layer in (0, 1) for name in (
        "input_layernorm", "post_attention_layernorm", "mlp.up_proj", "mlp.down_proj",
        "mlp.gate_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj",
    )
))  # fmt: skip


# ---- what is spoiled: files that are read

TOKENS: tuple[Any, ...] = (
    {}, [], 3, None, "x", {"block": [[5, 6]]}, {"block": [], "width": []},
    {"block": [[5, 6], [7]], "width": [[5, 6]]}, {"block": [[5, 104]], "width": [[5, 6]]},
    {"block": [[5, -1]], "width": [[5, 6]]}, {"block": [[5, 6.0]], "width": [[5, 6]]},
    {"block": [["5", 6]], "width": [[5, 6]]}, {"block": [[5, None]], "width": [[5, 6]]},
    {"block": [[5, True]], "width": [[5, 6]]}, {"block": {"a": [5, 6]}, "width": [[5, 6]]},
    {"block": [[5, 10**30]], "width": [[5, 6]]}, {"block": [[5] * 65], "width": [[5, 6]]},
    {"block": [[[5, 6]]], "width": [[5, 6]]}, {"block": [[3, 3, 3]], "width": [[5, 6]]},
    {"block": [[5]], "width": [[5]]}, {"block": [[]], "width": [[]]},
    {"Block": [[5, 6]], "Width": [[5, 6]]}, {"block": "5 6", "width": "5 6"},
)  # fmt: skip


def bad_tokens(rng: random.Random) -> tuple[str, Spoil]:
    how = rng.choice([*TOKENS, *JUNK])

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        path = place / "tokens.json"
        if isinstance(how, str) and how in JUNK:
            path.write_bytes(JUNK[how])
        else:
            path.write_text(json.dumps(how))
        return []

    return (how if isinstance(how, str) else json.dumps(how))[:70], spoil


LINES: tuple[bytes, ...] = (
    b"no json", b'{"text": 3}', b'{"txt": "abc"}', b'["abc"]', b'{"text": null}', b"3", b"null",
    b'{"text": "a\\ud800b"}', b'{"text": "abc", "n": ' + LONG.encode() + b"}",
    b'{"text": ' + DEEP.encode() + b"}", b'{"text": "gr\xfcn"}', b'{"text": "abc"',
    b'{"text": {"a": "b"}}', b'{"text": ["abc"]}', b"\0\0\0", b'"text"', b"{}",
    b'{"\\udc80": "\\udfff", "text": 1}',
)  # fmt: skip


def bad_text(rng: random.Random) -> tuple[str, Spoil]:
    """A line of a .jsonl file, or a text, of calibration or evaluation."""
    line = rng.choice(LINES)
    what = rng.choice(["calibration", "alpaca", "evaluate.text", "probe.text", "txt", "latin-1",
                       "short", "utf-16", "empty", "only ends", "short held"])  # fmt: skip

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        rows = place / "held.jsonl"
        good = b"".join(b'{"text": "' + b"abc " * 20 + b'"}\n' for _ in range(20))
        rows.write_bytes(good + line + b"\n")
        text = place / "text.txt"
        seqlen = "calibration.seqlen=16"
        given = {
            "txt": b"gr\xfcn " * 100, "latin-1": "grün ".encode("latin-1") * 99, "short": b"abc",
            "utf-16": ("abc " * 99).encode("utf-16"), "empty": b"", "only ends": b"</s>" * 99,
        }  # fmt: skip
        if what in given:
            text.write_bytes(given[what])
            return list(TEXT)
        if what == "short held":
            rows.write_text('{"text": "a b"}\n')
            return ["evaluate.text=held.jsonl", "evaluate.seqlen=16"]
        if what == "calibration":
            return ["calibration=text", "calibration.path=held.jsonl", seqlen]
        if what == "alpaca":
            samples = ["calibration.block_samples=1", "calibration.width_samples=1"]
            return ["calibration=alpaca", "calibration.path=held.jsonl", seqlen, *samples]
        if what == "evaluate.text":
            return ["evaluate.text=held.jsonl", "evaluate.seqlen=16"]
        return ["probe.every=1", "probe.text=held.jsonl", "probe.seqlen=16"]

    is_line = what in ("calibration", "alpaca", "evaluate.text", "probe.text")
    return f"{what}: {line[:40]!r}" if is_line else what, spoil


ITEMS: tuple[Any, ...] = (
    {"context": "a", "choices": ["b", "c"], "label": 5},
    {"context": "a", "choices": ["b", "c"]},
    {"context": "a", "choices": ["b", "c"], "label": -1},
    {"context": "a", "choices": [], "label": 0},
    {"context": "a", "choices": ["b"], "label": 0},
    {"context": 3, "choices": ["b", "c"], "label": 0},
    {"context": "a", "choices": "bc", "label": 0},
    {"context": "a", "choices": ["b", ""], "label": 0},
    {"context": "a", "choices": ["b", 3], "label": 0},
    {"context": "a", "choices": ["b", "c"], "label": "0"},
    {"context": "a", "choices": ["b", "c"], "label": True},
    {"context": "a", "choices": ["b", "c"], "label": 1.0},
    {"context": "a", "choices": ["b", "c"], "label": None},
    [],
    "a",
    3,
    None,
    {},
    {"context": "a", "choices": ["b", "x" * 200], "label": 0},
    {"context": "a\ud800", "choices": ["b", "c"], "label": 0},
)
PIQA = {"goal": "a", "sol1": "b", "sol2": "c", "label": 0}


def bad_tasks(rng: random.Random) -> tuple[str, Spoil]:
    """A row of a task of one's own, or of a local copy of one of lm-eval's."""
    item = rng.choice(ITEMS)
    what = rng.choice(["own", "own", "probe", "junk", "empty", "piqa"])
    how = rng.choice(list(JUNK))
    piqa = rng.choice([
        PIQA | {"label": 7}, {k: v for k, v in PIQA.items() if k != "sol2"}, PIQA | {"goal": 3},
        PIQA | {"label": "x"}, [], 3, PIQA | {"sol1": None},
    ])  # fmt: skip

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        own = place / "own.jsonl"
        given = ["evaluate.tasks=[own]", "evaluate.task_files={own: own.jsonl}"]
        if what == "piqa":
            (place / "data" / "piqa").mkdir(parents=True)
            write = json.dumps
            lines = "".join(write(row) + "\n" for row in [PIQA, piqa])
            (place / "data" / "piqa" / "validation.jsonl").write_text(lines)
            return ["evaluate.tasks=[piqa]", "evaluate.data_dir=data"]
        if what in ("junk", "empty"):
            own.write_bytes(JUNK[how] if what == "junk" else b"\n\n")
            return given
        with own.open("a") as stream:
            stream.write(json.dumps(item) + "\n")
        if what == "probe":
            return ["probe.every=1", "probe.tasks=[own]", "evaluate.task_files={own: own.jsonl}"]
        return given

    shown = {"piqa": json.dumps(piqa), "junk": how, "empty": ""}.get(what, json.dumps(item))
    return f"{what}: {shown}"[:90], spoil


def pruning_config(**changed: Any) -> dict[str, Any]:
    return {
        "pruned_attn_idx": [], "pruned_mlp_idx": [1],
        "pruned_attn_width": {"0": 16, "1": 16}, "pruned_mlp_width": {"0": 24, "1": 24},
    } | changed  # fmt: skip


PRUNINGS: tuple[Any, ...] = (
    [],
    3,
    None,
    "x",
    {},
    pruning_config(pruned_attn_idx=[2]),
    pruning_config(pruned_attn_idx=["0"]),
    pruning_config(pruned_attn_idx=[0, 0]),
    pruning_config(pruned_attn_idx=None),
    pruning_config(pruned_mlp_width={"0": 24}),
    pruning_config(pruned_mlp_width={"1": 24, "2": 24}),
    pruning_config(pruned_mlp_width={"0": 25, "1": 24}),
    pruning_config(pruned_mlp_width=[24, 24]),
    pruning_config(pruned_attn_width={"0": 12, "1": 16}),
    pruning_config(more=3),
    pruning_config(pruned_mlp_width={"0": "24", "1": 24}),
    pruning_config(pruned_mlp_idx=[-1]),
    pruning_config(pruned_mlp_width={"0": 0, "1": 24}),
    pruning_config(pruned_mlp_width={"²": 24, "1": 24}),
    pruning_config(pruned_attn_idx=[True]),
    pruning_config(pruned_attn_width={"00": 16, "1": 16}),
    pruning_config(**{"/m[/m]\n": 1}),
    pruning_config(pruned_mlp_width={LONG: 24, "1": 24}),
)


def bad_pruning_config(rng: random.Random) -> tuple[str, Spoil]:
    how = rng.choice([*PRUNINGS, *JUNK])

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        path = place / "pruned.json"
        if isinstance(how, str) and how in JUNK:
            path.write_bytes(JUNK[how])
        else:
            path.write_text(json.dumps(how))
        return [
            "evaluate.pruning_config=pruned.json",
            "evaluate.text=held.jsonl",
            "evaluate.seqlen=16",
        ]

    return (how if isinstance(how, str) else json.dumps(how))[:70], spoil


# ---- what is spoiled: paths

PATHS: dict[str, tuple[Argument, ...]] = {
    "model.path": (),
    "calibration.path": (),
    "run.dir": (),
    "store.dir": (),
    "evaluate.text": ("evaluate.seqlen=16",),
    "probe.text": ("probe.every=1", "probe.seqlen=16"),
    "evaluate.data_dir": ("evaluate.tasks=[piqa]",),
    "evaluate.pruning_config": ("evaluate.text=held.jsonl", "evaluate.seqlen=16"),
    "evaluate.task_files.own": ("evaluate.tasks=[own]",),
}
WRITTEN = ("run.dir", "store.dir")
FOLDERS = (*WRITTEN, "model.path", "evaluate.data_dir")


def written(path: Path, mode: int = 0o644) -> None:
    path.write_text('{"text": "abc"}')
    path.chmod(mode)


def folder(path: Path, mode: int = 0o755) -> None:
    path.mkdir()
    path.chmod(mode)


Made = tuple[Callable[[Path], object], str]
"""What makes something at a path, and the value that leads there."""
NOTHING: Callable[[Path], object] = lambda _path: None  # noqa: E731
ANYWHERE: dict[str, Made] = {
    "loop": (lambda path: put(path, "loop"), "bad"),
    "fifo": (lambda path: put(path, "fifo"), "bad"),
    "socket": (lambda path: put(path, "socket"), "bad"),
    "dangling": (lambda path: put(path, "dangling"), "bad"),
    "beside a loop": (lambda path: put(path, "loop"), "bad/x/y"),
    "below a file": (NOTHING, "text.txt/x"),
    "too long": (NOTHING, "a" * 300),
    "too many": (NOTHING, "/".join(["a" * 200] * 30)),
    "nul": (NOTHING, "a\0b"),
    "surrogate": (NOTHING, "a\udcffb"),
    "device": (NOTHING, "/dev/null"),
    "behind a locked folder": (lambda path: folder(path, 0), "bad/x"),
}
OF_A_FILE: dict[str, Made] = {
    "folder": (folder, "bad"),
    "absent": (NOTHING, "x[red]/m[/m]"),
    "deep": (NOTHING, "a/b/c"),
    "unreadable": (lambda path: written(path, 0), "bad"),
}
OF_A_FOLDER: dict[str, Made] = {
    "file": (written, "bad"),
    "unreadable": (lambda path: folder(path, 0), "bad"),
}
OF_WHAT_IS_WRITTEN: dict[str, Made] = {
    "read-only": (lambda path: folder(path, 0o555), "bad"),
    "the model": (NOTHING, "model"),
    "inside the model": (NOTHING, "model/x"),
    "inside the model, by a detour": (NOTHING, "./model/../model/x/y"),
    "a link into the model": (lambda path: path.symlink_to("model"), "bad/x"),
    "mounted read-only": (lambda path: (folder(path), mount_read_only(path)), "bad/x"),
}
NEEDS_NOBODY = ("unreadable", "behind a locked folder", "read-only")
"""Root may do all of it."""


def bad_path(rng: random.Random) -> tuple[str, bool, Spoil]:
    """A path at which there is something else, or nothing, or that nobody may read or write."""
    key = rng.choice(list(PATHS))
    choices = ANYWHERE | (OF_A_FOLDER if key in FOLDERS else OF_A_FILE)
    choices |= OF_WHAT_IS_WRITTEN if key in WRITTEN else {}
    how = rng.choice(list(choices))
    make, value = choices[how]

    def spoil(_: random.Random, place: Path) -> list[Argument]:
        make(place / "bad")
        plus = "+" if key.startswith("evaluate.task_files") else ""
        return [*PATHS[key], f'{plus}{key}="{value}"']

    return f"{key}: {how}", how in NEEDS_NOBODY, spoil


def mount_read_only(path: Path) -> None:
    """A file system that takes nothing, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) or libc.mount(None, b"/", None, 0x40000 | 0x4000, None):
        raise OSError(ctypes.get_errno(), "no mounts here")
    if libc.mount(b"tmpfs", str(path).encode(), b"tmpfs", 1, b"size=4k"):
        raise OSError(ctypes.get_errno(), "no mounts here")


# ---- running them

KINDS: dict[str, Callable[[random.Random], tuple[str, Spoil] | tuple[str, bool, Spoil]]] = {
    "override": lambda rng: _of_arguments(*bad_override(rng)),
    "command": lambda rng: _of_arguments(*bad_command(rng)),
    "model config": bad_model_config,
    "model file": bad_model_file,
    "weights": bad_weights,
    "tokens": bad_tokens,
    "text": bad_text,
    "tasks": bad_tasks,
    "pruning_config": bad_pruning_config,
    "path": bad_path,
}


def _of_arguments(label: str, arguments: list[Argument]) -> tuple[str, Spoil]:
    return label, lambda _rng, _place: arguments


WHOLE = Case("nothing", "nothing is spoiled", lambda _: [*TEXT, *MEASURED])
"""What must not be refused."""


def cases(count: int, seed: int, only: str | None = None) -> Iterator[Case]:
    """Generated cases, the same for the same seed; no two alike while there are others."""
    rng = random.Random(seed)
    kinds = [only] if only else list(KINDS)
    seen: set[tuple[str, str]] = set()
    for number in range(count):
        kind = kinds[number % len(kinds)]
        for _ in range(50):
            label, *rest = KINDS[kind](rng)
            if (kind, label) not in seen:
                break
        seen.add((kind, label))
        spoil: Any = rest[-1]
        yield Case(
            kind, label,
            lambda place, spoil=spoil: spoil(rng, place),
            as_nobody=len(rest) > 1 and bool(rest[0]),
        )  # fmt: skip


def make_base(folder: Path) -> Path:
    """What a launch reads, all of it whole."""
    save_tokenizer(save_model(folder / "model"))
    write_tokens(folder / "tokens.json")
    (folder / "text.txt").write_text("A first paragraph of text.\n\nA second one.\n" * 9)
    write_jsonl(folder / "held.jsonl", [{"text": "abc " * 20}] * 20)
    write_jsonl(folder / "own.jsonl", [{"context": "a", "choices": ["b", "c"], "label": 0}] * 3)
    return folder


def run(case: Case, base: Path) -> Ending:
    """Type the case's command in its spoiled folder; a fork of this process does it."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "place"
        shutil.copytree(base, place)
        out = Path(scratch) / "out"
        child = os.fork()
        if child == 0:
            _in_child(case, place, out)
        status = _wait(child)
        text = out.read_text("utf-8", errors="backslashreplace") if out.exists() else ""
        written = (Path(scratch) / "written").exists()
        for path in [*Path(scratch).rglob("*")]:
            if not path.is_symlink() and path.is_dir():
                path.chmod(0o755)
    return Ending(_judged(status, text, written), text)


def _in_child(case: Case, place: Path, out: Path) -> None:
    status = 99
    try:
        os.chdir(place)
        descriptor = os.open(out, os.O_CREAT | os.O_WRONLY, 0o666)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        arguments = case.spoil(place)
        if case.as_nobody and os.getuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            place.parent.chmod(0o777)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        before = state_of(place)
        own = {argument.partition("=")[0].lstrip("+~") for argument in arguments}
        base = [a for a in ARGUMENTS if a.partition("=")[0] not in own]
        if any(a.startswith(("-sc", "--shell")) for a in arguments):
            base = []
        sys.argv = ["launch.py", *base, *arguments]
        status = launch.main()
        sys.stdout.flush()
        if status == WRONG and state_of(place) != before:
            changed = {str(p) for p in state_of(place).keys() ^ before.keys()}
            (place.parent / "written").touch()
            print("WRITTEN:", *sorted(changed), file=sys.stderr)
    except SystemExit as error:
        print(f"SystemExit({error.code})", file=sys.stderr)
        status = 98
    except BaseException:  # noqa: BLE001 - what is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def state_of(place: Path) -> dict[Path, tuple[int, int, int]]:
    """Everything there, with when it was changed and how large it is."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in [*folders, *files, "."]:
            path = Path(folder) / name
            entry = path.lstat()
            found[path] = (entry.st_mtime_ns, entry.st_size, entry.st_mode)
    return found


def _wait(child: int) -> int | None:
    """Its exit status, negative where a signal ended it; None where it did not end in time."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


HEADING = "The configuration is wrong:"
PROBLEM = re.compile(r"  [^:]*: \S.*")
WRONG = 2
"""The exit status of a wrong configuration."""
LONGEST = 1000
"""Characters of a line."""


def _judged(status: int | None, text: str, is_written: bool) -> str:
    """refused; or the first thing that is not as it should be."""
    heading, *problems = text.splitlines() or [""]
    named = {0: "silent", 1: "late", None: "hangs"}
    faults = {
        "traceback": "Traceback (most recent call last)" in text,
        named.get(status, f"exit {status}"): status != WRONG,
        "written": is_written,
        "noisy": heading != HEADING or not problems,
        "unclear": not all(PROBLEM.fullmatch(line) for line in problems),
        "endless": any(len(line) > LONGEST for line in problems),
    }
    return next((fault for fault, is_there in faults.items() if is_there), "refused")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--show", action="store_true", help="what was said to each")
    given = parser.parse_args()
    prepare()
    table: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        base = make_base(Path(scratch) / "base")
        Path(scratch).chmod(0o755)  # for those that are run as somebody else
        assert run(WHOLE, base).outcome == "silent"
        for case in cases(given.count, given.seed, given.only):
            began = time.monotonic()
            ending = run(case, base)
            seconds = time.monotonic() - began
            table[case.kind, ending.outcome] += 1
            if ending.outcome != "refused" or given.show or seconds > SLOW_S:
                print(f"--- {ending.outcome}: {case.kind}: {case.label!r} ({seconds:.1f} s)")
                print("\n".join(line[:400] for line in ending.text.splitlines()[-8:]), flush=True)
    outcomes = sorted({outcome for _, outcome in table}, key=lambda o: (o != "refused", o))
    print(f"\n| kind | {' | '.join(outcomes)} |\n| --- |{' --- |' * len(outcomes)}")
    for kind in dict.fromkeys(kind for kind, _ in table):
        print(f"| {kind} | {' | '.join(str(table[kind, o] or '') for o in outcomes)} |")
    return 0 if outcomes == ["refused"] else 1


def prepare() -> None:
    """What all forks have in common: libraries are imported once, and nobody asks a hub."""
    os.environ |= {
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1", "PYTHONHASHSEED": "0", "WANDB_MODE": "offline",
    }  # fmt: skip
    torch.set_num_threads(1)
    assert stages()
    for module in ("hydra", "lm_eval.tasks", "pipeline.jobs.launching", "pipeline.plan.sweep"):
        importlib.import_module(module)


if __name__ == "__main__":
    sys.exit(main())
