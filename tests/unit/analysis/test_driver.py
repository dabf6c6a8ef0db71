"""The driver as a process, as in its pod, with a Dask cluster on the loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from distributed import LocalCluster
from panosc_analysis import driver
from panosc_analysis.commit import sha256
from panosc_analysis.execution import Progress
from prometheus_client.parser import text_string_to_metric_families


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def described(small_runs: list[Path], tmp_path: Path) -> dict[str, Any]:
    """What the operator writes into PANOSC_JOB."""
    return {
        "name": "delivery",
        "namespace": "team",
        "uid": "0b9c-1",
        "run": 1,
        "title": "Delivery of <runs> 8 & 9",
        "workflow": {"name": "sase-delivery", "version": "0.1.0"},
        "parameters": {"trains_per_partition": 50},
        "inputs": [{"proposal": "700000", "run": 8 + i, "path": str(run)} for i, run in enumerate(small_runs)],
        "output": {"path": str(tmp_path / "usr" / "results" / "delivery"), "onExists": "Fail"},
        "scheduler": f"tcp://127.0.0.1:{free_port()}",
        "workers": {"minimum": 2, "maximum": 2},
        "image": "localhost/panosc/analysis:0.1.0",
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PANOSC_PORT": str(free_port()),
        "PANOSC_TERMINATION_LOG": str(tmp_path / "termination-log"),
        "PANOSC_WORKERS_TIMEOUT": "60",
    }


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[[dict[str, Any]], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(job: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "panosc_analysis", "drive"]
        process = subprocess.Popen(
            command, env=environment | {"PANOSC_JOB": json.dumps(job)}, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def told(environment: dict[str, str]) -> dict[str, Any]:
    content = Path(environment["PANOSC_TERMINATION_LOG"]).read_bytes()
    assert len(content) <= 4096
    message: dict[str, Any] = json.loads(content)
    return message


def served(environment: dict[str, str], path: str) -> tuple[int, str]:
    """Ask the driver until it listens."""
    deadline = time.monotonic() + 300
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{environment['PANOSC_PORT']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, ""
        except (URLError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def wait_for(environment: dict[str, str], stage: str) -> dict[str, Any]:
    deadline = time.monotonic() + 300
    while True:
        progress: dict[str, Any] = json.loads(served(environment, "/progress")[1])
        if progress["stage"] == stage:
            return progress
        assert time.monotonic() < deadline, progress
        time.sleep(0.05)


class Loaded(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_a_job_from_its_description_to_its_report_and_again(
    described: dict[str, Any],
    environment: dict[str, str],
    start: Callable[[dict[str, Any]], subprocess.Popen[str]],
    drive: Callable[[object], tuple[int, dict[str, Any]]],
) -> None:
    process = start(described)
    progress = wait_for(environment, "WaitingForWorkers")
    assert progress["inputReady"] is True
    assert progress["progress"] == {"total": 12, "done": 0, "failed": 0}
    assert served(environment, "/ready")[0] == 200
    assert served(environment, "/elsewhere")[0] == 404
    port = int(described["scheduler"].rpartition(":")[2])
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        scheduler_port=port,
        dashboard_address=None,
    ):
        wait_for(environment, "Finishing")  # the report is being made
        metrics = {
            sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
            for family in text_string_to_metric_families(served(environment, "/metrics")[1])
            for sample in family.samples
        }
        assert metrics['panosc_job_partitions_total{"result": "done", "workflow": "sase-delivery"}'] == 12
        assert metrics['panosc_job_bytes_total{"direction": "read", "workflow": "sase-delivery"}'] == 396 * 4000
        assert process.wait(timeout=300) == 0, process.stderr and process.stderr.read()

    message = told(environment)
    assert (message["outcome"], message["reason"]) == ("Complete", "Committed")
    assert message["progress"] == {"total": 12, "done": 12, "failed": 0}
    assert len(message["provenance"]["workers"]) == 2
    assert message["provenance"]["image"] == described["image"]
    ratio = message["summary"]["ratioSA1"]
    assert abs(ratio["value"] - 0.04108) < 4 * ratio["uncertainty"]
    output = Path(described["output"]["path"])
    assert message["manifest"] == {"path": f"{output}/manifest.json", "sha256": sha256(output / "manifest.json")}
    for file in message["results"]:
        assert (Path(file["path"]).stat().st_size, sha256(Path(file["path"]))) == (file["bytes"], file["sha256"])
    assert {file["name"] for file in message["results"]} == {"report.html", "result.json", "trains.h5"}
    assert [path.name for path in output.parent.iterdir()] == ["delivery"]

    page = Loaded()
    report = (output / "report.html").read_text()
    page.feed(report)
    assert report.count("data:image/png;base64,") >= 6
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe"}
    assert "Delivery of &lt;runs&gt; 8 &amp; 9" in report
    assert "0.041078" in report  # as printed for the original runs
    assert "simulation" in report

    assert drive(described)[0] == 0  # no scheduler any more: it must not be asked for
    repeated = told(environment)
    for part in ("summary", "results", "provenance", "manifest", "progress"):
        assert repeated[part] == message[part]


def test_sigterm_ends_it_without_a_trace(
    described: dict[str, Any],
    environment: dict[str, str],
    start: Callable[[dict[str, Any]], subprocess.Popen[str]],
) -> None:
    process = start(described)
    wait_for(environment, "WaitingForWorkers")
    results = Path(described["output"]["path"]).parent
    assert [path.name for path in results.iterdir()] == [".delivery.0b9c-1.partial"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 1
    assert (told(environment)["outcome"], told(environment)["reason"]) == ("Failed", "Terminated")
    assert list(results.iterdir()) == []


@pytest.fixture
def drive(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[object], tuple[int, dict[str, Any]]]:
    """Run the driver in this process, for what ends before any Dask."""

    def drive(job: object) -> tuple[int, dict[str, Any]]:
        for name, value in (environment | {"PANOSC_JOB": json.dumps(job)}).items():
            monkeypatch.setenv(name, value)
        return driver.drive(), told(environment)

    return drive


def gone(job: dict[str, Any]) -> None:
    job["inputs"][1]["path"] += "9"


def without_monitor(job: dict[str, Any]) -> None:
    from extra_data.tests.mockdata import write_file
    from extra_data.tests.mockdata.gauge import Gauge

    run = Path(job["output"]["path"]).parents[2] / "r0010"
    run.mkdir()
    write_file(str(run / "RAW-R0010-DA01-S00000.h5"), [Gauge("SA1_XTD2_GAUGE/G/1")], 100, format_version="1.0")
    job["inputs"][0]["path"] = str(run)


def wrong_parameter(job: dict[str, Any]) -> None:
    job["parameters"]["slot_count"] = "twenty"


def occupied(job: dict[str, Any]) -> None:
    Path(job["output"]["path"]).mkdir(parents=True)


def no_title_no_uid(job: dict[str, Any]) -> None:
    del job["uid"]


@pytest.mark.parametrize(
    ("spoil", "reason", "said"),
    [
        (gone, "RunNotFound", "does not exist"),
        (without_monitor, "SourceMissing", "no XGM"),
        (wrong_parameter, "InvalidParameters", "slot_count"),
        (occupied, "OutputExists", "exists"),
        (no_title_no_uid, "InvalidParameters", "uid"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_never_tried_again(
    described: dict[str, Any],
    drive: Callable[[object], tuple[int, dict[str, Any]]],
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[dict[str, Any]], None],
    reason: str,
    said: str,
) -> None:
    spoil(described)
    code, message = drive(described)
    assert (code, message["outcome"], message["reason"]) == (2, "Failed", reason)
    assert said in message["message"]
    assert "\n" not in message["message"]
    assert f"{reason}: {message['message']}" in capfd.readouterr().err.splitlines()
    if spoil is not occupied:
        assert not Path(described["output"]["path"]).parent.exists()


def test_a_scheduler_that_never_comes(
    described: dict[str, Any],
    environment: dict[str, str],
    drive: Callable[[object], tuple[int, dict[str, Any]]],
) -> None:
    environment["PANOSC_WORKERS_TIMEOUT"] = "1"
    code, message = drive(described)
    assert (code, message["reason"]) == (1, "WorkersTimeout")
    assert "did not answer" in message["message"]
    assert list(Path(described["output"]["path"]).parent.iterdir()) == []


def test_fewer_workers_than_asked_for(
    described: dict[str, Any],
    environment: dict[str, str],
    drive: Callable[[object], tuple[int, dict[str, Any]]],
) -> None:
    environment["PANOSC_WORKERS_TIMEOUT"] = "1"
    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", dashboard_address=None) as cluster:
        described["scheduler"] = cluster.scheduler_address
        code, message = drive(described)
    assert (code, message["reason"]) == (1, "WorkersTimeout")
    assert "1 of at least 2 workers" in message["message"]


def test_a_long_message_is_cut_to_what_kubernetes_keeps() -> None:
    message = driver.failed_message(Progress(), "WorkflowFailed", "µ" * 9000)
    assert len(json.dumps(message, ensure_ascii=False).encode()) <= 4096
    assert message["message"].endswith("…")
