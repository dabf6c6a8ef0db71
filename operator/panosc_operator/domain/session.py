"""AnalysisSession: what its pod, service, token, network policy and home should be, and what to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from panosc_operator.api.base import GROUP
from panosc_operator.api.environment import AnalysisEnvironmentSpec, EnvironmentKind, Flavour
from panosc_operator.api.session import AnalysisSessionSpec, AnalysisSessionStatus, SessionPhase, Startup
from panosc_operator.domain import data, identity, names, network, pods
from panosc_operator.domain.catalogue import environment_of, flavour_of, spec_of
from panosc_operator.domain.conditions import ConditionSet, find
from panosc_operator.domain.decision import Catalogue, Child, Context, Decision, Mode, Notice, Rejection
from panosc_operator.domain.problem import Problem
from panosc_operator.domain.seen import ContainerState, Key, Seen, SeenCustom, SeenPod
from panosc_operator.domain.tokens import session_token

CONTAINER = "session"
_ENDED = (SessionPhase.FAILED, SessionPhase.STOPPED)
_STAGES = ("WaitingForNode", "Preparing", "Starting")
"""The reasons for which a start that goes well is not ready yet."""
_CONDITIONS = ("Admitted", "DataReady", "Scheduled", "PodReady", "Ready")


@dataclass(frozen=True)
class SessionSnapshot:
    """What was observed of a session."""

    session: SeenCustom
    children: tuple[Seen, ...]
    shared: Mapping[Key, Seen]
    """The claims and volumes that the namespace's sessions and jobs share."""
    catalogue: Catalogue
    rejection: Rejection | None = None

    def pod(self) -> SeenPod | None:
        """Return the pod of the latest run."""
        found = [child for child in self.children if isinstance(child, SeenPod)]
        return max(found, key=lambda pod: pod.run, default=None)


@dataclass(frozen=True)
class _Plan:
    """A session whose references were all found."""

    spec: AnalysisSessionSpec
    environment: AnalysisEnvironmentSpec
    flavour: Flavour
    mounts: tuple[data.Mount, ...]


def decide(snapshot: SessionSnapshot, context: Context, now: datetime) -> Decision:
    """Decide on one session.

    Parameters
    ----------
    snapshot
        What was observed.
    context
        How this operator was installed.
    now
        The time, in UTC.
    """
    session = snapshot.session
    if session.deleting:
        # Children have owner references: the garbage collector removes them, whether we run or not.
        return Decision(status=None)
    before = AnalysisSessionStatus.model_validate(session.status)
    if before.phase in _ENDED and before.observed_generation == session.generation:
        # An end is final for the spec that led to it; an edit is a new try.
        return Decision(status=before, children=())
    said = ConditionSet(before.conditions, session.generation, now)
    pod = snapshot.pod()
    # A pod that is being deleted may pass through any phase: what counts is that it goes.
    end = _end(pod, before) if pod and not pod.deleting else None
    if pod is not None and end is not None and end.phase in _ENDED:
        return _ended(end, pod, snapshot, before, said)
    run = max(before.run or 0, pod.run if pod else 0)
    if pod is None or end is not None:
        # Never started, vanished, or lost after it had been ready: the next run.
        run, pod = run + 1, None
    try:
        plan = _resolve(snapshot)
    except Problem as problem:
        return _refused(problem, snapshot, pod, before, said)
    return _running(plan, snapshot, pod, run, before, said, context)


def _resolve(snapshot: SessionSnapshot) -> _Plan:
    spec = spec_of(snapshot.session, AnalysisSessionSpec)
    environment = environment_of(spec.environment, EnvironmentKind.JUPYTER, snapshot.catalogue.environments)
    flavour = flavour_of(spec.environment, environment, spec.flavour)
    mounts = data.resolve(spec.data, snapshot.catalogue.sources)
    pods.check_claims(mounts, snapshot.session.key.namespace, snapshot.shared)
    return _Plan(spec, environment, flavour, mounts)


