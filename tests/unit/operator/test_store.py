"""The store: what is known is never older than what was known, and sweeps correct what watches missed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panosc_operator.domain import names
from panosc_operator.domain.decision import Rejection
from panosc_operator.domain.driver import Report
from panosc_operator.domain.seen import Key, Seen, project
from panosc_operator.domain.session import SessionSnapshot
from panosc_operator.reconcile.ports import ApiError
from panosc_operator.reconcile.queue import WorkQueue
from panosc_operator.reconcile.store import Store
from panosc_operator.reconcile.sweep import Sweeper
from prometheus_client import REGISTRY

from tests.unit.operator import builders, virtual_time
from tests.unit.operator.builders import NAMESPACE, Body
from tests.unit.operator.fake_cluster import ApiServer, FakeCluster
from tests.unit.operator.virtual_time import play

LOOK = Key("AnalysisSession", NAMESPACE, "look")
SERVICE = Key("Service", NAMESPACE, "service")


def service(
    version: int = 1,
    uid: str = "service-1",
    *,
    parent: str = "parent-1",
    namespace: str = NAMESPACE,
    name: str = "service",
) -> Seen:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-10-01T08:00:00Z",
        "labels": {names.MANAGED_BY: names.OPERATOR, names.PARENT_UID: parent},
    }
    return project({"apiVersion": "v1", "kind": "Service", "metadata": metadata})


def look(version: int = 1, uid: str = "parent-1") -> Seen:
    body = builders.session()
    body["metadata"] |= {"uid": uid, "resourceVersion": str(version)}
    return project(body)


versions = st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["service-1", "service-2"])), max_size=12)


@given(events=versions)
def test_an_older_event_never_overwrites_a_newer_one(events: list[tuple[int, str]]) -> None:
    store = Store()
    for number, (version, uid) in enumerate(events):
        kept = store.put(service(version, uid))
        newest = max(version for version, _ in events[: number + 1])
        known = store.get(SERVICE)
        assert known is not None
        assert int(known.resource_version) == newest
        assert kept == (version == newest and all(v < version for v, _ in events[:number]))


@given(order=st.permutations([1, 2, 3, 4]))
def test_the_order_of_events_does_not_matter(order: list[int]) -> None:
    store = Store()
    for version in order:
        store.put(service(version))
    assert store.get(SERVICE) == service(4)


def test_versions_are_numbers_and_not_words() -> None:
    store = Store()
    store.put(service(99))
    assert store.put(service(100))


def test_the_deletion_of_another_object_of_that_name_is_ignored() -> None:
    store = Store()
    store.put(service(5, "service-2"))
    assert not store.remove(SERVICE, "service-1")
    assert store.get(SERVICE) is not None
    assert store.remove(SERVICE, "service-2")
    assert store.get(SERVICE) is None
    assert not store.remove(SERVICE, "service-2")


def test_children_are_found_by_their_parents_uid() -> None:
    store = Store()
    store.put(look())
    store.put(service())
    store.put(service(name="other", uid="service-9", parent="parent-2"))
    assert store.children("parent-1") == (service(),)
    store.remove(SERVICE, "service-1")
    assert store.children("parent-1") == ()


def test_a_child_in_another_namespace_is_none() -> None:
    store = Store()
    store.put(look())
    store.put(service(namespace="elsewhere"))
    assert store.children("parent-1") == ()


def test_an_object_made_again_forgets_what_its_predecessor_had() -> None:
    store = Store()
    store.put(look(1, "parent-1"))
    store.put(service(parent="parent-1"))
    store.reports["parent-1"] = Report()
    store.rejections["parent-1"] = Rejection(SERVICE, "no")
    store.put(look(7, "parent-2"))
    snapshot = store.snapshot(LOOK)
    assert isinstance(snapshot, SessionSnapshot)
    assert (snapshot.children, snapshot.rejection) == ((), None)
    assert (store.reports, store.rejections) == ({}, {})
    assert [seen.key for seen in store.orphans()] == [SERVICE]


def test_an_orphan_is_a_child_whose_parent_is_not_there() -> None:
    store = Store()
    store.put(service())
    assert [seen.key for seen in store.orphans()] == [SERVICE]
    store.put(look())
    assert store.orphans() == []


def volume(phase: str, namespace: str = "", kind: str = "PersistentVolume") -> Seen:
    metadata = {"name": "data", "labels": {names.MANAGED_BY: names.OPERATOR}} | (
        {"namespace": namespace} if namespace else {}
    )
    return project(
        builders.stored({"apiVersion": "v1", "kind": kind, "metadata": metadata, "status": {"phase": phase}})
    )


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (volume("Bound"), False),
        (volume("Available"), False),
        (volume("Released"), True),
        (volume("Failed"), True),
        (volume("Lost", NAMESPACE, "PersistentVolumeClaim"), True),
        (volume("Bound", NAMESPACE, "PersistentVolumeClaim"), False),
        (volume("Lost", "elsewhere", "PersistentVolumeClaim"), False),
        (project(builders.environment()), True),
        (project(builders.workflow()), True),
        (project(builders.data_source()), True),
        (look(), True),
        (service(), True),
        (service(parent="parent-2"), False),
    ],
)
def test_who_is_looked_at_when_something_changes(seen: Seen, told: bool) -> None:
    store = Store()
    store.put(look())
    store.put(seen)
    assert store.affected(seen) == ([LOOK] if told else [])


def test_a_volume_that_is_gone_is_news() -> None:
    store = Store()
    store.put(look())
    assert store.affected(volume("Bound")) == [LOOK]


def test_what_is_not_known_has_no_snapshot() -> None:
    assert Store().snapshot(LOOK) is None


def test_a_snapshot_has_the_catalogue_and_the_storage_in_reach() -> None:
    store = Store()
    store.put(look())
    for body in builders.catalogue_bodies():
        store.put(project(body))
    near, far = (volume("Bound", namespace, "PersistentVolumeClaim") for namespace in (NAMESPACE, "elsewhere"))
    for seen in (near, far, volume("Bound")):
        store.put(seen)
    snapshot = store.snapshot(LOOK)
    assert isinstance(snapshot, SessionSnapshot)
    assert set(snapshot.shared) == {near.key, volume("Bound").key}
    assert set(snapshot.catalogue.environments) == {"jupyter", "analysis"}
    assert set(snapshot.catalogue.workflows) == {"sase-delivery"}
    assert set(snapshot.catalogue.sources) == {"facility"}


# --- sweeps -----------------------------------------------------------------------------------------------------------


def child_body(name: str, parent: Body, kind: str = "Service") -> Body:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {names.MANAGED_BY: names.OPERATOR, names.PARENT_UID: parent["metadata"]["uid"]},
            "ownerReferences": [builders.owner_reference(parent)],
        },
        "spec": {"ports": []},
    }


class Scene:
    """A store with its sweeper and an API server whose watches are not connected."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.cluster = FakeCluster(self.server)
        self.store = Store()
        self.queue = WorkQueue(virtual_time.clock)
        self.sweeper = Sweeper(self.store, self.queue, self.cluster)

    def known(self) -> dict[Key, str]:
        return {seen.key: seen.uid for kind in ("AnalysisSession", "Service", "Pod") for seen in self.store.all(kind)}

    def there(self) -> dict[Key, str]:
        return {key: body["metadata"]["uid"] for key, body in self.server.objects.items()}

    async def asked(self) -> set[Key]:
        """Return the keys that wait for a worker."""
        found = set()
        while sum(self.queue.depth().values()):
            found.add(key := await self.queue.take())
            self.queue.done(key)
        return found


