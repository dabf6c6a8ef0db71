"""Lives of sessions, from the object's creation to its end, in virtual time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from panosc_operator.domain import names
from panosc_operator.domain.seen import Key

from tests.unit.operator import builders
from tests.unit.operator.builders import NAMESPACE, Body
from tests.unit.operator.simulation import READY, Simulation, Step, refusal, simulated

LOOK = Key("AnalysisSession", NAMESPACE, "look")
LASTING = ["NetworkPolicy", "Pod", "Secret", "Service"]
SHARED = ["PersistentVolume", "PersistentVolume"] + ["PersistentVolumeClaim"] * 3


def kinds(sim: Simulation) -> list[str]:
    """Return the kind of every object that the operator made."""
    return sorted(key.kind for key in sim.server.objects if not key.kind.startswith(("Analysis", "DataSource")))


def only_pod(sim: Simulation) -> Body:
    (pod,) = sim.children("Pod")
    return pod


def only_pod_key(sim: Simulation) -> Key:
    return builders.key_of(only_pod(sim))


def token(sim: Simulation) -> str:
    (secret,) = sim.children("Secret")
    return str(secret["data"]["token"])


async def make_ready(sim: Simulation, **spec: Any) -> None:
    sim.server.put(builders.session(**spec))
    await sim.until(lambda: sim.phase(LOOK) == "Ready")


@simulated
async def test_create_to_ready(sim: Simulation) -> None:
    await make_ready(sim)
    assert kinds(sim) == sorted(LASTING + SHARED)
    status = sim.status(LOOK)
    assert {condition["type"]: condition["status"] for condition in status["conditions"]} == dict.fromkeys(
        ("Admitted", "DataReady", "Scheduled", "PodReady", "Ready"), "True"
    )
    assert status["run"] == 1
    assert status["node"] == "node-1"
    assert status["podName"] == only_pod(sim)["metadata"]["name"]
    service = sim.children("Service")[0]["metadata"]["name"]
    assert status["url"] == f"http://{service}.{NAMESPACE}.svc:8888/"
    assert status["tokenSecret"] == sim.children("Secret")[0]["metadata"]["name"]
    startup = status["startup"]
    assert startup["queuedAt"] < startup["scheduledAt"] < startup["startedAt"] < startup["readyAt"]
    assert [notice.reason for notice in sim.operator.cluster.events] == ["Ready"]


@simulated
async def test_status_writes_of_a_start_are_few_and_nothing_is_written_twice(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    cluster = sim.operator.cluster
    assert cluster.written("status") <= 3
    assert cluster.written("delete") == 0
    children = [write for write in cluster.writes if write.verb != "status"]
    assert len(children) == len(set(children)) == len(LASTING + SHARED)
    assert cluster.reads == []


@simulated
async def test_nothing_is_written_when_nothing_changed(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    before = sim.writes
    sim.operator.sweeper.enqueue_all()
    await sim.quiet(700)  # two sweeps
    assert sim.writes == before
    await sim.restart()
    await sim.quiet(700)
    assert sim.writes == 0


@simulated
async def test_the_secret_stays_while_the_session_runs(sim: Simulation) -> None:
    await make_ready(sim)
    first = token(sim)
    sim.operator.sweeper.enqueue_all()
    await sim.quiet()
    assert token(sim) == first


@simulated
async def test_deleting_takes_everything_but_home_and_shared_storage(sim: Simulation) -> None:
    await make_ready(sim)
    home = next(c for c in sim.children("PersistentVolumeClaim") if c["metadata"]["name"].startswith("home-"))
    before = sim.writes
    sim.server.delete(LOOK)
    await sim.quiet()
    assert kinds(sim) == SHARED
    assert sim.writes == before, "the garbage collector does it, whether the operator runs or not"
    await make_ready(sim)
    assert home in sim.children("PersistentVolumeClaim")


@pytest.mark.parametrize("reason", ["ProposalNotFound", "ProposalForbidden"])
@simulated
async def test_what_the_data_check_finds_ends_the_session(sim: Simulation, reason: str) -> None:
    finding = json.dumps({"reason": reason, "message": "/gpfs/exfel/exp/XMPL/201750/p700000/raw is not there"})
    script: list[Step] = [(0.3, "scheduled", {}), (1.5, "check-failed", {"message": finding})]

    sim.kubernetes.every_pod(script)
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Failed")
    await sim.quiet()
    data_ready = sim.condition(LOOK, "DataReady")
    assert (data_ready["status"], data_ready["reason"]) == ("False", reason)
    assert "p700000/raw" in data_ready["message"]
    assert sim.condition(LOOK, "Ready")["reason"] == reason
    assert sim.children("Pod") == []
    assert sim.status(LOOK)["run"] == 1
    assert "url" not in sim.status(LOOK)
    assert [notice.reason for notice in sim.operator.cluster.events] == [reason]
    before = sim.writes
    await sim.restart()
    await sim.quiet(700)
    assert sim.children("Pod") == [], "an end is final"
    assert (before > 0, sim.writes) == (True, 0)


@simulated
async def test_a_data_check_that_crashes_is_told_as_such(sim: Simulation) -> None:
    script: list[Step] = [(0.3, "scheduled", {}), (1.5, "check-failed", {"message": "Killed", "reason": "OOMKilled"})]

    sim.kubernetes.every_pod(script)
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Failed")
    assert sim.condition(LOOK, "DataReady")["reason"] == "DataCheckFailed"
    assert "OOMKilled" in sim.condition(LOOK, "DataReady")["message"]


@simulated
async def test_a_container_that_ends_before_it_was_ready_failed_to_start(sim: Simulation) -> None:
    script: list[Step] = [(0.3, "scheduled", {}), (2.0, "failed", {"message": "no module named jupyterlab"})]

    sim.kubernetes.every_pod(script)
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Failed")
    await sim.quiet()
    assert sim.condition(LOOK, "Ready")["reason"] == "StartFailed"
    assert "no module named jupyterlab" in sim.condition(LOOK, "Ready")["message"]
    assert sim.children("Pod") == []


@simulated
async def test_an_edit_after_a_failure_is_a_new_try(sim: Simulation) -> None:
    failing: list[Step] = [(2.0, "failed", {})]

    sim.kubernetes.every_pod(failing)
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Failed")
    await sim.quiet()
    sim.kubernetes.every_pod(READY)
    sim.server.edit(LOOK, flavour="large")
    await sim.until(lambda: sim.phase(LOOK) == "Ready")
    assert sim.status(LOOK)["run"] == 2
    assert only_pod(sim)["metadata"]["name"].endswith("-2")


@pytest.mark.parametrize("stage", ["failed", "evicted"])
@simulated
async def test_a_pod_lost_after_it_was_ready_is_followed_by_another(sim: Simulation, stage: str) -> None:
    await make_ready(sim)
    await sim.quiet()
    first, first_token = only_pod(sim), token(sim)
    sim.kubernetes.move(only_pod_key(sim), stage, {"exit_code": 137, "reason": "OOMKilled"})
    await sim.until(lambda: sim.phase(LOOK) == "Ready" and sim.status(LOOK)["run"] == 2)
    await sim.quiet()
    assert only_pod(sim)["metadata"]["name"] != first["metadata"]["name"]
    assert token(sim) != first_token
    assert kinds(sim) == sorted(LASTING + SHARED)
    assert sim.status(LOOK)["startup"]["queuedAt"] == only_pod(sim)["metadata"]["creationTimestamp"]
    reasons = [notice.reason for notice in sim.operator.cluster.events]
    assert reasons[0] == reasons[-1] == "Ready"


@simulated
async def test_a_pod_deleted_while_it_runs_is_followed_by_another(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    sim.server.delete(only_pod_key(sim))
    await sim.until(lambda: sim.condition(LOOK, "PodReady").get("reason") == "Terminating")
    assert sim.phase(LOOK) == "Starting"
    await sim.until(lambda: sim.phase(LOOK) == "Ready")
    assert sim.status(LOOK)["run"] == 2
    assert only_pod(sim)["metadata"]["name"].endswith("-2")


@simulated
async def test_a_server_that_exits_stops_the_session(sim: Simulation) -> None:
    await make_ready(sim)
    sim.kubernetes.move(only_pod_key(sim), "succeeded")
    await sim.until(lambda: sim.phase(LOOK) == "Stopped")
    await sim.quiet()
    assert sim.condition(LOOK, "Ready")["reason"] == "ServerExited"
    assert sim.children("Pod") == []
    assert len(sim.children("PersistentVolumeClaim")) == 3


@simulated
async def test_a_probe_that_fails_for_a_moment_does_not_restart(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    ready_at = sim.status(LOOK)["startup"]["readyAt"]
    pod = only_pod_key(sim)
    sim.kubernetes.move(pod, "unready")
    await sim.until(lambda: sim.phase(LOOK) == "Starting")
    assert sim.condition(LOOK, "Ready")["status"] == "False"
    sim.kubernetes.move(pod, "ready")
    await sim.until(lambda: sim.phase(LOOK) == "Ready")
    assert sim.status(LOOK)["run"] == 1
    assert sim.status(LOOK)["startup"]["readyAt"] == ready_at


@pytest.mark.parametrize(
    ("step", "condition", "reason"),
    [
        ((0.3, "unschedulable", {}), "Scheduled", "Unschedulable"),
        ((0.3, "waiting", {"reason": "ImagePullBackOff"}), "PodReady", "ImagePullBackOff"),
        ((0.3, "scheduled", {}), "PodReady", "Preparing"),
        ((0.3, "starting", {}), "PodReady", "Starting"),
        ((0.3, "unscheduled", {}), "Scheduled", "Waiting"),
    ],
)
@simulated
async def test_a_start_that_hangs_says_why(sim: Simulation, step: Step, condition: str, reason: str) -> None:
    sim.kubernetes.every_pod([step])
    sim.server.put(builders.session())
    await sim.until(lambda: sim.condition(LOOK, condition).get("reason") == reason)
    assert sim.phase(LOOK) == "Starting"
    before = sim.writes
    await sim.quiet(700)
    assert sim.writes == before


@pytest.mark.parametrize("kind", ["Pod", "PersistentVolumeClaim", "Service"])
@pytest.mark.parametrize("code", [403, 422])
@simulated
async def test_what_the_api_server_refuses_is_a_condition_and_recovers(sim: Simulation, kind: str, code: int) -> None:
    sim.operator.cluster.refusals[kind] = refusal(code)
    sim.server.put(builders.session())
    await sim.until(lambda: sim.condition(LOOK, "PodReady").get("reason") == "Rejected")
    ready = sim.condition(LOOK, "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "Rejected", refusal().message)
    assert sim.children("Pod") == []
    told = sim.operator.cluster.written("status")
    await sim.quiet(300)
    assert sim.operator.cluster.written("status") == told
    del sim.operator.cluster.refusals[kind]
    await sim.until(lambda: sim.phase(LOOK) == "Ready")
    await sim.quiet()
    assert kinds(sim) == sorted(LASTING + SHARED)


@simulated
async def test_errors_of_the_api_server_are_outlasted(sim: Simulation) -> None:
    sim.operator.cluster.failures += [
        refusal(500, "etcd is slow"),
        refusal(429, "later"),
        refusal(0, "no answer"),
    ]
    await make_ready(sim)
    await sim.quiet()
    assert sim.operator.cluster.failures == []
    assert kinds(sim) == sorted(LASTING + SHARED)


@simulated
async def test_a_released_volume_is_deleted_and_made_again(sim: Simulation) -> None:
    await make_ready(sim)
    sim.server.delete(LOOK)
    await sim.quiet()
    claim = next(c for c in sim.children("PersistentVolumeClaim") if "-raw-" in c["metadata"]["name"])
    volume = Key("PersistentVolume", "", claim["spec"]["volumeName"])
    old = sim.server.objects[volume]["metadata"]["uid"]
    sim.server.delete(builders.key_of(claim))
    await sim.until(lambda: sim.server.objects[volume]["status"]["phase"] == "Released")
    await make_ready(sim)
    await sim.until(lambda: sim.server.objects[volume].get("status") == {"phase": "Bound"})
    assert sim.server.objects[volume]["metadata"]["uid"] != old
    assert builders.key_of(claim) in sim.server.objects


@simulated
async def test_a_claim_that_lost_its_volume_is_named_and_made_again_once_it_is_gone(sim: Simulation) -> None:
    await make_ready(sim)
    sim.server.delete(LOOK)
    await sim.quiet()
    claim = next(c for c in sim.children("PersistentVolumeClaim") if "-usr-" in c["metadata"]["name"])
    sim.server.delete(Key("PersistentVolume", "", claim["spec"]["volumeName"]))
    await sim.until(lambda: sim.server.objects[builders.key_of(claim)]["status"]["phase"] == "Lost")
    sim.server.put(builders.session())
    await sim.until(lambda: sim.condition(LOOK, "Admitted").get("reason") == "DataClaimLost")
    assert claim["metadata"]["name"] in sim.condition(LOOK, "Admitted")["message"]
    assert sim.children("Pod") == []
    sim.server.delete(builders.key_of(claim))
    await sim.until(lambda: sim.phase(LOOK) == "Ready")
    await sim.quiet()
    again = sim.server.objects[builders.key_of(claim)]
    assert again["status"]["phase"] == "Bound"
    assert again["metadata"]["uid"] != claim["metadata"]["uid"]
    assert kinds(sim) == sorted(LASTING + SHARED)


@simulated
async def test_a_session_whose_environment_is_gone_keeps_running(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    before, pod = sim.writes, only_pod(sim)
    sim.server.delete(Key("AnalysisEnvironment", "", "jupyter"))
    await sim.quiet(700)
    assert sim.writes == before
    assert only_pod(sim) == pod
    await sim.restart()
    await sim.quiet(700)
    assert only_pod(sim) == pod
    assert sim.phase(LOOK) == "Ready"


@simulated
async def test_an_ended_session_stays_ended_while_its_environment_is_gone_for_a_while(sim: Simulation) -> None:
    await make_ready(sim)
    sim.kubernetes.move(only_pod_key(sim), "succeeded")
    await sim.until(lambda: sim.phase(LOOK) == "Stopped")
    await sim.quiet()
    sim.server.delete(Key("AnalysisEnvironment", "", "jupyter"))
    await sim.quiet()
    sim.server.put(builders.environment())
    await sim.quiet()
    assert sim.phase(LOOK) == "Stopped"
    assert sim.children("Pod") == []


@simulated
async def test_a_session_waits_for_its_environment(sim: Simulation) -> None:
    environment = sim.server.body(Key("AnalysisEnvironment", "", "jupyter"))
    sim.server.delete(builders.key_of(environment))
    sim.server.put(builders.session())
    await sim.until(lambda: sim.condition(LOOK, "Admitted").get("reason") == "UnknownEnvironment")
    assert kinds(sim) == []
    sim.server.put(environment)
    await sim.until(lambda: sim.phase(LOOK) == "Ready")


@simulated
async def test_two_sessions_of_one_name_in_two_namespaces(sim: Simulation) -> None:
    sim.server.put(builders.session())
    sim.server.put(builders.session(namespace="proposal-1"))
    other = Key("AnalysisSession", "proposal-1", "look")
    await sim.until(lambda: sim.phase(LOOK) == sim.phase(other) == "Ready")
    names_of_pods = [pod["metadata"]["name"] for pod in sim.children("Pod")]
    assert len(set(names_of_pods)) == 2, "names tell the sessions apart even in a list over all namespaces"
    sim.server.delete(LOOK)
    await sim.quiet()
    assert sim.phase(other) == "Ready"
    assert only_pod(sim)["metadata"]["namespace"] == "proposal-1"


@simulated
async def test_a_pod_of_another_namespace_with_our_labels_is_not_taken_for_ours(sim: Simulation) -> None:
    """Else whoever knows a session's uid could end it from a namespace of their own."""

    await make_ready(sim)
    await sim.quiet()
    pod, before = only_pod(sim), sim.writes
    forged = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "forged",
            "namespace": "elsewhere",
            "labels": pod["metadata"]["labels"] | {names.RUN: "99"},
        },
        "spec": pod["spec"],
    }
    sim.server.put(forged)
    await sim.quiet()
    assert sim.writes == before
    assert sim.status(LOOK)["run"] == 1


