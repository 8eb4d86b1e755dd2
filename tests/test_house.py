"""The rooms of ``pipeline/``: who may import whom, and what only one room may know."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.executors import executors
from pipeline.stages import stages

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))
ONLY_IN = {
    "submitit": ("executors",),
    "wandb": ("tracking",),
    "lm_eval": ("measure",),
    "matplotlib": ("report",),
    "hydra": ("config",),
    "optuna": ("evolution", "studies"),
}
"""Packages, and the rooms that may import them."""
PROJECTION = re.compile(r"\b[qkvo]_proj\b|\b(gate|up|down)_proj\b|\.model_type\b")


@dataclass(frozen=True)
class Module:
    """A file, with what it imports anywhere but for type checkers."""

    name: str
    path: Path
    imports: frozenset[str]

    @property
    def room(self) -> str:
        """The folder or file below ``pipeline``; empty for ``pipeline`` itself."""
        return self.name.split(".")[1] if "." in self.name else ""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of modules and of what is taken from them, outside of ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node)


@cache
def modules() -> dict[str, Module]:
    found = {}
    for path in SOURCES:
        names = frozenset(imported(ast.parse(path.read_text(encoding="utf-8"))))
        found[name_of(path)] = Module(name_of(path), path, names)
    return found


def needed(module: Module) -> set[str]:
    """The project's own modules that it imports."""
    own = {name for name in module.imports if name in modules()}
    # a name taken from a package is the package's, unless it is a module of it
    return {name for name in own if not any(o.startswith(f"{name}.") for o in own)} - {module.name}


def rooms_on_the_page() -> list[str]:
    """Rooms in the order of the table in docs/architecture.md, lowest first."""
    return re.findall(r"^\| `(\w+)(?:/|\.py)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_lists_every_room_once() -> None:
    rooms = {module.room for module in modules().values()} - {""}
    listed = rooms_on_the_page()
    assert sorted(listed) == sorted(rooms)


def test_imports_point_from_higher_rooms_to_lower_ones() -> None:
    height = {room: at for at, room in enumerate(rooms_on_the_page())}
    wrong = [
        f"{module.name} imports {name}"
        for module in modules().values()
        for name in sorted(needed(module))
        if module.room and height[modules()[name].room] > height[module.room]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {module.name: needed(module) for module in modules().values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_room_alone(package: str) -> None:
    rooms = {
        module.room
        for module in modules().values()
        if any(name.split(".")[0] == package for name in module.imports)
    }
    assert rooms <= set(ONLY_IN[package])


def test_only_models_knows_projections_and_model_types() -> None:
    wrong = [
        f"{module.path.relative_to(ROOT)}: {line.strip()}"
        for module in modules().values()
        if module.room != "models"
        for line in module.path.read_text(encoding="utf-8").splitlines()
        if PROJECTION.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def compared(tree: ast.AST) -> Iterator[str]:
    """Texts that something is compared with or looked up by."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice] if "by_name" in ast.unparse(node.value) else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("by_name.get"):
            parts = node.args[:1]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        for part in parts:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value


@pytest.mark.parametrize("kind", ["executors", "stages"])
def test_nothing_is_compared_with_the_name_of_an_executor_or_a_stage(kind: str) -> None:
    names = {"executors": [e.name for e in executors()], "stages": [s.name for s in stages()]}[kind]
    wrong = defaultdict(list)
    for module in modules().values():
        if module.room in (kind, "report"):  # reports know plain data, where dense is a model
            continue
        for text in compared(ast.parse(module.path.read_text(encoding="utf-8"))):
            if text in names:
                wrong[module.name].append(text)
    assert not wrong


def test_text_of_users_is_never_read_as_markup() -> None:
    """Every console is made in one place, without markup; nothing asks for it elsewhere."""
    wrong = [
        f"{module.path.relative_to(ROOT)}: {ast.unparse(node)}"
        for module in modules().values()
        for node in ast.walk(ast.parse(module.path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            (ast.unparse(node.func) == "Console" and module.room != "screen")
            or ast.unparse(node.func).endswith("from_markup")
            or "markup=True" in ast.unparse(node)
        )
    ]
    wrong += [name for name, module in modules().items() if "rich.markup" in module.imports]
    assert not wrong, "\n".join(wrong)


def test_every_room_says_in_one_sentence_what_it_is_for() -> None:
    for module in modules().values():
        if module.path.name == "__init__.py" and module.name.count(".") == 1:
            text = ast.get_docstring(ast.parse(module.path.read_text(encoding="utf-8"))) or ""
            assert text.strip().endswith("."), module.name


def test_the_page_is_two_pages_with_a_picture() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert (PAGE.parent / picture).is_file()
    headings = re.findall(r"^## ", text, re.MULTILINE)
    assert headings
    assert len(text.splitlines()) <= 130
    assert all(a != b for a, b in pairwise(text.splitlines()) if a.startswith("#"))
