"""A job from its input to its committed output, on whatever Dask cluster it is given.

CheckingInput -> WaitingForWorkers -> Running -> Finishing -> Committed, or Failed from anywhere.
"""

from __future__ import annotations

import json
import platform
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from panosc_analysis import workflows
from panosc_analysis.commit import RESULT, Commit, Staging, canonical_hash, find_commit, write_json, written_whole
from panosc_analysis.errors import InputError, JobError
from panosc_analysis.workflows import Arrays, CheckedInput, Partition, PartitionOutput, Result, Workflow

if TYPE_CHECKING:
    from distributed import Client, Future

Stage = Literal["CheckingInput", "WaitingForWorkers", "Running", "Finishing", "Committed", "Failed"]
OnExists = Literal["Fail", "Skip", "Overwrite"]

RETRIES = 2
"""How often Dask tries a partition again."""
NO_WORKERS_SECONDS = 600.0
"""How long a running job waits when all its workers are gone."""


@dataclass(frozen=True)
class Job:
    """What to run, on what, and where the output goes."""

    name: str
    uid: str
    workflow: str
    parameters: Mapping[str, Any]
    inputs: tuple[Path, ...]
    output: Path
    namespace: str = ""
    title: str = ""
    version: str | None = None
    """Version of the workflow that is asked for; None takes the one that is here."""
    on_exists: OnExists = "Fail"
    image: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a job is; never changed, always replaced."""

    stage: Stage = "CheckingInput"
    input_ready: bool = False
    total: int = 0
    done: int = 0
    failed: int = 0
    workers: int = 0
    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def timing(self) -> dict[str, float]:
        """Seconds spent, over all workers and the driver."""
        return {step: round(getattr(self, step), 3) for step in ("read", "compute", "write")}

    @property
    def partitions(self) -> dict[str, int]:
        """Partitions in all, done, and given up."""
        return {"total": self.total, "done": self.done, "failed": self.failed}


class Tracker:
    """Holds the current `Progress` for readers in other threads.

    Parameters
    ----------
    on_change
        Called after each change with the new progress.
    """

    def __init__(self, on_change: Callable[[Progress], None] = lambda _: None) -> None:
        self._lock = threading.Lock()
        self._progress = Progress()
        self._on_change = on_change

    @property
    def progress(self) -> Progress:
        """The current progress."""
        return self._progress

    def set(self, **changes: Any) -> None:
        """Replace some fields."""
        with self._lock:
            self._progress = replace(self._progress, **changes)
        self._on_change(self._progress)

    def add(self, **amounts: float) -> None:
        """Add to some fields."""
        with self._lock:
            changes: dict[str, Any] = {name: getattr(self._progress, name) + amount for name, amount in amounts.items()}
            self._progress = replace(self._progress, **changes)
        self._on_change(self._progress)

    @contextmanager
    def timed(self, step: Literal["read", "compute", "write"]) -> Iterator[None]:
        """Add the time that a block takes to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(**{step: time.perf_counter() - start})


Connect = Callable[[Tracker], AbstractContextManager["Client"]]
"""Gives a client of a Dask cluster with at least one worker."""


def execute(job: Job, connect: Connect, tracker: Tracker) -> Commit:
    """Run a job and commit its output.

    Parameters
    ----------
    job
        What to run.
    connect
        Called only when input and parameters are found good.
    tracker
        Told of every step.

    Returns
    -------
    The commit: the new one; where the job's uid has committed before or `on_exists` is Skip, the one that is there.

    Raises
    ------
    InputError
        For input, parameters or output that cannot work; nothing was written.
    JobError
        When a partition failed or workers did not come; what was written is removed.
    """
    start = time.monotonic()
    tracker.set(stage="CheckingInput")
    try:
        there = _existing(job)
        if there:
            done = int(there.result["provenance"]["partitions"])
            tracker.set(stage="Committed", input_ready=True, total=done, done=done)
            return there
        workflow, parameters, checked = check(job)
        staging = Staging(job.output, job.uid)
        staging.open(_key(job, workflow, checked))
        try:
            commit = _run(job, workflow, parameters, checked, staging, connect, tracker, start)
        except BaseException:
            staging.remove()
            raise
    except BaseException:
        tracker.set(stage="Failed")
        raise
    tracker.set(stage="Committed")
    return commit


