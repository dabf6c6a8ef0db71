"""Bodies as the API server sends them.

Tests never build projections by hand: what a decision sees went through ``project``.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from panosc_operator.api.base import API_VERSION
from panosc_operator.domain.decision import Catalogue, Child, Context
from panosc_operator.domain.driver import Report
from panosc_operator.domain.job import JobSnapshot
from panosc_operator.domain.seen import Key, Seen, SeenCustom, SeenVolume, project
from panosc_operator.domain.session import SessionSnapshot
from panosc_operator.reconcile.difference import with_hash

from tests.unit.operator.schemas import defaulted, schema_of, violations

Body = dict[str, Any]

NOW = datetime(2026, 10, 1, 8, 0, 0, tzinfo=UTC)
NAMESPACE = "proposal-700000"
CONTEXT = Context(
    namespace="panosc-system", image="localhost/panosc/operator:0.1.0", key=b"a key of thirty-two bytes or more"
)
OWNER = {
    "username": "mmusterfrau",
    "uid": 31415,
    "gid": 31416,
    "supplementalGroups": [{"gid": 700000, "name": "p700000"}, {"gid": 700001}],
}
PROPOSAL = {"source": "facility", "proposal": "700000", "instrument": "XMPL", "cycle": "201750"}
PARAMETERS_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "trainsPerPartition": {"type": "integer", "minimum": 1},
        "pattern": {"type": "object", "properties": {"on": {"type": "array", "items": {"type": "integer"}}}},
    },
}
_versions = itertools.count(1000)


def copied(body: Mapping[str, Any]) -> Body:
    """Return a copy, made as the API makes one: through JSON."""
    result: Body = json.loads(json.dumps(body))
    return result


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(body: Mapping[str, Any]) -> Key:
    metadata = body["metadata"]
    return Key(body["kind"], metadata.get("namespace", ""), metadata["name"])


def stored(manifest: Mapping[str, Any], *, created: datetime = NOW, uid: str | None = None) -> Body:
    """Return a manifest as the API server stores it: with uid, resourceVersion and time."""
    body = copied(manifest)
    body["metadata"] |= {
        "uid": uid or str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(key_of(manifest)))),
        "resourceVersion": str(next(_versions)),
        "generation": 1,
        "creationTimestamp": rfc3339(created),
    }
    return body


# --- our kinds --------------------------------------------------------------------------------------------------------


def _custom(kind: str, name: str, namespace: str, spec: Body) -> Body:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    served = json.loads(_served(kind, json.dumps(spec)))
    return stored({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": served})


@cache
def _served(kind: str, spec: str) -> str:
    """Return a spec as the API server has it, which would refuse a wrong one."""
    served = defaulted(schema_of(kind, "spec"), json.loads(spec))
    assert not violations(kind, "spec", served), "the API server would have refused this object"
    return json.dumps(served)


def session(name: str = "look", *, namespace: str = NAMESPACE, **spec: Any) -> Body:
    """Return an AnalysisSession with one proposal; keyword arguments replace fields of its spec."""
    default = {"environment": "jupyter", "owner": OWNER, "data": [PROPOSAL]}
    return _custom("AnalysisSession", name, namespace, _without_none(default | spec))


def job(name: str = "ratio", *, namespace: str = NAMESPACE, **spec: Any) -> Body:
    """Return an AnalysisJob over two runs; keyword arguments replace fields of its spec."""
    default = {
        "workflow": {"name": "sase-delivery"},
        "owner": OWNER,
        "data": [PROPOSAL | {"runs": "8-9"}],
        "workers": {"minimum": 1, "maximum": 2},
        "backoffLimit": 1,
    }
    return _custom("AnalysisJob", name, namespace, _without_none(default | spec))


def _without_none(spec: Body) -> Body:
    return {name: value for name, value in spec.items() if value is not None}


def environment(name: str = "jupyter", kind: str = "Jupyter", **spec: Any) -> Body:
    default = {
        "image": f"localhost/panosc/{name}:0.1.0",
        "kind": kind,
        "flavours": [
            {"name": "small", "cpu": "500m", "memory": "2Gi"},
            {"name": "large", "cpu": "4", "memory": "16Gi"},
        ],
    }
    return _custom("AnalysisEnvironment", name, "", default | spec)


def workflow(name: str = "sase-delivery", **spec: Any) -> Body:
    default = {
        "version": "1.2.0",
        "title": "SASE delivery",
        "description": "Suppression ratio of two gas monitors.",
        "environment": "analysis",
        "parameters": PARAMETERS_SCHEMA,
    }
    return _custom("AnalysisWorkflow", name, "", default | spec)


def area(name: str, *, read_only: bool, **fields: Any) -> Body:
    default = {
        "name": name,
        "volume": {"nfs": {"server": "gpfs.example", "path": "/gpfs/exfel/exp"}},
        "folder": f"{{instrument}}/{{cycle}}/p{{proposal}}/{name}",
        "path": f"/gpfs/exfel/exp/{{instrument}}/{{cycle}}/p{{proposal}}/{name}",
        "readOnly": read_only,
    }
    return default | ({"runFolder": "r{run:04d}"} if name == "raw" else {}) | fields


def data_source(name: str = "facility", **spec: Any) -> Body:
    default = {"areas": [area("raw", read_only=True), area("usr", read_only=False)]}
    return _custom("DataSource", name, "", default | spec)


def catalogue_bodies() -> list[Body]:
    """Return a catalogue in which everything that `session` and `job` refer to is there."""
    return [environment(), environment("analysis", "Job"), workflow(), data_source()]


@cache
def whole_catalogue() -> Catalogue:
    return catalogue(catalogue_bodies())


def catalogue(bodies: Iterable[Body] | None = None) -> Catalogue:
    """Return a catalogue of these bodies, by default the whole one."""
    if bodies is None:
        return whole_catalogue()
    seen = [project(body) for body in bodies]
    return Catalogue(
        *(
            {entry.key.name: entry for entry in seen if entry.key.kind == kind and isinstance(entry, SeenCustom)}
            for kind in ("AnalysisEnvironment", "AnalysisWorkflow", "DataSource")
        )
    )


# --- what happens to pods and Jobs ------------------------------------------------------------------------------------

STAGES = (
    "unscheduled", "unschedulable", "scheduled", "checking", "check-failed", "starting", "waiting",
    "ready", "unready", "succeeded", "failed", "evicted",
)  # fmt: skip


def pod_status(stage: str, pod: Mapping[str, Any], at: datetime = NOW, **told: Any) -> Body:
    """Return a pod's status as scheduler and kubelet write it.

    Parameters
    ----------
    stage
        One of `STAGES`.
    pod
        The pod, of which the names of the containers are taken.
    at
        When the pod was made; stages follow in seconds from then.
    told
        ``exit_code``, ``reason`` and ``message`` of whatever ended or waits.
    """
    if stage == "unscheduled":
        return {"phase": "Pending"}
    if stage == "unschedulable":
        message = told.get("message", "0/1 nodes are available: 1 Insufficient memory.")
        condition = _condition("PodScheduled", "False", at) | {"reason": "Unschedulable", "message": message}
        return {"phase": "Pending", "conditions": [condition]}
    if stage == "evicted":
        return {
            "phase": "Failed", "reason": "Evicted", "message": told.get("message", "The node was low on memory."),
            "conditions": [_condition("PodScheduled", "True", at + timedelta(seconds=1))],
        }  # fmt: skip
    ready = stage == "ready"
    return {
        "phase": {"succeeded": "Succeeded", "failed": "Failed", "check-failed": "Failed"}.get(
            stage, "Running" if stage in ("starting", "ready", "unready") else "Pending"
        ),
        "podIP": "10.0.0.7",
        "conditions": [
            _condition("PodScheduled", "True", at + timedelta(seconds=1)),
            _condition("Ready", "True" if ready else "False", at + timedelta(seconds=5)),
        ],
        "initContainerStatuses": [
            {"name": container["name"], "state": _init_state(stage, at, told)}
            for container in pod["spec"].get("initContainers", ())
        ],
        "containerStatuses": [
            {"name": container["name"], "ready": ready, "state": _state(stage, at, told)}
            for container in pod["spec"]["containers"]
        ],
    }


def _condition(type_: str, status: str, at: datetime) -> Body:
    return {"type": type_, "status": status, "lastTransitionTime": rfc3339(at)}


def _init_state(stage: str, at: datetime, told: Mapping[str, Any]) -> Body:
    if stage == "scheduled":
        return {"waiting": {"reason": "PodInitializing"}}
    if stage == "checking":
        return {"running": {"startedAt": rfc3339(at + timedelta(seconds=2))}}
    if stage == "check-failed":
        return _terminated(at, {"exit_code": 2, "reason": "Error"} | dict(told))
    return _terminated(at, {"exit_code": 0, "reason": "Completed"})


def _state(stage: str, at: datetime, told: Mapping[str, Any]) -> Body:
    if stage in ("scheduled", "checking", "check-failed"):
        return {"waiting": {"reason": "PodInitializing"}}
    if stage == "waiting":
        reason, message = told.get("reason", "ImagePullBackOff"), told.get("message", "no such image")
        return {"waiting": {"reason": reason, "message": message}}
    if stage == "succeeded":
        return _terminated(at, {"exit_code": 0, "reason": "Completed"} | dict(told))
    if stage == "failed":
        return _terminated(at, {"exit_code": 1, "reason": "Error"} | dict(told))
    return {"running": {"startedAt": rfc3339(at + timedelta(seconds=3))}}


def _terminated(at: datetime, told: Mapping[str, Any]) -> Body:
    return {
        "terminated": {
            "exitCode": told["exit_code"],
            "reason": told["reason"],
            "message": told.get("message", ""),
            "startedAt": rfc3339(at + timedelta(seconds=3)),
            "finishedAt": rfc3339(at + timedelta(seconds=6)),
        }
    }


def with_status(body: Body, status: Body) -> Body:
    """Return the next version of an object, with this status and, for a pod that was scheduled, its node."""
    changed = copied(body) | {"status": status}
    changed["metadata"]["resourceVersion"] = str(next(_versions))
    scheduled = [c for c in status.get("conditions", ()) if c["type"] == "PodScheduled" and c["status"] == "True"]
    if body["kind"] == "Pod" and scheduled:
        changed["spec"]["nodeName"] = "node-1"
    return changed


def being_deleted(body: Body) -> Body:
    """Return the next version of an object, marked as being deleted."""
    changed = copied(body)
    changed["metadata"]["deletionTimestamp"] = rfc3339(NOW + timedelta(seconds=10))
    changed["metadata"]["resourceVersion"] = str(next(_versions))
    return changed


def job_condition(type_: str, reason: str, message: str = "") -> Body:
    """Return the status of a ``batch/v1`` Job that ended."""
    return {"conditions": [{"type": type_, "status": "True", "reason": reason, "message": message}]}


def pod_of_job(batch_job: Mapping[str, Any], number: int = 1) -> Body:
    """Return the pod that the Job controller makes of a Job's template."""
    template = batch_job["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{batch_job['metadata']['name']}-{number:05d}",
            "namespace": batch_job["metadata"]["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "annotations": dict(template["metadata"]["annotations"]),
            "ownerReferences": [owner_reference(batch_job)],
        },
        "spec": copied(template["spec"]),
    }


