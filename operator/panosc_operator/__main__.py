"""The operator's process.

    panosc-operator

In a cluster it uses its service account, elsewhere the kubeconfig. All replicas watch; the one that holds the Lease
works.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from typing import Any

import aiohttp
import kopf
from kubernetes.aio import client, config

from panosc_operator import handlers, metrics
from panosc_operator.adapters.api import ApiCluster
from panosc_operator.adapters.http import serve
from panosc_operator.adapters.lease import Leadership
from panosc_operator.adapters.progress import ProgressProbe, ask_directly, ask_through_proxy
from panosc_operator.reconcile.ports import ApiError, LeadershipLost
from panosc_operator.reconcile.queue import WorkQueue
from panosc_operator.reconcile.reconciler import Reconciler
from panosc_operator.reconcile.store import Store
from panosc_operator.reconcile.sweep import Sweeper
from panosc_operator.settings import Settings, SettingsError

logger = logging.getLogger("panosc_operator")

_WORKERS = 8
_FILL_RETRY_SECONDS = 2.0


async def operate(settings: Settings, stop: asyncio.Event) -> None:
    """Run until ``stop`` is set or leadership is lost."""
    if settings.in_cluster:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config()  # type: ignore[no-untyped-call]
    async with client.ApiClient() as api_client, aiohttp.ClientSession() as http:
        store, queue = Store(), WorkQueue(time.monotonic)
        cluster = ApiCluster(api_client, settings.identity)
        sweeper = Sweeper(store, queue, cluster)
        leadership = Leadership(api_client, settings.namespace, settings.identity)
        context = settings.context(settings.image or await cluster.image_of(settings.namespace, settings.pod or ""))
        reconciler = Reconciler(store, queue, cluster, context, may_write=leadership.check)
        probe = ProgressProbe(store, queue, ask_directly(http) if settings.in_cluster else ask_through_proxy(cluster))
        metrics.register(metrics.StoreCollector(store.all, queue.depth))
        filled, started = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            # A list of its own, now: what was seen before may be old, and what follows decides on it.
            await sweeper.sweep()
            sweeper.enqueue_all()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sweeper.run())
                tasks.create_task(probe.run())
                for _ in range(_WORKERS):
                    tasks.create_task(reconciler.work())

        async def lead() -> None:
            await started.wait()
            # kopf took the signals for itself as it started. They are for us: see below.
            _stop_on_signal(stop)
            await leadership.lead(work)

        async with serve(settings.http_port, filled.is_set):
            # The kinds have to be there before kopf looks which there are: it looks once.
            await _fill(sweeper, stop)
            filled.set()
            watching = asyncio.create_task(
                kopf.operator(
                    registry=handlers.registry_for(sweeper),
                    settings=handlers.settings(),
                    clusterwide=True,
                    standalone=True,
                    ready_flag=started,
                )
            )
            leading = asyncio.create_task(lead())
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({watching, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # The lease is given up before kopf ends, for then it cancels all tasks of the process.
                ended = [await _ended(task) for task in (leading, watching, stopping)]
            for outcome in ended:
                if isinstance(outcome, Exception):
                    raise outcome


async def _ended(task: asyncio.Task[Any]) -> object:
    """Cancel a task and wait for its end; return what it returned or raised."""
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def _fill(sweeper: Sweeper, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await sweeper.fill()
        except ApiError as error:
            # A missing CRD answers 404: the platform team may apply things in any order.
            logger.warning("cannot list: %s", error)
            await asyncio.sleep(_FILL_RETRY_SECONDS)
        else:
            return


def main() -> int:
    """Run the operator; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"panosc-operator: {error}", file=sys.stderr)
        return 2
    status = 0
    try:
        asyncio.run(_until_signal(settings))
    except* LeadershipLost:
        logger.critical("the lease was not renewed in time: ending, for another replica may lead")
        status = 1
    return status


async def _until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    _stop_on_signal(stop)
    await operate(settings, stop)


def _stop_on_signal(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


if __name__ == "__main__":
    sys.exit(main())