def check(job: Job) -> tuple[Workflow, BaseModel, CheckedInput]:
    """Validate parameters and look at the input, without Dask and without writing."""
    workflow = workflows.load(job.workflow)
    if job.version not in (None, workflow.VERSION):
        raise InputError(
            "InvalidParameters", f"{job.workflow} {job.version} is asked for, but this is version {workflow.VERSION}"
        )
    parameters = validated(workflow, job.parameters)
    if not job.inputs:
        raise InputError("InvalidParameters", "no input run: name at least one")
    for run in job.inputs:
        if job.output.resolve().is_relative_to(run.resolve()):
            raise InputError("InvalidParameters", f"the output {job.output} is inside the input {run}: choose another")
    return workflow, parameters, workflow.check(job.inputs, parameters)


def validated(workflow: Workflow, parameters: Mapping[str, Any]) -> BaseModel:
    """Turn a mapping into the workflow's parameters; InvalidParameters names what is wrong, in one line."""
    try:
        return workflow.Parameters.model_validate(parameters)
    except ValidationError as error:
        problems = "; ".join(
            f"`{'.'.join(str(part) for part in problem['loc']) or 'parameters'}`: {problem['msg']}"
            for problem in error.errors()
        )
        raise InputError("InvalidParameters", f"{workflow.NAME}: {problems}") from error


def _existing(job: Job) -> Commit | None:
    """Return a commit at the output that stands for this job, after the rules of `on_exists`."""
    if not job.output.exists():
        return None
    commit = find_commit(job.output)
    if commit and (commit.uid == job.uid or job.on_exists == "Skip"):
        return commit
    if commit is None:
        raise InputError("OutputExists", f"{job.output} exists and is not the output of a job: choose another output")
    if job.on_exists == "Overwrite":
        return None
    raise InputError(
        "OutputExists",
        f"{job.output} exists: choose another output, remove it, or let an "
        "AnalysisJob have output.onExists: Skip or Overwrite",
    )


def _key(job: Job, workflow: Workflow, checked: CheckedInput) -> dict[str, str]:
    """Return what must be equal for partitions of an earlier attempt to be of use."""
    return {
        "workflow": f"{workflow.NAME} {workflow.VERSION}",
        "parametersHash": canonical_hash(dict(job.parameters)),
        "inputsHash": _inputs_hash(checked),
    }


def _inputs_hash(checked: CheckedInput) -> str:
    return canonical_hash([asdict(file) for file in checked.files])


