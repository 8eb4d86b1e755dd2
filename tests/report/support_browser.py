"""Pages in a real browser, from a file, without a network."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def browse(tmp_path: Path, text: str, *options: str) -> str:
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *options]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, check=True, timeout=120, text=True
    )
    return done.stdout


def dom_of(tmp_path: Path, text: str, width_px: int = 1440) -> str:
    dom = browse(tmp_path, text, f"--window-size={width_px},900", "--dump-dom")
    assert noted(dom, "ready") == "yes"
    assert not re.search(r"<html[^>]*data-error", dom)
    drawn = re.sub(r"<script>.*?</script>", "", dom, flags=re.DOTALL)
    assert not re.search(r"NaN|Infinity|undefined", drawn)
    return dom


def noted(dom: str, name: str) -> str:
    found = re.search(rf'<html[^>]*\sdata-{name}="([^"]*)"', dom)
    assert found, name
    return found.group(1)