def _refused(
    problem: Problem,
    snapshot: SessionSnapshot,
    pod: SeenPod | None,
    before: AnalysisSessionStatus,
    said: ConditionSet,
) -> Decision:
    """Start nothing; but never take a running session away because its catalogue entry is gone."""
    if pod is not None:
        return Decision(status=None)
    for type_ in _CONDITIONS:
        said.set(type_, "False" if type_ in ("Admitted", "Ready") else "Unknown", problem.reason, problem.message)
    status = AnalysisSessionStatus(
        phase=SessionPhase.PENDING,
        conditions=said.collect(),
        observed_generation=snapshot.session.generation,
        run=before.run,
        startup=before.startup,
    )
    return Decision(status=status, children=())


def _running(
    plan: _Plan,
    snapshot: SessionSnapshot,
    pod: SeenPod | None,
    run: int,
    before: AnalysisSessionStatus,
    said: ConditionSet,
    context: Context,
) -> Decision:
    session = snapshot.session
    children = [*_lasting(plan, snapshot, context)]
    if pod is None:
        children += [_token_secret(session, run, plan, context), _pod(session, run, plan, context)]
    else:
        # Created once and never patched: wanting it by name keeps it.
        children.append(Child(_pod(session, run, plan, context).manifest, Mode.CREATE))
    status = _status(plan, snapshot, pod, before, said)
    urgent = status.phase != before.phase and status.phase is not SessionPhase.STARTING
    releases = pods.storage_releases(plan.mounts, session.key.namespace, snapshot.shared)
    stage = _is_next_stage(before, status)
    return Decision(status=status, children=tuple(children), releases=releases, urgent=urgent, stage=stage)


@dataclass(frozen=True)
class _End:
    """How a run ended: ``phase`` is ``STARTING`` where another run follows."""

    phase: SessionPhase
    condition: str
    reason: str
    message: str


def _end(pod: SeenPod, before: AnalysisSessionStatus) -> _End | None:
    problem = pods.data_check_failure(pod)
    if problem is not None:
        return _End(SessionPhase.FAILED, "DataReady", problem.reason, problem.message)
    if pod.phase == "Succeeded":
        return _End(
            SessionPhase.STOPPED,
            "PodReady",
            "ServerExited",
            "The session was shut down from within. Create it anew to go on: the home is kept.",
        )
    if pod.phase != "Failed":
        return None
    state = pod.containers.get(CONTAINER, ContainerState())
    reason = pod.reason or state.ended_reason or "Failed"
    message = pod.message or state.ended_message or f"exit code {state.exit_code}"
    was_ready = before.run == pod.run and before.startup is not None and before.startup.ready_at is not None
    if was_ready:
        return _End(SessionPhase.STARTING, "PodReady", reason, message)
    return _End(SessionPhase.FAILED, "PodReady", "StartFailed", f"The session's container ended ({reason}): {message}")


def _ended(
    end: _End, pod: SeenPod, snapshot: SessionSnapshot, before: AnalysisSessionStatus, said: ConditionSet
) -> Decision:
    """Take everything away but the home, and keep the reason."""
    for type_ in _CONDITIONS:
        previous = said.previous(type_)
        if type_ in (end.condition, "Ready"):
            said.set(type_, "False", end.reason, end.message)
        elif type_ == "Admitted":
            said.set(type_, "True", "Admitted")
        elif type_ == "PodReady":
            said.set(type_, "False", "Removed", "The pod was removed.")
        elif previous is not None:
            said.set(type_, previous.status, previous.reason, previous.message)
    status = AnalysisSessionStatus(
        phase=end.phase,
        conditions=said.collect(),
        observed_generation=snapshot.session.generation,
        run=pod.run,
        startup=_startup(pod, before),
    )
    return Decision(status=status, children=())


# --- children ---------------------------------------------------------------------------------------------------------


