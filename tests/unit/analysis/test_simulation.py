import json
from pathlib import Path

import numpy as np
import pytest
from extra_data import RunDirectory, by_id, validation
from panosc_analysis.errors import InputError
from panosc_analysis.simulate.sase_delivery import simulate


def test_extra_data_accepts_the_runs(small_runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    for run in small_runs:
        assert not validation.main([str(run)])
        assert "No problems found" in capsys.readouterr().out


def test_sizes_and_train_ids_are_the_published_ones(published_runs: list[Path]) -> None:
    first, second = (RunDirectory(run, _use_voview=False) for run in published_runs)
    assert (first.train_ids[0], first.train_ids[-1], len(first.train_ids)) == (38227866, 38234161, 6296)
    assert (second.train_ids[0], second.train_ids[-1], len(second.train_ids)) == (38227850, 38234085, 6236)
    data = first["SA1_XTD2_XGM/XGM/DOOCS:output", "data.intensityTD"]
    assert (data.shape, data.dtype, data.units) == ((6295, 1000), np.float32, "μJ")
    assert second["SA3_XTD10_XGM/XGM/DOOCS:output", "data.intensityTD"].shape == (6235, 1000)
    assert len(first.files) == 3


def test_unused_slots_hold_the_fill_value(small_runs: list[Path]) -> None:
    run = RunDirectory(small_runs[0])
    energy = run["SA1_XTD2_XGM/XGM/DOOCS:output", "data.intensityTD"].ndarray()
    assert (energy[:, 70:] == 1.0).all()
    assert not (energy[:, :70] == 1.0).any()


def test_both_runs_tell_the_same_time_for_the_same_train(small_runs: list[Path]) -> None:
    first, second = (RunDirectory(run).select_trains(by_id[38227866:38227870]) for run in small_runs)
    assert first.train_timestamps().tolist() == second.train_timestamps().tolist()
    assert np.diff(first.train_timestamps()).tolist() == [100_000_000] * 3


def test_the_seed_decides(tmp_path: Path) -> None:
    def energy(folder: str, seed: int) -> np.ndarray:
        run = RunDirectory(simulate(tmp_path / folder, trains=60, seed=seed)[0])
        return np.asarray(run["SA1_XTD2_XGM/XGM/DOOCS:output", "data.intensityTD"].ndarray())

    first = energy("a", 4)
    assert (first == energy("b", 4)).all()
    assert not (first[:, :70] == energy("c", 5)[:, :70]).any()


def test_truth_stands_beside_the_runs(small_runs: list[Path]) -> None:
    folder = small_runs[0].parent
    assert sorted(path.name for path in folder.iterdir()) == ["r0008", "r0009", "truth.json"]
    truth = json.loads((folder / "truth.json").read_text())
    assert [line["ratio"] for line in truth["beamlines"]] == [0.04108, 0.00521]


def test_nothing_is_overwritten(small_runs: list[Path]) -> None:
    with pytest.raises(InputError, match="exists") as caught:
        simulate(small_runs[0].parent, trains=200)
    assert caught.value.reason == "OutputExists"


def test_the_same_again_is_left_as_it_is(tmp_path: Path) -> None:
    first = simulate(tmp_path / "again", trains=100, seed=3)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").rglob("*")}
    assert simulate(tmp_path / "again", trains=100, seed=3) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "again").rglob("*")} == written
    with pytest.raises(InputError, match="exists"):
        simulate(tmp_path / "again", trains=100, seed=4)


def test_too_few_trains(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 60"):
        simulate(tmp_path / "few", trains=20)
