"""Acceptance of the workflow: what it finds in runs whose truth is known."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest
from extra_data import RunDirectory
from panosc_analysis.errors import InputError, JobError
from panosc_analysis.simulate.sase_delivery import write_runs
from panosc_analysis.workflows import Result, sase_delivery
from panosc_analysis.workflows.sase_delivery import Parameters
from pydantic import ValidationError

Analyse = Callable[..., Result]
Write = Callable[..., list[Path]]

EVEN, ODD = tuple(range(0, 20, 2)), tuple(range(1, 20, 2))


def lines(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result.results["beamlines"]
    return found


def truth_of(runs: list[Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runs[0].parent / "truth.json").read_text())
    return found


def refused(call: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def published(published_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Result:
    parameters = Parameters()
    checked = sase_delivery.check(published_runs, parameters)
    outputs = [
        sase_delivery.run_partition(part, parameters).arrays for part in sase_delivery.partition(checked, parameters)
    ]
    return sase_delivery.finish(checked, outputs, parameters, tmp_path_factory.mktemp("out"))


def test_the_published_figures_come_out(published: Result) -> None:
    sa1, sa3 = lines(published)
    assert (sa1["name"], sa3["name"]) == ("SA1", "SA3")
    assert sa1["published"]["spread"] == pytest.approx(0.0160, rel=0.05)
    assert sa3["published"]["spread"] == pytest.approx(0.0041, rel=0.05)
    assert sa1["published"]["trainRatio"]["sd"] == pytest.approx(0.0143, rel=0.05)
    assert sa3["published"]["trainRatio"]["sd"] == pytest.approx(0.0022, rel=0.05)
    assert [line["published"]["trains"] for line in (sa1, sa3)] == [6295, 6235]


def test_every_estimator_is_within_three_standard_errors_of_the_truth(published: Result) -> None:
    for line, truth in zip(lines(published), (0.04108, 0.00521), strict=True):
        ratio, trains = line["ratioOfMeans"], line["ratioOfTrains"]
        assert abs(ratio["value"] - truth) < 3 * ratio["standardError"]
        assert abs(trains["mean"]["value"] - truth * 1.0012) < 3 * trains["mean"]["uncertainty"]  # E[1/on] > 1/E[on]
        assert abs(trains["median"]["value"] - truth) < 3 * trains["median"]["uncertainty"]
        assert ratio["fieller"]["low"] < ratio["value"] < ratio["fieller"]["high"]
        assert ratio["standardError"] == pytest.approx(ratio["deltaStandardError"], rel=0.1)
        assert len(line["perPulse"]) == 10
        for pulse in line["perPulse"]:
            assert abs(pulse["ratio"] - truth) < 4 * pulse["standardError"]
        assert line["suppressionFactor"]["value"] == pytest.approx(1 / ratio["value"])
        assert line["suppressionFactor"]["low"] == pytest.approx(1 / ratio["fieller"]["high"])
        assert line["suppression"]["value"] == pytest.approx(-10 * np.log10(ratio["value"]))
        assert line["pedestal"] == "not measured"


def test_the_comparison_of_the_beamlines(published: Result) -> None:
    (pair,) = published.results["comparisons"]
    assert abs(pair["value"] - 0.04108 / 0.00521) < 3 * pair["standardError"]
    assert pair["standardError"] == pytest.approx(pair["independentStandardError"], rel=0.1)  # nothing shared here
    assert pair["fieller"]["low"] == pytest.approx(pair["interval"]["low"], rel=0.01)
    assert pair["fieller"]["high"] == pytest.approx(pair["interval"]["high"], rel=0.01)
    assert pair["equality"]["pValue"] < 1e-100
    assert published.results["commonTrains"] == 6218


def test_the_summary_is_what_a_person_asks_for(published: Result) -> None:
    assert set(published.summary) == {
        *("ratioSA1", "suppressionSA1", "ratioSA3", "suppressionSA3", "ratioSA1OverSA3", "commonTrains")
    }
    assert published.summary["suppressionSA1"].unit == "dB"
    assert json.loads(json.dumps(published.results, allow_nan=False)) == published.results


def test_published_way_is_that_of_the_notebook(small_runs: list[Path], analyse: Analyse, tmp_path: Path) -> None:
    """The notebook's steps in plain numpy: slices of fixed steps, population standard deviations, single precision."""
    result = analyse(small_runs)
    sources = ("SA1_XTD2_XGM/XGM/DOOCS:output", "SA3_XTD10_XGM/XGM/DOOCS:output")
    for run, source, first, line in zip(small_runs, sources, (0, 1), lines(result), strict=True):
        data = RunDirectory(run)[source, "data.intensityTD"]
        energy = data.ndarray()
        on, off = energy[:, first:20:2], energy[:, 1 - first : 20 : 2]
        mean_on, mean_off = np.mean(on, axis=1), np.mean(off, axis=1)
        ratio = mean_off / mean_on
        error = ratio * np.sqrt((np.std(off, axis=1) / mean_off) ** 2 + (np.std(on, axis=1) / mean_on) ** 2)
        with h5py.File(tmp_path / "trains.h5") as file:
            table = file[line["name"]]
            assert table["train_id"][:].tolist() == data.train_id_coordinates().tolist()
            np.testing.assert_allclose(table["published/mean_on"][:], mean_on, rtol=1e-5)
            np.testing.assert_allclose(table["published/mean_off"][:], mean_off, rtol=1e-4)
            np.testing.assert_allclose(table["published/ratio"][:], ratio, rtol=1e-4)
            np.testing.assert_allclose(table["published/spread"][:], np.abs(error), rtol=1e-3)
            assert table["energy"].attrs["units"] == "μJ"
        flat_on, flat_off = on.ravel().astype(float), off.ravel().astype(float)
        overall = flat_off.mean() / flat_on.mean()
        relative = np.hypot(flat_off.std() / flat_off.mean(), flat_on.std() / flat_on.mean())
        assert line["published"]["ratio"] == pytest.approx(overall, rel=1e-9)
        assert line["published"]["spread"] == pytest.approx(overall * relative, rel=1e-9)


