"""The operator's metrics: counters where things happen, gauges counted from the store when Prometheus asks."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from panosc_operator.api.job import AnalysisJobSpec, AnalysisJobStatus, JobPhase
from panosc_operator.api.session import AnalysisSessionSpec, AnalysisSessionStatus, SessionPhase
from panosc_operator.domain.seen import Seen, SeenCustom

_START_BUCKETS = (0.5, 1, 2, 3, 5, 8, 13, 21, 34, 60, 120, 300, 600)
_RUN_BUCKETS = (10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600)

SESSION_START_SECONDS = Histogram(
    "panosc_session_start_seconds",
    "Seconds from the making of a session's pod to each stage.",
    ["stage", "environment"],
    buckets=_START_BUCKETS,
)
JOB_RUN_SECONDS = Histogram(
    "panosc_job_run_seconds",
    "Seconds from the first driver to the end of a job.",
    ["workflow"],
    buckets=_RUN_BUCKETS,
)
JOB_STEP_SECONDS = Counter(
    "panosc_job_step_seconds",
    "Seconds that the workers of ended jobs spent in each step.",
    ["workflow", "step"],
)
JOB_PARTITIONS = Counter("panosc_job_partitions", "Partitions of ended jobs.", ["workflow", "result"])
JOB_BYTES = Counter("panosc_job_bytes", "Bytes that ended jobs wrote.", ["workflow", "direction"])
ORPHANS = Counter("panosc_orphans", "Children found without their session or job by a sweep.", ["kind"])
RECONCILE = Counter("panosc_reconcile", "Looks at sessions and jobs.", ["kind", "result"])
RECONCILE_SECONDS = Histogram("panosc_reconcile_seconds", "Seconds taken by a look.", ["kind"])
API_REQUESTS = Counter("panosc_api_requests", "Requests to the API server.", ["verb", "resource", "code"])
LEADER = Gauge("panosc_leader", "Whether this replica leads.")


def observe_session(session: SeenCustom, before: AnalysisSessionStatus, after: AnalysisSessionStatus) -> None:
    """Record how long the stages of a start took, once it is ready for the first time in its run."""
    known = before.startup is not None and before.startup.ready_at is not None and before.run == after.run
    if after.phase is not SessionPhase.READY or known:
        return
    startup, spec = after.startup, session.spec
    if startup is None or startup.queued_at is None or not isinstance(spec, AnalysisSessionSpec):
        return
    stages = {"scheduled": startup.scheduled_at, "started": startup.started_at, "ready": startup.ready_at}
    SESSION_START_SECONDS.labels("queued", spec.environment).observe(_seconds(session.created, startup.queued_at))
    for stage, moment in stages.items():
        if moment is not None:
            SESSION_START_SECONDS.labels(stage, spec.environment).observe(_seconds(startup.queued_at, moment))


def _seconds(start: datetime, end: datetime) -> float:
    return max((end - start).total_seconds(), 0.0)


def observe_job(job: SeenCustom, before: AnalysisJobStatus, after: AnalysisJobStatus) -> None:
    """Record the figures of a job at its end."""
    ended = (JobPhase.SUCCEEDED, JobPhase.FAILED)
    if after.phase not in ended or before.phase in ended or not isinstance(job.spec, AnalysisJobSpec):
        return
    workflow = job.spec.workflow.name
    if after.started_at is not None and after.finished_at is not None:
        JOB_RUN_SECONDS.labels(workflow).observe(_seconds(after.started_at, after.finished_at))
    if after.timing is not None:
        for step, seconds in after.timing.to_kubernetes().items():
            JOB_STEP_SECONDS.labels(workflow, step).inc(seconds)
    if after.progress is not None:
        JOB_PARTITIONS.labels(workflow, "done").inc(after.progress.done)
        JOB_PARTITIONS.labels(workflow, "failed").inc(after.progress.failed)
    if after.results is not None:
        JOB_BYTES.labels(workflow, "written").inc(sum(result.bytes for result in after.results))


class StoreCollector(Collector):
    """Gauges that are counted when asked for, so that they are never stale.

    Parameters
    ----------
    objects
        Returns what was seen of a kind.
    depth
        Returns how many keys of each kind wait for a worker.
    """

    def __init__(self, objects: Callable[[str], Iterable[Seen]], depth: Callable[[], dict[str, int]]) -> None:
        self._objects = objects
        self._depth = depth

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Count."""
        yield self._phases("panosc_sessions", "Sessions.", "AnalysisSession", "environment")
        yield self._phases("panosc_jobs", "Jobs.", "AnalysisJob", "workflow")
        workers = GaugeMetricFamily("panosc_dask_workers", "Dask workers of running jobs.", labels=["state"])
        for state in ("desired", "ready"):
            workers.add_metric(
                [state],
                sum(_status(job).get("workers", {}).get(state, 0) for job in self._objects("AnalysisJob")),
            )
        yield workers
        queue = GaugeMetricFamily("panosc_workqueue_depth", "Objects that wait for a worker.", labels=["kind"])
        for kind in ("AnalysisSession", "AnalysisJob"):
            queue.add_metric([kind], self._depth().get(kind, 0))
        yield queue

    def _phases(self, name: str, text: str, kind: str, label: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=["phase", label])
        counts = Tally((_status(seen).get("phase", "Pending"), _reference(seen)) for seen in self._objects(kind))
        for labels, count in sorted(counts.items()):
            family.add_metric(list(labels), count)
        return family


def _status(seen: Seen) -> dict[str, Any]:
    return dict(seen.status) if isinstance(seen, SeenCustom) else {}


def _reference(seen: Seen) -> str:
    spec = seen.spec if isinstance(seen, SeenCustom) else None
    if isinstance(spec, AnalysisSessionSpec):
        return spec.environment
    return spec.workflow.name if isinstance(spec, AnalysisJobSpec) else ""


def register(collector: StoreCollector) -> None:
    """Show the collector's gauges on ``/metrics``."""
    REGISTRY.register(collector)