def test_a_sweep_removes_ghosts_and_adds_what_was_missed() -> None:
    async def scene() -> None:
        it = Scene()
        parent = it.server.put(builders.session())
        it.server.put(child_body("kept", parent))
        it.server.put(child_body("ghost", parent))
        it.server.put(child_body("replaced", parent))
        await it.sweeper.fill()
        assert it.known() == it.there()
        await it.asked()
        it.server.remove(Key("Service", NAMESPACE, "ghost"))
        it.server.remove(Key("Service", NAMESPACE, "replaced"))
        it.server.put(child_body("replaced", parent))
        it.server.put(child_body("missed", parent))
        assert it.known() != it.there()
        await it.sweeper.sweep()
        assert it.known() == it.there()
        assert await it.asked() == {LOOK}
        assert {key.name for key in it.cluster.reads} == {"missed", "replaced"}, "only what is missing is read"

    play(scene())


def test_a_sweep_that_finds_nothing_says_nothing() -> None:
    async def scene() -> None:
        it = Scene()
        parent = it.server.put(builders.session())
        it.server.put(child_body("kept", parent))
        await it.sweeper.fill()
        await it.asked()
        await it.sweeper.sweep()
        assert await it.asked() == set()
        assert it.cluster.reads == []

    play(scene())


def test_what_is_on_its_way_is_not_read() -> None:
    async def scene() -> None:
        it = Scene()
        parent = it.server.put(builders.session())
        await it.sweeper.fill()
        late = it.server.put(child_body("late", parent))
        asyncio.get_running_loop().call_later(1.0, it.sweeper.observe, project(late))
        await it.sweeper.sweep()
        assert it.known() == it.there()
        assert it.cluster.reads == []

    play(scene())


