"""Leader election by a Lease: kopf's peering is not one.

``kubernetes.aio.leaderelection`` decides who leads. It neither times out, nor releases, nor tells whether the lease is
still good at the moment of a write; those three are added here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from panosc_operator import metrics
from panosc_operator.reconcile.ports import LeadershipLost

logger = logging.getLogger(__name__)

LEASE_NAME = "panosc-operator"
LEASE_SECONDS, RENEW_DEADLINE, RETRY_SECONDS = 10, 7, 2
_REQUEST_SECONDS = 3.0


class _TimedLock(LeaseLock):
    """A Lease whose requests end before the renew deadline, and that remembers when it was last ours."""

    def __init__(self, namespace: str, identity: str, api_client: client.ApiClient) -> None:
        super().__init__(LEASE_NAME, namespace, identity, api_client)
        self.renewed_at = float("-inf")

    async def get(self, name: str, namespace: str) -> Any:
        return await self._timed(super().get(name, namespace), failure=(False, ApiException(reason="time-out")))

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        return await self._ours(self._create(name, namespace, election_record))

    async def _create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        # The library's own passes `pretty=True`, which the client of the same release (37.0) refuses.
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except ApiException as error:
            logger.warning("Lease %s: %s", name, error.reason)
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        return await self._ours(super().update(name, namespace, updated_record))

    async def _ours(self, request: Awaitable[bool]) -> bool:
        asked_at = time.monotonic()
        written: bool = await self._timed(request, failure=False)
        if written:
            self.renewed_at = asked_at
        return written

    async def _timed(self, request: Awaitable[Any], failure: Any) -> Any:
        try:
            return await asyncio.wait_for(request, _REQUEST_SECONDS)
        except (TimeoutError, aiohttp.ClientError) as error:
            logger.warning("Lease %s: %s", LEASE_NAME, error or "no answer in time")
            return failure


class Leadership:
    """Holds the Lease while it can, and runs the operator's work for as long.

    Parameters
    ----------
    api_client
        A configured client.
    namespace
        Where the Lease is.
    identity
        Which replica this is.
    """

    def __init__(self, api_client: client.ApiClient, namespace: str, identity: str) -> None:
        self._lock = _TimedLock(namespace, identity, api_client)
        self._namespace = namespace

    def check(self) -> None:
        """Raise `LeadershipLost` unless the lease was renewed within its deadline, on the monotonic clock."""
        if time.monotonic() - self._lock.renewed_at > RENEW_DEADLINE:
            raise LeadershipLost("the lease was not renewed in time")

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait to lead, then work until the lease is lost; on cancellation stop the work, then give the lease up.

        Raises
        ------
        LeadershipLost
            If the lease was lost: the process has to end, for what it believes may be stale.
        """
        working: asyncio.Task[None] | None = None

        async def start() -> None:
            nonlocal working
            metrics.LEADER.set(1)
            logger.info("leading")
            working = asyncio.create_task(_awaited(work))
            await working

        async def stopped() -> None:
            metrics.LEADER.set(0)

        config = Config(
            self._lock,
            LEASE_SECONDS,
            RENEW_DEADLINE,
            RETRY_SECONDS,
            onstarted_leading=start,
            onstopped_leading=stopped,
        )
        election = asyncio.create_task(LeaderElection(config).run())
        try:
            await self._until_over(election, lambda: working)
            raise LeadershipLost("the lease was not renewed in time")
        finally:
            election.cancel()
            if working is not None:
                working.cancel()
            await asyncio.gather(*(task for task in (election, working) if task), return_exceptions=True)
            metrics.LEADER.set(0)
            await self._release()

    @staticmethod
    async def _until_over(election: asyncio.Task[None], working: Callable[[], asyncio.Task[None] | None]) -> None:
        """Wait for the election to be lost; what the work raises is raised here."""
        while not election.done():
            task = working()
            await asyncio.wait({election, *([task] if task else [])}, timeout=0.2, return_when="FIRST_COMPLETED")
            if task is not None and task.done():
                await task
        await election

    async def _release(self) -> None:
        """Clear the holder, so that the next replica need not wait for the lease to run out."""
        await self._lock.get(LEASE_NAME, self._namespace)
        lease = self._lock.lease_reference
        if lease is None or lease.spec is None:
            return
        try:
            self.check()
            lease.spec.holder_identity = ""
            await asyncio.wait_for(
                self._lock.api_instance.replace_namespaced_lease(
                    name=LEASE_NAME, namespace=self._namespace, body=lease
                ),
                _REQUEST_SECONDS,
            )
            logger.info("gave the lease up")
        except (LeadershipLost, ApiException, TimeoutError, aiohttp.ClientError) as error:
            logger.info("lease not given up: %s", error)


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
