"""What the driver pod of an AnalysisJob runs: `panosc-analysis drive`.

The job comes in the environment variable PANOSC_JOB; `/progress`, `/ready` and `/metrics` are served while it runs; the
outcome goes into the termination message and the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from panosc_analysis.commit import MANIFEST, Commit, sha256
from panosc_analysis.errors import InputError, JobError
from panosc_analysis.execution import Job, OnExists, Progress, Tracker, execute, to_json

if TYPE_CHECKING:
    from distributed import Client

PORT = 8780
MESSAGE_BYTES = 4096
"""What Kubernetes keeps of a termination message."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel)


class WorkflowReference(_Model):
    """Which workflow, in which version."""

    name: str
    version: str | None = None


class InputRun(_Model):
    """A run folder, and what it is called at the facility."""

    proposal: str = ""
    run: int = 0
    path: Path


class Output(_Model):
    """Where the output folder is to be."""

    path: Path
    on_exists: OnExists = "Fail"


class Workers(_Model):
    """How many workers to wait for."""

    minimum: int = Field(default=1, ge=1)
    maximum: int = Field(default=1, ge=1)


class DriverJob(_Model):
    """The content of PANOSC_JOB."""

    name: str
    namespace: str
    uid: str
    run: int = 1
    title: str = ""
    workflow: WorkflowReference
    parameters: dict[str, Any] = {}
    inputs: list[InputRun]
    output: Output
    scheduler: str
    workers: Workers = Workers()
    image: str = ""

    def job(self) -> Job:
        """Return the part that does not know of Kubernetes."""
        return Job(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            title=self.title,
            workflow=self.workflow.name,
            version=self.workflow.version,
            parameters=self.parameters,
            inputs=tuple(run.path for run in self.inputs),
            output=self.output.path,
            on_exists=self.output.on_exists,
            image=self.image,
        )


class Terminated(BaseException):
    """SIGTERM came."""


