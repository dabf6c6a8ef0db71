"""From input to committed output on a Dask cluster inside this process; the report is tested with the driver."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from panosc_analysis import execution, reports
from panosc_analysis.commit import Staging
from panosc_analysis.errors import InputError, JobError
from panosc_analysis.execution import Job, Progress, Tracker, execute
from panosc_analysis.workflows import PartitionOutput, sase_delivery


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "render", lambda _notebook, folder, _title: (folder / "report.html").touch())


@pytest.fixture
def job(small_runs: list[Path], tmp_path: Path) -> Job:
    return Job(
        name="delivery",
        uid="uid-1",
        workflow="sase-delivery",
        parameters={"trains_per_partition": 50, "bootstrap_replicates": 100},
        inputs=tuple(small_runs),
        output=tmp_path / "results" / "delivery",
    )


class Watched(Tracker):
    """Keeps every progress that was set."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        super().__init__(self.seen.append)


def given(client: Client) -> Any:
    return lambda _: nullcontext(client)


def refuse_dask(_: Tracker) -> AbstractContextManager[Client]:
    raise AssertionError("no worker is needed for this")


def test_all_stages_in_order_and_a_complete_record(client: Client, job: Job) -> None:
    tracker = Watched()
    commit = execute(job, given(client), tracker)
    stages = list(dict.fromkeys(progress.stage for progress in tracker.seen))
    assert stages == ["CheckingInput", "WaitingForWorkers", "Running", "Finishing", "Committed"]
    assert [progress.input_ready for progress in tracker.seen if progress.stage == "CheckingInput"] == [False]
    last = tracker.progress
    assert (last.done, last.failed) == (last.total, 0)
    assert last.total == len(range(0, 200, 50)) * 2 + 4  # a range never spans two files
    assert all(seconds > 0 for seconds in last.timing.values())
    assert last.bytes_read == (199 + 197) * 1000 * 4

    document = commit.result
    provenance = document["provenance"]
    assert len(provenance["workers"]) == 2
    assert provenance["versions"]["panosc-analysis"]
    assert [Path(file["path"]).parent for file in provenance["inputs"]] == [job.inputs[0]] * 3 + [job.inputs[1]] * 3
    assert provenance["trains"] == {"first": 38227850, "last": 38228065}
    assert document["parameters"]["trains_per_partition"] == 50
    assert set(document["summary"]["ratioSA1"]) >= {"value", "uncertainty", "unit"}
    names = [file["name"] for file in commit.manifest["files"]]
    assert names == ["report.html", "result.json", "trains.h5"]
    assert [path.name for path in job.output.parent.iterdir()] == ["delivery"]


def test_a_started_again_job_finds_its_commit_without_dask_or_input(client: Client, job: Job) -> None:
    first = execute(job, given(client), Tracker())
    again = execute(replace(job, inputs=(Path("/nowhere"),)), refuse_dask, tracker := Tracker())
    assert again == first
    assert tracker.progress.stage == "Committed"
    assert tracker.progress.done == tracker.progress.total > 0


def test_what_happens_where_an_output_exists(client: Client, job: Job) -> None:
    first = execute(job, given(client), Tracker())
    other = replace(job, uid="uid-2")
    with pytest.raises(InputError, match="exists") as caught:
        execute(other, refuse_dask, Tracker())
    assert caught.value.reason == "OutputExists"
    assert execute(replace(other, on_exists="Skip"), refuse_dask, Tracker()) == first
    replaced = execute(replace(other, on_exists="Overwrite"), given(client), Tracker())
    assert replaced.uid == "uid-2"
    assert [path.name for path in job.output.parent.iterdir()] == ["delivery"]


