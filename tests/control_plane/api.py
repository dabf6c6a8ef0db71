"""The API server as a test's administrator sees it: plain dictionaries, and waiting with a deadline."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient
from kubernetes.watch import Watch

from dev.cluster import kubectl

Object = dict[str, Any]
T = TypeVar("T")

OURS = "analysis.panosc.eu/v1alpha1"
API_VERSIONS = {
    "AnalysisSession": OURS,
    "AnalysisJob": OURS,
    "AnalysisEnvironment": OURS,
    "AnalysisWorkflow": OURS,
    "DataSource": OURS,
    "DaskCluster": "kubernetes.dask.org/v1",
    "Job": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
    "Event": "events.k8s.io/v1",
}
"""Of the kinds that are not in ``v1``."""

POLL_SECONDS = 0.05
PATIENCE = 30.0
"""Seconds that a busy machine gets for what takes a fraction of one."""


class Api:
    """Create, read, change and watch objects.

    Parameters
    ----------
    kubeconfig
        Whose rights are used.
    cache
        File for the discovery; a cluster that was wiped must not be met with the old one's.
    """

    def __init__(self, kubeconfig: Path, cache: Path) -> None:
        self.kubeconfig = kubeconfig
        client = new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self._client = DynamicClient(client, cache_file=str(cache))  # type: ignore[no-untyped-call]

    def _resource(self, kind: str) -> Any:
        return self._client.resources.get(api_version=API_VERSIONS.get(kind, "v1"), kind=kind)

    def create(self, manifest: Mapping[str, Any]) -> Object:
        """Create an object."""
        namespace = manifest["metadata"].get("namespace")
        return _plain(self._resource(manifest["kind"]).create(body=dict(manifest), namespace=namespace))

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or ``None``."""
        try:
            return _plain(self._resource(kind).get(name=name, namespace=namespace or None))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", labels: str | None = None) -> list[Object]:
        """Return the objects of a namespace, or of the cluster."""
        found = self._resource(kind).get(namespace=namespace or None, label_selector=labels)
        return _plain(found)["items"] or []

    def patch(self, kind: str, namespace: str, name: str, change: Mapping[str, Any]) -> Object:
        """Merge a change into an object."""
        return _plain(
            self._resource(kind).patch(
                body=dict(change), name=name, namespace=namespace or None, content_type="application/merge-patch+json"
            )
        )

    def patch_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any]) -> Object:
        """Merge a change into the status of one of Kubernetes' own objects."""
        return _plain(
            self._resource(kind).status.patch(
                body={"status": dict(status)},
                name=name,
                namespace=namespace or None,
                content_type="application/strategic-merge-patch+json",
            )
        )

    def delete(self, kind: str, namespace: str, name: str, grace: int | None = None) -> None:
        """Delete an object; one that is gone is fine."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = options | ({} if grace is None else {"gracePeriodSeconds": grace})
        try:
            self._resource(kind).delete(name=name, namespace=namespace or None, body=body)
        except ApiException as error:
            if error.status != 404:
                raise

    def bind(self, namespace: str, pod: str, node: str) -> None:
        """Do what the scheduler does to a pod."""
        self.request(
            "post",
            f"/api/v1/namespaces/{namespace}/pods/{pod}/binding",
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": pod},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            },
        )

    def request(self, verb: str, path: str, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return the response to a bare request: status, headers, data."""
        return self._client.request(verb, path, body=body, serialize=False, query_params=[], **options)

    def text(self, path: str) -> str:
        """Return what the API server answers to a GET."""
        return str(self.request("get", path).data.decode())

    def watch(self, kind: str, seconds: int) -> Iterator[tuple[str, Object]]:
        """Yield the objects that there are and then every change of them, for some seconds."""
        get = self._resource(kind).get
        for event in Watch().stream(get, serialize=False, timeout_seconds=seconds):  # type: ignore[no-untyped-call]
            yield event["type"], event["object"]

    def kubectl(self, *arguments: str | Path, check: bool = True, text: str | None = None) -> str:
        """Run kubectl; return what it prints, both streams."""
        command = [kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(
            [str(part) for part in command],
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout


def _plain(instance: Any) -> Object:
    result: Object = instance.to_dict()
    return result


def eventually(what: str, ask: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Ask until the answer is neither ``None`` nor false; fail after some seconds, saying what the answer was.

    A failing ``assert`` in ``ask`` counts as a no, so that its message tells what was missing.
    """
    deadline = time.monotonic() + seconds
    answer: object = None
    while True:
        try:
            answer = ask()
        except AssertionError as error:
            answer, failed = error, True
        else:
            failed = False
        if answer and not failed:
            return answer  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; the last answer was: {answer}")
        time.sleep(POLL_SECONDS)


def conditions(parent: Mapping[str, Any] | None) -> dict[str, Object]:
    """Return the conditions of an object by type."""
    status = (parent or {}).get("status") or {}
    return {condition["type"]: condition for condition in status.get("conditions") or ()}


def reason(parent: Mapping[str, Any] | None, type_: str) -> str:
    """Return ``<status> <reason>`` of a condition, such as ``False UnknownFlavour``."""
    condition = conditions(parent).get(type_)
    return f"{condition['status']} {condition['reason']}" if condition else "absent"


def describe(parent: Mapping[str, Any] | None) -> str:
    """Return a status in a form that a failed test may print."""
    return json.dumps((parent or {}).get("status"), indent=1)


def phase(parent: Mapping[str, Any] | None) -> str:
    """Return the phase of a session or job; empty before there is one."""
    return str(((parent or {}).get("status") or {}).get("phase", ""))


def wait_for_phase(api: Api, parent: Mapping[str, Any], wanted: str, seconds: float = PATIENCE) -> Object:
    """Wait until a session or job that was created is in a phase; return it as it is then."""
    kind, metadata = parent["kind"], parent["metadata"]

    def reached() -> Object | None:
        found = api.get(kind, metadata["namespace"], metadata["name"])
        assert phase(found) == wanted, describe(found)
        return found

    return eventually(f"{kind} {metadata['namespace']}/{metadata['name']} is {wanted}", reached, seconds)


def wait_for_reason(api: Api, parent: Mapping[str, Any], type_: str, wanted: str, seconds: float = PATIENCE) -> Object:
    """Wait until a condition of a session or job is ``<status> <reason>``; return the object."""
    kind, metadata = parent["kind"], parent["metadata"]

    def reached() -> Object | None:
        found = api.get(kind, metadata["namespace"], metadata["name"])
        assert reason(found, type_) == wanted, describe(found)
        return found

    return eventually(f"{kind} {metadata['namespace']}/{metadata['name']} has {type_} {wanted}", reached, seconds)


def settled(what: str, look: Callable[[], T], quiet: float = 1.5, seconds: float = PATIENCE) -> T:
    """Return what is seen once it has not changed for some seconds."""
    last, since = look(), time.monotonic()

    def unchanged() -> tuple[T] | None:
        nonlocal last, since
        now = look()
        if now != last:
            last, since = now, time.monotonic()
        return (last,) if time.monotonic() - since > quiet else None

    return eventually(f"{what} is settled", unchanged, seconds)[0]
