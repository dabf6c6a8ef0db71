"""An API server in memory, with what the operator relies on.

Versions and uids, server-side apply of an operator's own fields, the status subresource with its schema, cascading
deletion by owner references, pods that end before they go, watches that lag, and clients that are refused, get errors
or die after their n-th write.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from panosc_operator.api.kinds import KINDS
from panosc_operator.domain.decision import Notice
from panosc_operator.domain.names import MANAGED_BY, OPERATOR
from panosc_operator.domain.seen import Key, Seen, project
from panosc_operator.reconcile.ports import ApiError
from panosc_operator.reconcile.resources import RESOURCES

from dev.generate import ROOT
from tests.unit.operator import virtual_time
from tests.unit.operator.builders import Body, copied, key_of, rfc3339
from tests.unit.operator.schemas import violations

_RBAC = yaml.safe_load_all((ROOT / "manifests/base/rbac.yaml").read_text())
RIGHTS = {
    (verb, resource)
    for document in _RBAC
    if document["kind"] == "ClusterRole"
    for rule in document["rules"]
    for verb in rule["verbs"]
    for resource in rule["resources"]
}
"""What the operator may do, as it is shipped."""
CUSTOM = {definition.kind for definition in KINDS}
WATCH_LAG_SECONDS = 0.05
Watcher = Callable[[str, Body], None]


@dataclass(frozen=True)
class Write:
    verb: str
    kind: str
    name: str


class Crash(BaseException):
    """The operator's process ends here. Not an ``Exception``: nothing may catch it."""


def _check_right(verb: str, kind: str) -> None:
    """Raise what the API server answers to an operator that has not that right."""
    right = {"apply": "patch", "status": "patch"}.get(verb, verb)
    resource = RESOURCES[kind].plural + ("/status" if verb == "status" else "")
    if (right, resource) not in RIGHTS:
        raise AssertionError(f"manifests/base/rbac.yaml has no right to {right} {resource}")


class ApiServer:
    """The objects, and who is told of them. What is stored is never changed in place, only followed by the next."""

    def __init__(self) -> None:
        self.objects: dict[Key, Body] = {}
        self.refused_statuses: list[str] = []
        self._version = 0
        self._made: Counter[Key] = Counter()
        self._watchers: dict[Watcher, deque[tuple[str, Body]]] = {}

    # --- reading

    def body(self, key: Key) -> Body:
        return copied(self.objects[key])

    def of_kind(self, kind: str) -> list[Body]:
        return [copied(body) for key, body in self.objects.items() if key.kind == kind]

    def watch(self, watcher: Watcher) -> None:
        """Tell of every change from now on, in order and somewhat late."""
        self._watchers[watcher] = deque()

    def unwatch(self, watcher: Watcher) -> None:
        del self._watchers[watcher]

    # --- writing

    def put(self, body: Mapping[str, Any]) -> Body:
        """Store a new object, or the next version of one."""
        stored = copied(body)
        metadata = stored["metadata"]
        self._version += 1
        if key_of(stored) not in self.objects:
            metadata |= {
                "uid": self._new_uid(key_of(stored)),
                "creationTimestamp": rfc3339(virtual_time.now()),
                "generation": 1,
            }
        metadata["resourceVersion"] = str(self._version)
        self.objects[key_of(stored)] = stored
        self._tell("MODIFIED", stored)
        return stored

    def _new_uid(self, key: Key) -> str:
        """Return a uid that tells how often there was an object of this name: the same in each simulation."""
        self._made[key] += 1
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{key} {self._made[key]}"))

    def edit(self, key: Key, **spec: Any) -> None:
        """Change fields of a spec, as a user does."""
        body = self.body(key)
        body["spec"] |= spec
        body["metadata"]["generation"] += 1
        self.put(body)

    def set_status(self, key: Key, status: Mapping[str, Any], **spec: Any) -> None:
        """Change an object's status, as its controller does; ``spec`` for what that controller sets there."""
        known = self.objects.get(key)
        if known is not None:
            self.put(known | {"status": dict(status), "spec": {**known["spec"], **spec}})

    def delete(self, key: Key) -> None:
        """Delete as the API server does: a pod on a node is marked, and goes when the kubelet has ended it."""
        body = self.objects.get(key)
        if body is None:
            return
        if key.kind == "Pod" and body["spec"].get("nodeName"):
            if "deletionTimestamp" not in body["metadata"]:
                marked = self.body(key)
                marked["metadata"]["deletionTimestamp"] = rfc3339(virtual_time.now())
                self.put(marked)
        else:
            self.remove(key)

    def remove(self, key: Key) -> None:
        """Take an object away, and have the garbage collector take what it owned."""
        body = copied(self.objects.pop(key))
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", body)
        asyncio.get_running_loop().call_later(0.2, self._collect_garbage, body["metadata"]["uid"])

    def _collect_garbage(self, uid: str) -> None:
        for key, body in list(self.objects.items()):
            owners = body["metadata"].get("ownerReferences", ())
            if any(owner["uid"] == uid for owner in owners):
                self.delete(key)

    def _tell(self, event: str, body: Body) -> None:
        for watcher, waiting in self._watchers.items():
            waiting.append((event, body))
            asyncio.get_running_loop().call_later(WATCH_LAG_SECONDS, self._deliver, watcher)

    def _deliver(self, watcher: Watcher) -> None:
        waiting = self._watchers.get(watcher)
        if waiting:
            watcher(*waiting.popleft())


