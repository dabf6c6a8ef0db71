"""A work queue that holds each key once, never gives it to two workers, and knows when to look again."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable

from panosc_operator.domain.seen import Key

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 60.0


class WorkQueue:
    """Keys to look at, now or later.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._later: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Look at the key as soon as a worker is free; one in work is looked at again afterwards."""
        if key in self._running:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at the key again after some time, or earlier if something else asks for it."""
        due = self._clock() + max(seconds, 0.0)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._later, (due, key))
            self._wake.set()

    def retry(self, key: Key, at_least: float = 0.0) -> float:
        """Look at the key again after a pause that doubles with each failure in a row; return the pause."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause = max(at_least, min(_FIRST_BACKOFF * 2.0**count, _LONGEST_BACKOFF))
        self.add_after(key, pause)
        return pause

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    async def take(self) -> Key:
        """Wait for the next key; it must be given to `done` afterwards."""
        while True:
            self._promote()
            if self._waiting:
                key, _ = self._waiting.popitem(last=False)
                self._running.add(key)
                return key
            self._wake.clear()
            pause = self._later[0][0] - self._clock() if self._later else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def done(self, key: Key) -> None:
        """Say that a worker has finished with a key."""
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def depth(self) -> dict[str, int]:
        """Return how many keys of each kind wait for a worker."""
        counts: dict[str, int] = {}
        for key in self._waiting:
            counts[key.kind] = counts.get(key.kind, 0) + 1
        return counts

    def _promote(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