@simulated
async def test_the_home_of_an_owner_is_shared_and_one_that_is_given_is_used(sim: Simulation) -> None:
    sim.server.put(builders.session())
    sim.server.put(builders.session("second"))
    sim.server.put(builders.session("third", home={"claim": "my-own"}))
    await sim.until(lambda: len(sim.children("Pod")) == 3)
    homes = [c for c in sim.children("PersistentVolumeClaim") if c["metadata"]["name"].startswith("home-")]
    assert len(homes) == 1
    assert "ownerReferences" not in homes[0]["metadata"]
    used = [
        volume["persistentVolumeClaim"]["claimName"]
        for pod in sim.children("Pod")
        for volume in pod["spec"]["volumes"]
        if volume["name"] == "home"
    ]
    assert sorted(used) == sorted([homes[0]["metadata"]["name"]] * 2 + ["my-own"])


@simulated
async def test_an_edit_of_a_running_session_leaves_its_pod_alone(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    pod = only_pod(sim)
    sim.server.edit(LOOK, flavour="large")
    await sim.until(lambda: sim.status(LOOK)["observedGeneration"] == 2)
    await sim.quiet()
    assert only_pod(sim) == pod


@simulated
async def test_a_change_of_the_port_is_applied_to_what_lasts_alone(sim: Simulation) -> None:
    await make_ready(sim)
    await sim.quiet()
    pod, before = only_pod(sim), sim.writes
    sim.server.edit(Key("AnalysisEnvironment", "", "jupyter"), port=9999)
    await sim.quiet()
    changed = [(write.verb, write.kind) for write in sim.operator.cluster.writes[before:]]
    assert sorted(changed) == [
        ("apply", "NetworkPolicy"), ("apply", "Service"), ("status", "AnalysisSession"),
    ]  # fmt: skip
    assert only_pod(sim) == pod
