"""What a driver tells is the word of the user's own code: it never breaks a decision, nor a status."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panosc_operator.domain import job
from panosc_operator.domain.driver import Report, parse_last_words, parse_report

from tests.unit.operator import builders
from tests.unit.operator.builders import CONTEXT, NOW, Body
from tests.unit.operator.schemas import violations

COMPLETE: Body = {
    "outcome": "Complete",
    "reason": "Complete",
    "message": "Ratios of 2 runs.",
    "summary": {"ratio": {"value": 0.0123, "uncertainty": 0.0004, "unit": ""}},
    "progress": {"total": 4, "done": 4, "failed": 0},
    "timing": {"read": 1.5, "compute": 2.0, "write": 0.25},
    "results": [{"name": "result.json", "path": "/gpfs/result.json", "bytes": 812, "sha256": "ab" * 32}],
    "provenance": {
        "image": "localhost/panosc/analysis:0.1.0",
        "versions": {"numpy": "2.3.1"},
        "parametersHash": "cd" * 32,
        "inputsHash": "ef" * 32,
        "workers": ["worker-0", "worker-1"],
    },
    "manifest": {"path": "/gpfs/manifest.json", "sha256": "12" * 32},
}


def end_with(text: str, *, exit_code: int = 0) -> Body:
    """Return the status after the driver's only try ended with this termination message."""
    body = builders.job(backoffLimit=0)
    first = job.decide(builders.job_snapshot(body), CONTEXT, NOW)
    children = builders.bodies_of(first.children)
    outcome = ("Complete", "CompletionsReached") if exit_code == 0 else ("Failed", "BackoffLimitExceeded")
    driver = builders.with_status(children["Job"], builders.job_condition(*outcome, "The Job has ended."))
    pod = builders.pod_at(
        builders.pod_of_job(driver), "succeeded" if exit_code == 0 else "failed", exit_code=exit_code, message=text
    )
    decision = job.decide(builders.job_snapshot(body, [driver, pod]), CONTEXT, NOW + timedelta(seconds=9))
    assert decision.status is not None
    return decision.status.to_kubernetes()


def test_what_was_said_stands_in_the_status() -> None:
    status = end_with(json.dumps(COMPLETE))
    assert violations("AnalysisJob", "status", status) == []
    assert status["phase"] == "Succeeded"
    for field in ("progress", "timing", "results", "summary"):
        assert status[field] == COMPLETE[field]
    assert status["provenance"] == COMPLETE["provenance"] | {"manifestSha256": "12" * 32}


def test_what_the_status_has_no_field_for_is_left_out() -> None:
    extra = json.loads(json.dumps(COMPLETE))
    extra["summary"]["ratio"]["colour"] = "red"
    extra["results"][0]["owner"] = "root"
    extra |= {"phase": "Succeeded", "conditions": []}
    assert end_with(json.dumps(extra)) == end_with(json.dumps(COMPLETE))


def test_long_lists_are_cut() -> None:
    long = COMPLETE | {
        "summary": {f"figure{i}": {"value": i} for i in range(40)},
        "results": [COMPLETE["results"][0] | {"name": f"part{i}.h5"} for i in range(70)],
        "provenance": {"workers": [f"w{i}" for i in range(99)], "versions": {f"p{i}": "1" for i in range(50)}},
    }
    status = end_with(json.dumps(long))
    assert violations("AnalysisJob", "status", status) == []
    assert (len(status["summary"]), len(status["results"])) == (32, 50)
    assert (len(status["provenance"]["workers"]), len(status["provenance"]["versions"])) == (64, 32)


def test_a_result_named_twice_stands_once() -> None:
    twice = COMPLETE | {"results": [COMPLETE["results"][0]] * 2}
    assert end_with(json.dumps(twice))["results"] == COMPLETE["results"]


def _with(**fields: Any) -> str:
    return json.dumps(COMPLETE | fields)


