"""Decisions are functions: they never raise, say the same again, and want what they have made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panosc_operator.api.base import Condition
from panosc_operator.domain import job, session
from panosc_operator.domain.conditions import ConditionSet, find, holds
from panosc_operator.domain.decision import Child, Decision, Mode
from panosc_operator.domain.seen import Key, Seen, SeenPod, project
from panosc_operator.reconcile.difference import Difference, content_hash, difference, with_hash

from tests.unit.operator import builders
from tests.unit.operator.builders import CONTEXT, NOW, STAGES, Body
from tests.unit.operator.schemas import violations

stages = st.sampled_from(STAGES)
texts = st.text(max_size=60) | st.sampled_from(
    ['{"reason": "ProposalNotFound", "message": "gone"}', '{"reason": 3}', "[" * 3000, '{"reason": "\\ud800"}', "null"]
)
told = st.fixed_dictionaries(
    {}, optional={"message": texts, "exit_code": st.integers(0, 255), "reason": st.text(max_size=30)}
)
pod_events = st.tuples(st.integers(1, 3), stages, told, st.booleans())
"""Of a pod: its run, its stage, what is told, and whether it is being deleted."""


def pod_bodies(manifest: Body, events: Iterable[tuple[int, str, Body, bool]]) -> list[Body]:
    """Return the pods of several runs, each at the stage that the last of its events brought it to."""
    pods = {}
    for run, stage, words, deleting in events:
        body = builders.copied(manifest)
        body["metadata"]["name"] = body["metadata"]["name"].rpartition("-")[0] + f"-{run}"
        body["metadata"]["labels"]["analysis.panosc.eu/run"] = str(run)
        body = builders.pod_at(body, stage, **words)
        pods[run] = builders.being_deleted(body) if deleting else body
    return list(pods.values())


SESSION_POD = builders.bodies_of(session.decide(builders.session_snapshot(builders.session()), CONTEXT, NOW).children)[
    "Pod"
]
DRIVER = builders.bodies_of(job.decide(builders.job_snapshot(builders.job()), CONTEXT, NOW).children)["Job"]
DASK_CLUSTER = builders.bodies_of(
    job.decide(
        builders.job_snapshot(builders.job(), [DRIVER, builders.pod_at(builders.pod_of_job(DRIVER), "ready")]),
        CONTEXT,
        NOW,
    ).children
)["DaskCluster"]


@settings(max_examples=30)
@given(passes=st.lists(st.lists(pod_events, max_size=3), min_size=1, max_size=5))
def test_sessions_are_decided_whatever_their_pods_do(passes: list[list[tuple[int, str, Body, bool]]]) -> None:
    body, before = builders.session(), None
    for number, events in enumerate(passes):
        now = NOW + timedelta(seconds=number)
        snapshot = builders.session_snapshot(body, pod_bodies(SESSION_POD, events))
        decision = session.decide(snapshot, CONTEXT, now)
        assert session.decide(snapshot, CONTEXT, now) == decision, "the same snapshot is decided the same way"
        before = check_status("AnalysisSession", decision, before, now)
        assert sum(child.manifest["kind"] == "Pod" for child in decision.children or ()) <= 1
        if decision.status is not None:
            body = builders.with_status(body, decision.status.to_kubernetes())


job_events = st.tuples(
    st.none() | st.sampled_from(["Complete", "Failed"]),
    st.none() | st.tuples(stages, told, st.booleans()),
    st.lists(st.tuples(st.sampled_from(["scheduler", "worker"]), st.integers(0, 2), stages), max_size=3),
    st.booleans(),
)
"""Of a job: how its driver Job ended, its driver's pod, its Dask pods, and whether its cluster is there."""


@settings(max_examples=30)
@given(passes=st.lists(st.none() | job_events, min_size=1, max_size=5))
def test_jobs_are_decided_whatever_their_pods_do(passes: list[Any]) -> None:
    body, before = builders.job(), None
    for number, events in enumerate(passes):
        now = NOW + timedelta(seconds=20 * number)
        snapshot = builders.job_snapshot(body, [] if events is None else job_children_of(*events))
        decision = job.decide(snapshot, CONTEXT, now)
        assert job.decide(snapshot, CONTEXT, now) == decision
        before = check_status("AnalysisJob", decision, before, now)
        kinds = [child.manifest["kind"] for child in decision.children or ()]
        assert kinds.count("Job") <= 1
        assert kinds.count("DaskCluster") <= 1
        if decision.status is not None:
            body = builders.with_status(body, decision.status.to_kubernetes())