def test_counts_of_lost_trains_and_fills_are_exact(write: Write, analyse: Analyse) -> None:
    runs = write(
        {"without_data": (3, 300, 599), "suspect": (17, 18), "short_trains": {40: 12, 41: 15, 42: 60}},
        {"without_data": (0, 100)},
    )
    truth = truth_of(runs)
    sa1, sa3 = lines(analyse(runs))
    counts = sa1["counts"]
    assert (counts["trains"], counts["withoutData"], counts["suspect"], counts["rows"]) == (598, 3, 2, 595)
    assert (counts["fills"], counts["trainsWithFills"]) == (8 + 5, 2)
    assert (counts["rows"], counts["notInOtherRuns"]) == (
        truth["beamlines"][0]["rows"],
        truth["beamlines"][0]["notInOtherRuns"],
    )
    assert counts["aligned"] == sa3["counts"]["aligned"] == truth["commonTrains"]
    assert sa3["counts"]["withoutData"] == 2
    assert sa3["counts"]["notInOtherRuns"] == truth["beamlines"][1]["notInOtherRuns"]
    assert sa3["counts"]["fills"] == 0


@pytest.mark.parametrize("shift", [1, 250])
def test_shifted_train_ids_cost_exactly_the_trains_that_do_not_overlap(
    write: Write, analyse: Analyse, shift: int
) -> None:
    runs = write(
        {"first_train": 50000, "trains": 400, "without_data": ()},
        {"first_train": 50000 + shift, "trains": 400, "without_data": ()},
    )
    result = analyse(runs)
    assert result.results["commonTrains"] == 400 - shift
    assert [line["counts"]["notInOtherRuns"] for line in lines(result)] == [shift, shift]


def test_alignment_is_by_train_id_not_by_position(write: Write, tmp_path: Path, analyse: Analyse) -> None:
    runs = write({"without_data": (0, 1, 2, 30)}, {"without_data": ()})
    analyse(runs)
    with h5py.File(tmp_path / "trains.h5") as file:
        used = [set(file[name]["train_id"][:][file[name]["aligned"][:]]) for name in ("SA1", "SA3")]
    assert used[0] == used[1]


