"""An AnalysisJob from its creation to its end: driver Job, DaskCluster, result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.control_plane.api import (
    Api,
    Object,
    conditions,
    describe,
    eventually,
    reason,
    settled,
    wait_for_phase,
    wait_for_reason,
)
from tests.control_plane.fixtures import ControlPlane, new_namespace
from tests.control_plane.kubelet import End, Stage
from tests.control_plane.objects import job, last_words, made_for, owned_by, uids, wait_for_data_claims

pytestmark = pytest.mark.usefixtures("operator", "unheard")


@pytest.fixture(scope="module")
def unheard(control_plane: ControlPlane) -> Iterator[str]:
    """Return a namespace with a job whose DaskCluster nobody acts on."""
    with new_namespace(control_plane) as name:
        control_plane.dask.silent.add(name)
        control_plane.api.create(job(name))
        yield name


def get(api: Api, namespace: str, name: str = "reduce") -> Object:
    found = api.get("AnalysisJob", namespace, name)
    assert found is not None
    return found


def driver_pods(api: Api, namespace: str) -> list[Object]:
    return [pod for pod in api.list("Pod", namespace) if "job-name" in pod["metadata"]["labels"]]


def end_driver(plane: ControlPlane, namespace: str, end: End) -> None:
    """End the driver's latest try."""
    tries = sorted(driver_pods(plane.api, namespace), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    plane.kubelet.end(namespace, tries[-1]["metadata"]["name"], end)


def kinds(objects: list[Object]) -> list[str]:
    return sorted(o["kind"] for o in objects)


def test_created_running_complete_deleted(control_plane: ControlPlane, namespace: str) -> None:
    api, kubelet = control_plane.api, control_plane.kubelet
    kubelet.plan(namespace, "driver", until=Stage.STARTED)
    api.create(job(namespace))

    # The driver checks its input first: there is nothing of Dask before it is ready.
    found = wait_for_reason(api, job(namespace), "InputReady", "Unknown CheckingInput")
    assert reason(found, "ClusterReady") == "False WaitingForInput"
    assert not api.list("DaskCluster", namespace)
    assert found["status"]["workers"]["desired"] == 0

    kubelet.progress[namespace] = progress(done=1)
    kubelet.plan(namespace, "worker", until=Stage.BOUND)
    kubelet.plan(namespace, "driver", until=Stage.READY)
    found = wait_for_reason(api, job(namespace), "ClusterReady", "False WaitingForWorkers")
    assert reason(found, "InputReady") == "True Checked"
    assert found["status"]["workers"] | {"selector": ""} == {"desired": 2, "ready": 0, "selector": ""}

    kubelet.plan(namespace, "worker", until=Stage.READY)
    found = wait_for_phase(api, job(namespace), "Running")
    uid = found["metadata"]["uid"]
    assert reason(found, "Progressing") == "True Running"
    assert found["status"]["workers"]["ready"] == 2
    workers = api.list("Pod", namespace, labels=found["status"]["workers"]["selector"])
    assert len(workers) == 2

    children = made_for(api, namespace)
    owned = owned_by(children, found)
    assert kinds(owned) == ["DaskCluster", "Job", "NetworkPolicy"]
    (source,) = api.list("DataSource")
    assert kinds(owned_by(children, source)) == [*["PersistentVolume"] * 2, *["PersistentVolumeClaim"] * 2]
    lasting = uids(owned_by(children, source))

    # Progress comes from the driver, through the API server's proxy.
    def told() -> bool:
        now = get(api, namespace)["status"]
        assert now.get("progress") == {"total": 4, "done": 3, "failed": 0}, now
        assert now["timing"] == {"read": 1.5, "compute": 2.5, "write": 0.5}
        return True

    kubelet.progress[namespace] = progress(done=3)
    eventually("the progress is told", told)

    end_driver(control_plane, namespace, End(0, last_words()))
    found = wait_for_phase(api, job(namespace), "Succeeded")
    status = found["status"]
    assert {t: reason(found, t) for t in conditions(found)} == {
        "Admitted": "True Admitted",
        "InputReady": "True Checked",
        "ClusterReady": "False Released",
        "Progressing": "False Ended",
        "OutputCommitted": "True Committed",
        "Complete": "True Complete",
    }
    assert status["outputPath"] == "/gpfs/exfel/exp/XMPL/201750/p700000/usr/results/sase-delivery"
    assert status["summary"] == {"suppression": {"value": 0.02, "uncertainty": 0.001, "unit": ""}}
    assert status["progress"] == {"total": 4, "done": 4, "failed": 0}
    assert [result["name"] for result in status["results"]] == ["result.json"]
    assert status["provenance"]["workers"] == ["worker-0", "worker-1"]
    assert status["provenance"]["manifestSha256"] == "3" * 64
    assert status["startedAt"] <= status["finishedAt"]

    # The workers go, the driver's Job stays with its log.
    eventually("the DaskCluster is gone", lambda: not api.list("DaskCluster", namespace))
    eventually("its pods are gone", lambda: len(api.list("Pod", namespace)) == 1)
    assert kinds(owned_by(made_for(api, namespace), found)) == ["Job"]
    events = [e for e in api.list("Event", namespace) if e["regarding"].get("uid") == uid]
    assert sorted((e["type"], e["reason"]) for e in events) == [("Normal", "Complete"), ("Normal", "Running")]

    api.delete("AnalysisJob", namespace, "reduce")
    eventually("its children are gone", lambda: not owned_by(made_for(api, namespace), found))
    eventually("the driver's pod is gone", lambda: not api.list("Pod", namespace))
    left = uids(made_for(api, namespace))
    assert {key: uid for key, (uid, _) in left.items()} == {key: uid for key, (uid, _) in lasting.items()}


def progress(done: int) -> Object:
    return {
        "stage": "Running",
        "inputReady": True,
        "progress": {"total": 4, "done": done, "failed": 0},
        "workers": 2,
        "timing": {"read": 1.5, "compute": 2.5, "write": 0.5},
    }


def test_what_the_driver_is_told(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    control_plane.kubelet.plan(namespace, "driver", until=Stage.CREATED)
    api.create(job(namespace))
    (driver,) = eventually("the driver's Job", lambda: api.list("Job", namespace))
    found = get(api, namespace)
    (container,) = driver["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    told: dict[str, Any] = json.loads(environment["PANOSC_JOB"])
    path = "/gpfs/exfel/exp/XMPL/201750/p700000"
    assert told == {
        "name": "reduce",
        "namespace": namespace,
        "uid": found["metadata"]["uid"],
        "run": 1,
        "workflow": {"name": "sase-delivery", "version": told["workflow"]["version"]},
        "parameters": {},
        "inputs": [
            {"proposal": "700000", "run": run, "path": f"{path}/raw/r{run:04d}"} for run in (8, 9)
        ],
        "output": {"path": f"{path}/usr/results/sase-delivery", "onExists": "Overwrite"},
        "scheduler": told["scheduler"],
        "workers": {"minimum": 2, "maximum": 2},
        "image": "localhost/panosc/analysis:0.1.0",
    }  # fmt: skip
    control_plane.kubelet.plan(namespace, "driver", until=Stage.READY)
    (cluster,) = eventually("the DaskCluster", lambda: api.list("DaskCluster", namespace))
    assert told["scheduler"] == f"tcp://{cluster['metadata']['name']}-scheduler.{namespace}.svc:8786"


def test_same_name_in_two_namespaces(control_plane: ControlPlane, namespace: str, other_namespace: str) -> None:
    api = control_plane.api
    for where, done in ((namespace, 1), (other_namespace, 2)):
        control_plane.kubelet.progress[where] = progress(done=done)
        api.create(job(where))
    for where, done in ((namespace, 1), (other_namespace, 2)):
        wait_for_phase(api, job(where), "Running")
        eventually(
            "each has its own progress",
            lambda where=where, done=done: (  # type: ignore[misc]
                get(api, where)["status"].get("progress", {}).get("done") == done
            ),
        )
    wait_for_data_claims(api, other_namespace)
    before = settled("the other job", lambda: uids(made_for(api, other_namespace)))
    two = get(api, other_namespace)

    one = get(api, namespace)
    api.delete("AnalysisJob", namespace, "reduce")
    eventually("its children are gone", lambda: not owned_by(made_for(api, namespace), one))
    eventually("its pods are gone", lambda: not api.list("Pod", namespace))

    assert uids(made_for(api, other_namespace)) == before
    assert uids([get(api, other_namespace)]) == uids([two])


@pytest.mark.parametrize("why", ["RunNotFound", "SourceMissing"])
def test_the_driver_refuses_the_input(control_plane: ControlPlane, namespace: str, why: str) -> None:
    api = control_plane.api
    words = last_words("Failed", why, "Run 9 has no XGM: choose another run.")
    control_plane.kubelet.plan(namespace, "driver", answers=False, end=End(2, words))
    api.create(job(namespace))
    found = wait_for_phase(api, job(namespace), "Failed")
    assert reason(found, "InputReady") == f"False {why}"
    assert reason(found, "Failed") == f"True {why}"
    assert conditions(found)["Complete"]["message"] == "Run 9 has no XGM: choose another run."
    eventually("the driver's Job is removed", lambda: not api.list("Job", namespace))
    eventually("its pod is removed", lambda: not api.list("Pod", namespace))
    assert not api.list("DaskCluster", namespace)
    assert found["status"]["run"] == 1


def test_the_data_check_fails(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    message = json.dumps({"reason": "ProposalForbidden", "message": "Ask the main proposer."})
    control_plane.kubelet.plan(namespace, "driver", check=End(2, message))
    api.create(job(namespace))
    found = wait_for_phase(api, job(namespace), "Failed")
    assert reason(found, "InputReady") == "False ProposalForbidden"
    assert conditions(found)["Failed"]["message"] == "Ask the main proposer."
    eventually("the driver's pod is removed", lambda: not api.list("Pod", namespace))
    assert not api.list("DaskCluster", namespace)


def test_a_failed_workflow_keeps_its_words(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(job(namespace, backoffLimit=0))
    wait_for_phase(api, job(namespace), "Running")
    end_driver(control_plane, namespace, End(1, last_words("Failed", "WorkflowFailed", "Division by zero.")))
    found = wait_for_phase(api, job(namespace), "Failed")
    assert reason(found, "Failed") == "True WorkflowFailed"
    assert reason(found, "InputReady") == "True Checked"
    assert conditions(found)["Complete"]["message"] == "Division by zero."
    assert "outputPath" not in found["status"]
    eventually("the DaskCluster is gone", lambda: not api.list("DaskCluster", namespace))
    # Its log may be read.
    assert len(driver_pods(api, namespace)) == 1


def test_a_driver_that_crashes_is_started_again(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(job(namespace, backoffLimit=1))
    wait_for_phase(api, job(namespace), "Running")
    end_driver(control_plane, namespace, End(137, "Killed", reason="OOMKilled"))
    # The Job controller waits for 10 s.
    eventually("the second try", lambda: len(driver_pods(api, namespace)) == 2, 40)
    found = wait_for_phase(api, job(namespace), "Running")
    assert found["status"]["run"] == 1
    end_driver(control_plane, namespace, End(0, last_words()))
    wait_for_phase(api, job(namespace), "Succeeded")


def test_a_driver_job_deleted_by_hand_is_the_next_run(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(job(namespace))
    wait_for_phase(api, job(namespace), "Running")
    (driver,) = api.list("Job", namespace)
    (cluster,) = api.list("DaskCluster", namespace)
    api.delete("Job", namespace, driver["metadata"]["name"])

    def next_run() -> Object:
        found = get(api, namespace)
        assert (found["status"]["phase"], found["status"]["run"]) == ("Running", 2), describe(found)
        return found

    eventually("the next run", next_run)
    (next_driver,) = api.list("Job", namespace)
    assert next_driver["metadata"]["name"] != driver["metadata"]["name"]
    eventually(
        "one DaskCluster, of this run",
        lambda: (
            [c["metadata"]["name"] != cluster["metadata"]["name"] for c in api.list("DaskCluster", namespace)] == [True]
        ),
    )


def test_scaled_with_kubectl(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    path = f"/apis/analysis.panosc.eu/v1alpha1/namespaces/{namespace}/analysisjobs/reduce/scale"
    control_plane.kubelet.plan(namespace, "driver", until=Stage.CREATED)
    api.create(job(namespace))
    # It answers before anybody has written a status.
    scale = json.loads(api.text(path))
    assert scale["spec"]["replicas"] == 2
    assert scale["status"]["replicas"] == 0

    control_plane.kubelet.plan(namespace, "driver", until=Stage.READY)
    wait_for_phase(api, job(namespace), "Running")
    (before,) = api.list("Job", namespace)
    for replicas in (3, 2):
        api.kubectl("scale", f"--namespace={namespace}", "ajob/reduce", f"--replicas={replicas}")

        def reached(replicas: int = replicas) -> bool:
            (cluster,) = api.list("DaskCluster", namespace)
            assert cluster["spec"]["worker"]["replicas"] == replicas
            now = json.loads(api.text(path))
            assert (now["spec"]["replicas"], now["status"]["replicas"]) == (replicas, replicas), describe(
                get(api, namespace)
            )
            assert len(api.list("Pod", namespace, labels=now["status"]["selector"])) == replicas
            return True

        eventually(f"there are {replicas} workers", reached)
    assert api.list("Job", namespace)[0]["metadata"]["uid"] == before["metadata"]["uid"]
    refused = api.kubectl("scale", f"--namespace={namespace}", "ajob/reduce", "--replicas=1", check=False)
    assert "workers.minimum must not be larger than workers.maximum" in refused


def test_a_silent_dask_operator_is_named(control_plane: ControlPlane, unheard: str) -> None:
    """The job waits since the first test of this file, for it takes half a minute."""
    found = wait_for_reason(control_plane.api, job(unheard), "ClusterReady", "False DaskOperatorSilent", seconds=45)
    assert "dask-kubernetes" in conditions(found)["ClusterReady"]["message"]
