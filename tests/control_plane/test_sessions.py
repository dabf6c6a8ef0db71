"""An AnalysisSession from its creation to its end, against a real API server."""

from __future__ import annotations

import base64
import json

import pytest
from panosc_operator.domain.names import home_claim
from panosc_operator.domain.tokens import session_token

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
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.kubelet import End, Stage
from tests.control_plane.objects import copy_of, made_for, owned_by, session, uids, wait_for_data_claims
from tests.control_plane.operator_process import KEY, OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")

HOME = home_claim("mmusterfrau")


def get(api: Api, namespace: str, name: str = "look") -> Object:
    found = api.get("AnalysisSession", namespace, name)
    assert found is not None
    return found


def wait_for_run(api: Api, namespace: str, run: int) -> Object:
    def reached() -> Object:
        found = get(api, namespace)
        assert (found["status"]["phase"], found["status"]["run"]) == ("Ready", run), describe(found)
        return found

    return eventually(f"run {run} of session {namespace}/look is ready", reached)


def pods(api: Api, namespace: str) -> list[Object]:
    return [pod for pod in api.list("Pod", namespace) if "deletionTimestamp" not in pod["metadata"]]


def wait_until_gone(api: Api, namespace: str, name: str = "look") -> None:
    """Delete a session and wait until all that it owns is gone."""
    parent = get(api, namespace, name)
    api.delete("AnalysisSession", namespace, name)
    eventually(
        f"the children of {namespace}/{name} are gone",
        lambda: not api.get("AnalysisSession", namespace, name) and not owned_by(made_for(api, namespace), parent),
    )


def token_of(api: Api, namespace: str, found: Object) -> str:
    secret = api.get("Secret", namespace, found["status"]["tokenSecret"])
    assert secret is not None
    return base64.b64decode(secret["data"]["token"]).decode()