def test_pedestal_is_measured_and_subtracted(write: Write, analyse: Analyse) -> None:
    dark = {"pedestal": 15.0, "dark_slots": 50}
    runs = write(dark | {"short_trains": {100: 12, 101: 5}}, dark)
    ignored, subtracted = lines(analyse(runs)), lines(analyse(runs, bunches=70))
    for line, better, truth, energy in zip(ignored, subtracted, (0.04108, 0.00521), (1850, 930), strict=True):
        error = line["ratioOfMeans"]["standardError"]
        bias = 15 * (1 - truth) / (energy + 15)
        assert abs(line["ratioOfMeans"]["value"] - truth - bias) < 3 * error
        assert line["pedestal"] == "not measured"
        assert bias > 10 * error
        assert abs(better["ratioOfMeans"]["value"] - truth) < 3 * better["ratioOfMeans"]["standardError"]
        assert better["pedestal"]["mean"] == pytest.approx(15, abs=4 * better["pedestal"]["standardError"])
        assert better["pedestal"]["slots"] == 50 * better["counts"]["rows"]
    assert subtracted[0]["pedestal"]["noise"] == pytest.approx(10.9, rel=0.05)
    assert subtracted[0]["counts"]["fills"] == 8 + 15  # also where dark slots follow a short train


def test_a_stated_baseline_uncertainty_enters_the_systematic_and_the_summary(
    small_runs: list[Path], analyse: Analyse
) -> None:
    result = analyse(small_runs, baseline_uncertainty=3.0, linearity_uncertainty=0.02)
    sa1 = lines(result)[0]
    expected = 3.0 * (1 - sa1["ratioOfMeans"]["value"]) / sa1["means"]["on"]["value"]
    assert sa1["systematic"]["baseline"] == pytest.approx(expected)
    assert sa1["systematic"]["linearity"] == pytest.approx(0.02 * sa1["ratioOfMeans"]["value"])
    total = result.summary["ratioSA1"].uncertainty
    assert total == pytest.approx(np.hypot(sa1["ratioOfMeans"]["standardError"], sa1["systematic"]["total"]))


def test_a_signal_that_does_not_stand_out_becomes_a_limit(write: Write, analyse: Analyse) -> None:
    runs = write({}, {"ratio": 0.0})
    result = analyse(runs)
    sa1, sa3 = lines(result)
    assert sa1["significance"]["upperLimit"] is None
    assert 0 < sa3["significance"]["upperLimit"] < 1e-3
    assert result.summary["ratioSA3"].uncertainty is None
    assert "upper limit" in str(result.summary["ratioSA3"])
    assert "ratioSA1OverSA3" not in result.summary
    assert result.results["comparisons"][0]["fieller"] == {"low": None, "high": None, "bounded": False}
    assert json.dumps(result.results, allow_nan=False)


def test_an_uncertain_baseline_alone_turns_a_value_into_a_limit(small_runs: list[Path], analyse: Analyse) -> None:
    sa1, sa3 = lines(analyse(small_runs, baseline_uncertainty=3.0))
    assert sa1["significance"]["significant"]
    assert not sa3["significance"]["significant"]


def test_the_pattern_is_inferred_also_the_other_way_round(write: Write, analyse: Analyse) -> None:
    runs = write({"lasing": ODD}, {"lasing": (*EVEN, *range(20, 70))})
    sa1, sa3 = lines(analyse(runs))
    assert tuple(sa1["pattern"]["on"]) == ODD
    assert tuple(sa3["pattern"]["on"]) == EVEN
    assert sa1["pattern"]["origin"] == "inferred"
    assert sa1["pattern"]["confidence"] > 0.99
    assert sa1["ratioOfMeans"]["value"] == pytest.approx(0.04108, abs=4 * sa1["ratioOfMeans"]["standardError"])


