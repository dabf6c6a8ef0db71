"""What a session costs the API server, as the API server itself counts it.

The table that is compared is a difference of ``apiserver_request_total`` before and after. That metric knows verb,
resource and subresource of each request, not whose it was, so the requests of the others have to be told apart:

* the operator creates by POST and applies by server-side apply, which the metric calls ``APPLY``; its status writes
  are ``APPLY`` on the subresource ``status``; its Events go to the group ``events.k8s.io``;
* this test creates the session (POST ``analysissessions``) and deletes it (DELETE ``analysissessions``);
* the stub of the kubelet binds (POST ``pods/binding``), writes ``pods/status`` by PATCH, deletes pods, and renews its
  node's Lease by PATCH, where the operator's leader election has PUT;
* the controller manager binds claims and removes finalizers by PUT and PATCH, makes Endpoints and EndpointSlices,
  posts its Events to the core group, and deletes what the session owned.

So the operator's are POST of the kinds that it creates, and APPLY of anything. That these are all of its writes and
nobody else's is proved by a second count of the API server over the same time: the flow schemas below match the
operator's ServiceAccount alone, so ``apiserver_flowcontrol_dispatched_requests_total`` counts its writes by who sent
them (those of its Lease apart). Both totals must agree.

The start is a slow one: each stage (no node, preparing, data checked, server starting) lasts for seconds, so every
news of it could be written by itself. The table is kept in ``api_cost.json``; write it anew
with

    WRITE_API_COST=1 .venv/bin/python -m pytest tests/perf/test_api_cost.py
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.control_plane.api import Api, Object, eventually, settled, wait_for_phase
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.objects import made_for, owned_by, session
from tests.control_plane.operator_process import ACCOUNT, NAMESPACE, OperatorProcess, forget_leader

RECORD = Path(__file__).parent / "api_cost.json"
STATUS_WRITES, EVENTS = 3, 3
"""What a session may cost beside one write for each child."""

STAGE_SECONDS = 4.0
"""How long each of the four stages of the start lasts."""

Row = tuple[str, str]
"""Verb, and resource with group and subresource, such as ``services`` or ``jobs.batch/status``."""


def _samples(api: Api, name: str) -> Iterator[tuple[dict[str, str], int]]:
    text = "\n".join(line for line in api.text("/metrics").splitlines() if line.startswith(name)) + "\n"
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.labels, int(sample.value)


def requests(api: Api) -> Counter[Row]:
    """Return how many requests there were of each verb and resource since the API server started."""
    counts: Counter[Row] = Counter()
    for labels, value in _samples(api, "apiserver_request_total"):
        resource = labels["resource"] + (f".{labels['group']}" if labels["group"] else "")
        subresource = f"/{labels['subresource']}" if labels["subresource"] else ""
        counts[labels["verb"], resource + subresource] += value
    return counts


_CREATED = ("pods", "persistentvolumes", "persistentvolumeclaims", "events.events.k8s.io")


def _is_the_operators(row: Row) -> bool:
    verb, resource = row
    return verb == "APPLY" or (verb == "POST" and resource in _CREATED)


FLOWS = {"panosc-lease": ["leases"], "panosc-writes": ["*"]}


@pytest.fixture
def flows(control_plane: ControlPlane, operator: OperatorProcess) -> Callable[[], dict[str, int]]:
    """Return the count of the operator's writes, those of its Lease and all others, told by who sent them."""
    api = control_plane.api
    for order, (name, resources) in enumerate(FLOWS.items()):
        rule = {
            "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": ACCOUNT, "namespace": NAMESPACE}}],
            "resourceRules": [
                {
                    "verbs": ["create", "update", "patch", "delete", "deletecollection"],
                    "apiGroups": ["*"],
                    "resources": resources,
                    "clusterScope": True,
                    "namespaces": ["*"],
                }
            ],
        }
        spec = {
            "matchingPrecedence": 50 + order,
            "priorityLevelConfiguration": {"name": "workload-high"},
            "rules": [rule],
        }
        flow = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema"}
        api.kubectl("apply", "-f", "-", text=json.dumps(flow | {"metadata": {"name": name}, "spec": spec}))

    def count() -> dict[str, int]:
        counts = dict.fromkeys(FLOWS, 0)
        for labels, value in _samples(api, "apiserver_flowcontrol_dispatched_requests_total"):
            if labels["flow_schema"] in counts:
                counts[labels["flow_schema"]] += value
        return counts

    # A new schema is in force when the Lease's renewals are counted under it.
    eventually("the flow schemas are in force", lambda: count()["panosc-lease"] > 0)
    return count