def job_children_of(
    end: str | None,
    driver: tuple[str, Body, bool] | None,
    dask: list[tuple[str, int, str]],
    has_cluster: bool,
) -> list[Body]:
    children = [builders.with_status(DRIVER, builders.job_condition(end, "Because") if end else {})]
    if driver is not None:
        stage, words, deleting = driver
        pod = builders.pod_at(builders.pod_of_job(DRIVER), stage, **words)
        children.append(builders.being_deleted(pod) if deleting else pod)
    if has_cluster:
        children.append(DASK_CLUSTER)
    unique = {(component, n): stage for component, n, stage in dask}
    return children + [
        builders.pod_at(builders.dask_pod(DASK_CLUSTER, component, n), stage)
        for (component, n), stage in unique.items()
    ]


def check_status(kind: str, decision: Decision, before: Body | None, now: Any) -> Body | None:
    """Check that a status fits, and that transition times change with the status alone."""
    if decision.status is None:
        return before
    status = decision.status.to_kubernetes()
    assert violations(kind, "status", status) == []
    known = {condition["type"]: condition for condition in (before or {}).get("conditions", ())}
    for condition in status["conditions"]:
        previous = known.get(condition["type"])
        if previous is not None and previous["status"] == condition["status"]:
            assert condition["lastTransitionTime"] == previous["lastTransitionTime"]
        else:
            assert condition["lastTransitionTime"] == builders.rfc3339(now)
    return status


@pytest.mark.parametrize("stage", [None, *STAGES])
def test_a_session_wants_what_it_has_made(stage: str | None) -> None:
    def decide(body: Body, children: Iterable[Body]) -> Decision:
        return session.decide(builders.session_snapshot(body, children), CONTEXT, NOW)

    body = builders.session()
    made = act(body, [], decide(body, []))
    if stage is not None:
        made = [builders.pod_at(child, stage) if child["kind"] == "Pod" else child for child in made]
    nothing_differs_after_acting(body, made, decide)


@pytest.mark.parametrize("stage", [None, *STAGES])
def test_a_job_wants_what_it_has_made(stage: str | None) -> None:
    def decide(body: Body, children: Iterable[Body]) -> Decision:
        return job.decide(builders.job_snapshot(body, children), CONTEXT, NOW)

    body = builders.job()
    made = act(body, [], decide(body, []))
    if stage is not None:
        made.append(builders.pod_at(builders.pod_of_job(DRIVER), stage))
    nothing_differs_after_acting(body, made, decide)


def nothing_differs_after_acting(
    body: Body, children: list[Body], decide: Callable[[Body, Iterable[Body]], Decision]
) -> None:
    decision = decide(body, children)
    children = act(body, children, decision)
    if decision.status is not None:
        body = builders.with_status(body, decision.status.to_kubernetes())
    rest = differing(body, children, decide(body, children))
    assert rest == Difference((), ())


def differing(body: Body, children: Iterable[Body], decision: Decision) -> Difference:
    """Return what acting on a decision would do, but for what is written unseen."""
    seen = {builders.key_of(child): project(child) for child in children}
    owned = [child for child in seen.values() if child.controller_uid == body["metadata"]["uid"]]
    found = difference(decision.children, owned, seen.get)
    return Difference(tuple(child for child in found.writes if child.mode is not Mode.REPLACE), found.deletions)


def act(body: Body, children: Iterable[Body], decision: Decision) -> list[Body]:
    """Return the children after a decision was acted on."""
    difference = differing(body, children, decision)
    gone = {seen.key for seen in difference.deletions} | {child.key for child in difference.writes}
    kept = [child for child in children if builders.key_of(child) not in gone]
    return kept + [builders.stored(with_hash(child.manifest)) for child in difference.writes]


# --- difference -------------------------------------------------------------------------------------------------------

SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}, "spec": {"port": 1}}
OTHER = {**SERVICE, "spec": {"port": 2}}
_KEY = Key("Service", "n", "a")


def seen_service(manifest: Body = SERVICE, **metadata: Any) -> Seen:
    body = builders.stored(with_hash(manifest))
    body["metadata"] |= metadata
    return project(body)


def seen_if(manifest: Body | None) -> Callable[[Key], Seen | None]:
    known = {_KEY: seen_service(manifest)} if manifest else {}
    return lambda key: known.get(key)


@pytest.mark.parametrize(
    ("mode", "manifest", "there", "written"),
    [
        (Mode.CREATE, SERVICE, None, True),
        (Mode.CREATE, SERVICE, SERVICE, False),
        (Mode.CREATE, OTHER, SERVICE, False),
        (Mode.APPLY, SERVICE, None, True),
        (Mode.APPLY, SERVICE, SERVICE, False),
        (Mode.APPLY, OTHER, SERVICE, True),
        (Mode.REPLACE, SERVICE, SERVICE, True),
    ],
)
def test_what_is_written(mode: Mode, manifest: Body, there: Body | None, written: bool) -> None:
    child = Child(manifest, mode)
    found = difference([child], [], seen_if(there))
    assert found.writes == ((child,) if written else ())


