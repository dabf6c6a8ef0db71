"""How far the drivers of running jobs are: asked every few seconds, a few at a time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from panosc_operator.adapters.api import ApiCluster
from panosc_operator.domain.driver import parse_report
from panosc_operator.domain.network import PROGRESS_PORT
from panosc_operator.domain.seen import SeenCustom, SeenPod
from panosc_operator.reconcile.ports import ApiError
from panosc_operator.reconcile.queue import WorkQueue
from panosc_operator.reconcile.store import Store

logger = logging.getLogger(__name__)

Ask = Callable[[SeenPod], Awaitable[Any]]
PERIOD_SECONDS = 2.0
_AT_ONCE = 16
_TIMEOUT = aiohttp.ClientTimeout(total=3)
_MAX_BYTES = 65536


def ask_directly(session: aiohttp.ClientSession) -> Ask:
    """Ask the pod itself: the operator's namespace is let in by the job's network policy."""

    async def ask(pod: SeenPod) -> Any:
        url = f"http://{pod.ip}:{PROGRESS_PORT}/progress"
        async with session.get(url, timeout=_TIMEOUT, allow_redirects=False) as answer:
            return json.loads(await answer.content.read(_MAX_BYTES))

    return ask


def ask_through_proxy(cluster: ApiCluster) -> Ask:
    """Ask through the API server, for an operator that runs outside the cluster (development)."""

    async def ask(pod: SeenPod) -> Any:
        return await cluster.proxy(pod.key, PROGRESS_PORT, "progress")

    return ask


class ProgressProbe:
    """Keeps the latest answer of each running job's driver in the store.

    Parameters
    ----------
    store, queue
        Where answers go, and what makes them seen.
    ask
        How a pod is asked.
    """

    def __init__(self, store: Store, queue: WorkQueue, ask: Ask) -> None:
        self._store = store
        self._queue = queue
        self._ask = ask
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.gather(*(self._probe(job, pod) for job, pod in self._running()))
            await asyncio.sleep(PERIOD_SECONDS)

    def _running(self) -> list[tuple[SeenCustom, SeenPod]]:
        return [
            (job, child)
            for job in self._store.all("AnalysisJob")
            if isinstance(job, SeenCustom)
            for child in self._store.children(job.uid)
            if isinstance(child, SeenPod) and child.component is None and child.ip and not child.ended
        ]

    async def _probe(self, job: SeenCustom, pod: SeenPod) -> None:
        """Ask one driver. One that does not answer is no news: its pod's conditions tell whether it lives."""
        async with self._free:
            try:
                report = parse_report(await self._ask(pod))
            # A recursion error is JSON that is nested too deeply: the pod runs the user's code.
            except (ApiError, aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
                logger.debug("%s/%s: no progress: %s", pod.key.namespace, pod.key.name, error)
                return
        if report is not None and report != self._store.reports.get(job.uid):
            self._store.reports[job.uid] = report
            self._queue.add(job.key)
