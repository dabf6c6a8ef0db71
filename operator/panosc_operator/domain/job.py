"""AnalysisJob: a driver Job that checks the input, then a DaskCluster, then the result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from panosc_operator.api.environment import AnalysisEnvironmentSpec, EnvironmentKind, Flavour
from panosc_operator.api.job import AnalysisJobSpec, AnalysisJobStatus, JobPhase, Provenance, WorkersStatus
from panosc_operator.api.workflow import AnalysisWorkflowSpec
from panosc_operator.domain import dask, data, identity, names, network, pods
from panosc_operator.domain.catalogue import catalogue_entry, environment_of, flavour_of, spec_of
from panosc_operator.domain.conditions import ConditionSet, find, holds
from panosc_operator.domain.decision import Catalogue, Child, Context, Decision, Mode, Notice, Rejection
from panosc_operator.domain.driver import (
    BAD_INPUT_EXIT,
    Description,
    LastWords,
    Report,
    parse_last_words,
)
from panosc_operator.domain.problem import Problem
from panosc_operator.domain.seen import ContainerState, Key, Seen, SeenCustom, SeenJob, SeenPod

CONTAINER = "driver"
_TMP = "/tmp"
_SILENCE = timedelta(seconds=30)


@dataclass(frozen=True)
class JobSnapshot:
    """What was observed of a job."""

    job: SeenCustom
    children: tuple[Seen, ...]
    shared: Mapping[Key, Seen]
    """The claims and volumes that the namespace's sessions and jobs share."""
    catalogue: Catalogue
    report: Report | None = None
    """The driver's latest answer."""
    rejection: Rejection | None = None

    def driver_job(self) -> SeenJob | None:
        """Return the driver Job of the latest run."""
        found = [child for child in self.children if isinstance(child, SeenJob)]
        return max(found, key=lambda job: job.run, default=None)

    def driver_pod(self, run: int) -> SeenPod | None:
        """Return the latest try of a run's driver."""
        found = [pod for pod in self._pods(run) if pod.component is None]
        return max(found, key=lambda pod: (pod.created, pod.key.name), default=None)

    def dask_pods(self, run: int, component: str) -> list[SeenPod]:
        """Return the pods of a run's DaskCluster that play one part."""
        return [pod for pod in self._pods(run) if pod.component == component]

    def dask_cluster(self, run: int) -> Seen | None:
        """Return the DaskCluster of a run."""
        return next((c for c in self.children if c.key.kind == "DaskCluster" and c.run == run), None)

    def _pods(self, run: int) -> list[SeenPod]:
        return [child for child in self.children if isinstance(child, SeenPod) and child.run == run]


@dataclass(frozen=True)
class _Plan:
    """A job whose references were all found and whose parameters are right."""

    spec: AnalysisJobSpec
    workflow: AnalysisWorkflowSpec
    environment: AnalysisEnvironmentSpec
    driver_flavour: Flavour
    worker_flavour: Flavour
    mounts: tuple[data.Mount, ...]
    inputs: tuple[tuple[str, int, str], ...]
    output: str


def decide(snapshot: JobSnapshot, context: Context, now: datetime) -> Decision:
    """Decide on one job.

    Parameters
    ----------
    snapshot
        What was observed.
    context
        How this operator was installed.
    now
        The time, in UTC.
    """
    job = snapshot.job
    if job.deleting:
        # Children have owner references: the garbage collector removes them, whether we run or not.
        return Decision(status=None)
    before = AnalysisJobStatus.model_validate(job.status)
    if before.phase in (JobPhase.SUCCEEDED, JobPhase.FAILED):
        return _finished(snapshot, before)
    said = ConditionSet(before.conditions, job.generation, now)
    driver = snapshot.driver_job()
    pod = snapshot.driver_pod(driver.run) if driver else None
    end = _end(driver, pod) if driver else None
    try:
        plan = _resolve(snapshot)
    except Problem as problem:
        if driver is None or end is None:
            return _refused(problem, snapshot, before, said)
        return _end_job(end, before.output_path, driver, snapshot, before, said, now)
    if driver is not None and end is not None:
        return _end_job(end, before.output_path or plan.output, driver, snapshot, before, said, now)
    return _running(plan, snapshot, driver, pod, before, said, context, now)


# --- resolving --------------------------------------------------------------------------------------------------------