def _lasting(plan: _Plan, snapshot: SessionSnapshot, context: Context) -> list[Child]:
    session = snapshot.session
    name = names.lasting_name(session.key.name, session.uid)
    policy = network.session_policy(pods.child_metadata(session, name), session.uid, plan.environment.port, context)
    children = [
        *data.storage(plan.mounts, session.key.namespace),
        Child(_service(session, name, plan.environment.port), Mode.APPLY),
        Child(policy, Mode.APPLY),
    ]
    if plan.spec.home.claim is None:
        children.insert(0, Child(_home(session, plan.spec), Mode.CREATE))
    return children


def _home(session: SeenCustom, spec: AnalysisSessionSpec) -> dict[str, Any]:
    """Return the claim of the owner's home: shared by the owner's sessions, owned by none of them."""
    claim: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.home_claim(spec.owner.username),
            "namespace": session.key.namespace,
            "labels": {names.MANAGED_BY: names.OPERATOR},
            "annotations": {f"{GROUP}/owner": spec.owner.username},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": spec.home.size}},
        },
    }
    if spec.home.storage_class is not None:
        claim["spec"]["storageClassName"] = spec.home.storage_class
    return claim


def _service(session: SeenCustom, name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": pods.child_metadata(session, name),
        "spec": {
            "selector": {names.PARENT_UID: session.uid},
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def _token_secret(session: SeenCustom, run: int, plan: _Plan, context: Context) -> Child:
    token = session_token(context.key, session.uid, run, plan.spec.owner.username)
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": pods.child_metadata(session, names.lasting_name(session.key.name, session.uid)),
        "type": "Opaque",
        "stringData": {"token": token},
    }
    return Child(manifest, Mode.REPLACE)


def _pod(session: SeenCustom, run: int, plan: _Plan, context: Context) -> Child:
    owner, environment = plan.spec.owner, plan.environment
    home = identity.home_folder(owner)
    claim = plan.spec.home.claim or names.home_claim(owner.username)
    secret = names.lasting_name(session.key.name, session.uid)
    container = {
        "name": CONTAINER,
        "image": environment.image,
        "ports": [{"name": "http", "containerPort": environment.port}],
        "resources": pods.resources(plan.flavour),
        "env": [
            {"name": "JUPYTER_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}},
        ],
        # Asked every second while it starts; the first answer is what people wait for.
        "readinessProbe": {
            "httpGet": {"path": environment.probe_path, "port": environment.port},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 30,
        },
    }
    spec = pods.pod_spec(
        owner,
        plan.mounts,
        container,
        home=home,
        volumes=[{"name": "home", "mountPath": home, "persistentVolumeClaim": {"claimName": claim}}],
        check_image=context.image,
    )
    metadata = pods.child_metadata(session, names.run_name(session.key.name, session.uid, run), run)
    metadata["annotations"] = identity.account_annotations(owner, home)
    return Child({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, Mode.CREATE)


# --- status -----------------------------------------------------------------------------------------------------------


def _status(
    plan: _Plan,
    snapshot: SessionSnapshot,
    pod: SeenPod | None,
    before: AnalysisSessionStatus,
    said: ConditionSet,
) -> AnalysisSessionStatus:
    """Return the status. A run counts once its pod is there: a refused one that is tried again is no other run."""
    session = snapshot.session
    name = names.lasting_name(session.key.name, session.uid)
    ready = _say_conditions(plan, snapshot, pod, said)
    return AnalysisSessionStatus(
        phase=SessionPhase.READY if ready else SessionPhase.STARTING,
        conditions=said.collect(),
        observed_generation=session.generation,
        run=pod.run if pod else before.run,
        url=f"http://{name}.{session.key.namespace}.svc:{plan.environment.port}/" if ready else None,
        token_secret=name,
        pod_name=pod.key.name if pod else None,
        node=pod.node if pod else None,
        startup=_startup(pod, before) if pod else before.startup,
    )


def _startup(pod: SeenPod, before: AnalysisSessionStatus) -> Startup:
    """Return when the run reached each stage; what was noted stays, as pods forget (a probe may fail and recover)."""
    noted = before.startup if before.startup and before.run == pod.run else Startup()
    return Startup(
        queued_at=pod.created,
        scheduled_at=noted.scheduled_at or pod.scheduled_at,
        started_at=noted.started_at or pod.containers.get(CONTAINER, ContainerState()).started_at,
        ready_at=noted.ready_at or pod.ready_at,
    )


def _say_conditions(plan: _Plan, snapshot: SessionSnapshot, pod: SeenPod | None, said: ConditionSet) -> bool:
    """Set the conditions from first to last; the first that does not hold is why the session is not ready."""
    blocker = Problem("Starting", "The pod is being created.")
    if snapshot.rejection is not None:
        blocker = Problem("Rejected", snapshot.rejection.message)
    said.set("Admitted", "True", "Admitted")

    checked = pod is not None and _data_is_checked(plan, pod)
    if not plan.mounts:
        said.set("DataReady", "True", "NoData", "The session asks for no data.")
    elif checked:
        said.set("DataReady", "True", "Mounted", "Each folder exists and the owner may read it.")
    else:
        said.set("DataReady", "Unknown", "NotChecked", "The folders are checked when the pod starts.")

    if pod is None or pod.scheduled_at is None:
        problem = pods.waiting_problem(pod) if pod else None
        said.set("Scheduled", "False", *(problem.words if problem else ("Waiting", "No node was chosen yet.")))
    else:
        said.set("Scheduled", "True", "Scheduled", f"On node {pod.node}." if pod.node else "")

    if pod is None:
        said.set("PodReady", "False", *blocker.words)
    elif pod.deleting:
        blocker = Problem("Terminating", "The pod is being removed; a new one follows.")
        said.set("PodReady", "False", *blocker.words)
    elif pod.ready:
        said.set("PodReady", "True", "Answering")
        said.set("Ready", "True", "Ready", "The session can be opened.")
        return True
    else:
        blocker = pods.waiting_problem(pod) or _stage(pod)
        said.set("PodReady", "False", *blocker.words)
    said.set("Ready", "False", *blocker.words)
    return False


def _data_is_checked(plan: _Plan, pod: SeenPod) -> bool:
    return bool(plan.mounts) and pod.containers.get(pods.DATA_CHECK, ContainerState()).exit_code == 0


def _stage(pod: SeenPod) -> Problem:
    if pod.scheduled_at is None:
        return Problem("WaitingForNode", "Waiting for a node.")
    if pod.containers.get(CONTAINER, ContainerState()).started_at is None:
        return Problem("Preparing", "The node mounts volumes, fetches the image if it has to, and checks the data.")
    return Problem("Starting", "The session's server is starting.")


def _is_next_stage(before: AnalysisSessionStatus, after: AnalysisSessionStatus) -> bool:
    """Whether nothing is new but how far the start is, and nobody has to do anything about it."""
    told = [find(status.conditions, "Ready") for status in (before, after)]
    return (before.run, before.observed_generation) == (after.run, after.observed_generation) and all(
        ready is not None and ready.reason in _STAGES for ready in told
    )


# --- events -----------------------------------------------------------------------------------------------------------


def notices(before: AnalysisSessionStatus, after: AnalysisSessionStatus) -> tuple[Notice, ...]:
    """Return what people should be told about a change of status: ready, restarted, ended."""
    ready = find(after.conditions, "Ready")
    if ready is None or before.phase == after.phase:
        return ()
    if after.phase is SessionPhase.READY:
        took = _seconds(after.startup)
        return (Notice("Normal", "Ready", f"The session can be opened{took}."),)
    if after.phase in _ENDED or after.phase is SessionPhase.PENDING:
        return (Notice("Warning", ready.reason, ready.message),)
    if before.phase is SessionPhase.READY:
        return (Notice("Warning", "NotReady", ready.message),)
    return ()


def _seconds(startup: Startup | None) -> str:
    if startup is None or startup.queued_at is None or startup.ready_at is None:
        return ""
    taken: timedelta = startup.ready_at - startup.queued_at
    return f", {taken.total_seconds():.0f} s after its pod was made"
