"""Who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dev.generate import ROOT


def test_the_layers_hold() -> None:
    command: list[str | Path] = [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
