"""Lives of jobs, from the object's creation to its end, in virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from panosc_operator.domain import names
from panosc_operator.domain.driver import parse_report
from panosc_operator.domain.seen import Key

from tests.unit.operator import builders, virtual_time
from tests.unit.operator.builders import NAMESPACE, Body
from tests.unit.operator.simulation import (
    READY,
    Simulation,
    Step,
    complete_words,
    refusal,
    simulated,
    until_end,
)

RATIO = Key("AnalysisJob", NAMESPACE, "ratio")
STORAGE = ["PersistentVolume"] * 2 + ["PersistentVolumeClaim"] * 2


def kinds(sim: Simulation) -> list[str]:
    """Return the kind of every object that was made for jobs."""
    return sorted(key.kind for key in sim.server.objects if not key.kind.startswith(("Analysis", "DataSource")))


def the(sim: Simulation, kind: str) -> Body:
    (found,) = sim.children(kind)
    return found


def failed_words(reason: str, message: str = "Choose another run.") -> str:
    return json.dumps({"outcome": "Failed", "reason": reason, "message": message})


def parts(sim: Simulation) -> list[str]:
    """Return the parts that the living pods play."""
    return sorted(pod["metadata"]["labels"].get("dask.org/component", "driver") for pod in sim.children("Pod"))


async def make_running(sim: Simulation, **spec: Any) -> None:
    sim.server.put(builders.job(**spec))
    await sim.until(lambda: sim.phase(RATIO) == "Running")


@simulated
async def test_create_to_complete(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = until_end(15, "succeeded", message=complete_words())
    sim.server.put(builders.job())
    await sim.until(lambda: bool(sim.children("Job")))
    assert sim.children("DaskCluster") == [], "workers come only after the driver has checked the input"
    await sim.until(lambda: sim.condition(RATIO, "ClusterReady").get("reason") == "WaitingForInput")
    await sim.until(lambda: bool(sim.children("DaskCluster")))
    await sim.until(lambda: sim.phase(RATIO) == "Running")
    assert parts(sim) == ["driver", "scheduler", "worker", "worker"]
    assert sim.condition(RATIO, "InputReady")["status"] == sim.condition(RATIO, "ClusterReady")["status"] == "True"
    assert sim.status(RATIO)["workers"]["desired"] == 2
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")
    await sim.quiet()
    status, said = sim.status(RATIO), json.loads(complete_words())
    assert {field: status[field] for field in ("summary", "results", "timing", "progress")} == {
        field: said[field] for field in ("summary", "results", "timing", "progress")
    }
    assert status["outputPath"] == "/gpfs/exfel/exp/XMPL/201750/p700000/usr/results/ratio"
    assert status["outputPath"] in sim.condition(RATIO, "OutputCommitted")["message"]
    assert status["provenance"]["manifestSha256"] == said["manifest"]["sha256"]
    assert status["startedAt"] < status["finishedAt"]
    assert status["run"] == 1
    assert sorted(kinds(sim)) == sorted([*STORAGE, "Job", "Pod"]), "workers are released, the driver's log is kept"
    assert [notice.reason for notice in sim.operator.cluster.events] == ["Running", "Complete"]


@simulated
async def test_ready_workers_are_counted(sim: Simulation) -> None:
    await make_running(sim)
    await sim.until(lambda: sim.status(RATIO)["workers"]["ready"] == 2)
    selector = dict(pair.split("=") for pair in sim.status(RATIO)["workers"]["selector"].split(","))
    selected = [pod for pod in sim.children("Pod") if selector.items() <= pod["metadata"]["labels"].items()]
    assert len(selected) == 2, "the scale subresource's selector finds the workers and nothing else"


@simulated
async def test_nothing_is_written_when_nothing_changed(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = until_end(2000, "succeeded", message=complete_words())
    await make_running(sim)
    await sim.quiet(60)
    running = sim.writes
    await sim.quiet(700)
    sim.operator.sweeper.enqueue_all()
    await sim.quiet(700)
    assert sim.writes == running
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded", 1000)
    await sim.quiet(60)
    finished = sim.writes
    assert finished > running
    await sim.quiet(700)
    assert sim.writes == finished
    await sim.restart()
    await sim.quiet(700)
    assert sim.writes == 0
    assert sim.operator.cluster.reads == []


@pytest.mark.parametrize("reason", ["SourceMissing", "RunNotFound", "OutputExists"])
@simulated
async def test_bad_input_found_by_the_driver(sim: Simulation, reason: str) -> None:
    sim.kubernetes.steps["driver"] = [
        (0.3, "scheduled", {}),
        (1.0, "starting", {}),
        (3.0, "failed", {"exit_code": 2, "message": failed_words(reason)}),
    ]
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Failed")
    await sim.quiet()
    assert sim.operator.cluster.written("apply", "DaskCluster") == 0
    for type_, status in (("InputReady", "False"), ("Complete", "False"), ("Failed", "True")):
        condition = sim.condition(RATIO, type_)
        assert (condition["status"], condition["reason"]) == (status, reason)
        assert condition["message"] == "Choose another run."
    assert kinds(sim) == STORAGE, "its pod is removed"
    assert sim.status(RATIO)["run"] == 1
    assert "outputPath" not in sim.status(RATIO)
    assert [notice.reason for notice in sim.operator.cluster.events] == [reason]


@simulated
async def test_what_the_data_check_finds_ends_the_job(sim: Simulation) -> None:
    finding = json.dumps({"reason": "ProposalForbidden", "message": "raw cannot be read by uid 31415"})
    sim.kubernetes.steps["driver"] = [(1.5, "check-failed", {"message": finding})]
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Failed")
    await sim.quiet()
    assert sim.condition(RATIO, "InputReady")["reason"] == "ProposalForbidden"
    assert sim.condition(RATIO, "Complete")["message"] == "raw cannot be read by uid 31415"
    assert kinds(sim) == STORAGE
    assert sim.operator.cluster.written("apply", "DaskCluster") == 0


@simulated
async def test_a_driver_that_fails_is_tried_again(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = [(2.0, "failed", {"message": failed_words("WorkersTimeout", "no worker came")})]
    sim.server.put(builders.job(backoffLimit=1))
    await sim.until(lambda: sim.condition(RATIO, "InputReady").get("reason") == "Retrying")
    assert "no worker came" in sim.condition(RATIO, "InputReady")["message"]
    sim.kubernetes.steps["driver"] = until_end(10, "succeeded", message=complete_words())
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")
    assert sim.status(RATIO)["run"] == 1
    assert len(sim.children("Job")) == 1


@simulated
async def test_a_driver_that_fails_too_often_fails_the_job(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = until_end(
        6.0, "failed", message=failed_words("WorkflowFailed", "division by zero")
    )
    sim.server.put(builders.job(backoffLimit=1))
    await sim.until(lambda: sim.phase(RATIO) == "Failed")
    await sim.quiet()
    assert sim.condition(RATIO, "Failed")["reason"] == "WorkflowFailed"
    assert sim.condition(RATIO, "Failed")["message"] == "division by zero"
    assert sim.condition(RATIO, "InputReady")["status"] == "True", "the driver had been ready"
    assert sim.children("DaskCluster") == []
    assert len(sim.children("Job")) == 1, "its log is kept"


@simulated
async def test_a_driver_that_crashes_before_it_checked_the_input(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = [(1.0, "failed", {"message": "ModuleNotFoundError: panosc_analysis"})]
    sim.server.put(builders.job(backoffLimit=0))
    await sim.until(lambda: sim.phase(RATIO) == "Failed")
    assert sim.condition(RATIO, "Failed")["reason"] == "BackoffLimitExceeded"
    assert "ModuleNotFoundError" in sim.condition(RATIO, "Failed")["message"]
    assert sim.condition(RATIO, "InputReady")["status"] == "Unknown"


@pytest.mark.parametrize("text", ["", "done.", json.dumps({"outcome": "Failed", "reason": "Odd", "message": "?"})])
@simulated
async def test_a_driver_that_ends_well_without_saying_so_is_not_started_for_ever(sim: Simulation, text: str) -> None:
    sim.kubernetes.steps["driver"] = until_end(5, "succeeded", message=text)
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Failed")
    await sim.quiet()
    assert sim.condition(RATIO, "Failed")["reason"] in ("NoReport", "Odd")
    assert sim.status(RATIO)["run"] == 1


@simulated
async def test_an_exit_code_is_believed_before_words(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = until_end(5, "failed", exit_code=1, message=complete_words())
    sim.server.put(builders.job(backoffLimit=0))
    await sim.until(lambda: sim.phase(RATIO) in ("Failed", "Succeeded"))
    assert sim.phase(RATIO) == "Failed"
    assert "summary" not in sim.status(RATIO)


@simulated
async def test_a_driver_whose_pod_vanished_unread_is_started_again(sim: Simulation) -> None:
    await make_running(sim)
    await sim.quiet()
    first = the(sim, "Job")
    driver_pod = next(pod for pod in sim.children("Pod") if "dask.org/component" not in pod["metadata"]["labels"])
    sim.kubernetes.steps["driver"] = until_end(4, "succeeded", message=complete_words())
    sim.server.remove(builders.key_of(driver_pod))
    sim.server.set_status(builders.key_of(first), builders.job_condition("Complete", "CompletionsReached"))
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")
    await sim.quiet()
    assert sim.status(RATIO)["run"] == 2
    assert the(sim, "Job")["metadata"]["name"] != first["metadata"]["name"]
    assert kinds(sim) == sorted([*STORAGE, "Job", "Pod"])


@simulated
async def test_the_end_of_the_job_is_not_told_before_that_of_its_pod_is_seen(sim: Simulation) -> None:
    """Watches of two kinds are not ordered: what the driver said may come after the Job's end."""
    await make_running(sim)
    await sim.quiet()
    batch_job = builders.key_of(the(sim, "Job"))
    driver_pod = next(pod for pod in sim.children("Pod") if "dask.org/component" not in pod["metadata"]["labels"])
    sim.server.set_status(batch_job, builders.job_condition("Complete", "CompletionsReached"))
    await sim.quiet(5)
    assert sim.phase(RATIO) == "Running"
    sim.kubernetes.move(builders.key_of(driver_pod), "succeeded", {"message": complete_words()})
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")
    assert sim.status(RATIO)["run"] == 1


