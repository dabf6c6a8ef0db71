"""The objects that tests create: those of ``manifests/examples`` with another name and namespace."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from tests.control_plane.api import Api, Object, eventually

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
SOURCE = "example-facility"


def _example(file: str, namespace: str, name: str, spec: dict[str, Any]) -> Object:
    manifest: Object = yaml.safe_load((EXAMPLES / file).read_text())
    manifest["metadata"] = {"name": name, "namespace": namespace}
    manifest["spec"] |= spec
    return manifest


def session(namespace: str, name: str = "look", **spec: Any) -> Object:
    """Return the example's session with some fields of its spec replaced."""
    return _example("session.yaml", namespace, name, spec)


def job(namespace: str, name: str = "reduce", **spec: Any) -> Object:
    """Return the example's job with some fields of its spec replaced."""
    return _example("job.yaml", namespace, name, spec)


def data(**changes: Any) -> list[Object]:
    """Return the data of the example's session with some fields of its entry replaced."""
    (entry,) = session("", "")["spec"]["data"]
    return [entry | changes]


def owner(**changes: Any) -> Object:
    """Return the owner of the example's session with some fields replaced."""
    result: Object = session("", "")["spec"]["owner"] | changes
    return result


def copy_of(api: Api, kind: str, name: str, new_name: str) -> Object:
    """Return the manifest of an object of the catalogue under another name."""
    found = api.get(kind, "", name)
    assert found is not None, f"{kind} {name}"
    return {
        "apiVersion": found["apiVersion"],
        "kind": kind,
        "metadata": {"name": new_name},
        "spec": copy.deepcopy(found["spec"]),
    }


def last_words(outcome: str = "Complete", reason: str = "Complete", message: str = "Done.") -> str:
    """Return a driver's termination message."""
    return json.dumps(
        {
            "outcome": outcome,
            "reason": reason,
            "message": message,
            "summary": {"suppression": {"value": 0.02, "uncertainty": 0.001, "unit": ""}},
            "progress": {"total": 4, "done": 4 if outcome == "Complete" else 0, "failed": 0},
            "timing": {"read": 1.5, "compute": 2.5, "write": 0.5},
            "results": [{"name": "result.json", "path": "/gpfs/x/result.json", "bytes": 512, "sha256": "0" * 64}],
            "provenance": {
                "image": "localhost/panosc/analysis:0.1.0",
                "versions": {"panosc-analysis": "0.1.0"},
                "parametersHash": "1" * 64,
                "inputsHash": "2" * 64,
                "workers": ["worker-0", "worker-1"],
            },
            "manifest": {"path": "/gpfs/x/manifest.json", "sha256": "3" * 64},
        }
    )


def uids(objects: list[Object]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return uid and resourceVersion of objects by kind and name: equal before and after means untouched."""
    return {
        (o["kind"], o["metadata"]["name"]): (o["metadata"]["uid"], o["metadata"]["resourceVersion"]) for o in objects
    }


CHILD_KINDS = (
    *("Pod", "Service", "Secret", "NetworkPolicy", "PersistentVolumeClaim", "PersistentVolume"),
    *("Job", "DaskCluster"),
)


def made_for(api: Api, namespace: str) -> list[Object]:
    """Return all that the operator (and those who act on it) made in and for a namespace."""
    label = "app.kubernetes.io/managed-by=panosc-operator"
    return [
        found | {"kind": kind}
        for kind in CHILD_KINDS
        for found in api.list(kind, "" if kind == "PersistentVolume" else namespace, labels=label)
        if kind != "PersistentVolume" or found["spec"]["claimRef"]["namespace"] == namespace
    ]


def wait_for_data_claims(api: Api, namespace: str) -> None:
    """Wait until the volume controller has bound the claims of the data: pods wait for that, the operator does not."""
    label = "app.kubernetes.io/managed-by=panosc-operator"

    def bound() -> bool:
        claims = api.list("PersistentVolumeClaim", namespace, labels=label)
        phases = {c["metadata"]["name"]: c["status"]["phase"] for c in claims if c["spec"].get("volumeName")}
        assert phases
        assert set(phases.values()) == {"Bound"}, phases
        return True

    eventually("the claims of the data are bound", bound)


def owned_by(objects: list[Object], parent: Object) -> list[Object]:
    """Return those whose controller the parent is."""
    return [
        o
        for o in objects
        if any(
            reference["uid"] == parent["metadata"]["uid"] and reference.get("controller")
            for reference in o["metadata"].get("ownerReferences", ())
        )
    ]
