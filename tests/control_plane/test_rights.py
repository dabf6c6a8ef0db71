"""What the operator may do, what its pods may do, and what happens where it may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from tests.control_plane.api import Api, Object, conditions, eventually, wait_for_phase, wait_for_reason
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.objects import job, made_for, session

pytestmark = pytest.mark.usefixtures("operator")


def test_secrets_can_be_written_but_not_read(control_plane: ControlPlane, namespace: str) -> None:
    api, account = control_plane.api, control_plane.account
    found = wait_for_phase(api, api.create(session(namespace)), "Ready")
    name = found["status"]["tokenSecret"]
    assert api.get("Secret", namespace, name) is not None

    asked: tuple[Callable[[], object], ...] = (
        lambda: account.get("Secret", namespace, name),
        lambda: account.list("Secret", namespace),
        lambda: next(iter(account.watch("Secret", 1))),
    )
    for ask in asked:
        with pytest.raises(ApiException) as caught:
            ask()
        assert caught.value.status == 403


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        *((verb, "secrets") for verb in ("get", "list", "watch", "delete", "update")),
        *(("delete", "persistentvolumeclaims"), ("patch", "persistentvolumeclaims")),
        *(("patch", "pods"), ("create", "pods --subresource=exec"), ("get", "pods --subresource=log")),
        *(("create", "pods --subresource=portforward"), ("patch", "analysissessions.analysis.panosc.eu")),
        *((verb, "analysissessions.analysis.panosc.eu") for verb in ("create", "update", "delete")),
        *(("patch", "analysisenvironments.analysis.panosc.eu"), ("delete", "datasources.analysis.panosc.eu")),
        *(("get", "nodes"), ("list", "namespaces"), ("create", "clusterroles.rbac.authorization.k8s.io")),
    ],
    ids=lambda value: str(value),
)
def test_what_the_operator_may_not_do(control_plane: ControlPlane, verb: str, resource: str) -> None:
    answer = control_plane.account.kubectl("auth", "can-i", verb, *resource.split(), "--all-namespaces", check=False)
    assert answer.splitlines()[-1] == "no"


def warnings(api: Api, namespace: str, manifest: Object) -> list[str]:
    """Return what the API server warns of when an object is created; nothing is created."""
    group = "api/v1" if manifest["apiVersion"] == "v1" else f"apis/{manifest['apiVersion']}"
    path = f"/{group}/namespaces/{namespace}/{manifest['kind'].lower()}s?dryRun=All"
    response = api.request("post", path, manifest)
    assert response.status == 201
    return list(response.headers.getlist("Warning"))


def test_every_pod_is_restricted(control_plane: ControlPlane, namespace: str) -> None:
    """The namespace enforces *restricted*: a violating pod would not be there; and none is warned of either."""
    api = control_plane.api
    wait_for_phase(api, api.create(session(namespace)), "Ready")
    wait_for_phase(api, api.create(job(namespace)), "Running")
    pods = [o for o in made_for(api, namespace) if o["kind"] == "Pod"]
    assert sorted(pod["spec"]["containers"][0]["name"] for pod in pods) == [
        *("driver", "scheduler", "session", "worker", "worker")
    ]
    for pod in pods:
        spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
        body: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "again"}, "spec": spec}
        assert warnings(api, namespace, body) == []
        identity = {"runAsUser": 31415, "runAsGroup": 31415, "supplementalGroups": [700000], "runAsNonRoot": True}
        context: dict[str, Any] = spec["securityContext"]
        assert context.items() >= identity.items()
        assert "fsGroup" not in context
        assert spec["automountServiceAccountToken"] is False
        assert not [v for v in spec["volumes"] if "hostPath" in v or "nfs" in v]
    (driver,) = api.list("Job", namespace)
    template = driver["spec"]["template"]["spec"]
    spec = {"template": {"spec": template}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "again"}, "spec": spec}
    assert warnings(api, namespace, body) == []

    # The question is a good one: a container that may gain rights is warned of.
    template["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    (warning,) = warnings(api, namespace, body)
    assert "allowPrivilegeEscalation" in warning


def quota(api: Api, namespace: str, resource: str) -> None:
    """Forbid a resource in a namespace, and wait until that is in force."""
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": namespace}}
    api.create(body | {"spec": {"hard": {resource: "0"}}})

    def in_force() -> bool:
        found = api.get("ResourceQuota", namespace, "none") or {}
        return resource in (found.get("status") or {}).get("used", {})

    eventually("the quota is in force", in_force)


def test_a_quota_that_forbids_a_session(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    quota(api, namespace, "pods")
    look = api.create(session(namespace))
    found = wait_for_reason(api, look, "Ready", "False Rejected")
    assert (
        "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
        in (conditions(found)["PodReady"]["message"])
    )
    assert found["status"]["phase"] == "Starting"
    assert api.list("Pod", namespace) == []

    api.delete("ResourceQuota", namespace, "none")
    assert wait_for_phase(api, look, "Ready")["status"]["run"] == 1


def test_a_quota_that_forbids_a_job(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    quota(api, namespace, "count/jobs.batch")
    reduce = api.create(job(namespace))
    found = wait_for_reason(api, reduce, "Complete", "False Rejected")
    assert "exceeded quota: none, requested: count/jobs.batch=1" in conditions(found)["Complete"]["message"]

    api.delete("ResourceQuota", namespace, "none")
    assert wait_for_phase(api, reduce, "Running")["status"]["run"] == 1
