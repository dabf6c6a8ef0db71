"""Lists against what watches cannot promise: a ghost in the store would be a session that is never started again."""

from __future__ import annotations

import asyncio
import logging

from panosc_operator import metrics
from panosc_operator.domain.seen import Key, Seen
from panosc_operator.reconcile.ports import ApiError, Cluster
from panosc_operator.reconcile.queue import WorkQueue
from panosc_operator.reconcile.resources import PARENTS, WATCHED
from panosc_operator.reconcile.store import Store

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 300.0
_GRACE_SECONDS = 5.0
"""An object that a list has and the store has not may be on its way: it is read only if it is still missing then."""


class Sweeper:
    """Compares the store with the API server.

    Parameters
    ----------
    store, queue
        What is compared, and what is told of differences.
    cluster
        The API server.
    """

    def __init__(self, store: Store, queue: WorkQueue, cluster: Cluster) -> None:
        self._store = store
        self._queue = queue
        self._cluster = cluster

    async def fill(self) -> None:
        """Put everything into the store; raises `ApiError`."""
        for resource in WATCHED:
            for seen in await self._cluster.list_all(resource.kind):
                self.observe(seen)

    async def run(self) -> None:
        """Sweep at once and then every few minutes, for ever."""
        while True:
            try:
                await self.sweep()
            except ApiError as error:
                logger.warning("sweep: %s", error)
            await asyncio.sleep(PERIOD_SECONDS)

    def enqueue_all(self) -> None:
        """Look at every session and job: done when this process starts to lead."""
        for kind in PARENTS:
            for seen in self._store.all(kind):
                self._queue.add(seen.key)

    def observe(self, seen: Seen) -> None:
        """Take in an object, and look at whom it concerns if it was news."""
        if self._store.put(seen):
            self._tell(seen)

    def forget(self, seen: Seen) -> None:
        """Take in that an object was deleted."""
        if self._store.remove(seen.key, seen.uid):
            self._tell(seen)

    def _tell(self, seen: Seen) -> None:
        for key in self._store.affected(seen):
            self._queue.add(key)

    async def sweep(self) -> None:
        """Remove ghosts, add what was missed, count orphans."""
        for resource in WATCHED:
            known_before = {seen.key: seen for seen in self._store.all(resource.kind)}
            listed = await self._cluster.list_identities(resource.kind)
            for key, seen in known_before.items():
                if listed.get(key) != seen.uid:
                    logger.warning("%s %s/%s is gone and no watch told us", *key)
                    self.forget(seen)
            missing = [key for key, uid in listed.items() if not self._knows(key, uid)]
            if missing:
                await asyncio.sleep(_GRACE_SECONDS)
            for key in missing:
                if not self._knows(key, listed[key]):
                    found = await self._cluster.get(key)
                    if found is not None:
                        logger.warning("%s %s/%s is there and no watch told us", *key)
                        self.observe(found)
        for orphan in self._store.orphans():
            metrics.ORPHANS.labels(orphan.key.kind).inc()
            logger.warning("%s %s/%s has lost its session or job", *orphan.key)

    def _knows(self, key: Key, uid: str) -> bool:
        seen = self._store.get(key)
        return seen is not None and seen.uid == uid