def dask_pod(cluster: Mapping[str, Any], component: str, number: int = 0) -> Body:
    """Return a pod of a DaskCluster, with the cluster's labels as the dask-kubernetes operator copies them."""
    name = cluster["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{component}-{number}",
            "namespace": cluster["metadata"]["namespace"],
            "labels": {
                **cluster["metadata"]["labels"],
                "dask.org/cluster-name": name,
                "dask.org/component": component,
            },
            "ownerReferences": [owner_reference(cluster)],
        },
        "spec": copied(cluster["spec"][component]["spec"]),
    }


def owner_reference(body: Mapping[str, Any]) -> Body:
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "uid": body["metadata"].get("uid", ""),
        "controller": True,
        "blockOwnerDeletion": True,
    }


# --- snapshots --------------------------------------------------------------------------------------------------------


def session_snapshot(
    body: Body, children: Iterable[Body] = (), *, entries: Iterable[Body] | None = None
) -> SessionSnapshot:
    own, shared = _split(children)
    return SessionSnapshot(_seen_custom(body), own, shared, catalogue(entries))


def job_snapshot(
    body: Body, children: Iterable[Body] = (), *, entries: Iterable[Body] | None = None, report: Report | None = None
) -> JobSnapshot:
    own, shared = _split(children)
    return JobSnapshot(_seen_custom(body), own, shared, catalogue(entries), report)


def _split(bodies: Iterable[Body]) -> tuple[tuple[Seen, ...], dict[Key, Seen]]:
    seen = [project(body) for body in bodies]
    shared: dict[Key, Seen] = {entry.key: entry for entry in seen if isinstance(entry, SeenVolume)}
    return tuple(entry for entry in seen if entry.key not in shared), shared


def _seen_custom(body: Body) -> SeenCustom:
    seen = project(body)
    assert isinstance(seen, SeenCustom)
    return seen


def bodies_of(children: Iterable[Child] | None) -> dict[str, Body]:
    """Return the wanted children as stored, by kind; of two of a kind by ``kind/area``."""
    result: dict[str, Body] = {}
    for child in children or ():
        kind, name = child.manifest["kind"], child.manifest["metadata"]["name"]
        known = next((label for label in ("raw", "usr") if f"-{label}-" in name), "")
        result[f"{kind}/{known}" if known else kind] = stored(with_hash(child.manifest))
    return result


def pod_at(manifest: Mapping[str, Any], stage: str, **told: Any) -> Body:
    """Return a wanted pod as stored, at some stage of its life."""
    body = stored(manifest)
    return with_status(body, pod_status(stage, body, **told))