def test_created_ready_deleted(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(session(namespace))
    found = wait_for_phase(api, session(namespace), "Ready")
    uid, status = found["metadata"]["uid"], found["status"]

    # Every child is there; those that go with the session are owned by it, and by nothing else.
    children = made_for(api, namespace)
    owned = owned_by(children, found)
    assert sorted(o["kind"] for o in owned) == ["NetworkPolicy", "Pod", "Secret", "Service"]
    for child in owned:
        (reference,) = child["metadata"]["ownerReferences"]
        assert reference == {
            "apiVersion": "analysis.panosc.eu/v1alpha1",
            "kind": "AnalysisSession",
            "name": "look",
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    (source,) = api.list("DataSource")
    lasting = [o for o in children if o not in owned]
    assert sorted(o["kind"] for o in lasting) == [*["PersistentVolume"] * 2, *["PersistentVolumeClaim"] * 3]
    assert {o["metadata"]["name"] for o in lasting if not o["metadata"].get("ownerReferences")} == {HOME}
    assert len(owned_by(lasting, source)) == 4

    # The status answers a portal's questions.
    assert {name: c["status"] for name, c in conditions(found).items()} == dict.fromkeys(
        ("Admitted", "DataReady", "Scheduled", "PodReady", "Ready"), "True"
    )
    assert all(c["observedGeneration"] == found["metadata"]["generation"] for c in conditions(found).values())
    assert status["observedGeneration"] == found["metadata"]["generation"]
    assert status["run"] == 1
    assert status["node"] == "stub-node"
    assert status["podName"] == pods(api, namespace)[0]["metadata"]["name"]
    assert api.get("Service", namespace, status["url"].split("//")[1].split(".")[0]) is not None
    assert status["url"].endswith(f".{namespace}.svc:8888/")
    stages = [status["startup"][name] for name in ("queuedAt", "scheduledAt", "startedAt", "readyAt")]
    assert stages == sorted(stages)
    assert token_of(api, namespace, found) == session_token(KEY, uid, 1, "mmusterfrau")

    wait_for_data_claims(api, namespace)

    # Events tell people when it was ready.
    events = [e for e in api.list("Event", namespace) if e["regarding"].get("uid") == uid]
    assert [(e["type"], e["reason"]) for e in events] == [("Normal", "Ready")]

    wait_until_gone(api, namespace)
    left = made_for(api, namespace)
    assert uids(left).keys() == uids(lasting).keys()
    assert {o["metadata"]["uid"] for o in left} == {o["metadata"]["uid"] for o in lasting}

    # The next session of the same owner finds the same home, and the data's claims.
    api.create(session(namespace, "again"))
    wait_for_phase(api, session(namespace, "again"), "Ready")
    home = api.get("PersistentVolumeClaim", namespace, HOME)
    assert home is not None
    assert home["metadata"]["uid"] in {o["metadata"]["uid"] for o in lasting}
    assert {o["metadata"]["uid"] for o in made_for(api, namespace)} >= {o["metadata"]["uid"] for o in lasting}


def test_same_name_in_two_namespaces(control_plane: ControlPlane, namespace: str, other_namespace: str) -> None:
    api = control_plane.api
    for where in (namespace, other_namespace):
        api.create(session(where))
    one, two = (wait_for_phase(api, session(where), "Ready") for where in (namespace, other_namespace))
    assert one["status"]["url"] != two["status"]["url"]
    assert token_of(api, namespace, one) != token_of(api, other_namespace, two)
    wait_for_data_claims(api, other_namespace)
    before = settled("the other session", lambda: uids(made_for(api, other_namespace)))
    assert not before.keys() & {("PersistentVolume", name) for _, name in uids(made_for(api, namespace))}

    wait_until_gone(api, namespace)

    assert uids(made_for(api, other_namespace)) == before
    assert get(api, other_namespace)["metadata"]["resourceVersion"] == two["metadata"]["resourceVersion"]


def test_a_start_that_is_held_says_where(control_plane: ControlPlane, namespace: str) -> None:
    api, kubelet = control_plane.api, control_plane.kubelet
    kubelet.plan(namespace, "session", until=Stage.CREATED)
    api.create(session(namespace))
    found = wait_for_reason(api, session(namespace), "Ready", "False WaitingForNode")
    assert reason(found, "Scheduled") == "False Waiting"
    assert found["status"]["phase"] == "Starting"

    # Stages that last are told; those that do not are told with the next.
    kubelet.plan(namespace, "session", until=Stage.STARTED)
    found = wait_for_reason(api, session(namespace), "Ready", "False Starting")
    assert reason(found, "Scheduled") == "True Scheduled"
    assert reason(found, "DataReady") == "True Mounted"
    assert "url" not in found["status"]

    kubelet.plan(namespace, "session", until=Stage.READY)
    wait_for_phase(api, session(namespace), "Ready")


def test_no_node_takes_it(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    words = "0/3 nodes are available: 3 Insufficient memory."
    control_plane.kubelet.plan(namespace, "session", unschedulable=words)
    api.create(session(namespace))
    found = wait_for_reason(api, session(namespace), "Scheduled", "False Unschedulable")
    assert words in conditions(found)["Ready"]["message"]

    control_plane.kubelet.plan(namespace, "session", unschedulable=None)
    wait_for_phase(api, session(namespace), "Ready")


def test_an_image_that_cannot_be_pulled(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    control_plane.kubelet.plan(namespace, "session", pull_error="manifest unknown")
    api.create(session(namespace))
    found = wait_for_reason(api, session(namespace), "Ready", "False ErrImagePull")
    assert "manifest unknown" in conditions(found)["Ready"]["message"]

    control_plane.kubelet.plan(namespace, "session", pull_error=None)
    wait_for_phase(api, session(namespace), "Ready")


@pytest.mark.parametrize("why", ["ProposalNotFound", "ProposalForbidden"])
def test_the_data_check_fails(control_plane: ControlPlane, namespace: str, why: str) -> None:
    api = control_plane.api
    message = json.dumps({"reason": why, "message": "Change this."})
    control_plane.kubelet.plan(namespace, "session", check=End(2, message))
    api.create(session(namespace))

    found = wait_for_phase(api, session(namespace), "Failed")
    assert reason(found, "DataReady") == f"False {why}"
    assert conditions(found)["DataReady"]["message"] == "Change this."
    assert reason(found, "Ready") == f"False {why}"
    # The token Secret cannot be seen by the operator; it goes with the session.
    eventually(
        "pod, service and policy are removed",
        lambda: [o["kind"] for o in owned_by(made_for(api, namespace), found)] == ["Secret"],
    )
    assert uids([get(api, namespace)]) == uids([found])

    # An edit is a new try, with a run of its own.
    control_plane.kubelet.plan(namespace, "session", check=End(0))
    api.patch("AnalysisSession", namespace, "look", {"spec": {"flavour": "large"}})
    assert wait_for_phase(api, session(namespace), "Ready")["status"]["run"] == 2


def test_a_server_that_never_answers_is_kept_as_the_reason(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    control_plane.kubelet.plan(namespace, "session", answers=False, end=End(1, "no module named jupyterlab"))
    api.create(session(namespace))
    found = wait_for_phase(api, session(namespace), "Failed")
    assert reason(found, "Ready") == "False StartFailed"
    assert "no module named jupyterlab" in conditions(found)["PodReady"]["message"]
    eventually("the pod is removed", lambda: not pods(api, namespace))


def test_shut_down_from_within(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(session(namespace))
    found = wait_for_phase(api, session(namespace), "Ready")
    control_plane.kubelet.end(namespace, found["status"]["podName"], End(0))
    found = wait_for_phase(api, session(namespace), "Stopped")
    assert reason(found, "Ready") == "False ServerExited"
    eventually("the pod is removed", lambda: not pods(api, namespace))
    assert api.get("PersistentVolumeClaim", namespace, HOME) is not None


def test_lost_while_ready_is_started_again(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(session(namespace))
    first = wait_for_phase(api, session(namespace), "Ready")
    control_plane.kubelet.end(namespace, first["status"]["podName"], End(137, reason="OOMKilled"))
    second = wait_for_run(api, namespace, 2)
    assert second["status"]["podName"] != first["status"]["podName"]
    assert second["status"]["url"] == first["status"]["url"]
    eventually("the old pod is removed", lambda: len(pods(api, namespace)) == 1)


def test_a_pod_deleted_by_hand(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(session(namespace))
    first = wait_for_phase(api, session(namespace), "Ready")
    old_token = token_of(api, namespace, first)
    api.delete("Pod", namespace, first["status"]["podName"])
    second = wait_for_run(api, namespace, 2)
    assert second["status"]["podName"] != first["status"]["podName"]
    assert [pod["metadata"]["name"] for pod in pods(api, namespace)] == [second["status"]["podName"]]
    assert token_of(api, namespace, second) == session_token(KEY, second["metadata"]["uid"], 2, "mmusterfrau")
    assert token_of(api, namespace, second) != old_token


def test_a_child_deleted_by_hand_is_made_again(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.create(session(namespace))
    found = wait_for_phase(api, session(namespace), "Ready")
    name = found["status"]["tokenSecret"]
    pod = found["status"]["podName"]
    before = api.get("Pod", namespace, pod)
    for kind in ("Service", "NetworkPolicy"):
        api.delete(kind, namespace, name)
    eventually("the service is made again", lambda: api.get("Service", namespace, name))
    eventually("the policy is made again", lambda: api.get("NetworkPolicy", namespace, name))
    assert api.get("Pod", namespace, pod) == before


def test_an_environment_deleted_while_the_session_runs(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str, catalogue: list[Object]
) -> None:
    api = control_plane.api
    environment = api.create(copy_of(api, "AnalysisEnvironment", "jupyter", "short-lived"))
    catalogue.append(environment)
    api.create(session(namespace, environment="short-lived"))
    found = wait_for_phase(api, session(namespace), "Ready")
    wait_for_data_claims(api, namespace)
    before = settled("the session", lambda: uids(made_for(api, namespace)))
    passes = operator.metric("panosc_reconcile_total", kind="AnalysisSession")

    api.delete("AnalysisEnvironment", "", "short-lived")

    eventually(
        "the operator has looked",
        lambda: operator.metric("panosc_reconcile_total", kind="AnalysisSession") > passes,
    )
    operator.wait_for_passes(api)
    assert uids(made_for(api, namespace)) == before
    assert uids([get(api, namespace)]) == uids([found])