HOSTILE = {
    "nothing": "",
    "a traceback": "Traceback (most recent call last):\n  File ...\nMemoryError",
    "cut off": json.dumps(COMPLETE)[:200],
    "null": "null",
    "a list": "[]",
    "a number": "1e999",
    "no outcome": json.dumps({"reason": "Complete"}),
    "an outcome that is a map": _with(outcome={}),
    "deep": "[" * 4000,
    "deep inside": '{"outcome": "Complete", "summary": ' + '{"a":' * 3900,
    "summary is a list": _with(summary=[1, 2]),
    "figure is a number": _with(summary={"ratio": 1}),
    "figure is NaN": _with(summary={"ratio": {"value": math.nan}}),
    "figure is infinite": _with(summary={"ratio": {"value": math.inf}}),
    "figure is a NaN in words": _with(summary={"ratio": {"value": "NaN"}}),
    "unit too long": _with(summary={"ratio": {"unit": "x" * 33}}),
    "results is a map": _with(results={"a": 1}),
    "a result is a string": _with(results=["result.json"]),
    "bytes beyond 64 bits": _with(results=[COMPLETE["results"][0] | {"bytes": 10**30}]),
    "name too long": _with(results=[COMPLETE["results"][0] | {"name": "x" * 257}]),
    "provenance is a string": _with(provenance="me"),
    "workers is a number": _with(provenance={"workers": 3}),
    "versions is a list": _with(provenance={"versions": ["1"]}),
    "progress is a list": _with(progress=[1]),
    "progress beyond 64 bits": _with(progress={"total": 2**63}),
    "reason is empty": _with(reason=""),
    "reason too long": _with(reason="X" * 64),
    "message too long": _with(message="x" * 2049),
    "half a character": '{"outcome": "Complete", "message": "\\ud800"}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_words_end_the_job_as_failed_with_a_status_that_fits(text: str) -> None:
    assert parse_last_words(text) is None
    status = end_with(text, exit_code=1)
    assert violations("AnalysisJob", "status", status) == []
    assert status["phase"] == "Failed"
    assert "summary" not in status


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
figures = st.dictionaries(
    st.text(max_size=12),
    st.fixed_dictionaries({}, optional={"value": st.floats() | st.text(max_size=5), "unit": st.text(max_size=40)}),
    max_size=4,
)
words = st.fixed_dictionaries(
    {"outcome": st.sampled_from(["Complete", "Failed", "?"])},
    optional={
        "reason": st.text(max_size=70),
        "message": st.text(max_size=70),
        "summary": figures | json_values,
        "progress": st.dictionaries(st.sampled_from(["total", "done", "failed", "x"]), st.integers() | json_values),
        "timing": st.dictionaries(st.sampled_from(["read", "compute"]), st.floats() | json_values),
        "results": json_values,
        "provenance": st.dictionaries(st.sampled_from(["image", "workers", "versions", "x"]), json_values),
        "manifest": json_values,
    },
)


@settings(max_examples=40)
@given(words=words | json_values, exit_code=st.sampled_from([0, 1, 2]))
def test_whatever_is_said_the_status_fits(words: Any, exit_code: int) -> None:
    assert violations("AnalysisJob", "status", end_with(json.dumps(words), exit_code=exit_code)) == []


@settings(max_examples=40)
@given(words=words | json_values)
def test_whatever_progress_is_told_the_status_fits(words: Any) -> None:
    report = parse_report(words)
    if report is not None:
        snapshot = builders.job_snapshot(builders.job(), report=report)
        status = job.decide(snapshot, CONTEXT, NOW).status
        assert status is not None
        assert violations("AnalysisJob", "status", status.to_kubernetes()) == []


def test_progress_is_taken_over() -> None:
    told = {"stage": "Running", "inputReady": True, "progress": {"total": 9, "done": 4}, "workers": 2}
    report = parse_report(told)
    assert isinstance(report, Report)
    assert (report.progress.total, report.progress.done, report.progress.failed) == (9, 4, 0)


@pytest.mark.parametrize(
    "raw", [None, 3, "text", [], {"progress": []}, {"timing": {"read": math.nan}}, {"progress": {"total": 2**64}}]
)
def test_progress_that_is_none_is_ignored(raw: object) -> None:
    assert parse_report(raw) is None