class FakeCluster:
    """One operator process' client of an API server, as ``ports.Cluster`` has it.

    Parameters
    ----------
    server
        The API server.
    die_after
        After how many writes the process ends: the last of them is done, but its answer never heard.
    """

    def __init__(self, server: ApiServer, die_after: int | None = None) -> None:
        self.server = server
        self.writes: list[Write] = []
        self.events: list[Notice] = []
        self.reads: list[Key] = []
        self.refusals: dict[str, ApiError] = {}
        """By kind: what every write of it is answered with."""
        self.failures: list[ApiError] = []
        """What the next writes are answered with, one each."""
        self.crashed = asyncio.Event()
        self._die_after = die_after

    async def create(self, manifest: Mapping[str, Any]) -> Seen:
        key = key_of(manifest)
        await self._before(Write("create", key.kind, key.name))
        if key in self.server.objects:
            _check_right("get", key.kind)
            return project(self.server.body(key))
        body = self.server.put(_as_stored(manifest))
        self._after(Write("create", key.kind, key.name))
        return project(body)

    async def apply(self, manifest: Mapping[str, Any]) -> Seen:
        key = key_of(manifest)
        await self._before(Write("apply", key.kind, key.name))
        known = self.server.objects.get(key)
        wanted = _as_stored(manifest)
        if known is not None:
            wanted = {**known, **wanted, "metadata": {**known["metadata"], **wanted["metadata"]}}
        body = self.server.body(key) if wanted == known else self.server.put(wanted)
        self._after(Write("apply", key.kind, key.name))
        return project(body)

    async def apply_status(self, parent: Seen, status: Mapping[str, Any]) -> Seen:
        write = Write("status", parent.key.kind, parent.key.name)
        await self._before(write)
        known = self.server.objects.get(parent.key)
        if known is None or known["metadata"]["uid"] != parent.uid:
            raise ApiError(409, "the uid in the precondition is another one")
        wrong = violations(parent.key.kind, "status", status)
        if wrong:
            self.server.refused_statuses += wrong
            raise ApiError(422, "; ".join(wrong))
        body = self.server.put(known | {"status": status})
        self._after(write)
        return project(body)

    async def delete(self, seen: Seen) -> None:
        write = Write("delete", seen.key.kind, seen.key.name)
        await self._before(write)
        known = self.server.objects.get(seen.key)
        if known is not None and known["metadata"]["uid"] == seen.uid:
            self.server.delete(seen.key)
        self._after(write)

    async def emit(self, parent: Seen, notice: Notice) -> None:
        await asyncio.sleep(0)
        assert parent.key.kind in CUSTOM
        self.events.append(notice)

    async def get(self, key: Key) -> Seen | None:
        await asyncio.sleep(0)
        _check_right("get", key.kind)
        self.reads.append(key)
        return project(self.server.body(key)) if key in self.server.objects else None

    async def list_all(self, kind: str) -> list[Seen]:
        await asyncio.sleep(0)
        _check_right("list", kind)
        return [project(body) for body in self.server.of_kind(kind) if is_watched(body)]

    async def list_identities(self, kind: str) -> dict[Key, str]:
        await asyncio.sleep(0)
        return {key_of(body): body["metadata"]["uid"] for body in self.server.of_kind(kind) if is_watched(body)}

    async def _before(self, write: Write) -> None:
        await asyncio.sleep(0)
        if self.crashed.is_set():
            raise Crash
        _check_right(write.verb, write.kind)
        if write.kind in self.refusals:
            raise self.refusals[write.kind]
        if self.failures:
            raise self.failures.pop(0)

    def _after(self, write: Write) -> None:
        self.writes.append(write)
        if len(self.writes) == self._die_after:
            self.crashed.set()
            raise Crash

    def written(self, verb: str, kind: str | None = None) -> int:
        """Return how many writes there were of a verb."""
        return sum(write.verb == verb and kind in (None, write.kind) for write in self.writes)


def is_watched(body: Mapping[str, Any]) -> bool:
    """Whether the operator's lists and watches have it: children by their label, Secrets never."""
    if body["kind"] in CUSTOM:
        return True
    return RESOURCES[body["kind"]].watched and body["metadata"].get("labels", {}).get(MANAGED_BY) == OPERATOR


def _as_stored(manifest: Mapping[str, Any]) -> Body:
    """Return a manifest as it is stored: a Secret's ``stringData`` goes into ``data``."""
    body: Body = copied(manifest)
    if "stringData" in body:
        body["data"] = body.pop("stringData")
    return body
