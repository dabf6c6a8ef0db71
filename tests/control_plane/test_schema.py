"""What the API server itself knows of the five kinds: rules, texts, columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from panosc_operator.api.kinds import KINDS, KindDefinition

from tests.control_plane.api import Object
from tests.control_plane.fixtures import ControlPlane, refusal
from tests.control_plane.objects import data, job, owner, session

RAW = {
    "name": "raw",
    "volume": {"hostPath": {"path": "/gpfs"}},
    "folder": "p{proposal}/raw",
    "path": "/d/p{proposal}/raw",
}
USR = RAW | {"name": "usr", "folder": "p{proposal}/usr", "path": "/d/p{proposal}/usr", "readOnly": False}


def source(*areas: dict[str, Any], **spec: Any) -> Object:
    return {
        "apiVersion": "analysis.panosc.eu/v1alpha1",
        "kind": "DataSource",
        "metadata": {"name": "refused"},
        "spec": {"areas": list(areas), **spec},
    }


def nfs(**changes: Any) -> dict[str, Any]:
    return {"nfs": {"server": "nas", "path": "/export"}} | changes


REFUSED_SOURCES: dict[str, tuple[Object, str]] = {
    "raw that may be written": (
        source(RAW | {"readOnly": False}),
        "the area raw is always read-only: set readOnly to true",
    ),
    "two kinds of volume": (
        source(RAW | {"volume": nfs(hostPath={"path": "/gpfs"})}),
        "give exactly one of hostPath, nfs and csi",
    ),
    "no kind of volume": (source(RAW | {"volume": {}}), "give exactly one of hostPath, nfs and csi"),
    "a folder that leaves the volume": (
        source(RAW | {"folder": "p{proposal}/../../etc"}),
        "folder must not contain '..'",
    ),
    "a path that leaves its place": (
        source(RAW | {"path": "/d/p{proposal}/../raw"}),
        "path must not contain '..'",
    ),
    "visibility Area with a path that does not end with the folder": (
        source(RAW, USR | {"path": "/elsewhere"}, visibility="Area"),
        "with visibility Area the path of each area must end with its folder",
    ),
    "no area": (source(), "spec.areas"),
    "an area twice": (source(USR, USR), "Duplicate value"),
}


@pytest.mark.parametrize("what", REFUSED_SOURCES)
def test_data_sources_refused(control_plane: ControlPlane, what: str) -> None:
    manifest, words = REFUSED_SOURCES[what]
    assert words in refusal(control_plane.api, manifest)


REFUSED_SPECS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a home that is there and made": (
        "AnalysisSession",
        {"home": {"claim": "mine", "storageClass": "fast"}},
        "give either claim or storageClass: an existing claim has one",
    ),
    "a session of root": ("AnalysisSession", {"owner": owner(uid=0)}, "spec.owner.uid"),
    "a proposal that leaves the folder": (
        "AnalysisSession",
        {"data": data(proposal="../700001")},
        "spec.data[0].proposal",
    ),
    "a proposal that is a parent": ("AnalysisSession", {"data": data(proposal="..")}, "spec.data[0].proposal"),
    "an instrument that leaves the folder": (
        "AnalysisSession",
        {"data": data(instrument="a/../..")},
        "spec.data[0].instrument",
    ),
    "a field that does not exist": ("AnalysisSession", {"enviroment": "jupyter"}, "unknown field"),
    "results in raw": (
        "AnalysisJob",
        {"output": {"area": "raw"}},
        "results cannot be written to raw: choose proc, usr or scratch",
    ),
    "an output path that leaves the folder": (
        "AnalysisJob",
        {"output": {"path": "results/../../p700001"}},
        "path must not contain '..'",
    ),
    "an absolute output path": ("AnalysisJob", {"output": {"path": "/etc"}}, "spec.output.path"),
    "more workers at least than at most": (
        "AnalysisJob",
        {"workers": {"minimum": 3, "maximum": 2}},
        "workers.minimum must not be larger than workers.maximum",
    ),
    "runs that are no numbers": ("AnalysisJob", {"data": data(runs="all")}, "spec.data[0].runs"),
    "a deadline that is no duration": ("AnalysisJob", {"activeDeadline": "soon"}, "spec.activeDeadline"),
}


@pytest.mark.parametrize("what", REFUSED_SPECS)
def test_sessions_and_jobs_refused(control_plane: ControlPlane, what: str) -> None:
    kind, spec, words = REFUSED_SPECS[what]
    build = session if kind == "AnalysisSession" else job
    manifest = build("default", "refused", **spec)
    path = f"/apis/analysis.panosc.eu/v1alpha1/namespaces/default/{kind.lower()}s?fieldValidation=Strict"
    with pytest.raises(ApiException) as caught:
        control_plane.api.request("post", path, manifest)
    assert caught.value.status in (400, 422)
    assert words in str(caught.value.body)


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "the session's owner": (
        "AnalysisSession",
        {"owner": {"uid": 31416}},
        "owner cannot be changed: create another session",
    ),
    **{
        f"the job's {name}": ("AnalysisJob", {name: change}, f"{name} cannot be changed: create another job")
        for name, change in {
            "workflow": {"version": "0.2.0"},
            "parameters": {"seed": 2},
            "owner": {"gid": 31416},
            "data": data(runs="8-10"),
            "output": {"path": "results/elsewhere"},
        }.items()
    },
}


@pytest.fixture
def unwatched(control_plane: ControlPlane, namespace: str) -> str:
    """Return a namespace with a session and a job."""
    control_plane.api.create(session(namespace))
    control_plane.api.create(job(namespace, parameters={"seed": 1}))
    return namespace


def test_what_cannot_be_changed(control_plane: ControlPlane, unwatched: str) -> None:
    names = {"AnalysisSession": "look", "AnalysisJob": "reduce"}
    for what, (kind, change, words) in CHANGES.items():
        with pytest.raises(ApiException) as caught:
            control_plane.api.patch(kind, unwatched, names[kind], {"spec": change})
        assert caught.value.status == 422, what
        assert words in str(caught.value.body), what


def test_what_can_be_changed(control_plane: ControlPlane, unwatched: str) -> None:
    api = control_plane.api
    api.patch("AnalysisSession", unwatched, "look", {"spec": {"flavour": "large"}})
    api.patch("AnalysisJob", unwatched, "reduce", {"spec": {"workers": {"maximum": 5}, "backoffLimit": 3}})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_explain_has_a_text_for_every_field(control_plane: ControlPlane, kind: KindDefinition) -> None:
    document = json.loads(control_plane.api.text("/openapi/v3/apis/analysis.panosc.eu/v1alpha1"))
    schemas = document["components"]["schemas"]
    schema = schemas[f"eu.panosc.analysis.v1alpha1.{kind.kind}"]
    fields = dict(_fields(schema))
    assert len(fields) > 5
    assert [path for path, text in fields.items() if len(text.strip()) < 5] == []
    assert schema["description"]


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and text of every field of ours."""
    for name, field in schema.get("properties", {}).items():
        if not path and name in ("apiVersion", "kind", "metadata"):
            continue
        where = f"{path}.{name}"
        yield where, field.get("description", "")
        yield from _fields(field, where)
        for inner in ("items", "additionalProperties"):
            if isinstance(field.get(inner), dict):
                yield from _fields(field[inner], where)


