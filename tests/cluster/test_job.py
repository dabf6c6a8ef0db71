"""The SASE delivery of two runs on two Dask workers, with its result and its report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.cluster.browser import open_browser
from tests.cluster.conftest import OWNER, Facility, Namespace, condition, proposal_data

JOB = "delivery"
SPEC = {
    "workflow": {"name": "sase-delivery"},
    "owner": OWNER,
    "data": [proposal_data(runs="8-9")],
    "output": {"path": "results/delivery"},
    "workers": {"minimum": 2, "maximum": 2},
}


def has_ended(status: dict[str, Any]) -> bool:
    return "True" in (condition(status, "Complete").get("status"), condition(status, "Failed").get("status"))


@pytest.fixture(scope="module")
def status(namespace: Namespace) -> dict[str, Any]:
    namespace.apply("AnalysisJob", JOB, SPEC)
    status = namespace.wait("ajob", JOB, has_ended, 300)
    assert status["phase"] == "Succeeded", json.dumps(status, indent=1)
    return status


@pytest.fixture(scope="module")
def output(facility: Facility, status: dict[str, Any]) -> Path:
    assert status["outputPath"] == "/gpfs/exfel/exp/XMPL/201750/p700000/usr/results/delivery"
    return facility.folder("700000", "usr") / "results" / "delivery"


def test_ratios_agree_with_the_truth(facility: Facility, status: dict[str, Any]) -> None:
    for beamline, name in zip(facility.truth["beamlines"], ("ratioSA1", "ratioSA3"), strict=True):
        figure = status["summary"][name]
        assert 0 < figure["uncertainty"] < 0.05 * figure["value"]
        assert abs(figure["value"] - beamline["ratio"]) < 3 * figure["uncertainty"]


def test_two_workers_took_part(status: dict[str, Any]) -> None:
    assert len(set(status["provenance"]["workers"])) == 2
    assert status["progress"]["done"] == status["progress"]["total"] > 1


def test_results_are_as_the_status_says(status: dict[str, Any], output: Path) -> None:
    names = {result["name"] for result in status["results"]}
    assert {"result.json", "report.html"} <= names
    for result in status["results"]:
        content = (output / result["name"]).read_bytes()
        assert len(content) == result["bytes"]
        assert hashlib.sha256(content).hexdigest() == result["sha256"]
    manifest = (output / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == status["provenance"]["manifestSha256"]
    result = json.loads((output / "result.json").read_text())
    assert result["summary"]["ratioSA1"]["value"] == pytest.approx(status["summary"]["ratioSA1"]["value"])
    assert output.stat().st_uid == OWNER["uid"]
    assert [path for path in output.parent.iterdir() if path != output] == [], "temporary output is left"


def test_report_opens_with_its_figures(output: Path, chromium: str, tmp_path: Path) -> None:
    with open_browser(chromium, tmp_path / "profile") as browser:
        browser.get((output / "report.html").as_uri())
        WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "img"))
        images = browser.find_elements(By.CSS_SELECTOR, "img")
        widths = [int(str(image.get_property("naturalWidth"))) for image in images]
        assert len(widths) >= 4
        assert min(widths) > 200
        assert "Traceback" not in browser.find_element(By.TAG_NAME, "body").text


def test_workers_are_released(namespace: Namespace, status: dict[str, Any]) -> None:
    assert status["workers"]["ready"] == 0
    namespace.kubectl("wait", "--for=delete", "daskcluster", "--all", "--timeout=90s")


def test_same_output_again_is_refused(namespace: Namespace, status: dict[str, Any]) -> None:
    namespace.apply("AnalysisJob", "delivery-again", SPEC)
    ended = namespace.wait("ajob", "delivery-again", has_ended, 120)
    assert condition(ended, "Failed")["reason"] == "OutputExists"
    assert "onExists" in condition(ended, "Failed")["message"]
