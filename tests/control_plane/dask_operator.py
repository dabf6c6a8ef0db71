"""A stub of the dask-kubernetes operator: it turns DaskClusters into scheduler and worker pods, labelled as it would.

The real one makes Deployments and talks to the scheduler's HTTP API; no scheduler runs here. What our operator relies
on is kept: the labels of the DaskCluster are copied to the pods beside ``dask.org/*``, there are as many worker pods as
``spec.worker.replicas`` says, and all of them go with the DaskCluster.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from kubernetes.client.exceptions import ApiException

from tests.control_plane.api import Api, Object

_WATCH_SECONDS = 3


class StubDaskOperator:
    """Plays the dask-kubernetes operator while the context lasts.

    Parameters
    ----------
    api
        The administrator's access.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.silent: set[str] = set()
        """Namespaces in which it does nothing, as a broken one would."""
        self.failures: list[str] = []
        """What went wrong in the stub itself."""

    def __enter__(self) -> StubDaskOperator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=_WATCH_SECONDS + 5)

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                for type_, cluster in self._api.watch("DaskCluster", _WATCH_SECONDS):
                    if type_ != "DELETED":
                        self._act(cluster)
                    if self._stop.is_set():
                        break
            except Exception as error:
                self.failures.append(f"watch: {error!r}")
                time.sleep(0.2)

    def _act(self, cluster: Object) -> None:
        metadata, spec = cluster["metadata"], cluster["spec"]
        namespace, name = metadata["namespace"], metadata["name"]
        if namespace in self.silent or metadata.get("deletionTimestamp"):
            return
        wanted = {f"{name}-scheduler": _pod(cluster, f"{name}-scheduler", "scheduler", spec["scheduler"]["spec"])}
        for number in range(spec["worker"]["replicas"]):
            worker = f"{name}-default-worker-{number}"
            wanted[worker] = _pod(cluster, worker, "worker", spec["worker"]["spec"])
        there = {
            pod["metadata"]["name"] for pod in self._api.list("Pod", namespace, labels=f"dask.org/cluster-name={name}")
        }
        for pod in wanted.keys() - there:
            self._create(wanted[pod])
        for pod in there - wanted.keys():
            self._api.delete("Pod", namespace, pod)

    def _create(self, pod: Object) -> None:
        try:
            self._api.create(pod)
        except ApiException as error:
            # The namespace or the cluster is going away.
            if error.status not in (403, 404, 409):
                raise


def _pod(cluster: Object, name: str, component: str, spec: dict[str, Any]) -> Object:
    metadata = cluster["metadata"]
    owner = {
        "apiVersion": cluster["apiVersion"],
        "kind": "DaskCluster",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = {"dask.org/cluster-name": metadata["name"], "dask.org/component": component}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": metadata.get("labels", {}) | labels,
            "annotations": metadata.get("annotations", {}),
            "ownerReferences": [owner],
        },
        "spec": spec,
    }
