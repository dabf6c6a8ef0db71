"""The DaskCluster of a job: a scheduler and workers, run by the dask-kubernetes operator."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from panosc_operator.api.environment import Flavour
from panosc_operator.api.owner import Owner
from panosc_operator.domain import data, identity, names, network, pods
from panosc_operator.domain.seen import SeenCustom

SCHEDULER_FLAVOUR = Flavour(name="scheduler", cpu="100m", memory="1Gi")
_TMP = "/tmp"
_SUFFIXES = {"": 0, "m": -1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def cluster_name(job: SeenCustom, run: int) -> str:
    """Return the name of a run's DaskCluster."""
    return names.run_name(job.key.name, job.uid, run, names.DASK_CLUSTER)


def scheduler_address(job: SeenCustom, run: int) -> str:
    """Return where the scheduler of a run will listen: known before it is there."""
    return f"tcp://{cluster_name(job, run)}-scheduler.{job.key.namespace}.svc:{network.SCHEDULER_PORT}"


def quantity(text: str) -> Decimal:
    """Return the number that a resource quantity such as ``500m`` or ``4Gi`` stands for."""
    number = text.rstrip("kmMGTPEi")
    suffix = text[len(number) :]
    base = Decimal(1024 if suffix.endswith("i") else 1000)
    return Decimal(number) * base ** _SUFFIXES[suffix.removesuffix("i")]


def dask_cluster(
    job: SeenCustom,
    run: int,
    owner: Owner,
    image: str,
    flavour: Flavour,
    mounts: tuple[data.Mount, ...],
    workers: int,
) -> dict[str, Any]:
    """Return the DaskCluster of a run of a job.

    The dask-kubernetes operator copies its labels to all its pods, so the job's network policy and watch see them.
    """
    name = cluster_name(job, run)
    metadata = pods.child_metadata(job, name, run)
    metadata["annotations"] = identity.account_annotations(owner, _TMP)
    scheduler = {
        "name": "scheduler",
        "image": image,
        "args": ["dask", "scheduler", "--host", "0.0.0.0"],
        "ports": [
            {"name": "tcp-comm", "containerPort": network.SCHEDULER_PORT, "protocol": "TCP"},
            {"name": "http-dashboard", "containerPort": network.DASHBOARD_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "http-dashboard"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 60,
        },
        "resources": pods.resources(SCHEDULER_FLAVOUR),
    }
    worker = {
        "name": "worker",
        "image": image,
        # dask-kubernetes retires workers by the name it gives them here.
        "args": [
            "dask", "worker", "--name", "$(DASK_WORKER_NAME)",
            "--nthreads", str(math.ceil(quantity(flavour.cpu))),
            "--memory-limit", str(int(quantity(flavour.memory))),
            "--local-directory", _TMP,
        ],
        "resources": pods.resources(flavour),
    }  # fmt: skip
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": metadata,
        "spec": {
            "worker": {"replicas": workers, "spec": _pod(owner, mounts, worker)},
            "scheduler": {
                "spec": _pod(owner, (), scheduler),
                "service": {
                    "type": "ClusterIP",
                    "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
                    "ports": [
                        {
                            "name": "tcp-comm", "protocol": "TCP",
                            "port": network.SCHEDULER_PORT, "targetPort": "tcp-comm",
                        },
                        {
                            "name": "http-dashboard", "protocol": "TCP",
                            "port": network.DASHBOARD_PORT, "targetPort": "http-dashboard",
                        },
                    ],
                },
            },
        },
    }  # fmt: skip


def _pod(owner: Owner, mounts: tuple[data.Mount, ...], container: dict[str, Any]) -> dict[str, Any]:
    """Return a pod template's spec: kept alive by a Deployment, so it restarts always. The driver checked the data."""
    spec = pods.pod_spec(owner, mounts, container, home=_TMP, volumes=[], check_image=None)
    return spec | {"restartPolicy": "Always"}