def _resolve(snapshot: JobSnapshot) -> _Plan:
    job, catalogue = snapshot.job, snapshot.catalogue
    spec = spec_of(job, AnalysisJobSpec)
    workflow = spec_of(
        catalogue_entry("AnalysisWorkflow", spec.workflow.name, catalogue.workflows), AnalysisWorkflowSpec
    )
    if spec.workflow.version not in (None, workflow.version):
        raise Problem(
            "WrongWorkflowVersion",
            f"AnalysisWorkflow {spec.workflow.name!r} is at {workflow.version}, the job wants {spec.workflow.version}: "
            "leave workflow.version out or ask the platform team.",
        )
    _check_parameters(spec, workflow)
    environment = environment_of(workflow.environment, EnvironmentKind.JOB, catalogue.environments)
    mounts = data.resolve(spec.data, catalogue.sources)
    pods.check_claims(mounts, job.key.namespace, snapshot.shared)
    return _Plan(
        spec=spec,
        workflow=workflow,
        environment=environment,
        driver_flavour=flavour_of(workflow.environment, environment, None),
        worker_flavour=flavour_of(workflow.environment, environment, spec.workers.flavour),
        mounts=mounts,
        inputs=_inputs(spec, mounts),
        output=_output(spec, mounts, job.key.name),
    )


def _check_parameters(spec: AnalysisJobSpec, workflow: AnalysisWorkflowSpec) -> None:
    # A registry of its own, which is empty: nothing is fetched from wherever a schema refers to.
    validator = jsonschema.Draft202012Validator(workflow.parameters, registry=Registry())
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(spec.parameters))
    except (Unresolvable, RecursionError) as flaw:
        raise Problem(
            "BadWorkflow",
            f"AnalysisWorkflow {spec.workflow.name!r}: the schema of its parameters refers to what is not there: "
            f"{flaw}",
        ) from flaw
    if error is not None:
        field = ".".join(["parameters", *(str(part) for part in error.absolute_path)])
        raise Problem("InvalidParameters", f"{field}: {error.message}")


def _inputs(spec: AnalysisJobSpec, mounts: tuple[data.Mount, ...]) -> tuple[tuple[str, int, str], ...]:
    inputs = tuple(
        (item.proposal, number, folder)
        for item in spec.data
        if item.runs
        for number, folder in data.run_folders(mounts, item.proposal, item.runs_area, item.runs)
    )
    if not inputs:
        raise Problem("NoRuns", "The job names no run: set runs in an entry of data, such as '8-9'.")
    return inputs


def _output(spec: AnalysisJobSpec, mounts: tuple[data.Mount, ...], job_name: str) -> str:
    area, first = spec.output.area, spec.data[0]
    mount = next((m for m in mounts if m.proposal == first.proposal and m.area.name == area), None)
    if mount is None:
        raise Problem("OutputNotMounted", f"The output goes to area '{area}': add it to the areas of {first.proposal}.")
    if mount.area.read_only:
        raise Problem("OutputReadOnly", f"DataSource {first.source!r} has area '{area}' as read-only: choose another.")
    return f"{mount.path}/{spec.output.path or f'results/{job_name}'}"


def _refused(problem: Problem, snapshot: JobSnapshot, before: AnalysisJobStatus, said: ConditionSet) -> Decision:
    """Start nothing; but never take a running job away because its catalogue entry is gone."""
    if snapshot.driver_job() is not None:
        return Decision(status=None)
    said.set("Admitted", "False", *problem.words)
    said.set("Complete", "False", *problem.words)
    status = AnalysisJobStatus(
        phase=JobPhase.PENDING,
        conditions=said.collect(),
        observed_generation=snapshot.job.generation,
        run=before.run,
    )
    return Decision(status=status, children=())


# --- running ----------------------------------------------------------------------------------------------------------


def _running(
    plan: _Plan,
    snapshot: JobSnapshot,
    driver: SeenJob | None,
    pod: SeenPod | None,
    before: AnalysisJobStatus,
    said: ConditionSet,
    context: Context,
    now: datetime,
) -> Decision:
    job = snapshot.job
    run = max(before.run or 0, driver.run if driver else 0)
    if driver is None or (driver.complete and pod is None and not driver.deleting):
        # Never started, vanished, or done with its pod gone unread: a new driver finds what was committed.
        run, driver, pod = run + 1, None, None

    input_ready = pod is not None and (pod.ready or (before.run == run and holds(before.conditions, "InputReady")))
    children = _children(plan, job, run, context, with_workers=input_ready)
    status = _status(plan, snapshot, driver, pod, before, said, now, input_ready=input_ready)
    return Decision(
        status=status,
        children=tuple(children),
        releases=pods.storage_releases(plan.mounts, job.key.namespace, snapshot.shared),
        urgent=status.phase != before.phase and status.phase is not JobPhase.STARTING,
        requeue_at=_end_of_patience(snapshot, pod, run, now),
    )


