"""Simulated runs and the workflow run on them without Dask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from panosc_analysis.simulate.sase_delivery import Beamline, published_scheme, simulate, write_runs
from panosc_analysis.workflows import Result, sase_delivery

Analyse = Callable[..., Result]
Write = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def published_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The pair of runs with the published sizes."""
    return simulate(tmp_path_factory.mktemp("published"), seed=1)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return simulate(tmp_path_factory.mktemp("small"), trains=200, seed=2)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write runs that differ from the published scheme in what is given for (SA1, SA3)."""

    def write(first: dict[str, Any], second: dict[str, Any], trains: int = 600, seed: int = 0) -> list[Path]:
        one, two = published_scheme(trains)
        beamlines: Sequence[Beamline] = (replace(one, **first), replace(two, **second))
        return write_runs(tmp_path / "runs", beamlines, seed)

    return write


@pytest.fixture
def analyse(tmp_path: Path) -> Analyse:
    def analyse(runs: Sequence[Path], **parameters: Any) -> Result:
        chosen = sase_delivery.Parameters(**parameters)
        checked = sase_delivery.check(runs, chosen)
        parts = sase_delivery.partition(checked, chosen)
        outputs = [sase_delivery.run_partition(part, chosen).arrays for part in parts]
        return sase_delivery.finish(checked, outputs, chosen, tmp_path)

    return analyse