@pytest.mark.parametrize("on_exists", ["Fail", "Skip", "Overwrite"])
def test_a_folder_that_is_not_an_output_is_never_touched(job: Job, on_exists: Any) -> None:
    job.output.mkdir(parents=True)
    (job.output / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not the output of a job"):
        execute(replace(job, on_exists=on_exists), refuse_dask, Tracker())
    assert (job.output / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"inputs": (Path("/data/r0404"),)}, "RunNotFound", "does not exist"),
        ({"inputs": ()}, "InvalidParameters", "no input"),
        ({"parameters": {"slotcount": 3}}, "InvalidParameters", "`slotcount`"),
        ({"workflow": "sase"}, "InvalidParameters", "sase-delivery"),
        ({"version": "9.9"}, "InvalidParameters", "9.9"),
    ],
)
def test_wrong_input_is_refused_before_dask_and_leaves_nothing(
    job: Job, change: dict[str, Any], reason: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        execute(replace(job, **change), refuse_dask, tracker := Tracker())
    assert (caught.value.reason, tracker.progress.stage) == (reason, "Failed")
    assert not job.output.parent.exists()


def test_the_output_may_not_be_inside_a_run(job: Job) -> None:
    before = sorted(job.inputs[0].iterdir())
    with pytest.raises(InputError, match="inside the input"):
        execute(replace(job, output=job.inputs[0] / "results"), refuse_dask, Tracker())
    assert sorted(job.inputs[0].iterdir()) == before


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Make the second partition of SA1 fail that many times."""
    original, failures = sase_delivery.run_partition, iter(range(times))

    def run_partition(part: sase_delivery.TrainRange, parameters: sase_delivery.Parameters) -> PartitionOutput:
        if part.label.startswith("SA1 trains 38227916") and next(failures, None) is not None:
            time.sleep(0.1)  # the others are done by then
            raise OSError("Stale file handle")
        return original(part, parameters)

    monkeypatch.setattr(sase_delivery, "run_partition", run_partition)


def test_a_partition_that_fails_now_and_then_is_tried_again(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, execution.RETRIES)
    execute(job, given(client), tracker := Tracker())
    assert tracker.progress.failed == 0


def test_a_partition_that_always_fails_ends_the_job_with_its_name_and_cause(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 99)
    with pytest.raises(JobError) as caught:
        execute(job, given(client), tracker := Tracker())
    assert (caught.value.reason, caught.value.exit_code) == ("WorkflowFailed", 1)
    assert "SA1 trains 38227916 to 38227932 failed 3 times: OSError: Stale file handle" in caught.value.message
    assert tracker.progress.failed == 1
    assert list(job.output.parent.iterdir()) == []


def test_after_a_kill_only_what_is_missing_is_done_again(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Staging, "remove", lambda _: None)  # a killed process cleans nothing up
        failing(killed, 99)
        with pytest.raises(JobError):
            execute(job, given(client), Tracker())
    kept = sorted(path.name for path in next(job.output.parent.iterdir()).rglob("*.npz"))
    assert kept
    assert not job.output.exists()
    submitted: list[object] = []
    original = client.submit

    def submit(*args: Any, **options: Any) -> Any:
        submitted.append(args)
        return original(*args, **options)

    monkeypatch.setattr(client, "submit", submit)
    commit = execute(job, given(client), tracker := Tracker())
    assert len(submitted) == tracker.progress.total - len(kept)
    whole = execute(replace(job, uid="uid-3", output=job.output.with_name("whole")), given(client), Tracker())
    assert commit.result["results"] == whole.result["results"]
    assert sorted(path.name for path in job.output.parent.iterdir()) == ["delivery", "whole"]


def test_progress_as_it_is_served() -> None:
    progress = Progress(stage="Running", input_ready=True, total=4, done=1, workers=2, read=0.5)
    assert json.loads(execution.to_json(progress)) == {
        "stage": "Running",
        "inputReady": True,
        "progress": {"total": 4, "done": 1, "failed": 0},
        "workers": 2,
        "timing": {"read": 0.5, "compute": 0.0, "write": 0.0},
    }