def test_what_is_owned_and_not_wanted_is_deleted_once() -> None:
    stale, going = seen_service(), seen_service(deletionTimestamp="2026-10-01T08:00:00Z")
    assert difference([], [stale], seen_if(None)).deletions == (stale,)
    assert difference([], [going], seen_if(None)).deletions == ()
    assert difference(None, [stale], seen_if(None)).deletions == ()
    assert difference([Child(OTHER, Mode.CREATE)], [stale], {_KEY: stale}.get).deletions == ()


def test_the_hash_is_of_the_content_and_not_of_its_order() -> None:
    assert content_hash(SERVICE) == content_hash(dict(reversed(list(SERVICE.items()))))
    assert content_hash(SERVICE) != content_hash(OTHER)
    assert seen_service().applied_hash == content_hash(SERVICE)


# --- conditions -------------------------------------------------------------------------------------------------------

truths = st.sampled_from(["True", "False", "Unknown"])


@given(said=st.lists(st.tuples(truths, st.sampled_from(["A", "B"]), st.text(max_size=4)), min_size=1, max_size=8))
def test_a_transition_is_a_change_of_status(said: list[Any]) -> None:
    previous: tuple[Condition, ...] = ()
    for number, (status, reason, message) in enumerate(said):
        now = NOW + timedelta(seconds=number)
        conditions = ConditionSet(previous, number, now)
        conditions.set("Ready", status, reason, message)
        (condition,) = conditions.collect()
        assert (condition.status, condition.reason, condition.message) == (status, reason, message)
        assert condition.observed_generation == number
        same = bool(previous) and previous[0].status == status
        assert condition.last_transition_time == (previous[0].last_transition_time if same else now)
        previous = (condition,)


def test_a_long_message_is_cut() -> None:
    conditions = ConditionSet((), 1, NOW)
    conditions.set("Ready", "False", "Long", "x" * 5000)
    assert len(conditions.collect()[0].message) == 2048


def test_conditions_are_found_by_type() -> None:
    conditions = ConditionSet((), 1, NOW)
    conditions.set("Ready", "True", "Yes")
    conditions.set("Idle", "False", "No")
    assert holds(conditions.collect(), "Ready")
    assert not holds(conditions.collect(), "Idle")
    assert not holds(conditions.collect(), "Other")
    assert find(conditions.collect(), "Other") is None


# --- the data check ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "", "Killed", "null", "[]", "[" * 3000, '{"reason": "A"}', '{"reason": 3, "message": "x"}',
        '{"reason": "A", "message": "\\ud800"}', '{"reason": "", "message": "x"}',
    ],
)  # fmt: skip
def test_a_data_check_that_says_nothing_sensible_has_failed(words: str) -> None:
    pod = builders.pod_at(SESSION_POD, "check-failed", message=words)
    decision = session.decide(builders.session_snapshot(builders.session(), [pod]), CONTEXT, NOW)
    assert decision.status is not None
    status = decision.status.to_kubernetes()
    assert violations("AnalysisSession", "status", status) == []
    (data_ready,) = [condition for condition in status["conditions"] if condition["type"] == "DataReady"]
    assert (data_ready["status"], data_ready["reason"]) == ("False", "DataCheckFailed")
    assert decision.children == ()


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_pod_is_seen_as_it_is(stage: str) -> None:
    pod = project(builders.pod_at(SESSION_POD, stage))
    assert isinstance(pod, SeenPod)
    assert pod.ready == (stage == "ready")
    assert pod.ended == (stage in ("succeeded", "failed", "evicted", "check-failed"))
    assert (pod.scheduled_at is None) == (stage in ("unscheduled", "unschedulable"))
    assert (pod.unschedulable is not None) == (stage == "unschedulable")
    assert (pod.node == "node-1") == (stage not in ("unscheduled", "unschedulable"))


def test_times_are_seen_in_utc() -> None:
    body = builders.stored(SERVICE)
    body["metadata"]["creationTimestamp"] = "2026-10-01T10:00:00+02:00"
    assert project(body).created == NOW


@pytest.mark.parametrize(("label", "run"), [("7", 7), ("", 0), ("x", 0), ("-1", 0)])
def test_a_run_label_that_is_no_number_is_no_run(label: str, run: int) -> None:
    assert seen_service(labels={"analysis.panosc.eu/run": label}).run == run


def test_an_object_that_is_being_deleted_is_left_alone() -> None:
    body = builders.being_deleted(builders.session())
    assert session.decide(builders.session_snapshot(body), CONTEXT, NOW) == Decision(status=None)
    body = builders.being_deleted(builders.job())
    assert job.decide(builders.job_snapshot(body), CONTEXT, NOW) == Decision(status=None)
