#!/usr/bin/env python3
"""What becomes of a launch whose store or run folder was damaged: generated damages, and a table.

    python benchmarks/damage.py [--cases 300] [--seed 0]

One run of a tiny model is made, as jobs make it. For every case one of its files, or a folder, is
damaged. Then come the commands that read it, and three launches: the same again, a farther one that
shares its trajectories, and one that evaluates anew. A case is right where nothing raised a
traceback, what is wrong was named by the first that read it, and every result is that of a run
that nothing happened to.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from support_inputs import TINY, raw, save_model, save_tokenizer, write_tokens

import launch
from pipeline.commands.cli import main as multipruner
from pipeline.executors.local import Local

SETTINGS = (
    *TINY,
    "prune.distribution=[30,50,20]",
    "prune.mlp_group_size=4",
    "prune.attn_group_size=8",
    "probe.every=1",
    "probe.text=text.txt",
    "probe.seqlen=16",
    "evaluate.text=text.txt",
    "evaluate.seqlen=16",
)
NEAR = (*SETTINGS, "prune.target_ratio=15", "run.dir=outputs/runs/near")
FAR = (*SETTINGS, "prune.target_ratio=25", "run.dir=outputs/runs/far")
JOBS = ("cluster=local", "wait=true")
"""Jobs leave more on disk."""
COMMANDS = (
    ("status",), ("status", "near", "--json"), ("why", "near"), ("logs", "near"),
    ("compare", "near"), ("check",),
)  # fmt: skip
CHANGING = (("cancel", "near"), ("retry", "near"))
WIDEST = 160
PROGRESS_EVERY = 25


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int | None
    """None after a traceback."""
    text: str

    @property
    def is_told_well(self) -> bool:
        """Whether it ended as it should, or in few lines that say why."""
        lines = [line for line in self.text.splitlines() if line.startswith(("error:", "wrong:"))]
        return self.status == 0 or (self.status in (1, 2) and len(lines) == 1)


def done(work: Callable[[], int]) -> Outcome:
    """Do what a command does, in this process."""
    printed = io.StringIO()
    status: int | None = None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = work()
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
            traceback.print_exc()
    return Outcome(status, printed.getvalue())


def launched(arguments: Sequence[str]) -> Outcome:
    """Launch here."""
    return done(
        lambda: launch.report_errors(
            lambda: launch.run(raw(*arguments), []), "python launch.py AGAIN", "wrong:"
        )
    )


def typed(*words: str) -> Outcome:
    """Type a command; no process is started for jobs."""
    with mock.patch.object(Local, "submit"):
        return done(lambda: multipruner(words))


# What is damaged, and how


def targets(place: Path) -> dict[str, list[Path]]:
    """Files and folders by their kind."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted((place / "outputs").rglob("*")):
        parts = path.relative_to(place / "outputs").parts
        if "__pycache__" in parts or (parts[:2] == ("store", "code") and len(parts) > 3):
            continue
        if path.is_file() or (len(parts) > 3 and path.is_dir()):
            kinds.setdefault(kind_of(path, parts), []).append(path)
    return kinds


def kind_of(path: Path, parts: tuple[str, ...]) -> str:
    if path.is_dir():
        name = parts[-1] if parts[-1] in ("leases", "runs", "attempts", "steps") else "*"
        return f"{'/'.join(parts[:2])}: folder {name}"
    if path.suffix == ".released" or path.parent.name == "leases":
        return "lease"
    shown = path.name
    if path.parent.name in ("steps", "records", "digests", "runs", "attempts"):
        shown = f"{path.parent.name}/*"
    elif parts[:2] == ("store", "submissions") and shown[0].isdigit():
        shown = f"*.{shown.split('.')[1]}.*"
    elif parts[:2] == ("store", "code"):
        shown = "*"
    return f"{parts[0]}/{parts[1] if parts[0] == 'store' else '*'}: {shown}"


Damage = Callable[[Path, random.Random, Sequence[Path]], None]


