"""Input that the operator refuses before any pod: a condition says what to change, and the change is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.control_plane.api import Api, Object, conditions, describe, eventually, reason
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.objects import copy_of, data, job, made_for, session

pytestmark = pytest.mark.usefixtures("operator")

Build = Callable[[str], Object]

JOB_DATA: dict[str, Any] = data(runs="8-9")[0]

REFUSED: dict[str, tuple[Build, str, str]] = {
    "environment": (
        lambda ns: session(ns, environment="jupiter"),
        "UnknownEnvironment",
        "There is no AnalysisEnvironment 'jupiter'. The cluster has: analysis, jupyter.",
    ),
    "environment of jobs": (
        lambda ns: session(ns, environment="analysis", flavour=None),
        "WrongEnvironmentKind",
        "is of kind Job; it must be Jupyter",
    ),
    "flavour": (
        lambda ns: session(ns, flavour="huge"),
        "UnknownFlavour",
        "AnalysisEnvironment 'jupyter' has no flavour 'huge'. It has: small, large.",
    ),
    "data source": (
        lambda ns: session(ns, data=data(source="elsewhere")),
        "UnknownDataSource",
        "There is no DataSource 'elsewhere'. The cluster has: example-facility.",
    ),
    "area": (
        lambda ns: session(ns, data=data(areas=["scratch"])),
        "UnknownArea",
        "has no area 'scratch'; it has raw, usr.",
    ),
    "instrument left out": (
        lambda ns: session(ns, data=[{"source": "example-facility", "proposal": "700000", "cycle": "201750"}]),
        "IncompleteData",
        "Proposal 700000: set instrument",
    ),
    "job's workflow": (
        lambda ns: job(ns, workflow={"name": "sase-deliver"}),
        "UnknownWorkflow",
        "There is no AnalysisWorkflow 'sase-deliver'. The cluster has: sase-delivery.",
    ),
    "job's workflow version": (
        lambda ns: job(ns, workflow={"name": "sase-delivery", "version": "99.0.0"}),
        "WrongWorkflowVersion",
        "the job wants 99.0.0",
    ),
    "job's parameter of a wrong type": (
        lambda ns: job(ns, parameters={"trains_per_partition": "many"}),
        "InvalidParameters",
        "parameters.trains_per_partition: 'many' is not of type 'integer'",
    ),
    "job's parameter that is unknown": (
        lambda ns: job(ns, parameters={"trains": 3}),
        "InvalidParameters",
        "'trains' was unexpected",
    ),
    "job's flavour": (
        lambda ns: job(ns, workers={"minimum": 1, "maximum": 1, "flavour": "huge"}),
        "UnknownFlavour",
        "has no flavour 'huge'",
    ),
    "job's data source": (
        lambda ns: job(ns, data=[JOB_DATA | {"source": "elsewhere"}]),
        "UnknownDataSource",
        "There is no DataSource 'elsewhere'",
    ),
    "job without runs": (
        lambda ns: job(ns, data=data()),
        "NoRuns",
        "The job names no run",
    ),
    "job with reversed runs": (
        lambda ns: job(ns, data=data(runs="9-8")),
        "BadRuns",
        "9-8 is reversed",
    ),
    "job's output that is not mounted": (
        lambda ns: job(ns, data=[JOB_DATA | {"areas": ["raw"]}]),
        "OutputNotMounted",
        "add it to the areas of 700000",
    ),
}


def refused(api: Api, manifest: Object, why: str) -> Object:
    """Wait for an object to be refused for a reason; return it."""
    kind, metadata = manifest["kind"], manifest["metadata"]

    def told() -> Object | None:
        found = api.get(kind, metadata["namespace"], metadata["name"])
        assert reason(found, "Admitted") == f"False {why}", describe(found)
        return found

    return eventually(f"{kind} is refused", told)


def test_refused_before_any_pod(control_plane: ControlPlane, namespace: str) -> None:
    """All of them at once, in one namespace: a person who sees several of them waits for none of the others."""
    api = control_plane.api
    manifests: dict[str, Object] = {}
    for number, (what, (build, _, _)) in enumerate(REFUSED.items()):
        manifests[what] = build(namespace)
        manifests[what]["metadata"]["name"] = f"bad-{number}"
        api.create(manifests[what])

    for what, (_, why, words) in REFUSED.items():
        found = refused(api, manifests[what], why)
        said = conditions(found)
        assert words in said["Admitted"]["message"], what
        assert said["Admitted"]["observedGeneration"] == found["metadata"]["generation"]
        assert found["status"]["phase"] == "Pending"
        final = "Ready" if found["kind"] == "AnalysisSession" else "Complete"
        assert reason(found, final) == f"False {why}"
        assert (said[final]["message"], "Traceback" in str(found)) == (said["Admitted"]["message"], False)

    assert made_for(api, namespace) == []
    assert api.list("Pod", namespace) == []


def started(api: Api, kind: str, namespace: str, name: str, child: str) -> None:
    """Wait until an object is admitted and its child is there."""

    def admitted() -> bool:
        found = api.get(kind, namespace, name)
        assert reason(found, "Admitted") == "True Admitted", describe(found)
        return bool(api.list(child, namespace))

    eventually(f"{kind} {namespace}/{name} is admitted and has its {child}", admitted)


def test_recovers_when_the_environment_comes(
    control_plane: ControlPlane, namespace: str, catalogue: list[Object]
) -> None:
    api = control_plane.api
    refused(api, api.create(session(namespace, environment="later")), "UnknownEnvironment")
    catalogue.append(api.create(copy_of(api, "AnalysisEnvironment", "jupyter", "later")))
    started(api, "AnalysisSession", namespace, "look", "Pod")


def test_recovers_when_the_data_source_comes(
    control_plane: ControlPlane, namespace: str, catalogue: list[Object]
) -> None:
    api = control_plane.api
    refused(api, api.create(session(namespace, data=data(source="later"))), "UnknownDataSource")
    catalogue.append(api.create(copy_of(api, "DataSource", "example-facility", "later")))
    started(api, "AnalysisSession", namespace, "look", "Pod")


def test_recovers_when_the_workflow_comes(control_plane: ControlPlane, namespace: str, catalogue: list[Object]) -> None:
    api = control_plane.api
    refused(api, api.create(job(namespace, workflow={"name": "later"})), "UnknownWorkflow")
    catalogue.append(api.create(copy_of(api, "AnalysisWorkflow", "sase-delivery", "later")))
    started(api, "AnalysisJob", namespace, "reduce", "Job")


def test_recovers_when_it_is_edited(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    refused(api, api.create(session(namespace, flavour="huge")), "UnknownFlavour")
    api.patch("AnalysisSession", namespace, "look", {"spec": {"flavour": "large"}})
    started(api, "AnalysisSession", namespace, "look", "Pod")