def _children(plan: _Plan, job: SeenCustom, run: int, context: Context, *, with_workers: bool) -> list[Child]:
    policy = network.job_policy(pods.child_metadata(job, names.lasting_name(job.key.name, job.uid)), job.uid, context)
    children = [
        *data.storage(plan.mounts, job.key.namespace),
        Child(policy, Mode.APPLY),
        Child(_driver_job(plan, job, run, context), Mode.CREATE),
    ]
    if with_workers:
        cluster = dask.dask_cluster(
            job,
            run,
            plan.spec.owner,
            plan.environment.image,
            plan.worker_flavour,
            plan.mounts,
            plan.spec.workers.maximum,
        )
        children.append(Child(cluster, Mode.APPLY))
    return children


def _driver_job(plan: _Plan, job: SeenCustom, run: int, context: Context) -> dict[str, Any]:
    owner = plan.spec.owner
    description = Description(
        name=job.key.name,
        namespace=job.key.namespace,
        uid=job.uid,
        run=run,
        workflow=plan.spec.workflow.name,
        version=plan.workflow.version,
        parameters=plan.spec.parameters,
        inputs=plan.inputs,
        output=plan.output,
        on_exists=plan.spec.output.on_exists,
        scheduler=dask.scheduler_address(job, run),
        minimum_workers=plan.spec.workers.minimum,
        maximum_workers=plan.spec.workers.maximum,
        image=plan.environment.image,
    )
    container = {
        "name": CONTAINER,
        "image": plan.environment.image,
        "args": ["panosc-analysis", "drive"],
        "ports": [{"name": "progress", "containerPort": network.PROGRESS_PORT}],
        "resources": pods.resources(plan.driver_flavour),
        # Kubernetes would take $(NAME) in a parameter for a variable; $$ is a $.
        "env": [{"name": "PANOSC_JOB", "value": description.to_json().replace("$", "$$")}],
        # Ready means: the input is right, workers may come.
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "progress"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
    }
    spec = pods.pod_spec(owner, plan.mounts, container, home=_TMP, volumes=[], check_image=context.image)
    metadata = pods.child_metadata(job, names.run_name(job.key.name, job.uid, run), run)
    body: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": plan.spec.backoff_limit,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"operator": "In", "values": [BAD_INPUT_EXIT]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {
                    "labels": metadata["labels"],
                    "annotations": identity.account_annotations(owner, _TMP),
                },
                "spec": spec,
            },
        },
    }
    if plan.spec.active_deadline:
        body["spec"]["activeDeadlineSeconds"] = int(duration(plan.spec.active_deadline).total_seconds())
    return body


