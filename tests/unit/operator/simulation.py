"""The operator's loop against the API server in memory, with actors that play Kubernetes' own controllers.

The real `Store`, `WorkQueue`, `Sweeper` and `Reconciler` run as in the process; only the cluster and the time are
not real.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from panosc_operator.domain.seen import Key, project
from panosc_operator.reconcile.ports import ApiError
from panosc_operator.reconcile.queue import WorkQueue
from panosc_operator.reconcile.reconciler import Reconciler
from panosc_operator.reconcile.store import Store
from panosc_operator.reconcile.sweep import Sweeper

from tests.unit.operator import builders, virtual_time
from tests.unit.operator.builders import CONTEXT, Body, key_of
from tests.unit.operator.fake_cluster import ApiServer, Crash, FakeCluster, is_watched

_WORKERS = 3
_LOGGERS = ("panosc_operator", "asyncio")
Step = tuple[float, str, dict[str, Any]]
"""Seconds after the pod was made, the stage it comes to, and what is told of it."""

READY: list[Step] = [(0.3, "scheduled", {}), (0.7, "checking", {}), (1.1, "starting", {}), (2.4, "ready", {})]


def until_end(seconds: float, stage: str, **told: Any) -> list[Step]:
    """Return the steps of a pod that gets ready and then ends."""
    return [*READY, (seconds, stage, told)]


class Operator:
    """One process of the operator."""

    def __init__(self, server: ApiServer, die_after: int | None = None) -> None:
        self.cluster = FakeCluster(server, die_after)
        self.store = Store()
        self.queue = WorkQueue(virtual_time.clock)
        self.sweeper = Sweeper(self.store, self.queue, self.cluster)
        self._reconciler = Reconciler(
            self.store, self.queue, self.cluster, CONTEXT, now=virtual_time.now, clock=virtual_time.clock
        )
        self._server = server
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start as ``__main__.operate`` does."""
        self._server.watch(self._on_event)
        await self.sweeper.fill()
        await self.sweeper.sweep()
        self.sweeper.enqueue_all()
        self._tasks = [asyncio.create_task(self.sweeper.run())]
        self._tasks += [asyncio.create_task(self._reconciler.work()) for _ in range(_WORKERS)]

    async def stop(self) -> None:
        """End, without a chance to say anything."""
        self._server.unwatch(self._on_event)
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, (asyncio.CancelledError, Crash)), outcome

    def _on_event(self, event: str, body: Body) -> None:
        if is_watched(body):
            (self.sweeper.forget if event == "DELETED" else self.sweeper.observe)(project(body))