def drive() -> int:
    """Run the job of PANOSC_JOB; return the exit code: 0 complete, 2 wrong input or parameters, 1 anything else."""
    tracker = Tracker(_log_stages())
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        spec = _spec()
        with _served(tracker, spec.workflow.name):
            commit = execute(spec.job(), lambda told: _cluster(spec, told), tracker)
    except JobError as error:
        return _fail(tracker, error.reason, error.message, error.exit_code)
    except Terminated:
        return _fail(tracker, "Terminated", "the driver was told to stop before it was done", 1)
    except Exception as error:
        return _fail(tracker, "WorkflowFailed", f"{type(error).__name__}: {error}", 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    _leave(complete_message(commit, tracker.progress))
    print(f"committed {commit.path}", file=sys.stderr)
    return 0


def _terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the clean-up is not to be interrupted
    raise Terminated


def _spec() -> DriverJob:
    try:
        return DriverJob.model_validate_json(os.environ["PANOSC_JOB"])
    except KeyError:
        raise InputError("InvalidParameters", "the environment variable PANOSC_JOB is not set") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError("InvalidParameters", f"PANOSC_JOB: {where}: {problem['msg']}") from error


@contextmanager
def _cluster(spec: DriverJob, tracker: Tracker) -> Iterator[Client]:
    """Connect to the job's Dask scheduler as soon as it is there, and wait for the least number of workers."""
    from distributed import Client

    limit = float(os.environ.get("PANOSC_WORKERS_TIMEOUT", "600"))
    deadline = time.monotonic() + limit
    client = None
    while client is None:
        try:
            client = Client(spec.scheduler, timeout=max(1.0, min(10.0, deadline - time.monotonic())))
        except OSError as error:  # TimeoutError is one; so is a name that does not resolve yet
            if time.monotonic() >= deadline:
                raise JobError(
                    "WorkersTimeout", f"the Dask scheduler {spec.scheduler} did not answer within {limit:.0f} s"
                ) from error
            time.sleep(1)
    with client:
        while (workers := len(client.nthreads())) < spec.workers.minimum:
            tracker.set(workers=workers)
            if time.monotonic() >= deadline:
                raise JobError(
                    "WorkersTimeout",
                    f"{workers} of at least {spec.workers.minimum} workers came within {limit:.0f} s: "
                    "ask for fewer, or for smaller ones",
                )
            time.sleep(0.5)
        tracker.set(workers=workers)
        yield client


# outcome ---------------------------------------------------------------------------------------------------


def complete_message(commit: Commit, progress: Progress) -> dict[str, Any]:
    """Tell of a commit; results are left out from the end where there is no room for all."""
    provenance = commit.result["provenance"]
    versions = provenance["versions"]
    message: dict[str, Any] = {
        "outcome": "Complete",
        "reason": "Committed",
        "message": f"{len(commit.manifest['files'])} files in {commit.path}",
        "summary": commit.result["summary"],
        "progress": progress.partitions,
        "timing": progress.timing,
        "results": [],
        "provenance": {
            "image": provenance["image"],
            "versions": {name: versions[name] for name in ("panosc-analysis", "EXtra-data", "numpy", "distributed")},
            "parametersHash": provenance["parametersHash"],
            "inputsHash": provenance["inputsHash"],
            "workers": provenance["workers"],
        },
        "manifest": {"path": str(commit.path / MANIFEST), "sha256": sha256(commit.path / MANIFEST)},
    }
    while len(_encode(message)) > MESSAGE_BYTES and len(message["provenance"]["workers"]) > 2:
        message["provenance"]["workers"].pop()
    while len(_encode(message)) > MESSAGE_BYTES and message["summary"]:
        message["summary"].popitem()
    for file in commit.manifest["files"]:
        entry = {**file, "path": str(commit.path / file["name"])}
        if len(_encode(message | {"results": [*message["results"], entry]})) > MESSAGE_BYTES:
            break
        message["results"].append(entry)
    return message


def failed_message(progress: Progress, reason: str, message: str) -> dict[str, Any]:
    """Tell of a failure; the message is cut where it is too long."""
    told = {
        "outcome": "Failed",
        "reason": reason,
        "message": message,
        "progress": progress.partitions,
        "timing": progress.timing,
    }
    while len(_encode(told)) > MESSAGE_BYTES // 2:
        told["message"] = str(told["message"])[: len(str(told["message"])) * 3 // 4] + "…"
    return told


def _fail(tracker: Tracker, reason: str, message: str, code: int) -> int:
    one_line = " ".join(message.split())
    tracker.set(stage="Failed")
    _leave(failed_message(tracker.progress, reason, one_line))
    print(f"{reason}: {one_line}", file=sys.stderr)
    return code


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _leave(message: dict[str, Any]) -> None:
    """Write the termination message; outside a pod there may be no place for it."""
    path = Path(os.environ.get("PANOSC_TERMINATION_LOG", "/dev/termination-log"))
    try:
        path.write_bytes(_encode(message))
    except OSError as error:
        print(f"the termination message could not be written to {path}: {error}", file=sys.stderr)


# progress and metrics --------------------------------------------------------------------------------------


@contextmanager
def _served(tracker: Tracker, workflow: str) -> Iterator[None]:
    """Serve `/progress` and `/metrics` while the block runs."""
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PANOSC_PORT", PORT))), _handler(tracker, workflow))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _handler(tracker: Tracker, workflow: str) -> type[BaseHTTPRequestHandler]:
    registry = CollectorRegistry()
    registry.register(_JobMetrics(tracker, workflow))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/progress":
                self._answer("application/json", to_json(tracker.progress).encode())
            elif self.path == "/ready":  # the input is right, workers may come
                ready = tracker.progress.input_ready
                self._answer("text/plain", b"ready\n" if ready else b"checking the input\n", 200 if ready else 503)
            elif self.path == "/metrics":
                self._answer(CONTENT_TYPE_LATEST, generate_latest(registry))
            else:
                self.send_error(404)

        def _answer(self, content_type: str, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the log for the job."""

    return Handler


class _JobMetrics(Collector):
    """The job's progress as Prometheus series."""

    def __init__(self, tracker: Tracker, workflow: str) -> None:
        self._tracker = tracker
        self._workflow = workflow

    def collect(self) -> Iterator[Metric]:
        """Yield the series of this moment."""
        progress = self._tracker.progress
        seconds = CounterMetricFamily(
            "panosc_job_step_seconds", "Time spent in a step, over all workers", labels=["workflow", "step"]
        )
        for step, value in progress.timing.items():
            seconds.add_metric([self._workflow, step], value)
        partitions = CounterMetricFamily(
            "panosc_job_partitions", "Partitions that ended", labels=["workflow", "result"]
        )
        partitions.add_metric([self._workflow, "done"], progress.done)
        partitions.add_metric([self._workflow, "failed"], progress.failed)
        transferred = CounterMetricFamily("panosc_job_bytes", "Bytes moved", labels=["workflow", "direction"])
        transferred.add_metric([self._workflow, "read"], progress.bytes_read)
        transferred.add_metric([self._workflow, "written"], progress.bytes_written)
        total = GaugeMetricFamily("panosc_job_partitions_expected", "Partitions of the job", labels=["workflow"])
        total.add_metric([self._workflow], progress.total)
        workers = GaugeMetricFamily("panosc_job_workers", "Dask workers connected", labels=["workflow"])
        workers.add_metric([self._workflow], progress.workers)
        yield from (seconds, partitions, transferred, total, workers)


def _log_stages() -> Any:
    """Return a listener that prints each new stage."""
    last = ""

    def listen(progress: Progress) -> None:
        nonlocal last
        if progress.stage != last:
            last = progress.stage
            print(last, file=sys.stderr, flush=True)

    return listen