class Cost:
    """Counts the operator's writes from its making on.

    Parameters
    ----------
    api, flows
        Where it is counted.
    """

    def __init__(self, api: Api, flows: Callable[[], dict[str, int]]) -> None:
        self._api, self._flows = api, flows
        # Whatever still follows from earlier tests has to be over.
        eventually("nothing is left of other tests", lambda: not api.list("AnalysisSession") + api.list("AnalysisJob"))
        settled("the operator", lambda: flows()["panosc-writes"], quiet=2)
        self._rows, self._writes = requests(api), flows()["panosc-writes"]

    def total(self) -> int:
        """Return how many writes the operator sent, but for its Lease."""
        return self._flows()["panosc-writes"] - self._writes

    def rows(self) -> dict[Row, int]:
        """Return the operator's writes by verb and resource."""
        difference = requests(self._api) - self._rows
        return {row: count for row, count in sorted(difference.items()) if _is_the_operators(row)}


def _delete(api: Api, namespace: str, found: Object) -> None:
    api.delete("AnalysisSession", namespace, found["metadata"]["name"])
    eventually("its children are gone", lambda: not owned_by(made_for(api, namespace), found))
    eventually("it is gone", lambda: not api.list("AnalysisSession", namespace))


def test_writes_of_a_session(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str, flows: Callable[[], dict[str, int]]
) -> None:
    api = control_plane.api
    cost = Cost(api, flows)
    control_plane.kubelet.plan(namespace, "session", delay=STAGE_SECONDS)
    found = wait_for_phase(api, api.create(session(namespace)), "Ready", 60)
    children = len(made_for(api, namespace))
    _delete(api, namespace, found)
    total = settled("the operator", cost.total, quiet=2)
    rows = cost.rows()

    assert sum(rows.values()) == total, f"by resource {rows}, by sender {total}"
    events = rows.pop(("POST", "events.events.k8s.io"), 0)
    writes = sum(rows.values())
    record: dict[str, Any] = {
        "what": "API writes of the operator for a session with two areas of data, from its creation to its deletion",
        "children": children,
        "writes": writes,
        "events": events,
        "by verb and resource": {f"{verb} {resource}": count for (verb, resource), count in rows.items()},
    }
    print(json.dumps(record, indent=1))  # shown where the test fails
    assert writes <= children + STATUS_WRITES
    assert events <= EVENTS
    if os.environ.get("WRITE_API_COST"):
        temporary = RECORD.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        temporary.replace(RECORD)
    assert record == json.loads(RECORD.read_text()), "the cost has changed: see the head of this file"


def test_a_pass_that_finds_nothing_writes_nothing(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str, flows: Callable[[], dict[str, int]]
) -> None:
    api, number = control_plane.api, 8
    for i in range(number):
        api.create(session(namespace, f"look-{i}"))
    for i in range(number):
        wait_for_phase(api, session(namespace, f"look-{i}"), "Ready")
    writes = settled("the operator", lambda: flows()["panosc-writes"], quiet=2)

    # The catalogue changes in a way that changes nothing for the sessions: all of them are looked at.
    passes = operator.metric("panosc_reconcile_total", kind="AnalysisSession")
    change = {"metadata": {"annotations": {"example.org/touched": "1"}}}
    api.patch("AnalysisEnvironment", "", "jupyter", change)
    eventually(
        "all sessions are looked at",
        lambda: operator.metric("panosc_reconcile_total", kind="AnalysisSession") >= passes + number,
    )
    assert settled("the operator", lambda: flows()["panosc-writes"], quiet=2) == writes

    # A new process knows nothing: it looks at all of them.
    operator.kill()
    forget_leader(api)
    operator.start()
    operator.wait_to_lead()
    operator.wait_for_passes(api)
    assert operator.metric("panosc_reconcile_total", kind="AnalysisSession", result="ok") >= number
    assert settled("the operator", lambda: flows()["panosc-writes"], quiet=2) == writes
