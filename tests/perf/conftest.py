"""The benchmarks that need a control plane share the one of ``tests/control_plane``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.control_plane.fixtures")