def test_orphans_are_counted() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("panosc_orphans_total", {"kind": "Service"}) or 0.0

    async def scene() -> None:
        it = Scene()
        parent = it.server.put(builders.session())
        it.server.put(child_body("left", parent))
        it.server.objects.pop(LOOK)
        await it.sweeper.fill()
        before = counted()
        await it.sweeper.sweep()
        assert counted() == before + 1

    play(scene())


def test_a_failing_list_stops_no_later_sweep() -> None:
    async def scene() -> None:
        it = Scene()
        parent = it.server.put(builders.session())
        await it.sweeper.fill()
        answers = [ApiError(500, "etcd is slow")]
        list_identities = it.cluster.list_identities

        async def failing(kind: str) -> dict[Key, str]:
            if answers:
                raise answers.pop()
            return await list_identities(kind)

        it.cluster.list_identities = failing  # type: ignore[method-assign]
        sweeping = asyncio.create_task(it.sweeper.run())
        it.server.put(child_body("missed", parent))
        await asyncio.sleep(1)
        assert it.known() != it.there()
        await asyncio.sleep(400)
        assert it.known() == it.there()
        sweeping.cancel()

    play(scene())


steps = st.lists(
    st.tuples(st.sampled_from(["put", "remove", "tell", "lose", "sweep"]), st.sampled_from("abc")), max_size=14
)


@settings(max_examples=40)
@given(steps=steps)
def test_whatever_watches_miss_a_sweep_makes_it_right(steps: Iterable[tuple[str, str]]) -> None:
    """Events may come late, never, or after a sweep that already knew: after the last sweep the store is the truth."""

    async def scene() -> None:
        it = Scene()
        parent = it.server.put(builders.session())
        waiting: list[tuple[str, Body]] = []
        it.server.watch(lambda event, body: waiting.append((event, body)))
        for what, name in steps:
            key = Key("Service", NAMESPACE, name)
            if what == "put":
                it.server.put(child_body(name, parent) if key not in it.server.objects else it.server.body(key))
            elif what == "remove" and key in it.server.objects:
                it.server.remove(key)
            elif what == "lose" and waiting:
                waiting.pop(0)
            elif what == "tell" and waiting:
                hear(it, *waiting.pop(0))
            elif what == "sweep":
                await it.sweeper.sweep()
            await asyncio.sleep(0.1)
        for event in waiting:
            hear(it, *event)
        await it.sweeper.sweep()
        assert it.known() == it.there()
        for key, body in it.server.objects.items():
            known = it.store.get(key)
            assert known is not None
            assert int(known.resource_version) <= int(body["metadata"]["resourceVersion"])

    play(scene())


def hear(it: Scene, event: str, body: Body) -> Any:
    return it.sweeper.forget(project(body)) if event == "DELETED" else it.sweeper.observe(project(body))