def test_a_swapped_pattern_is_detected(small_runs: list[Path], analyse: Analyse) -> None:
    swapped = {"SA1": {"on": list(ODD), "off": list(EVEN)}}
    error = refused(lambda: analyse(small_runs, patterns=swapped))
    assert error.reason == "InvalidParameters"
    assert "swap" in error.message


def test_a_given_pattern_is_used(small_runs: list[Path], analyse: Analyse) -> None:
    given = {"SA1_XTD2_XGM/XGM/DOOCS": {"on": [0, 2, 4], "off": [25, 60]}}
    sa1, sa3 = lines(analyse(small_runs, patterns=given))
    assert (sa1["pattern"]["on"], sa1["pattern"]["off"], sa1["pattern"]["origin"]) == ([0, 2, 4], [25, 60], "given")
    assert sa3["pattern"]["origin"] == "inferred"
    assert [pulse["slot"] for pulse in sa1["perPulse"]] == [25, 60]


def test_no_two_levels_no_guess(write: Write, analyse: Analyse) -> None:
    runs = write({"lasing": tuple(range(70))}, {})
    assert "do not show two levels" in refused(lambda: analyse(runs)).message


def test_slots_that_only_hold_fills_are_not_taken_for_suppressed_pulses(write: Write, analyse: Analyse) -> None:
    runs = write({}, {})
    for path in runs[0].iterdir():
        with h5py.File(path, "r+") as file:
            energy = file["INSTRUMENT/SA1_XTD2_XGM/XGM/DOOCS:output/data/intensityTD"]
            energy[:, 1:20:2] = 1.0
    error = refused(lambda: analyse(runs))
    assert "fill value" in error.message


def test_the_result_does_not_depend_on_the_partitions_or_their_order(small_runs: list[Path], tmp_path: Path) -> None:
    results = []
    for size in (7, 1000):
        parameters = Parameters(trains_per_partition=size)
        checked = sase_delivery.check(small_runs, parameters)
        outputs = [
            sase_delivery.run_partition(p, parameters).arrays for p in sase_delivery.partition(checked, parameters)
        ]
        Random(3).shuffle(outputs)
        results.append(sase_delivery.finish(checked, outputs, parameters, tmp_path))
    one, two = results
    assert one.summary == two.summary
    for first, second in zip(lines(one), lines(two), strict=True):
        assert first["pattern"].pop("confidence") == pytest.approx(second["pattern"].pop("confidence"), rel=1e-12)
        assert first == second


def test_partitions_cover_every_train_once(small_runs: list[Path]) -> None:
    parameters = Parameters(trains_per_partition=30)
    checked = sase_delivery.check(small_runs, parameters)
    parts = sase_delivery.partition(checked, parameters)
    for beamline, rows in zip(checked.beamlines, (199, 197), strict=True):
        mine = [part for part in parts if part.beamline == beamline.name]
        assert all(after.first == before.last + 1 for before, after in pairwise(mine))
        found = [sase_delivery.run_partition(part, parameters).arrays[f"{beamline.name}/train_id"] for part in mine]
        assert np.concatenate(found).size == np.unique(np.concatenate(found)).size == rows
        assert all(len(part.files) <= 2 for part in mine)


def test_of_a_train_with_several_rows_the_first_counts() -> None:
    energy = np.arange(12, dtype=np.float32).reshape(4, 3)
    arrays = sase_delivery.reduce_trains(np.array([5, 6, 6, 7], dtype=np.uint64), energy, 2, None)
    assert arrays["train_id"].tolist() == [5, 6, 7]
    assert arrays["energy"].tolist() == [[0, 1], [3, 4], [9, 10]]
    assert arrays["repeated"].tolist() == [1]


def test_values_that_are_not_finite_are_counted_and_left_out(write: Write, analyse: Analyse) -> None:
    runs = write({}, {})
    path = min(runs[0].iterdir())
    with h5py.File(path, "r+") as file:
        file["INSTRUMENT/SA1_XTD2_XGM/XGM/DOOCS:output/data/intensityTD"][5, 3:6] = np.nan
    sa1 = lines(analyse(runs))[0]
    assert sa1["counts"]["notFinite"] == 3
    assert abs(sa1["ratioOfMeans"]["value"] - 0.04108) < 4 * sa1["ratioOfMeans"]["standardError"]