def duration(text: str) -> timedelta:
    """Return a duration such as ``1h30m``."""
    units = {"h": 3600, "m": 60, "s": 1}
    return timedelta(seconds=sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", text)))


# --- the end ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    reason: str
    message: str
    words: LastWords | None = None
    complete: bool = False
    input_fault: bool = False


def _end(driver: SeenJob, pod: SeenPod | None) -> _End | None:
    """Return how the driver Job ended; ``None`` while it may still come to something."""
    if pod is None:
        if driver.failed_reason is None:
            return None
        return _End(driver.failed_reason or "Failed", driver.failed_message)
    state = pod.containers.get(CONTAINER, ContainerState())
    words = parse_last_words(state.ended_message)
    if words is not None and words.complete:
        if state.exit_code == 0:
            return _End("Complete", words.message, words, complete=True)
        words = None  # The exit code says otherwise.
    problem = pods.data_check_failure(pod)
    if problem is not None:
        return _End(problem.reason, problem.message, input_fault=True)
    if state.exit_code == BAD_INPUT_EXIT and words is not None:
        return _End(words.reason, words.message, words, input_fault=True)
    if not pod.ended or not (driver.complete or driver.failed_reason is not None):
        # The Job's end may be seen before that of its pod, which says why.
        return None
    if words is not None:
        return _End(words.reason, words.message, words)
    told = state.ended_message or driver.failed_message
    return _End(driver.failed_reason or "NoReport", f"The driver ended without a report: {told}")


def _end_job(
    end: _End,
    output: str | None,
    driver: SeenJob,
    snapshot: JobSnapshot,
    before: AnalysisJobStatus,
    said: ConditionSet,
    now: datetime,
) -> Decision:
    said.set("Admitted", "True", "Admitted")
    checked = said.previous("InputReady")
    if end.input_fault:
        said.set("InputReady", "False", end.reason, end.message)
    elif end.complete or (checked is not None and checked.status == "True"):
        said.set("InputReady", "True", "Checked")
    else:
        said.set("InputReady", "Unknown", "NotChecked", "The driver ended before it had checked the input.")
    said.set("ClusterReady", "False", "Released", "The job has ended; its workers are released.")
    said.set("Progressing", "False", "Ended")
    if end.complete:
        said.set("OutputCommitted", "True", "Committed", f"The results are in {output}.")
        said.set("Complete", "True", "Complete", f"The results are in {output}.")
    else:
        said.set("OutputCommitted", "False", end.reason, "Nothing was committed.")
        said.set("Complete", "False", end.reason, end.message)
        said.set("Failed", "True", end.reason, end.message)
    words = end.words
    status = AnalysisJobStatus(
        phase=JobPhase.SUCCEEDED if end.complete else JobPhase.FAILED,
        conditions=said.collect(),
        observed_generation=snapshot.job.generation,
        run=driver.run,
        started_at=before.started_at or driver.created,
        finished_at=now,
        output_path=output if end.complete else None,
        progress=words.progress if words and words.progress else before.progress,
        workers=WorkersStatus(selector=before.workers.selector if before.workers else None),
        summary=words.summary or None if words else None,
        results=words.results or None if words else None,
        timing=words.timing if words else None,
        provenance=_provenance(words) if words and end.complete else None,
    )
    return Decision(status=status, children=_kept(snapshot, driver.run, removed=end.input_fault))


def _provenance(words: LastWords) -> Provenance:
    return words.provenance.model_copy(update={"manifest_sha256": words.manifest.sha256})


def _finished(snapshot: JobSnapshot, before: AnalysisJobStatus) -> Decision:
    status = before.model_copy(update={"observed_generation": snapshot.job.generation})
    conditions = find(before.conditions, "InputReady")
    removed = conditions is not None and conditions.status == "False"
    return Decision(status=status, children=_kept(snapshot, before.run or 0, removed=removed))


def _kept(snapshot: JobSnapshot, run: int, *, removed: bool) -> tuple[Child, ...]:
    """Return what stays after the end: the driver Job with its log, unless the input was at fault."""
    driver = snapshot.driver_job()
    if removed or driver is None or driver.run != run:
        return ()
    key = driver.key
    manifest = {"kind": key.kind, "metadata": {"name": key.name, "namespace": key.namespace}}
    return (Child(manifest, Mode.CREATE),)


# --- status -----------------------------------------------------------------------------------------------------------


def _status(
    plan: _Plan,
    snapshot: JobSnapshot,
    driver: SeenJob | None,
    pod: SeenPod | None,
    before: AnalysisJobStatus,
    said: ConditionSet,
    now: datetime,
    *,
    input_ready: bool,
) -> AnalysisJobStatus:
    """Return the status. A run counts once its driver is there: a refused one that is tried again is no other run."""
    job, run = snapshot.job, driver.run if driver else before.run or 0
    workers = sum(p.ready and not p.deleting for p in snapshot.dask_pods(run, "worker"))
    desired = plan.spec.workers.maximum if input_ready else 0
    enough = _say_conditions(plan, snapshot, pod, run, workers, said, now, input_ready=input_ready)
    progress = snapshot.report.progress if snapshot.report else before.progress
    return AnalysisJobStatus(
        phase=JobPhase.RUNNING if enough else JobPhase.STARTING,
        conditions=said.collect(),
        observed_generation=job.generation,
        run=driver.run if driver else before.run,
        started_at=before.started_at or (driver.created if driver else None),
        output_path=plan.output,
        progress=progress,
        workers=WorkersStatus(
            desired=desired,
            ready=workers,
            selector=f"{names.PARENT_UID}={job.uid},dask.org/component=worker",
        ),
        timing=snapshot.report.timing if snapshot.report else before.timing,
    )


def _say_conditions(
    plan: _Plan,
    snapshot: JobSnapshot,
    pod: SeenPod | None,
    run: int,
    workers: int,
    said: ConditionSet,
    now: datetime,
    *,
    input_ready: bool,
) -> bool:
    """Set the conditions from first to last; the first that does not hold is what the job waits for."""
    said.set("Admitted", "True", "Admitted")
    if not input_ready:
        driver_waits = _driver_waits(snapshot, pod, now)
        waiting: Problem | None = driver_waits
        said.set("InputReady", "Unknown", *driver_waits.words)
        said.set("ClusterReady", "False", "WaitingForInput", "Workers start once the driver has checked the input.")
    else:
        waiting = _cluster_waits(plan, snapshot, run, workers, now)
        said.set("InputReady", "True", "Checked")
        if waiting is None:
            said.set("ClusterReady", "True", "Ready", f"{workers} workers.")
        else:
            said.set("ClusterReady", "False", *waiting.words)
    if waiting is None:
        said.set("Progressing", "True", "Running")
        said.set("Complete", "False", "Running", "The job is running.")
        return True
    said.set("Progressing", "False", *waiting.words)
    said.set("Complete", "False", *waiting.words)
    return False


def _end_of_patience(snapshot: JobSnapshot, pod: SeenPod | None, run: int, now: datetime) -> datetime | None:
    """Return when others will have been silent for long enough to be named."""
    awaited = (snapshot.dask_cluster(run), snapshot.driver_job() if pod is None else None)
    ends = [seen.created + _SILENCE for seen in awaited if seen is not None]
    return min((end for end in ends if end > now), default=None)


def _driver_waits(snapshot: JobSnapshot, pod: SeenPod | None, now: datetime) -> Problem:
    if snapshot.rejection is not None:
        return Problem("Rejected", snapshot.rejection.message)
    driver = snapshot.driver_job()
    if pod is None and driver is not None and now >= driver.created + _SILENCE:
        return Problem(
            "DriverPodMissing",
            f"Kubernetes has not made the driver's pod for {_SILENCE.total_seconds():.0f} s, perhaps for a quota: "
            f"`kubectl -n {driver.key.namespace} describe job {driver.key.name}` says why.",
        )
    if pod is None:
        return Problem("Starting", "The driver is being created.")
    if pod.ended:
        state = pod.containers.get(CONTAINER, ContainerState())
        words = parse_last_words(state.ended_message)
        return Problem(
            "Retrying",
            f"The driver failed and is started again: {words.message if words else state.ended_message}",
        )
    return pods.waiting_problem(pod) or Problem("CheckingInput", "The driver is checking parameters and input.")


def _cluster_waits(plan: _Plan, snapshot: JobSnapshot, run: int, workers: int, now: datetime) -> Problem | None:
    cluster, schedulers = snapshot.dask_cluster(run), snapshot.dask_pods(run, "scheduler")
    if cluster is None and snapshot.rejection is not None:
        return Problem("Rejected", snapshot.rejection.message)
    if cluster is not None and not schedulers and now >= cluster.created + _SILENCE:
        return Problem(
            "DaskOperatorSilent",
            f"The dask-kubernetes operator has not acted on DaskCluster {cluster.key.name} for "
            f"{_SILENCE.total_seconds():.0f} s: the platform team should look at its pod.",
        )
    pending = [*schedulers, *snapshot.dask_pods(run, "worker")]
    if workers >= plan.spec.workers.minimum and any(pod.ready for pod in schedulers):
        return None
    for pod in pending:
        problem = pods.waiting_problem(pod)
        if problem is not None:
            return problem
    return Problem("WaitingForWorkers", f"{workers} of at least {plan.spec.workers.minimum} workers are there.")


# --- events -----------------------------------------------------------------------------------------------------------


def notices(before: AnalysisJobStatus, after: AnalysisJobStatus) -> tuple[Notice, ...]:
    """Return what people should be told about a change of status: running, complete, failed."""
    complete = find(after.conditions, "Complete")
    if complete is None or before.phase == after.phase:
        return ()
    if after.phase is JobPhase.RUNNING:
        return (Notice("Normal", "Running", f"{after.workers.ready if after.workers else 0} workers are there."),)
    if after.phase is JobPhase.SUCCEEDED:
        return (Notice("Normal", "Complete", complete.message),)
    if after.phase in (JobPhase.FAILED, JobPhase.PENDING):
        return (Notice("Warning", complete.reason, complete.message),)
    return ()
