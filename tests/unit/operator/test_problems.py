"""Bad input: each kind of it is a condition that says what to change, and nothing is started."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from panosc_operator.domain import job, session
from panosc_operator.domain.data import run_numbers
from panosc_operator.domain.decision import Decision
from panosc_operator.domain.problem import Problem

from tests.unit.operator import builders
from tests.unit.operator.builders import CONTEXT, NOW, PROPOSAL, Body
from tests.unit.operator.schemas import violations


def without(*fields: str) -> Body:
    return {name: value for name, value in PROPOSAL.items() if name not in fields}


def catalogue_with(**changed: Body) -> list[Body]:
    """Return the catalogue, with the entries of these names replaced."""
    bodies = [body for body in builders.catalogue_bodies() if body["metadata"]["name"] not in changed]
    return [*bodies, *changed.values()]


def workflow_with(schema_of_a: Body) -> list[Body]:
    return catalogue_with(**{"sase-delivery": builders.workflow(parameters={"properties": {"a": schema_of_a}})})


def source_with(**fields: Any) -> list[Body]:
    areas = [builders.area("raw", read_only=True, **fields), builders.area("usr", read_only=False)]
    return catalogue_with(facility=builders.data_source(areas=areas))


SESSIONS: dict[str, tuple[Body, list[Body] | None, str, tuple[str, ...]]] = {
    "unknown environment": ({"environment": "matlab"}, None, "UnknownEnvironment", ("'matlab'", "jupyter")),
    "empty catalogue": ({}, [], "UnknownEnvironment", ("'jupyter'", "none")),
    "wrong kind of environment": ({"environment": "analysis"}, None, "WrongEnvironmentKind", ("'analysis'", "Jupyter")),
    "unknown flavour": ({"flavour": "huge"}, None, "UnknownFlavour", ("'huge'", "small, large")),
    "unknown source": ({"data": [PROPOSAL | {"source": "moon"}]}, None, "UnknownDataSource", ("'moon'", "facility")),
    "unknown area": ({"data": [PROPOSAL | {"areas": ["scratch"]}]}, None, "UnknownArea", ("'scratch'", "raw, usr")),
    "no instrument": ({"data": [without("instrument")]}, None, "IncompleteData", ("set instrument", "700000")),
    "no cycle": ({"data": [without("cycle")]}, None, "IncompleteData", ("set cycle", "700000")),
    "folder with an unknown field": ({}, source_with(folder="p{proposal}/{year}"), "BadDataSource", ("{year}",)),
    "folder with a lone brace": ({}, source_with(folder="p{proposal"), "BadDataSource", ("p{proposal",)),
    "folder with a bad format": ({}, source_with(folder="p{proposal:06d}"), "BadDataSource", ("p{proposal:06d}",)),
    "path with a nested field": ({}, source_with(path="/a/{proposal:{width}}"), "BadDataSource", ("{width}",)),
}

JOBS: dict[str, tuple[Body, list[Body] | None, str, tuple[str, ...]]] = {
    "unknown workflow": ({"workflow": {"name": "magic"}}, None, "UnknownWorkflow", ("'magic'", "sase-delivery")),
    "another version": (
        {"workflow": {"name": "sase-delivery", "version": "9.0.0"}}, None, "WrongWorkflowVersion", ("1.2.0", "9.0.0"),
    ),
    "environment of the workflow is not there": (
        {}, catalogue_with(analysis=builders.environment("other", "Job")), "UnknownEnvironment",
        ("'analysis'", "other"),
    ),
    "environment of the workflow is for sessions": (
        {}, catalogue_with(analysis=builders.environment("analysis", "Jupyter")), "WrongEnvironmentKind", ("Job",),
    ),
    "unknown flavour": ({"workers": {"flavour": "huge"}}, None, "UnknownFlavour", ("'huge'", "small, large")),
    "unknown source": (
        {"data": [PROPOSAL | {"source": "moon", "runs": "8"}]}, None, "UnknownDataSource", ("'moon'", "facility"),
    ),
    "parameter of the wrong type": (
        {"parameters": {"trainsPerPartition": "many"}}, None, "InvalidParameters",
        ("parameters.trainsPerPartition", "'many'", "integer"),
    ),
    "parameter of the wrong type deep inside": (
        {"parameters": {"pattern": {"on": [1, "x"]}}}, None, "InvalidParameters", ("parameters.pattern.on.1", "'x'"),
    ),
    "parameter out of range": (
        {"parameters": {"trainsPerPartition": 0}}, None, "InvalidParameters",
        ("parameters.trainsPerPartition", "minimum"),
    ),
    "unknown parameter": ({"parameters": {"trainPerPart": 1}}, None, "InvalidParameters", ("'trainPerPart'",)),
    "workflow with a schema that is none": (
        {"parameters": {"a": 1}},
        workflow_with({"type": "number of a"}),
        "BadWorkflow", ("'sase-delivery'", "number of a"),
    ),
    "workflow whose schema refers to nowhere": (
        {"parameters": {"a": 1}},
        workflow_with({"$ref": "#/$defs/B"}),
        "BadWorkflow", ("'sase-delivery'", "#/$defs/B"),
    ),
    "no runs": ({"data": [PROPOSAL]}, None, "NoRuns", ("set runs",)),
    "runs reversed": ({"data": [PROPOSAL | {"runs": "9-8"}]}, None, "BadRuns", ("9-8",)),
    "too many runs": ({"data": [PROPOSAL | {"runs": "1-9000"}]}, None, "BadRuns", ("1-9000", "split")),
    "too many runs in many ranges": (
        {"data": [PROPOSAL | {"runs": "1-600,1001-1600"}]}, None, "BadRuns", ("1200", "split"),
    ),
    "area of the runs is not mounted": (
        {"data": [PROPOSAL | {"runs": "8", "areas": ["usr"]}]}, None, "NoRuns", ("'raw'", "700000"),
    ),
    "area of the runs has no runs": (
        {"data": [PROPOSAL | {"runs": "8", "runsArea": "usr"}]}, None, "NoRuns", ("'usr'", "runFolder"),
    ),
    "run folder with an unknown field": (
        {}, source_with(runFolder="r{number}"), "BadDataSource", ("r{number}",),
    ),
    "output is not mounted": (
        {"data": [PROPOSAL | {"runs": "8", "areas": ["raw"]}]}, None, "OutputNotMounted", ("'usr'", "areas"),
    ),
    "output is read-only": (
        {},
        catalogue_with(facility=builders.data_source(
            areas=[builders.area("raw", read_only=True), builders.area("usr", read_only=True)]
        )),
        "OutputReadOnly", ("'usr'", "facility"),
    ),
}  # fmt: skip


def refused(decision: Decision, kind: str, reason: str, words: tuple[str, ...]) -> None:
    """Check that nothing is started and the condition tells people what to change."""
    assert decision.children == ()
    assert decision.releases == ()
    assert decision.status is not None
    status = decision.status.to_kubernetes()
    assert violations(kind, "status", status) == []
    assert status["phase"] == "Pending"
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert (conditions["Admitted"]["status"], conditions["Admitted"]["reason"]) == ("False", reason)
    for word in words:
        assert word in conditions["Admitted"]["message"]
    assert "<" not in conditions["Admitted"]["message"], "a message is for people"
    last = conditions["Ready" if kind == "AnalysisSession" else "Complete"]
    assert (last["status"], last["reason"]) == ("False", reason), "what a page shows first has the reason too"


@pytest.mark.parametrize(("spec", "entries", "reason", "words"), SESSIONS.values(), ids=SESSIONS.keys())
def test_session_is_refused(spec: Body, entries: list[Body] | None, reason: str, words: tuple[str, ...]) -> None:
    snapshot = builders.session_snapshot(builders.session(**spec), entries=entries)
    refused(session.decide(snapshot, CONTEXT, NOW), "AnalysisSession", reason, words)


@pytest.mark.parametrize(("spec", "entries", "reason", "words"), JOBS.values(), ids=JOBS.keys())
def test_job_is_refused(spec: Body, entries: list[Body] | None, reason: str, words: tuple[str, ...]) -> None:
    snapshot = builders.job_snapshot(builders.job(**spec), entries=entries)
    refused(job.decide(snapshot, CONTEXT, NOW), "AnalysisJob", reason, words)


def test_a_refused_object_is_started_once_its_input_is_right() -> None:
    body = builders.session(environment="late")
    first = session.decide(builders.session_snapshot(body), CONTEXT, NOW)
    assert first.status is not None
    body = builders.with_status(body, first.status.to_kubernetes())
    entries = [*builders.catalogue_bodies(), builders.environment("late")]
    second = session.decide(builders.session_snapshot(body, entries=entries), CONTEXT, NOW)
    assert "Pod" in builders.bodies_of(second.children)


@pytest.mark.parametrize("kind", ["AnalysisSession", "AnalysisJob"])
def test_an_object_stored_under_an_older_schema_is_refused(kind: str) -> None:
    body = copy.deepcopy(builders.session() if kind == "AnalysisSession" else builders.job())
    body["spec"]["owner"]["uid"] = "root"
    decision = (
        session.decide(builders.session_snapshot(body), CONTEXT, NOW)
        if kind == "AnalysisSession"
        else job.decide(builders.job_snapshot(body), CONTEXT, NOW)
    )
    refused(decision, kind, f"Bad{kind.removeprefix('Analysis')}", ("spec.owner.uid",))


def test_a_catalogue_entry_stored_under_an_older_schema_is_named() -> None:
    broken = copy.deepcopy(builders.environment())
    del broken["spec"]["flavours"]
    snapshot = builders.session_snapshot(builders.session(), entries=catalogue_with(jupyter=broken))
    words = ("'jupyter'", "spec.flavours")
    refused(session.decide(snapshot, CONTEXT, NOW), "AnalysisSession", "BadEnvironment", words)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("8", [8]), ("8-9", [8, 9]), ("9,8-9,12", [8, 9, 12]), ("0001-0002", [1, 2]), ("5-5", [5])],
)
def test_runs_are_read(text: str, numbers: list[int]) -> None:
    assert run_numbers(text) == numbers


def test_a_thousand_runs_are_allowed_and_one_more_is_not() -> None:
    assert len(run_numbers("1-1000")) == 1000
    with pytest.raises(Problem, match="longer than 1000"):
        run_numbers("1-1001")


def test_two_areas_that_would_be_mounted_at_one_path_are_refused() -> None:
    """Else one of them would silently not be there, or raw would be seen through a writable mount."""
    entries = catalogue_with(facility=builders.data_source(visibility="Area"))
    snapshot = builders.session_snapshot(builders.session(), entries=entries)
    words = ("'raw'", "'usr'", "/gpfs/exfel/exp")
    refused(session.decide(snapshot, CONTEXT, NOW), "AnalysisSession", "MountConflict", words)
