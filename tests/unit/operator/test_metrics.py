"""Metrics: what Prometheus reads can be parsed, and counts what is there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from panosc_operator import metrics
from panosc_operator.api.job import AnalysisJobStatus
from panosc_operator.api.session import AnalysisSessionStatus
from panosc_operator.domain.seen import Key, SeenCustom, project
from panosc_operator.reconcile.store import Store
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.operator import builders
from tests.unit.operator.builders import NAMESPACE, NOW, Body, rfc3339
from tests.unit.operator.simulation import Simulation, complete_words, refusal, simulated, until_end

LOOK = Key("AnalysisSession", NAMESPACE, "look")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(registry: CollectorRegistry = REGISTRY) -> Samples:
    """Return every sample, as Prometheus would read it."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def sample(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def gauges(bodies: Iterable[Body], depth: dict[str, int] | None = None) -> Samples:
    store, registry = Store(), CollectorRegistry()
    for body in bodies:
        store.put(project(body))
    registry.register(metrics.StoreCollector(store.all, lambda: depth or {}))
    return scrape(registry)


def session_in(phase: str | None, name: str, environment: str = "jupyter") -> Body:
    body = builders.session(name, environment=environment)
    return builders.with_status(body, {"phase": phase}) if phase else body


def test_sessions_and_jobs_are_counted_by_phase() -> None:
    job = builders.with_status(builders.job(), {"phase": "Running", "workers": {"desired": 4, "ready": 3}})
    samples = gauges(
        [
            session_in("Ready", "a"),
            session_in("Ready", "b"),
            session_in("Ready", "c", "desktop"),
            session_in("Failed", "d"),
            session_in(None, "e"),
            job,
        ]
    )
    assert sample(samples, "panosc_sessions", phase="Ready", environment="jupyter") == 2
    assert sample(samples, "panosc_sessions", phase="Ready", environment="desktop") == 1
    assert sample(samples, "panosc_sessions", phase="Failed", environment="jupyter") == 1
    assert sample(samples, "panosc_sessions", phase="Pending", environment="jupyter") == 1
    assert sample(samples, "panosc_sessions", phase="Starting", environment="jupyter") is None
    assert sample(samples, "panosc_jobs", phase="Running", workflow="sase-delivery") == 1
    assert sample(samples, "panosc_dask_workers", state="desired") == 4
    assert sample(samples, "panosc_dask_workers", state="ready") == 3


def test_an_object_that_cannot_be_read_is_counted_too() -> None:
    body = builders.session()
    body["spec"]["owner"] = "me"
    assert sample(gauges([body]), "panosc_sessions", phase="Pending", environment="") == 1


def test_the_queues_depth_is_told_even_when_it_is_empty() -> None:
    samples = gauges([], {"AnalysisJob": 7})
    assert sample(samples, "panosc_workqueue_depth", kind="AnalysisJob") == 7
    assert sample(samples, "panosc_workqueue_depth", kind="AnalysisSession") == 0


def seen(body: Body) -> SeenCustom:
    found = project(body)
    assert isinstance(found, SeenCustom)
    return found


def test_the_stages_of_a_start_are_timed_once() -> None:
    environment = "timed"
    session = seen(builders.session(environment=environment))
    at = {name: rfc3339(NOW + timedelta(seconds=seconds)) for name, seconds in (
        ("queuedAt", 1), ("scheduledAt", 2), ("startedAt", 5), ("readyAt", 9),
    )}  # fmt: skip
    starting = AnalysisSessionStatus.model_validate(
        {"phase": "Starting", "run": 1, "startup": {"queuedAt": at["queuedAt"]}}
    )
    ready = AnalysisSessionStatus.model_validate({"phase": "Ready", "run": 1, "startup": at})
    metrics.observe_session(session, AnalysisSessionStatus(), starting)
    assert sample(scrape(), "panosc_session_start_seconds_count", stage="ready", environment=environment) is None
    metrics.observe_session(session, starting, ready)
    metrics.observe_session(session, ready, ready)
    samples = scrape()
    taken = {
        stage: sample(samples, "panosc_session_start_seconds_sum", stage=stage, environment=environment)
        for stage in ("queued", "scheduled", "started", "ready")
    }
    assert taken == {"queued": 1, "scheduled": 1, "started": 4, "ready": 8}
    assert sample(samples, "panosc_session_start_seconds_count", stage="ready", environment=environment) == 1
    metrics.observe_session(session, ready, ready.model_copy(update={"run": 2}))
    assert sample(scrape(), "panosc_session_start_seconds_count", stage="ready", environment=environment) == 2