@simulated
async def test_a_driver_job_deleted_while_it_runs_is_followed_by_another(sim: Simulation) -> None:
    await make_running(sim)
    await sim.quiet()
    old = builders.key_of(the(sim, "DaskCluster"))
    sim.server.delete(builders.key_of(the(sim, "Job")))
    await sim.until(lambda: sim.status(RATIO)["run"] == 2)
    await sim.until(lambda: sim.phase(RATIO) == "Running")
    await sim.quiet()
    assert the(sim, "Job")["metadata"]["labels"][names.RUN] == "2"
    assert builders.key_of(the(sim, "DaskCluster")) != old
    assert parts(sim) == ["driver", "scheduler", "worker", "worker"]


@simulated
async def test_a_driver_without_a_pod_is_named(sim: Simulation) -> None:
    """As with a quota of pods: the Job is accepted, and its controller cannot make the pod."""
    sim.kubernetes.job_controller_works = False
    sim.server.put(builders.job())
    await sim.until(lambda: bool(sim.children("Job")))
    await sim.quiet(28)
    assert sim.condition(RATIO, "InputReady")["reason"] == "Starting"
    await sim.until(lambda: sim.condition(RATIO, "InputReady")["reason"] == "DriverPodMissing", 5)
    assert the(sim, "Job")["metadata"]["name"] in sim.condition(RATIO, "Complete")["message"]
    sim.kubernetes.wake_job_controller()
    await sim.until(lambda: sim.phase(RATIO) == "Running")