def test_one_run_alone(small_runs: list[Path], analyse: Analyse) -> None:
    result = analyse(small_runs[:1])
    assert result.results["comparisons"] == []
    assert result.results["commonTrains"] == 199


# what is refused before anything runs ----------------------------------------------------------------------


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    error = refused(lambda: sase_delivery.check([tmp_path / "r0404"], Parameters()))
    assert (error.reason, error.exit_code) == ("RunNotFound", 2)
    assert not (tmp_path / "r0404").exists()


def test_a_folder_without_files(tmp_path: Path) -> None:
    assert refused(lambda: sase_delivery.check([tmp_path], Parameters())).reason == "RunNotFound"


def test_a_run_without_an_xgm(tmp_path: Path) -> None:
    from extra_data.tests.mockdata import write_file
    from extra_data.tests.mockdata.gauge import Gauge

    write_file(str(tmp_path / "RAW-R0010-DA01-S00000.h5"), [Gauge("SA1_XTD2_GAUGE/G/1")], 100, format_version="1.0")
    error = refused(lambda: sase_delivery.check([tmp_path], Parameters()))
    assert error.reason == "SourceMissing"
    assert "no XGM" in error.message


def test_a_file_that_is_no_hdf5_file_is_named(small_runs: list[Path], tmp_path: Path) -> None:
    for file in small_runs[0].iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "RAW-R0008-DA01-S00009.h5").write_bytes(b"half a file")
    with pytest.raises(JobError, match="S00009") as caught:
        sase_delivery.check([tmp_path], Parameters())
    assert (caught.value.reason, caught.value.exit_code) == ("RunUnreadable", 1)


def test_a_source_that_no_run_has(small_runs: list[Path]) -> None:
    error = refused(lambda: sase_delivery.check(small_runs, Parameters(sources=["SA2_XTD1_XGM/XGM/DOOCS"])))
    assert error.reason == "SourceMissing"
    assert "SA1_XTD2_XGM" in error.message


def test_runs_that_were_not_taken_together(write: Write) -> None:
    runs = write({"first_train": 10_000}, {"first_train": 90_000})
    error = refused(lambda: sase_delivery.check(runs, Parameters()))
    assert error.reason == "InvalidParameters"
    assert "same time" in error.message


def test_a_pattern_for_a_beamline_that_is_not_there(small_runs: list[Path]) -> None:
    parameters = Parameters(patterns={"SA2": {"on": [0], "off": [1]}})
    assert "SA1, SA3" in refused(lambda: sase_delivery.check(small_runs, parameters)).message


def test_slots_that_the_monitor_does_not_have(small_runs: list[Path]) -> None:
    error = refused(lambda: sase_delivery.check(small_runs, Parameters(first_slot=990)))
    assert "slots 0 to 999" in error.message


@pytest.mark.parametrize(
    "parameters",
    [
        {"slots": 3},
        {"slot_count": 1},
        {"confidence_level": 1.0},
        {"patterns": {"SA1": {"on": [1], "off": [1]}}},
        {"patterns": {"SA1": {"on": [], "off": [1]}}},
        {"bootstrap_replicates": "many"},
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Parameters(**parameters)


def test_two_monitors_in_one_run_must_be_named(tmp_path: Path) -> None:
    from panosc_analysis.simulate.sase_delivery import published_scheme

    (first, second) = write_runs(tmp_path, published_scheme(100), 0)
    for file in second.iterdir():
        file.rename(first / file.name.replace("R0009-DA01", "R0008-DA02"))
    error = refused(lambda: sase_delivery.check([first], Parameters()))
    assert "several XGMs" in error.message
    both = Parameters(sources=["SA1_XTD2_XGM/XGM/DOOCS", "SA3_XTD10_XGM/XGM/DOOCS:output"])
    assert [line.name for line in sase_delivery.check([first], both).beamlines] == ["SA1", "SA3"]
