"""What was seen of the cluster: fed by events, by the answers to our own writes, and by sweeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from panosc_operator.domain.decision import Catalogue, Rejection
from panosc_operator.domain.driver import Report
from panosc_operator.domain.job import JobSnapshot
from panosc_operator.domain.seen import Key, Seen, SeenCustom, SeenVolume
from panosc_operator.domain.session import SessionSnapshot
from panosc_operator.reconcile.resources import CATALOGUE, PARENTS, SHARED


class Store:
    """Projections by kind and key, with the children of a parent at hand."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Key, Seen]] = defaultdict(dict)
        self._children: dict[str, set[Key]] = defaultdict(set)
        self._parents: dict[str, Key] = {}
        self.reports: dict[str, Report] = {}
        """The latest answer of a job's driver, by the job's uid."""
        self.rejections: dict[str, Rejection] = {}
        """The child that the API server refused last, by the parent's uid."""

    def get(self, key: Key) -> Seen | None:
        """Return an object."""
        return self._objects[key.kind].get(key)

    def all(self, kind: str) -> Iterable[Seen]:
        """Return the objects of a kind."""
        return tuple(self._objects[kind].values())

    def put(self, seen: Seen) -> bool:
        """Keep an object unless something newer is known of it; return whether it was kept."""
        known = self.get(seen.key)
        if known is not None and int(known.resource_version) >= int(seen.resource_version):
            return False
        if known is not None and known.uid != seen.uid:
            self._forget(known)
        self._objects[seen.key.kind][seen.key] = seen
        if seen.key.kind in PARENTS:
            self._parents[seen.uid] = seen.key
        elif seen.parent_uid is not None:
            self._children[seen.parent_uid].add(seen.key)
        return True

    def remove(self, key: Key, uid: str) -> bool:
        """Forget an object that was deleted; one of the same name with another uid stays."""
        known = self.get(key)
        if known is None or known.uid != uid:
            return False
        self._forget(known)
        return True

    def _forget(self, seen: Seen) -> None:
        del self._objects[seen.key.kind][seen.key]
        if seen.key.kind in PARENTS:
            self._parents.pop(seen.uid, None)
            self.reports.pop(seen.uid, None)
            self.rejections.pop(seen.uid, None)
        elif seen.parent_uid is not None:
            self._children[seen.parent_uid].discard(seen.key)
            if not self._children[seen.parent_uid]:
                del self._children[seen.parent_uid]

    def children(self, uid: str) -> tuple[Seen, ...]:
        """Return what belongs to a session or job, however indirectly.

        Labels can be forged, but only where their author may write: what is in another namespace does not count.
        """
        parent = self._parents.get(uid)
        keys = self._children.get(uid, ()) if parent else ()
        return tuple(self._objects[key.kind][key] for key in keys if parent and key.namespace == parent.namespace)

    def orphans(self) -> list[Seen]:
        """Return the objects whose session or job is not there."""
        return [
            seen
            for objects in self._objects.values()
            for seen in objects.values()
            if seen.parent_uid is not None and seen.parent_uid not in self._parents
        ]

    def affected(self, seen: Seen) -> list[Key]:
        """Return the sessions and jobs to look at when this object has changed or gone."""
        if seen.key.kind in PARENTS:
            return [seen.key]
        if seen.parent_uid is not None:
            parent = self._parents.get(seen.parent_uid)
            return [parent] if parent else []
        if seen.key.kind in CATALOGUE:
            return [key for kind in PARENTS for key in self._objects[kind]]
        if isinstance(seen, SeenVolume) and seen.key.kind in SHARED:
            # Bound claims are no news: pods wait for them by themselves. Lost ones have to be made again.
            lost = self.get(seen.key) is None or seen.phase in ("Released", "Lost", "Failed")
            in_reach = seen.key.namespace
            return [key for kind in PARENTS for key in self._objects[kind] if lost and in_reach in ("", key.namespace)]
        return []

    def snapshot(self, key: Key) -> SessionSnapshot | JobSnapshot | None:
        """Return what is known of a session or job."""
        seen = self.get(key)
        if not isinstance(seen, SeenCustom):
            return None
        children = self.children(seen.uid)
        shared = {other.key: other for kind in SHARED for other in self._shared(kind, key.namespace)}
        catalogue = Catalogue(*(self._by_name(kind) for kind in CATALOGUE))
        rejection = self.rejections.get(seen.uid)
        if key.kind == "AnalysisSession":
            return SessionSnapshot(seen, children, shared, catalogue, rejection)
        return JobSnapshot(seen, children, shared, catalogue, self.reports.get(seen.uid), rejection)

    def _shared(self, kind: str, namespace: str) -> Iterable[Seen]:
        return (seen for seen in self._objects[kind].values() if seen.key.namespace in ("", namespace))

    def _by_name(self, kind: str) -> dict[str, SeenCustom]:
        return {key.name: seen for key, seen in self._objects[kind].items() if isinstance(seen, SeenCustom)}
