"""Who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dev.generate import ROOT


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", config]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_layers_hold() -> None:
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_a_broken_layer_would_be_found(tmp_path: Path) -> None:
    upside_down = tmp_path / "upside-down.toml"
    upside_down.write_text(
        """
        [tool.importlinter]
        root_packages = ["panosc_operator"]
        [[tool.importlinter.contracts]]
        name = "upside down"
        type = "layers"
        layers = ["panosc_operator.api", "panosc_operator.domain"]
        """
    )
    done = lint(upside_down)
    assert done.returncode == 1
    assert "1 broken" in done.stdout
