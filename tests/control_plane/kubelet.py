"""A stub of scheduler and kubelet: it runs no container, but writes the pod status that they would write.

A control plane without a node accepts pods and leaves them pending. This stub watches them, binds each to a Node
object of its own, and moves its status on: bound, data checked, started, ready, ended. How far and how well is
scripted for each namespace and role by a `Plan`, so a test can hold a start at any stage, fail the data check, or end a
driver with its last words. It also completes the deletion of bound pods, renews its Node's lease, and answers
``/progress`` for driver pods on the host's end of the cluster's link, where the API server's pod proxy reaches it.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes.client.exceptions import ApiException

from tests.control_plane.api import Api, Object

NODE = "stub-node"
PROGRESS_PORT = 8780
_WATCH_SECONDS = 3
_LEASE_SECONDS = 10.0


class Stage(IntEnum):
    """How far a pod is."""

    CREATED = 0
    BOUND = 1
    CHECKED = 2
    STARTED = 3
    READY = 4
    ENDED = 5


@dataclass(frozen=True)
class End:
    """How a container ended."""

    exit_code: int
    message: str = ""
    reason: str = ""

    def state(self, started: str, finished: str) -> Object:
        """Return the container's state as the kubelet writes it."""
        return {
            "terminated": {
                "exitCode": self.exit_code,
                "reason": self.reason or ("Completed" if self.exit_code == 0 else "Error"),
                "message": self.message,
                "startedAt": started,
                "finishedAt": finished,
            }
        }


@dataclass(frozen=True)
class Plan:
    """What is to become of the pods of one role in one namespace."""

    until: Stage = Stage.READY
    """The stage at which they are held."""
    unschedulable: str | None = None
    """Why no node takes them, in the scheduler's words."""
    check: End = field(default_factory=lambda: End(0))
    """How the data check ends."""
    pull_error: str | None = None
    """Why the image cannot be pulled, in the kubelet's words."""
    end: End | None = None
    """How the container ends; ``None`` while it runs."""
    delay: float = 0.0
    """Seconds that each stage lasts."""
    answers: bool = True
    """Whether the container ever passes its readiness probe."""


class StubKubelet:
    """Plays scheduler and kubelet while the context lasts.

    Parameters
    ----------
    api
        The administrator's access: the real ones have less, but they are not what is tested.
    address
        The host's end of the cluster's link: the IP of every pod.
    """

    def __init__(self, api: Api, address: str) -> None:
        self._api = api
        self._address = address
        self._plans: dict[tuple[str, str], Plan] = defaultdict(Plan)
        self._ends: dict[tuple[str, str], End] = {}
        self._pods: dict[tuple[str, str], Object] = {}
        self._times: dict[str, dict[Stage, str]] = defaultdict(dict)
        self._since: dict[str, float] = {}
        self._queue: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.progress: dict[str, Object] = {}
        """What the drivers of a namespace answer at ``/progress``."""
        self.failures: list[str] = []
        """What went wrong in the stub itself."""

    # --- for tests ---

    def plan(self, namespace: str, role: str, **changes: Any) -> None:
        """Change the plan of the pods of a role (``session``, ``driver``, ``scheduler``, ``worker``)."""
        self._plans[namespace, role] = replace(self._plans[namespace, role], **changes)
        for key in list(self._pods):
            if key[0] == namespace:
                self._queue.put(key)

    def end(self, namespace: str, pod: str, end: End) -> None:
        """End the container of one pod, whatever the plan of its role."""
        self._ends[namespace, pod] = end
        self._queue.put((namespace, pod))

    def __enter__(self) -> StubKubelet:
        self._make_node()
        self._server = ThreadingHTTPServer((self._address, PROGRESS_PORT), self._handler())
        work = (self._watch, self._work, self._renew, self._server.serve_forever)
        self._threads = [threading.Thread(target=target, daemon=True) for target in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._queue.put(None)
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(timeout=_WATCH_SECONDS + 5)
        self._api.delete("Node", "", NODE)

    # --- the node ---

    def _make_node(self) -> None:
        self._api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        self._api.patch_status(
            "Node",
            "",
            NODE,
            {
                "capacity": {"cpu": "64", "memory": "256Gi", "pods": "500"},
                "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "500"},
                "conditions": [_condition("Ready", "True", _now(), "KubeletReady")],
            },
        )
        self._api.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": NODE, "namespace": "kube-node-lease"},
                # A lease that once was seen without a time is never believed afterwards.
                "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": _micro_time()},
            }
        )

    def _renew(self) -> None:
        """Keep the node alive for the node lifecycle controller."""
        while not self._stop.wait(_LEASE_SECONDS):
            try:
                self._api.patch("Lease", "kube-node-lease", NODE, {"spec": {"renewTime": _micro_time()}})
            except Exception as error:
                self.failures.append(f"lease: {error!r}")

    # --- pods ---

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                for type_, pod in self._api.watch("Pod", _WATCH_SECONDS):
                    key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
                    if type_ == "DELETED":
                        self._pods.pop(key, None)
                    else:
                        self._pods[key] = pod
                        self._queue.put(key)
                    if self._stop.is_set():
                        break
            except Exception as error:
                self.failures.append(f"watch: {error!r}")
                time.sleep(0.2)

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            pod = self._pods.get(key)
            if pod is None:
                continue
            try:
                self._advance(pod)
            except ApiException as error:
                # Gone with its namespace, gone, or changed meanwhile: an event follows.
                if error.status not in (403, 404, 409):
                    self.failures.append(f"{key}: {error!r}")
            except Exception as error:
                self.failures.append(f"{key}: {error!r}")

    def _advance(self, pod: Object) -> None:
        """Take a pod to the stage that its plan wants, one write at a time."""
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        bound = bool(pod["spec"].get("nodeName"))
        if metadata.get("deletionTimestamp"):
            if bound:
                self._api.delete("Pod", namespace, name, grace=0)
            return
        plan = self._plans[namespace, _role(pod)]
        if (namespace, name) in self._ends:
            plan = replace(plan, end=self._ends[namespace, name])
        times = self._times[metadata["uid"]]
        if not bound and Stage.BOUND not in times:
            if plan.unschedulable is not None:
                self._say_unschedulable(pod, plan.unschedulable)
            elif plan.until >= Stage.BOUND and self._is_time(pod, plan):
                self._api.bind(namespace, name, NODE)
                times[Stage.BOUND] = _now()
            return  # the event of the binding follows
        reached = max(times, default=Stage.CREATED)
        wanted = _goal(pod, plan)
        for stage in list(Stage)[reached + 1 : wanted + 1]:
            if stage is Stage.READY and not plan.answers:
                continue
            if not self._is_time(pod, plan):
                return
            times[stage] = _now()
            self._api.patch_status("Pod", namespace, name, _status(pod, stage, times, plan, self._address))
        if plan.pull_error is not None and reached <= Stage.CHECKED:
            self._say_pull_error(pod, plan.pull_error)

    def _is_time(self, pod: Object, plan: Plan) -> bool:
        """Whether the pod has been at its stage for long enough; if not, it is looked at again."""
        metadata = pod["metadata"]
        key = (metadata["namespace"], metadata["name"])
        since = self._since.setdefault(metadata["uid"], time.monotonic())
        left = since + plan.delay - time.monotonic()
        if left > 0:
            timer = threading.Timer(left, self._queue.put, [key])
            timer.daemon = True
            timer.start()
            return False
        self._since[metadata["uid"]] = time.monotonic()
        return True

    def _say_unschedulable(self, pod: Object, message: str) -> None:
        if pod["status"].get("conditions"):
            return
        condition = _condition("PodScheduled", "False", _now(), "Unschedulable") | {"message": message}
        metadata = pod["metadata"]
        self._api.patch_status("Pod", metadata["namespace"], metadata["name"], {"conditions": [condition]})

    def _say_pull_error(self, pod: Object, message: str) -> None:
        waiting = {"waiting": {"reason": "ErrImagePull", "message": message}}
        statuses = [_container(container, waiting) for container in pod["spec"]["containers"]]
        before = pod["status"].get("containerStatuses") or [{}]
        if before[0].get("state") != waiting:
            metadata = pod["metadata"]
            self._api.patch_status("Pod", metadata["namespace"], metadata["name"], {"containerStatuses": statuses})

    # --- /progress ---

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        progress = self.progress

        class Handler(BaseHTTPRequestHandler):
            """Answers for all drivers: the pod proxy's header tells which is meant."""

            def do_GET(self) -> None:
                # /api/v1/namespaces/<namespace>/pods/<pod>:8780/proxy/progress
                asked = self.headers.get("X-Forwarded-Uri", "").split("/")
                answer = progress.get(asked[4]) if len(asked) > 4 else None
                body = json.dumps(answer or {}).encode()
                self.send_response(200 if answer and self.path == "/progress" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _role(pod: Mapping[str, Any]) -> str:
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get("dask.org/component") or pod["spec"]["containers"][0]["name"])