def _run(
    job: Job,
    workflow: Workflow,
    parameters: BaseModel,
    checked: CheckedInput,
    staging: Staging,
    connect: Connect,
    tracker: Tracker,
    start: float,
) -> Commit:
    """Do everything from checked input to commit."""
    partitions = workflow.partition(checked, parameters)
    tracker.set(stage="WaitingForWorkers", input_ready=True, total=len(partitions))
    with connect(tracker) as client:
        tracker.set(stage="Running")
        done = run_partitions(client, job, partitions, parameters, staging.work, tracker)
    tracker.set(stage="Finishing")
    with tracker.timed("compute"):
        result = workflow.finish(checked, [arrays for arrays, _ in done], parameters, staging.path)
    with tracker.timed("write"):
        document = _document(job, workflow, parameters, checked, result, [worker for _, worker in done])
        document["provenance"] |= {
            "wallSeconds": round(time.monotonic() - start, 3),
            "peakMemoryBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        write_json(staging.path / RESULT, document)
        from panosc_analysis import reports

        reports.render(workflow.REPORT, staging.path, job.title or workflow.TITLE)
        commit = staging.commit(
            {"name": job.name, "namespace": job.namespace, "uid": job.uid, "workflow": workflow.NAME},
            replace=job.on_exists == "Overwrite",
        )
    tracker.add(bytes_written=sum(file["bytes"] for file in commit.manifest["files"]))
    return commit


def run_partitions(
    client: Client,
    job: Job,
    partitions: Sequence[Partition],
    parameters: BaseModel,
    folder: Path,
    tracker: Tracker,
) -> list[tuple[Arrays, str]]:
    """Run one Dask task per partition and keep each output, as it comes, as a file in `folder`.

    Returns
    -------
    Arrays and worker's name of each partition, in the order of `partitions`.

    Raises
    ------
    JobError
        WorkflowFailed: a partition failed on every try; WorkersTimeout: all workers are gone for good.
    """
    done: dict[int, tuple[Arrays, str]] = {}
    pending: dict[Future[Any], int] = {}
    for index, partition in enumerate(partitions):
        kept = _kept(folder / f"{index:06d}.npz")
        if kept:
            done[index] = kept
            tracker.add(done=1)
        else:
            future = client.submit(run_on_worker, job.workflow, partition, parameters, pure=False, retries=RETRIES)
            pending[future] = index
    alone_since: float | None = None
    while pending:
        finished = _finished(pending)
        workers = len(client.nthreads())
        tracker.set(workers=workers)
        for future in finished:
            index = pending.pop(future)
            output, worker = _outcome(future, partitions[index], tracker)
            _keep(folder / f"{index:06d}.npz", output.arrays, worker)
            done[index] = (output.arrays, worker)
            tracker.add(done=1, read=output.read_seconds, compute=output.compute_seconds, bytes_read=output.bytes_read)
        alone_since = None if workers else alone_since or time.monotonic()
        if alone_since and time.monotonic() - alone_since > NO_WORKERS_SECONDS:
            raise JobError("WorkersTimeout", f"all workers are gone for {NO_WORKERS_SECONDS:.0f} s: see their logs")
    return [done[index] for index in range(len(partitions))]


def run_on_worker(workflow: str, partition: Partition, parameters: BaseModel) -> tuple[PartitionOutput, str]:
    """Run one partition; the body of the Dask task."""
    from distributed import get_worker

    return workflows.load(workflow).run_partition(partition, parameters), str(get_worker().name)


def _finished(pending: Mapping[Future[Any], int]) -> list[Future[Any]]:
    """Wait up to a second for the next futures that are done."""
    from distributed import wait

    try:
        return list(wait(list(pending), timeout=1, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _outcome(future: Future[Any], partition: Partition, tracker: Tracker) -> tuple[PartitionOutput, str]:
    try:
        outcome: tuple[PartitionOutput, str] = future.result()
    except Exception as error:
        tracker.add(failed=1)
        cause = f"{type(error).__name__}: {error}" if not isinstance(error, JobError) else str(error)
        raise JobError("WorkflowFailed", f"{partition.label} failed {RETRIES + 1} times: {cause}") from error
    return outcome


def _keep(path: Path, arrays: Arrays, worker: str) -> None:
    """Write the output of a partition, whole or not at all."""
    import numpy as np

    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, __worker__=np.array(worker), **arrays)  # type: ignore[arg-type]


def _kept(path: Path) -> tuple[Arrays, str] | None:
    """Return the output of a partition that an earlier attempt of the job finished."""
    import numpy as np

    if not path.exists():
        return None
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "__worker__"}, str(arrays["__worker__"])


def _document(
    job: Job,
    workflow: Workflow,
    parameters: BaseModel,
    checked: CheckedInput,
    result: Result,
    workers: Sequence[str],
) -> dict[str, Any]:
    """Put together `result.json`."""
    dumped = parameters.model_dump(mode="json")
    return {
        "workflow": {"name": workflow.NAME, "version": workflow.VERSION, "title": workflow.TITLE},
        "title": job.title or workflow.TITLE,
        "summary": {name: asdict(quantity) for name, quantity in result.summary.items()},
        "parameters": dumped,
        "results": result.results,
        "provenance": {
            "image": job.image,
            "versions": _versions(),
            "inputs": [asdict(file) for file in checked.files],
            "inputsHash": _inputs_hash(checked),
            "parametersHash": canonical_hash(dumped),
            "trains": {"first": checked.first_train, "last": checked.last_train},
            "partitions": len(workers),
            "workers": sorted(set(workers)),
        },
    }


def _versions() -> dict[str, str]:
    """Return the versions of what takes part in a result."""
    packages = ("panosc-analysis", "EXtra-data", "h5py", "numpy", "scipy", "dask", "distributed")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def to_json(progress: Progress) -> str:
    """Write what `/progress` serves."""
    return json.dumps(
        {
            "stage": progress.stage,
            "inputReady": progress.input_ready,
            "progress": progress.partitions,
            "workers": progress.workers,
            "timing": progress.timing,
        }
    )