@simulated
async def test_a_silent_dask_operator_is_named(sim: Simulation) -> None:
    sim.kubernetes.dask_operator_works = False
    sim.server.put(builders.job())
    await sim.until(lambda: bool(sim.children("DaskCluster")))
    made_at = virtual_time.clock()
    await sim.quiet(28)
    assert sim.condition(RATIO, "ClusterReady")["reason"] == "WaitingForWorkers"
    await sim.until(lambda: sim.condition(RATIO, "ClusterReady")["reason"] == "DaskOperatorSilent", 5)
    assert 29 < virtual_time.clock() - made_at < 33
    assert the(sim, "DaskCluster")["metadata"]["name"] in sim.condition(RATIO, "ClusterReady")["message"]
    sim.kubernetes.wake_dask_operator()
    await sim.until(lambda: sim.phase(RATIO) == "Running")


@simulated
async def test_scaling_changes_the_replicas_and_nothing_else(sim: Simulation) -> None:
    await make_running(sim)
    await sim.quiet()
    before, driver, writes = the(sim, "DaskCluster"), the(sim, "Job"), sim.writes
    sim.server.edit(RATIO, workers={"minimum": 1, "maximum": 3})
    await sim.until(
        lambda: sim.status(RATIO)["workers"] | {"selector": ""} == {"desired": 3, "ready": 3, "selector": ""}
    )
    await sim.quiet()
    after = the(sim, "DaskCluster")
    assert (before["spec"]["worker"].pop("replicas"), after["spec"]["worker"].pop("replicas")) == (2, 3)
    assert after["spec"] == before["spec"]
    assert the(sim, "Job") == driver
    changed = {(write.verb, write.kind) for write in sim.operator.cluster.writes[writes:]}
    assert changed == {("apply", "DaskCluster"), ("status", "AnalysisJob")}
    sim.server.edit(RATIO, workers={"minimum": 1, "maximum": 1})
    await sim.until(lambda: sim.status(RATIO)["workers"]["ready"] == 1)
    assert parts(sim) == ["driver", "scheduler", "worker"]