def test_a_jobs_figures_are_added_up_once_at_its_end() -> None:
    job = seen(builders.job(workflow={"name": "added-up"}))
    running = AnalysisJobStatus.model_validate({"phase": "Running"})
    ended = AnalysisJobStatus.model_validate(
        {
            "phase": "Succeeded",
            "startedAt": rfc3339(NOW),
            "finishedAt": rfc3339(NOW + timedelta(seconds=75)),
            "progress": {"total": 5, "done": 4, "failed": 1},
            "timing": {"read": 1.5, "compute": 2.0, "write": 0.5},
            "results": [
                {"name": "a", "path": "/a", "bytes": 100, "sha256": ""},
                {"name": "b", "path": "/b", "bytes": 23, "sha256": ""},
            ],
        }
    )
    for before, after in ((running, running), (running, ended), (ended, ended)):
        metrics.observe_job(job, before, after)
    samples = scrape()
    assert sample(samples, "panosc_job_run_seconds_sum", workflow="added-up") == 75
    assert sample(samples, "panosc_job_run_seconds_count", workflow="added-up") == 1
    assert sample(samples, "panosc_job_step_seconds_total", workflow="added-up", step="read") == 1.5
    assert sample(samples, "panosc_job_partitions_total", workflow="added-up", result="done") == 4
    assert sample(samples, "panosc_job_partitions_total", workflow="added-up", result="failed") == 1
    assert sample(samples, "panosc_job_bytes_total", workflow="added-up", direction="written") == 123


@simulated
async def test_a_life_leaves_its_marks(sim: Simulation) -> None:
    def looks(kind: str, result: str) -> float:
        return sample(scrape(), "panosc_reconcile_total", kind=kind, result=result) or 0.0

    good, bad = looks("AnalysisSession", "ok"), looks("AnalysisSession", "error")
    sim.operator.cluster.failures.append(refusal(500, "etcd is slow"))
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Ready")
    assert looks("AnalysisSession", "ok") > good
    assert looks("AnalysisSession", "error") == bad + 1
    before = sample(scrape(), "panosc_job_run_seconds_count", workflow="sase-delivery") or 0.0
    sim.kubernetes.steps["driver"] = until_end(15, "succeeded", message=complete_words())
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(Key("AnalysisJob", NAMESPACE, "ratio")) == "Succeeded")
    assert sample(scrape(), "panosc_job_run_seconds_count", workflow="sase-delivery") == before + 1


def test_names_are_prefixed_and_the_text_can_be_parsed() -> None:
    store, registry = Store(), CollectorRegistry()
    registry.register(metrics.StoreCollector(store.all, dict))
    names = {family.name for family in text_string_to_metric_families(generate_latest(registry).decode())}
    assert names == {"panosc_sessions", "panosc_jobs", "panosc_dask_workers", "panosc_workqueue_depth"}
    ours = {
        family.name for family in text_string_to_metric_families(generate_latest().decode()) if "panosc" in family.name
    }
    assert {
        "panosc_session_start_seconds", "panosc_job_run_seconds", "panosc_job_step_seconds", "panosc_job_partitions",
        "panosc_job_bytes", "panosc_orphans", "panosc_reconcile", "panosc_reconcile_seconds", "panosc_api_requests",
        "panosc_leader",
    } <= ours  # fmt: skip