def _goal(pod: Mapping[str, Any], plan: Plan) -> Stage:
    """Return the stage that a pod's plan lets it reach; a failed check or pull is the end of the way."""
    checks = bool(pod["spec"].get("initContainers"))
    if checks and plan.check.exit_code != 0:
        return min(plan.until, Stage.CHECKED)
    if plan.pull_error is not None:
        return min(plan.until, Stage.CHECKED)
    return Stage.ENDED if plan.end else min(plan.until, Stage.READY)


def _condition(type_: str, status: str, since: str, reason: str = "") -> Object:
    return {"type": type_, "status": status, "lastTransitionTime": since, "reason": reason}


def _container(container: Mapping[str, Any], state: Object, *, ready: bool = False) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "stub",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


def _status(pod: Mapping[str, Any], stage: Stage, times: Mapping[Stage, str], plan: Plan, address: str) -> Object:
    """Return the status that the kubelet would write at a stage."""
    spec, now = pod["spec"], times[stage]
    check_failed = bool(spec.get("initContainers")) and plan.check.exit_code != 0
    ended = stage is Stage.ENDED or check_failed
    ready = stage is Stage.READY and not check_failed
    if stage < Stage.STARTED:
        state: Object = {"waiting": {"reason": "PodInitializing"}}
    elif stage is Stage.ENDED:
        state = (plan.end or End(0)).state(times[Stage.STARTED], now)
    else:
        state = {"running": {"startedAt": times[Stage.STARTED]}}
    failed = check_failed or (stage is Stage.ENDED and plan.end is not None and plan.end.exit_code != 0)
    phase = ("Failed" if failed else "Succeeded") if ended else ("Running" if stage >= Stage.STARTED else "Pending")
    since = times.get(Stage.READY, now)
    return {
        "phase": phase,
        "startTime": times[Stage.BOUND],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            _condition("PodScheduled", "True", times[Stage.BOUND]),
            _condition("Initialized", "False" if check_failed else "True", times[Stage.CHECKED]),
            _condition("ContainersReady", str(ready), since),
            _condition("Ready", str(ready), since),
        ],
        "initContainerStatuses": [
            _container(container, plan.check.state(times[Stage.BOUND], times[Stage.CHECKED]), ready=not check_failed)
            for container in spec.get("initContainers") or ()
        ],
        "containerStatuses": [_container(container, state, ready=ready) for container in spec["containers"]],
    }
