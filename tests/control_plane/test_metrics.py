"""What Prometheus reads from the operator."""

from __future__ import annotations

import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.control_plane.api import eventually, wait_for_phase
from tests.control_plane.fixtures import ControlPlane
from tests.control_plane.kubelet import End
from tests.control_plane.objects import job, last_words, session
from tests.control_plane.operator_process import OperatorProcess


def test_series_of_sessions_and_jobs(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str, promtool: Path
) -> None:
    api, kubelet = control_plane.api, control_plane.kubelet
    kubelet.progress[namespace] = {"progress": {"total": 4, "done": 1, "failed": 0}}
    workflow = {"workflow": "sase-delivery"}
    started = operator.metric("panosc_session_start_seconds_count", stage="ready", environment="jupyter")
    written = operator.metric("panosc_job_bytes_total", direction="written", **workflow)
    ran = operator.metric("panosc_job_run_seconds_count", **workflow)

    wait_for_phase(api, api.create(session(namespace)), "Ready")
    reduce = api.create(job(namespace))
    found = wait_for_phase(api, reduce, "Running")
    eventually("two workers are counted", lambda: operator.metric("panosc_dask_workers", state="ready") >= 2)
    assert operator.metric("panosc_dask_workers", state="desired") >= 2
    assert operator.metric("panosc_jobs", phase="Running", **workflow) >= 1
    assert operator.metric("panosc_sessions", phase="Ready", environment="jupyter") >= 1

    (driver,) = api.list("Pod", namespace, labels="job-name")
    kubelet.end(namespace, driver["metadata"]["name"], End(0, last_words()))
    wait_for_phase(api, found, "Succeeded")
    eventually("the job's end is counted", lambda: operator.metric("panosc_job_run_seconds_count", **workflow) > ran)

    for stage in ("queued", "scheduled", "started", "ready"):
        assert operator.metric("panosc_session_start_seconds_count", stage=stage, environment="jupyter") > started
    assert operator.metric("panosc_job_bytes_total", direction="written", **workflow) - written == 512
    for step, seconds in {"read": 1.5, "compute": 2.5, "write": 0.5}.items():
        assert operator.metric("panosc_job_step_seconds_total", step=step, **workflow) >= seconds
    assert operator.metric("panosc_job_partitions_total", result="done", **workflow) >= 4
    for kind in ("AnalysisSession", "AnalysisJob"):
        assert operator.metric("panosc_reconcile_total", kind=kind, result="ok") > 0
        assert operator.metric("panosc_reconcile_seconds_count", kind=kind) > 0
    assert operator.metric("panosc_api_requests_total", verb="post", resource="pods", code="201") > 0
    assert operator.metric("panosc_leader") == 1

    text = operator.get("/metrics")[1]
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names >= {
        *("panosc_sessions", "panosc_session_start_seconds", "panosc_jobs", "panosc_job_run_seconds"),
        *("panosc_job_step_seconds", "panosc_job_bytes", "panosc_job_partitions", "panosc_dask_workers"),
        *("panosc_orphans", "panosc_reconcile", "panosc_reconcile_seconds", "panosc_workqueue_depth"),
        *("panosc_api_requests", "panosc_leader"),
    }
    assert namespace not in text, "the namespace of a session or job is no label: there are too many"

    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_health(operator: OperatorProcess) -> None:
    assert operator.get("/healthz") == (200, "ok\n")
    assert operator.get("/readyz") == (200, "ok\n")
