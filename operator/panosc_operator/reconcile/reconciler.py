"""One look at one session or job: observe, decide, act, say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from panosc_operator import metrics
from panosc_operator.api.job import AnalysisJobStatus
from panosc_operator.api.session import AnalysisSessionStatus
from panosc_operator.domain import job, session
from panosc_operator.domain.decision import Child, Context, Decision, Mode, Notice, Rejection
from panosc_operator.domain.job import JobSnapshot
from panosc_operator.domain.seen import Key, SeenCustom
from panosc_operator.domain.session import SessionSnapshot
from panosc_operator.reconcile.difference import difference, with_hash
from panosc_operator.reconcile.ports import ApiError, Cluster, LeadershipLost
from panosc_operator.reconcile.queue import WorkQueue
from panosc_operator.reconcile.store import Store

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5
"""How long a status that only tells of a next stage waits for more news before it is written."""
STAGE_SECONDS = 10.0
"""How long the next stage of a start waits: most starts are over by then, and each stage would cost a write."""
PROGRESS_SECONDS = 3.0
"""How often mere progress of a job is written, at most."""
_PROGRESS_FIELDS = ("progress", "timing")


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Reconciler:
    """Workers that take keys from the queue and make the cluster what the domain wants.

    Parameters
    ----------
    store
        What was seen.
    queue
        What to look at.
    cluster
        The API server.
    context
        How the operator was installed.
    may_write
        Raises unless this process still leads; asked before each write.
    now, clock
        Wall-clock time in UTC, and monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        cluster: Cluster,
        context: Context,
        may_write: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._queue = queue
        self._cluster = cluster
        self._context = context
        self._may_write = may_write
        self._now = now
        self._clock = clock
        self._unsaid_since: dict[Key, float] = {}

    async def work(self) -> None:
        """Take keys for ever."""
        while True:
            key = await self._queue.take()
            started = self._clock()
            result = "error"
            try:
                await self.reconcile(key)
                self._queue.succeeded(key)
                result = "ok"
            except LeadershipLost:
                raise
            except ApiError as error:
                pause = self._queue.retry(key, error.retry_after or 0.0)
                logger.warning("%s %s/%s: %s; again in %.1f s", *key, error, pause)
            except Exception:
                # A bug that one object meets must not stop the work on all others.
                pause = self._queue.retry(key)
                logger.exception("%s %s/%s: unexpected; again in %.1f s", *key, pause)
            finally:
                self._queue.done(key)
                metrics.RECONCILE.labels(key.kind, result).inc()
                metrics.RECONCILE_SECONDS.labels(key.kind).observe(self._clock() - started)

    async def reconcile(self, key: Key) -> None:
        """Look at one session or job once.

        Raises
        ------
        ApiError
            If a write failed; the key is to be looked at again.
        """
        snapshot = self._store.snapshot(key)
        if snapshot is None:
            self._unsaid_since.pop(key, None)
            return
        parent = snapshot.session if isinstance(snapshot, SessionSnapshot) else snapshot.job
        decision = self._decide(snapshot)
        refusal = await self._write_children(parent, decision)
        if refusal is not None:
            decision = self._decide(self._store.snapshot(key) or snapshot)
        await self._say(parent, decision)
        await self._delete_unwanted(parent, decision)
        if decision.requeue_at is not None:
            self._queue.add_after(key, (decision.requeue_at - self._now()).total_seconds())
        if refusal is not None:
            raise refusal

    def _decide(self, snapshot: SessionSnapshot | JobSnapshot) -> Decision:
        if isinstance(snapshot, SessionSnapshot):
            return session.decide(snapshot, self._context, self._now())
        return job.decide(snapshot, self._context, self._now())

    async def _write_children(self, parent: SeenCustom, decision: Decision) -> ApiError | None:
        """Write what differs; return what the API server refused for a reason that only people can remove."""
        for volume in decision.releases:
            self._may_write()
            await self._cluster.delete(volume)
        for child in difference(decision.children, (), self._store.get).writes:
            self._may_write()
            try:
                written = await self._write(child)
            except ApiError as error:
                if not error.refused:
                    raise
                self._store.rejections[parent.uid] = Rejection(child.key, error.message)
                return error
            if child.mode is not Mode.REPLACE:
                # What is never read must not look as if it were known: it would be deleted once it is not wanted anew.
                self._store.put(written)
        self._store.rejections.pop(parent.uid, None)
        return None

    async def _write(self, child: Child) -> Any:
        if child.mode is Mode.CREATE:
            return await self._cluster.create(child.manifest)
        return await self._cluster.apply(with_hash(child.manifest))

    async def _delete_unwanted(self, parent: SeenCustom, decision: Decision) -> None:
        """Delete what is not wanted any more: after the status that says why."""
        owned = (child for child in self._store.children(parent.uid) if child.controller_uid == parent.uid)
        for seen in difference(decision.children, owned, self._store.get).deletions:
            self._may_write()
            await self._cluster.delete(seen)

    async def _say(self, parent: SeenCustom, decision: Decision) -> None:
        """Write the status if it differs, and tell people what they should know."""
        if decision.status is None:
            return
        status = decision.status.to_kubernetes()
        if status == parent.status:
            self._unsaid_since.pop(parent.key, None)
            return
        if not decision.urgent and not self._settled(parent, decision, status):
            return
        self._may_write()
        self._store.put(await self._cluster.apply_status(parent, status))
        self._unsaid_since.pop(parent.key, None)
        for notice in self._notices(parent, decision):
            try:
                await self._cluster.emit(parent, notice)
            except ApiError as error:
                # The status says the same: an Event is a courtesy, not worth another pass.
                logger.warning("no Event about %s %s/%s: %s", *parent.key, error)

    def _settled(self, parent: SeenCustom, decision: Decision, status: dict[str, Any]) -> bool:
        """Whether news that can wait has waited long enough; if not, look again when it has."""

        def without_progress(told: Any) -> dict[str, Any]:
            return {key: value for key, value in told.items() if key not in _PROGRESS_FIELDS}

        mere_progress = without_progress(status) == without_progress(parent.status)
        wait = PROGRESS_SECONDS if mere_progress else STAGE_SECONDS if decision.stage else SETTLE_SECONDS
        since = self._unsaid_since.setdefault(parent.key, self._clock())
        left = since + wait - self._clock()
        if left > 0:
            self._queue.add_after(parent.key, left)
        return left <= 0

    def _notices(self, parent: SeenCustom, decision: Decision) -> tuple[Notice, ...]:
        if isinstance(decision.status, AnalysisSessionStatus):
            before = AnalysisSessionStatus.model_validate(parent.status)
            metrics.observe_session(parent, before, decision.status)
            return session.notices(before, decision.status)
        assert isinstance(decision.status, AnalysisJobStatus)
        job_before = AnalysisJobStatus.model_validate(parent.status)
        metrics.observe_job(parent, job_before, decision.status)
        return job.notices(job_before, decision.status)