def test_explain_reads_well(control_plane: ControlPlane) -> None:
    text = control_plane.api.kubectl("explain", "asess.spec.data")
    assert "FIELD: data <[]Object>" in text
    assert "The proposals to mount." in text
    assert "proposal\t<string> -required-" in text
    assert "The proposal, written as in the facility's folder names." in text
    assert "ENUM:" in control_plane.api.kubectl("explain", "ajob.spec.output.onExists")


def test_columns_answer_the_first_question(control_plane: ControlPlane, unwatched: str) -> None:
    lines = control_plane.api.kubectl("get", "asess,ajob", f"--namespace={unwatched}").splitlines()
    assert lines[0].split() == ["NAME", "ENVIRONMENT", "OWNER", "PHASE", "REASON", "PROPOSAL", "AGE"]
    assert lines[1].split()[:3] == ["analysissession.analysis.panosc.eu/look", "jupyter", "mmusterfrau"]
    assert lines[3].split() == ["NAME", "WORKFLOW", "RUNS", "PHASE", "DONE", "TOTAL", "WORKERS", "REASON", "AGE"]
    assert lines[4].split()[:3] == ["analysisjob.analysis.panosc.eu/reduce", "sase-delivery", "8-9"]
    for short_name in ("aenv", "awf", "dsrc", "panosc"):
        assert "NAME" in control_plane.api.kubectl("get", short_name, f"--namespace={unwatched}")