def _rewritten(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def empty(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    _rewritten(path, b"")


def cut(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    content = path.read_bytes()
    _rewritten(path, content[: draw.randrange(max(1, len(content)))])


def cut_at_a_line(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    _rewritten(path, b"".join(lines[: draw.randrange(max(1, len(lines)))]))


def garbled(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    _rewritten(path, draw.randbytes(path.stat().st_size + 1))


def bit_flip(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    _rewritten(path, bytes(content))


def zeroed(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(max(1, len(content)))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    _rewritten(path, bytes(content))


def folder_in_its_place(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    remove(path)
    (path / "something").mkdir(parents=True)


def file_in_its_place(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    remove(path)
    path.write_bytes(b"a file\n")


def dangling_link(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    remove(path)
    path.symlink_to(path.parent / "nowhere")


def link_to_itself(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    remove(path)
    path.symlink_to(path.name)


def pipe(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    remove(path)
    os.mkfifo(path)


def swapped(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    other = draw.choice([each for each in others if each != path] or [path])
    content, theirs = path.read_bytes(), other.read_bytes()
    _rewritten(path, theirs)
    _rewritten(other, content)


def other_type(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    _rewritten(path, draw.choice([b"[]", b"3", b"null", b'"text"', b"{}", b'{"a": 1}', b"[1, 2]"]))


def deeply_nested(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    _rewritten(path, b"[" * 100_000)


def changed_value(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    """One number or text in the JSON is another one."""
    text = path.read_text("utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    at = draw.randrange(len(lines))
    value = json.loads(lines[at])
    leaves = list(leaves_of(value))
    holder, key = draw.choice(leaves)
    holder[key] = other_value(holder[key], draw)
    lines[at] = json.dumps(value)
    _rewritten(path, ("\n".join(lines) + "\n").encode())


def lost_key(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    value = json.loads(path.read_text("utf-8"))
    del value[draw.choice(list(value))]
    _rewritten(path, json.dumps(value).encode())


def missing(path: Path, draw: random.Random, others: Sequence[Path]) -> None:
    remove(path)


def leaves_of(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        if isinstance(value[key], dict | list) and value[key]:
            yield from leaves_of(value[key])
        else:
            yield value, key


def other_value(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + draw.choice([1, -1, 74, 0.25])
    if isinstance(value, str):
        return draw.choice([value + "x", "", value[:-1]])
    return draw.choice([1, "x", [1], {"x": 1}])


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


OF_FILES: tuple[Damage, ...] = (
    empty, cut, cut_at_a_line, garbled, bit_flip, zeroed, folder_in_its_place, dangling_link,
    link_to_itself, pipe, swapped, other_type, deeply_nested, missing,
)  # fmt: skip
OF_JSON: tuple[Damage, ...] = (changed_value, changed_value)
OF_FOLDERS: tuple[Damage, ...] = (file_in_its_place, dangling_link, link_to_itself, pipe, missing)


# One case


@dataclasses.dataclass(frozen=True)
class Case:
    """A damage, and what came of it."""

    number: int
    kind: str
    damage: str
    path: Path
    faults: tuple[str, ...]
    named_by: tuple[str, ...]
    """Commands and launches whose output has its path."""


def tiny_inputs(place: Path) -> None:
    """A model, tokens and text."""
    place.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    save_tokenizer(save_model(place / "model", num_hidden_layers=3))
    windows = [[(7 * i + 3 * j) % 100 for j in range(16)] for i in range(4)]
    write_tokens(place / "tokens.json", windows, windows[:2])
    (place / "text.txt").write_text("The held-out text of a tiny model. " * 4)


def whole(place: Path, where: Sequence[str]) -> Path:
    """A place with a finished run."""
    tiny_inputs(place)
    with contextlib.chdir(place):
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        with mock.patch.dict(os.environ, {"PYTHONPATH": path}):
            made = launched([*NEAR, *where])
        assert made.status == 0, made.text
    return place


def results(place: Path, run: str) -> dict[str, Any]:
    """What a run decided and measured, without the time that it took."""
    folder = place / "outputs" / "runs" / run
    evaluation = json.loads((folder / "evaluation.json").read_text("utf-8"))
    return {
        "pruning_config": (folder / "pruning_config.json").read_bytes(),
        "steps": [without_time(json.loads(line)) for line in (folder / "steps.jsonl").open()],
        "evaluation": {side: evaluation[side]["ppl"] for side in ("dense", "pruned")},
        "sensitivity": json.loads((folder / "sensitivity.json").read_text("utf-8")),
    }


def without_time(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if key not in ("latency", "memory")}


class Undisturbed:
    """What all cases begin with, and what each has to come to."""

    def __init__(self, folder: Path, where: Sequence[str] = JOBS) -> None:
        self.place = whole(folder / "whole", where)
        self.kinds = targets(self.place)
        self.near = results(self.place, "near")
        self.copy = folder / "case"
        with self.a_copy():
            assert launched(FAR).status == 0
            self.far = results(self.copy, "far")

    @contextlib.contextmanager
    def a_copy(self) -> Iterator[Path]:
        """Stand in a fresh copy of the place."""
        shutil.copytree(self.place, self.copy, symlinks=True)
        try:
            with contextlib.chdir(self.copy):
                yield self.copy
        finally:
            shutil.rmtree(self.copy)

    def case(self, number: int, seed: int) -> Case:
        """Damage something, type the commands, launch, and look."""
        draw = random.Random(f"{seed} {number}")
        kind = draw.choice(sorted(self.kinds))
        original = draw.choice(self.kinds[kind])
        with self.a_copy():
            path = Path(original.relative_to(self.place))
            others = [Path(each.relative_to(self.place)) for each in self.kinds[kind]]
            damages = OF_FOLDERS if path.is_dir() else OF_FILES
            if path.suffix in (".json", ".jsonl") and path.stat().st_size > 3:
                damages += OF_JSON + ((lost_key,) if path.suffix == ".json" else ())
            damage = draw.choice(damages)
            damage(path, draw, others)
            faults, named = look(self, path, changing=number % 2 == 1)
        return Case(number, kind, damage.__name__, path, tuple(faults), tuple(named))


def look(undisturbed: Undisturbed, path: Path, changing: bool) -> tuple[list[str], list[str]]:
    """What goes wrong with what was damaged, and what names it.

    ``changing`` has the commands typed, too, that may set things aside before a launch does.
    """
    faults: list[str] = []
    named_by: list[str] = []

    def note(what: str, outcome: Outcome) -> None:
        last = (outcome.text.strip().splitlines() or [""])[-1][:WIDEST]
        if outcome.status is None:
            faults.append(f"{what}: traceback: {last}")
        elif not outcome.is_told_well:
            faults.append(f"{what}: exit {outcome.status}: {last}")
        if str(path) in outcome.text:
            named_by.append(what)

    for command in (*COMMANDS, *(CHANGING if changing else ())):
        note(command[0], typed(*command))
    for name, arguments, wanted in (
        ("far", FAR, undisturbed.far),
        ("near", NEAR, undisturbed.near),
    ):
        outcome = launched(arguments)
        note(f"launch {name}", outcome)
        if outcome.status == 0:
            came = results(undisturbed.copy, name)
            faults += [f"launch {name}: other {key}" for key in wanted if came[key] != wanted[key]]
        else:
            faults.append(f"launch {name}: exit {outcome.status}: {outcome.text.strip()[:WIDEST]}")
    return faults, named_by


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the case with this number")
    parsed = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Undisturbed(Path(folder))
        numbers = range(parsed.cases) if parsed.only is None else [parsed.only]
        cases = []
        for number in numbers:
            case = undisturbed.case(number, parsed.seed)
            cases.append(case)
            if len(cases) % PROGRESS_EVERY == 0:
                print(f"{len(cases)} cases after {time.monotonic() - started:.0f} s", flush=True)
            for fault in case.faults:
                print(f"{number:4d} {case.damage:20s} {case.path}\n     {fault}", flush=True)
    table(cases)
    bad = sum(bool(case.faults) for case in cases)
    print(f"\n{len(cases)} cases, {bad} with faults; {time.monotonic() - started:.0f} s")
    sys.exit(bool(bad))


def table(cases: Sequence[Case]) -> None:
    """Kinds of files with their damages, and how often what named them."""
    print("\n| file | cases | damages | named by |\n| --- | ---: | --- | --- |")
    for kind in sorted({case.kind for case in cases}):
        of_kind = [case for case in cases if case.kind == kind]
        damages = sorted({case.damage for case in of_kind})
        named = Counter(who for case in of_kind for who in case.named_by or ["nobody"])
        shown = ", ".join(f"{who} {count}" for who, count in named.most_common())
        print(f"| {kind} | {len(of_kind)} | {', '.join(damages)} | {shown} |")


if __name__ == "__main__":
    main()
