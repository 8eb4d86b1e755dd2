"""docs/families.md: its walk is walked, and its table has every family."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from pipeline.models.families import FAMILIES
from pipeline.models.families.base import Family

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
UNITS = ("attn", "mlp", "layer", "attn_width", "mlp_width")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_walk_describes_the_family_that_the_project_knows() -> None:
    (_, look), (_, shown), (_, described), (_, tiny), _ = BLOCK.findall(PAGE)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(look, {})  # noqa: S102 - the page's
    assert printed.getvalue() == shown
    names: dict[str, Any] = {}
    exec(described, names)  # noqa: S102
    assert names["FAMILY"] == FAMILIES["glm4"]
    assert tiny in (ROOT / "tests" / "support_families.py").read_text(encoding="utf-8")


def test_the_table_lists_every_family_and_what_it_cannot_lose() -> None:
    known, _, _ = PAGE.partition("## A walk")
    rows = re.findall(r"^\| (`.*?`) \|(.*)$", known, re.MULTILINE)
    listed = [
        (name, [unit for unit in UNITS if f"`{unit}`" in said])
        for names, said in rows
        for name in re.findall(r"`(\w+)`", names)
        if name != "model_type"
    ]
    assert sorted(listed) == [
        (name, [unit for unit in UNITS if unit in {barred.unit for barred in family.barred}])
        for name, family in sorted(FAMILIES.items())
    ]


def test_all_that_can_be_said_is_on_the_page() -> None:
    _, _, table = PAGE.partition("## What else can be said")
    described = {"model_types", "attn", "mlp"}
    assert all(f"`{name}`" in table for name in Family.__dataclass_fields__.keys() - described)