@simulated
async def test_a_job_waits_for_its_smallest_number_of_workers(sim: Simulation) -> None:
    sim.kubernetes.steps["worker"] = [(0.3, "unschedulable", {})]
    sim.server.put(builders.job(workers={"minimum": 2, "maximum": 2}))
    await sim.until(lambda: sim.condition(RATIO, "ClusterReady").get("reason") == "Unschedulable")
    first, second = (builders.key_of(pod) for pod in sim.children("Pod") if "-worker-" in pod["metadata"]["name"])
    sim.kubernetes.move(first, "ready")
    await sim.until(lambda: sim.status(RATIO)["workers"]["ready"] == 1)
    assert sim.phase(RATIO) == "Starting"
    sim.kubernetes.move(second, "ready")
    await sim.until(lambda: sim.phase(RATIO) == "Running")


@pytest.mark.parametrize("kind", ["Job", "PersistentVolumeClaim", "NetworkPolicy"])
@simulated
async def test_a_refused_driver_is_a_condition_and_recovers(sim: Simulation, kind: str) -> None:
    sim.operator.cluster.refusals[kind] = refusal()
    sim.server.put(builders.job())
    await sim.until(lambda: sim.condition(RATIO, "InputReady").get("reason") == "Rejected")
    assert sim.condition(RATIO, "Complete")["message"] == refusal().message
    told = sim.operator.cluster.written("status")
    await sim.quiet(300)
    assert sim.operator.cluster.written("status") == told
    del sim.operator.cluster.refusals[kind]
    await sim.until(lambda: sim.phase(RATIO) == "Running")
    assert sim.status(RATIO)["run"] == 1


