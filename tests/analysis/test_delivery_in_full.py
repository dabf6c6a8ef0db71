"""sase-delivery in its published size, and its intervals over many seeds."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from panosc_analysis.kernels import ratio as statistics
from panosc_analysis.kernels.pulses import Moments, moments
from panosc_analysis.simulate.sase_delivery import Beamline, energies, published_scheme, simulate

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "panosc_analysis"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return simulate(tmp_path_factory.mktemp("published"))


def draws(beamline: Beamline, seeds: int) -> Iterator[tuple[Moments, Moments]]:
    on = [slot for slot in range(20) if slot in beamline.lasing]
    off = [slot for slot in range(20) if slot not in beamline.lasing]
    valid = np.ones((beamline.trains, 10), dtype=bool)
    for seed in range(seeds):
        energy = energies(beamline, np.random.default_rng([beamline.run, seed]))
        yield moments(energy[:, on], valid), moments(energy[:, off], valid)


@pytest.mark.parametrize("line", [0, 1])
def test_coverage_of_the_bootstrap_interval(line: int) -> None:
    scheme = published_scheme()[line]
    scheme = replace(scheme, bunches=20, trains=400, lasing=tuple(slot for slot in scheme.lasing if slot < 20))
    covered = 0
    for seed, (on, off) in enumerate(draws(scheme, 1000)):
        sums = statistics.bootstrap_sums(np.column_stack([on.sum, off.sum]), 500, seed)
        interval = statistics.percentile_interval(sums[:, 1] / sums[:, 0], 0.95)
        covered += interval.low <= scheme.ratio <= interval.high
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize("ratio", [0.0, 0.0003, 0.00521])
def test_coverage_of_the_fieller_interval(ratio: float) -> None:
    scheme = replace(published_scheme()[1], bunches=20, trains=40, ratio=ratio, lasing=tuple(range(1, 20, 2)))
    covered = 0
    for on, off in draws(scheme, 3000):
        interval = statistics.fieller_interval(statistics.block_means(on, off), 0.95)
        covered += interval.low <= ratio <= interval.high
    assert 0.938 <= covered / 3000 <= 0.962


def test_the_command_line_on_two_worker_processes(runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "results"
    done = subprocess.run(
        [*COMMAND, "run", "sase-delivery", "--input", *map(str, runs), "--output", str(output), "--workers", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stages = [line.split()[0] for line in done.stderr.splitlines()]
    assert list(dict.fromkeys(stages)) == ["CheckingInput", "WaitingForWorkers", "Running", "Finishing", "Committed"]
    assert "\r" not in done.stderr
    assert "ratioSA1" in done.stdout
    assert str(output / "report.html") in done.stdout
    document = json.loads((output / "result.json").read_text())
    assert document["provenance"]["workers"] == ["0", "1"]
    for line, truth in zip(document["results"]["beamlines"], (0.04108, 0.00521), strict=True):
        ratio = line["ratioOfMeans"]
        assert abs(ratio["value"] - truth) < 3 * ratio["standardError"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_in_a_terminal_progress_is_one_line(runs: list[Path], tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    arguments = ["run", "sase-delivery", "--input", str(runs[0]), "--output", str(tmp_path / "out"), "--workers", "1"]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=terminal, stdout=subprocess.DEVNULL)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # the other side has closed
            break
        if not part:
            break
        shown += part
    os.close(controller)
    assert process.wait() == 0
    assert shown.count(b"\r\x1b[K") > 5
    assert shown.count(b"\n") == 1
    assert b"Committed" in shown


def test_a_killed_run_leaves_nothing_under_the_final_name(runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "run", "sase-delivery", "--input", *map(str, runs), "--output", str(output), "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Finishing"):
            break
    os.killpg(process.pid, signal.SIGKILL)  # its own session: the workers with it
    process.wait()
    assert not output.exists()
