import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_on_every_configuration_key_is_in_step_with_the_schema() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "configuration_page.py"))

    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert written == script["page"](), "run: python scripts/configuration_page.py"


def test_every_key_is_described() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "configuration_page.py"))

    rows = [line for line in script["page"]().splitlines() if line.startswith("| `")]

    assert rows
    assert not [line for line in rows if line.rstrip().endswith("|  |")]