class Kubernetes:
    """Scheduler, kubelet, volume binder, Job controller and dask-kubernetes operator, each in a few lines.

    Parameters
    ----------
    server
        The API server.
    """

    def __init__(self, server: ApiServer) -> None:
        self.steps: dict[str, list[Step]] = {}
        """What becomes of a new pod, by the part it plays: session, driver, scheduler or worker."""
        self.dask_operator_works = True
        self.job_controller_works = True
        self._server = server
        self.every_pod(READY)
        self._begun: set[tuple[str, str]] = set()
        server.watch(self._on_event)

    def every_pod(self, steps: list[Step]) -> None:
        """Let the same happen to every new pod."""
        self.steps = dict.fromkeys(("session", "driver", "scheduler", "worker"), steps)

    def _on_event(self, event: str, body: Body) -> None:
        kind, key = body["kind"], key_of(body)
        if event == "DELETED":
            self._unbind(body)
            return
        if key not in self._server.objects:
            return
        first = self._first_time("seen", body)
        if kind == "Pod":
            self._on_pod(body, first=first)
        elif kind == "Job" and first and self.job_controller_works:
            self._start_driver(body, 1)
        elif kind == "DaskCluster" and self.dask_operator_works:
            self._on_dask_cluster(body)
        elif kind in ("PersistentVolume", "PersistentVolumeClaim") and first:
            self._bind_claims()

    def _first_time(self, what: str, body: Body) -> bool:
        happened = (what, body["metadata"]["uid"])
        first = happened not in self._begun
        self._begun.add(happened)
        return first

    def _on_pod(self, pod: Body, *, first: bool) -> None:
        key, loop = key_of(pod), asyncio.get_running_loop()
        if "deletionTimestamp" in pod["metadata"]:
            if self._first_time("deleted", pod):
                loop.call_later(0.5, self._end, pod)
        elif first:
            part = pod["metadata"]["labels"].get("dask.org/component", pod["spec"]["containers"][0]["name"])
            for seconds, stage, told in self.steps[part]:
                loop.call_later(seconds, self.move, key, stage, told, pod["metadata"]["uid"])
        elif (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self._count_try(pod)

    def move(self, key: Key, stage: str, told: dict[str, Any] | None = None, uid: str | None = None) -> None:
        """Bring a pod to another stage of its life."""
        pod = self._server.objects.get(key)
        if pod is None or "deletionTimestamp" in pod["metadata"] or uid not in (None, pod["metadata"]["uid"]):
            return
        created = builders.NOW.fromisoformat(pod["metadata"]["creationTimestamp"])
        placed = {} if stage in ("unscheduled", "unschedulable") else {"nodeName": "node-1"}
        self._server.set_status(key, builders.pod_status(stage, pod, created, **(told or {})), **placed)

    def _end(self, pod: Body) -> None:
        known = self._server.objects.get(key_of(pod))
        if known is not None and known["metadata"]["uid"] == pod["metadata"]["uid"]:
            self._server.remove(key_of(pod))

    def _start_driver(self, batch_job: Body, number: int) -> None:
        if key_of(batch_job) in self._server.objects:
            self._server.put(builders.pod_of_job(batch_job, number))

    def _count_try(self, pod: Body) -> None:
        """Complete or fail the pod's Job, or start its next pod."""
        owner = pod["metadata"]["ownerReferences"][0]
        key = Key(owner["kind"], pod["metadata"]["namespace"], owner["name"])
        batch_job = self._server.objects.get(key)
        if owner["kind"] != "Job" or batch_job is None or "status" in batch_job:
            return
        codes = [
            state["state"]["terminated"]["exitCode"]
            for state in (pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", []))
            if "terminated" in state["state"]
        ]
        tries = [body for body in self._server.of_kind("Pod") if body["metadata"]["ownerReferences"][0] == owner]
        loop = asyncio.get_running_loop()
        if pod["status"]["phase"] == "Succeeded":
            status = builders.job_condition("Complete", "CompletionsReached")
            loop.call_later(0.2, self._server.set_status, key, status)
        elif 2 in codes:
            status = builders.job_condition("Failed", "PodFailurePolicy", "Container driver failed with exit code 2")
            loop.call_later(0.2, self._server.set_status, key, status)
        elif len(tries) > batch_job["spec"]["backoffLimit"]:
            status = builders.job_condition("Failed", "BackoffLimitExceeded", "Job has reached the backoff limit")
            loop.call_later(0.2, self._server.set_status, key, status)
        else:
            loop.call_later(1.0, self._start_driver, batch_job, len(tries) + 1)

    def _on_dask_cluster(self, cluster: Body) -> None:
        wanted = [("scheduler", 0), *(("worker", i) for i in range(cluster["spec"]["worker"]["replicas"]))]
        pods = {key_of(pod): pod for pod in (builders.dask_pod(cluster, *which) for which in wanted)}
        for key in pods.keys() - self._server.objects.keys():
            self._server.put(pods[key])
        for body in self._server.of_kind("Pod"):
            mine = body["metadata"]["ownerReferences"][0]["uid"] == cluster["metadata"]["uid"]
            if mine and key_of(body) not in pods:
                self._server.delete(key_of(body))

    def wake_job_controller(self) -> None:
        """Let the Job controller work, and make the pods that it has not made."""
        self.job_controller_works = True
        for batch_job in self._server.of_kind("Job"):
            self._start_driver(batch_job, 1)

    def wake_dask_operator(self) -> None:
        """Let the dask-kubernetes operator work, and act on what it has missed."""
        self.dask_operator_works = True
        for cluster in self._server.of_kind("DaskCluster"):
            self._on_dask_cluster(cluster)

    def _bind_claims(self) -> None:
        """Bind each claim to the volume that its selector finds, once that is there; a home's is provisioned."""
        for claim in self._server.of_kind("PersistentVolumeClaim"):
            wanted = claim["spec"].get("selector", {}).get("matchLabels", {})
            volumes = {v["metadata"]["name"]: v["metadata"]["labels"] for v in self._server.of_kind("PersistentVolume")}
            fitting = [name for name, labels in volumes.items() if wanted.items() <= labels.items()]
            if "status" not in claim and (fitting or not wanted):
                volume = fitting[0] if wanted else "provisioned"
                self._server.set_status(key_of(claim), {"phase": "Bound"}, volumeName=volume)
                self._server.set_status(Key("PersistentVolume", "", volume), {"phase": "Bound"})

    def _unbind(self, gone: Body) -> None:
        """Release the volume of a claim that is gone; the claim of a volume that is gone has lost it."""
        if gone["kind"] == "PersistentVolumeClaim":
            volume = Key("PersistentVolume", "", gone["spec"].get("volumeName", ""))
            if self._server.objects.get(volume, {}).get("status") == {"phase": "Bound"}:
                self._server.set_status(volume, {"phase": "Released"})
        for claim in self._server.of_kind("PersistentVolumeClaim") if gone["kind"] == "PersistentVolume" else ():
            if claim["spec"].get("volumeName") == gone["metadata"]["name"]:
                self._server.set_status(key_of(claim), {"phase": "Lost"})


class Simulation:
    """A cluster with a catalogue and one operator.

    Parameters
    ----------
    deaths
        After how many writes each process of the operator dies, one after the other; the rest live.
    """

    def __init__(self, deaths: Iterable[int] = ()) -> None:
        self.server = ApiServer()
        self.kubernetes = Kubernetes(self.server)
        for body in builders.catalogue_bodies():
            self.server.put(body)
        self._deaths = iter(deaths)
        self.operator = self._next_operator()

    def _next_operator(self) -> Operator:
        return Operator(self.server, next(self._deaths, None))

    async def restart(self) -> None:
        """End the operator's process and start another one, which knows nothing."""
        await self.operator.stop()
        self.operator = self._next_operator()
        await self.operator.start()

    async def revive(self) -> None:
        """Start the operator anew, one second later, whenever it has died."""
        while True:
            await self.operator.cluster.crashed.wait()
            await self.quiet(1.0)
            await self.restart()

    async def until(self, holds: Callable[[], bool], seconds: float = 120.0) -> None:
        """Let time pass until something holds."""
        for _ in range(int(seconds * 10)):
            if holds():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"it did not come about in {seconds} s")

    async def quiet(self, seconds: float = 30.0) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    def status(self, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = self.server.objects[key].get("status") or {}
        return result

    def condition(self, key: Key, type_: str) -> dict[str, Any]:
        """Return a condition; an empty one where it is not said."""
        found = [condition for condition in self.status(key).get("conditions", ()) if condition["type"] == type_]
        return found[0] if found else {}

    def phase(self, key: Key) -> str | None:
        return self.status(key).get("phase")

    def children(self, kind: str) -> list[Body]:
        """Return the objects of a kind that are not being deleted, oldest name first."""
        alive = [body for body in self.server.of_kind(kind) if "deletionTimestamp" not in body["metadata"]]
        return sorted(alive, key=lambda body: str(body["metadata"]["name"]))

    @property
    def writes(self) -> int:
        return len(self.operator.cluster.writes)


@asynccontextmanager
async def simulation(deaths: Iterable[int] = ()) -> AsyncIterator[Simulation]:
    """Run a simulation; at its end no status may have been refused and no worker have met a bug."""
    bugs = _Errors()
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(bugs)
    sim = Simulation(deaths)
    await sim.operator.start()
    reviving = asyncio.create_task(sim.revive())
    try:
        yield sim
    finally:
        reviving.cancel()
        (outcome,) = await asyncio.gather(reviving, return_exceptions=True)
        await sim.operator.stop()
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(bugs)
    assert isinstance(outcome, asyncio.CancelledError), outcome
    assert sim.server.refused_statuses == []
    assert bugs.messages == []


def simulated(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in virtual time, with a simulation as its first argument."""

    async def scene(**parameters: Any) -> None:
        async with simulation() as sim:
            await test(sim, **parameters)

    def wrapper(**parameters: Any) -> None:
        virtual_time.play(scene(**parameters))

    signature = inspect.signature(test)
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[1:], return_annotation=None
    )
    wrapper.__name__, wrapper.__doc__, wrapper.__module__ = test.__name__, test.__doc__, test.__module__
    return wrapper


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


def complete_words(**fields: Any) -> str:
    """Return what a driver says at the end of its work."""
    words = {
        "outcome": "Complete",
        "reason": "Complete",
        "message": "Ratios of 2 runs.",
        "summary": {"ratio": {"value": 0.0123, "uncertainty": 0.0004}},
        "progress": {"total": 4, "done": 4, "failed": 0},
        "timing": {"read": 1.5, "compute": 2.0, "write": 0.25},
        "results": [{"name": "result.json", "path": "/gpfs/result.json", "bytes": 812, "sha256": "ab" * 32}],
        "provenance": {"workers": ["worker-0", "worker-1"]},
        "manifest": {"path": "/gpfs/manifest.json", "sha256": "12" * 32},
    }
    return json.dumps(words | fields)


def refusal(code: int = 403, message: str = "exceeded quota: pods=3") -> ApiError:
    return ApiError(code, message)
