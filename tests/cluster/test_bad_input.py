"""Input that is wrong: a condition that says what to change, no pod left, and nothing made in raw."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.cluster.conftest import OWNER, Facility, Namespace, condition, proposal_data


def _pods(namespace: Namespace, name: str) -> list[dict[str, Any]]:
    return namespace.items("pods", f"analysis.panosc.eu/name={name}")


def _wait_without_pods(namespace: Namespace, name: str) -> None:
    deadline = time.monotonic() + 60
    while _pods(namespace, name):
        assert time.monotonic() < deadline, "the pod is left"
        time.sleep(0.3)


CASES = {
    "missing-proposal": (proposal_data(proposal="799999"), "ProposalNotFound", "p799999/raw does not exist"),
    "missing-cycle": (proposal_data(cycle="209999"), "ProposalNotFound", "209999/p700000/raw does not exist"),
    "foreign-proposal": (proposal_data(proposal="700001"), "ProposalForbidden", "cannot be read by uid 31415"),
}


@pytest.mark.parametrize("name", CASES)
def test_session_with_unusable_proposal(namespace: Namespace, facility: Facility, name: str) -> None:
    data, reason, message = CASES[name]
    before = facility.raw_content()
    namespace.apply("AnalysisSession", name, {"environment": "jupyter", "owner": OWNER, "data": [data]})
    status = namespace.wait("asess", name, lambda s: s.get("phase") == "Failed", 120)
    for type_ in ("DataReady", "Ready"):
        assert condition(status, type_)["status"] == "False"
        assert condition(status, type_)["reason"] == reason
        assert message in condition(status, type_)["message"]
    assert status.get("startup", {}).get("startedAt") is None, "the session's own container was started"
    _wait_without_pods(namespace, name)
    assert facility.raw_content() == before


def test_job_with_unusable_proposal(namespace: Namespace, facility: Facility) -> None:
    before = facility.raw_content()
    spec = {
        "workflow": {"name": "sase-delivery"},
        "owner": OWNER,
        "data": [proposal_data(proposal="799999", runs="8-9")],
    }
    namespace.apply("AnalysisJob", "job-missing-proposal", spec)
    status = namespace.wait("ajob", "job-missing-proposal", lambda s: s.get("phase") == "Failed", 120)
    assert condition(status, "InputReady")["reason"] == "ProposalNotFound"
    _wait_without_pods(namespace, "job-missing-proposal")
    assert facility.raw_content() == before


@pytest.mark.parametrize(("runs", "reason", "words"), [("5", "SourceMissing", "XGM"), ("77", "RunNotFound", "r0077")])
def test_job_whose_run_is_wrong(namespace: Namespace, facility: Facility, runs: str, reason: str, words: str) -> None:
    name = f"job-run-{runs}"
    before = facility.raw_content()
    spec = {
        "workflow": {"name": "sase-delivery"},
        "owner": OWNER,
        "data": [proposal_data(proposal="700002", runs=runs)],
    }
    namespace.apply("AnalysisJob", name, spec)
    status = namespace.wait("ajob", name, lambda s: s.get("phase") == "Failed", 120)
    assert condition(status, "InputReady")["status"] == "False"
    assert condition(status, "InputReady")["reason"] == reason
    assert words in condition(status, "Failed")["message"]
    assert status["run"] == 1
    _wait_without_pods(namespace, name)
    events = namespace.items("events")
    assert not [e for e in events if e["involvedObject"]["name"].startswith(name) and "worker" in str(e)]
    assert not namespace.items("daskclusters", f"analysis.panosc.eu/name={name}")
    assert facility.raw_content() == before
