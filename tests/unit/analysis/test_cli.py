import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from panosc_analysis.cli import main
from panosc_analysis.errors import JobError
from panosc_analysis.quantity import Quantity
from panosc_analysis.workflows import sase_delivery


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["sase-delivery", sase_delivery.VERSION]


def test_schema_is_what_a_portal_renders(capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema

    assert main(["schema", "sase-delivery"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema) == {"name", "version", "title", "description", "parameters"}
    jsonschema.Draft202012Validator.check_schema(schema["parameters"])
    validator = jsonschema.Draft202012Validator(schema["parameters"])
    assert validator.is_valid({"patterns": {"SA1": {"on": [0], "off": [1]}}, "bunches": None})
    assert not validator.is_valid({"slotcount": 20})
    properties = schema["parameters"]["properties"].values()
    assert all(field["title"] for field in properties)
    assert all("default" in field for field in properties)
    assert schema["parameters"]["properties"]["baseline_uncertainty"]["unit"] == "μJ"


def test_heavy_libraries_are_not_loaded_for_light_commands() -> None:
    code = (
        "import sys; from panosc_analysis.cli import main; main(['schema', 'sase-delivery']);"
        "print(sorted({'distributed', 'extra_data', 'matplotlib', 'numba', 'scipy', 'papermill'} & set(sys.modules)),"
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "sase-delivery", "--output", str(tmp_path / "data"), "--trains", "60"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "data" / run) for run in ("r0008", "r0009")]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (None, "No such file"),
        ("slots: 3", "`slots`: Extra inputs are not permitted"),
        ("[1, 2]", "mapping"),
        ("a: [", "neither YAML nor JSON"),
        ("confidence_level: 2\nseed: -1", "`seed`"),
    ],
)
def test_wrong_parameters_are_one_line(
    small_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], parameters: str | None, said: str
) -> None:
    path = tmp_path / "parameters.yaml"
    if parameters is not None:
        path.write_text(parameters)
    inputs = ["--input", *map(str, small_runs)]
    code = main(["run", "sase-delivery", *inputs, "--output", str(tmp_path / "out"), "--parameters", str(path)])
    error = capsys.readouterr().err.splitlines()
    assert code == 2
    assert error[-1].startswith("panosc-analysis: ")
    assert said in error[-1]
    assert not (tmp_path / "out").exists()


def test_unknown_names_tell_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["schema", "sase"], ["simulate", "sase", "--output", str(tmp_path)]):
        assert main(command) == 2
        assert "sase-delivery" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(0.041174549, 0.000176803), "0.04117 ± 0.00018"),
        (Quantity(13.853711, 0.018648, "dB"), "13.854 ± 0.019 dB"),
        (Quantity(1848.64, 83.6, "μJ"), "1849 ± 84 μJ"),
        (Quantity(6218, 0.0), "6218"),
        (Quantity(0.00012345, None, note="upper limit"), "0.000123 (upper limit)"),
    ],
)
def test_quantities_read_well(quantity: Quantity, text: str) -> None:
    assert str(quantity) == text


def test_errors_survive_the_way_from_a_worker() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(JobError("RunUnreadable", "say why")))
    assert (error.reason, error.message, str(error)) == ("RunUnreadable", "say why", "say why")


def test_start_is_quick_enough_to_be_used() -> None:
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "panosc_analysis", "--help"], check=True, capture_output=True)
    assert time.monotonic() - start < 20  # never a benchmark: only that nothing heavy hangs in the import