@simulated
async def test_a_refused_dask_cluster_is_a_condition_and_recovers(sim: Simulation) -> None:
    sim.operator.cluster.refusals["DaskCluster"] = refusal()
    sim.server.put(builders.job())
    await sim.until(lambda: sim.condition(RATIO, "ClusterReady").get("reason") == "Rejected")
    assert sim.condition(RATIO, "ClusterReady")["message"] == refusal().message
    del sim.operator.cluster.refusals["DaskCluster"]
    await sim.until(lambda: sim.phase(RATIO) == "Running")


@pytest.mark.parametrize("gone", [Key("AnalysisWorkflow", "", "sase-delivery"), Key("DataSource", "", "facility")])
@simulated
async def test_a_running_job_ends_though_its_catalogue_entry_is_gone(sim: Simulation, gone: Key) -> None:
    sim.kubernetes.steps["driver"] = until_end(60, "succeeded", message=complete_words())
    await make_running(sim)
    await sim.quiet(10)
    if gone.kind == "DataSource":  # what it owns is not of interest here
        for body in sim.server.of_kind("PersistentVolume") + sim.server.of_kind("PersistentVolumeClaim"):
            body["metadata"].pop("ownerReferences", None)
            sim.server.put(body)
    sim.server.delete(gone)
    await sim.quiet(20)
    assert parts(sim) == ["driver", "scheduler", "worker", "worker"]
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")
    await sim.quiet()
    assert sim.status(RATIO)["outputPath"].endswith("/usr/results/ratio")
    assert sim.children("DaskCluster") == []


@simulated
async def test_deleting_takes_everything_but_shared_storage(sim: Simulation) -> None:
    await make_running(sim)
    before = sim.writes
    sim.server.delete(RATIO)
    await sim.quiet()
    assert kinds(sim) == STORAGE
    assert sim.writes == before


@simulated
async def test_progress_is_written_seldom(sim: Simulation) -> None:
    await make_running(sim)
    await sim.quiet(20)
    uid, before = sim.server.objects[RATIO]["metadata"]["uid"], sim.operator.cluster.written("status")
    for done in range(60):
        report = parse_report({"progress": {"total": 60, "done": done}})
        assert report is not None
        sim.operator.store.reports[uid] = report
        sim.operator.queue.add(RATIO)
        await asyncio.sleep(0.5)
    assert 5 <= sim.operator.cluster.written("status") - before <= 11, "once in three seconds"
    await sim.quiet(5)
    assert sim.status(RATIO)["progress"] == {"total": 60, "done": 59, "failed": 0}


@simulated
async def test_status_writes_of_a_whole_job_are_few(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = until_end(15, "succeeded", message=complete_words())
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")
    await sim.quiet()
    assert sim.operator.cluster.written("status") <= 6
    children = [write for write in sim.operator.cluster.writes if write.verb in ("create", "apply")]
    assert len(children) == len(set(children))


@simulated
async def test_two_jobs_of_one_name_in_two_namespaces(sim: Simulation) -> None:
    other = Key("AnalysisJob", "proposal-1", "ratio")
    sim.server.put(builders.job())
    sim.server.put(builders.job(namespace="proposal-1"))
    await sim.until(lambda: sim.phase(RATIO) == sim.phase(other) == "Running")
    sim.server.delete(RATIO)
    await sim.quiet()
    assert sim.phase(other) == "Running"
    assert the(sim, "DaskCluster")["metadata"]["namespace"] == "proposal-1"


@simulated
async def test_a_job_held_by_another_hand_starts_no_workers(sim: Simulation) -> None:
    """A queueing system may hold the driver: its pod does not come, and so no worker does."""
    waiting: list[Step] = [(0.3, "unscheduled", {})]
    sim.kubernetes.steps["driver"] = waiting
    sim.server.put(builders.job())
    await sim.quiet(120)
    assert sim.phase(RATIO) == "Starting"
    assert sim.operator.cluster.written("apply", "DaskCluster") == 0
    (pod,) = sim.children("Pod")
    for _, stage, told in READY:
        sim.kubernetes.move(builders.key_of(pod), stage, told)
    await sim.until(lambda: sim.phase(RATIO) == "Running")
