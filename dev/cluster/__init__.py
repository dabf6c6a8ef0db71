"""A Kubernetes cluster for development and tests: real, on one Linux machine, without pulling an image.

Tests and the demo use these functions; people use ``python -m dev.cluster``. With ``CLUSTER=external``
the cluster of ``KUBECONFIG`` is used and this host is left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from dev.cluster import binaries
from dev.cluster.addresses import Addresses
from dev.cluster.cluster import Cluster, working_on
from dev.cluster.external_cluster import external, external_kubeconfig, external_name, push
from dev.cluster.host import ClusterError, require_root, say

__all__ = [
    "Addresses",
    "ClusterError",
    "addresses",
    "build",
    "down",
    "external",
    "kubeconfig",
    "kubectl",
    "load",
    "up",
]

DEFAULT_NAME = "panosc"


def build() -> None:
    """Build the programs of a cluster, unless they are there, and start nothing."""
    if not external():
        require_root()
        binaries.make(control_plane_only=False)


def up(name: str = DEFAULT_NAME, control_plane_only: bool = False) -> Path:
    """Bring a cluster up, unless it runs.

    Parameters
    ----------
    name
        Name of the cluster.
    control_plane_only
        Start etcd, the API server and the controller manager only: no pod will run.

    Returns
    -------
    Path
        The administrator's kubeconfig.

    Raises
    ------
    ClusterError
        With what to change, if it cannot come up.
    """
    if external():
        say(f"using the cluster {external_name()} of KUBECONFIG; nothing is installed on this host")
        return external_kubeconfig()
    require_root()
    with working_on(name):
        cluster = Cluster.find(name) or Cluster.create(name)
        cluster.up(control_plane_only)
    return cluster.configuration.kubeconfig


def down(name: str = DEFAULT_NAME, wipe: bool = False) -> None:
    """Stop a cluster; nothing of it is left but its state, from which `up` restarts it in seconds.

    Parameters
    ----------
    name
        Name of the cluster.
    wipe
        Remove the state too: objects, images, volumes, logs.
    """
    if external():
        raise ClusterError(f"the cluster {external_name()} is not ours to stop: unset CLUSTER")
    require_root()
    with working_on(name):
        cluster = Cluster.find(name)
        if cluster is None:
            say(f"there is no cluster {name}")
            return
        cluster.down(wipe)
    say(f"cluster {name} is down" + (", its state removed" if wipe else ""))


def load(name: str, images: Iterable[str]) -> None:
    """Bring images to the cluster, those left out that are there.

    Parameters
    ----------
    name
        Name of the cluster.
    images
        Names of images in buildah's storage, or paths of image archives. With ``CLUSTER=external`` they
        are pushed to their registry.
    """
    if external():
        for image in images:
            push(image)
        return
    require_root()
    cluster = Cluster.get(name)
    if cluster.process("containerd") is None:
        raise ClusterError(f"cluster {name} has no node that runs: `up` it first, without --control-plane-only")
    binaries.install("buildah")
    for image in images:
        for loaded, imported in cluster.images.load(image).items():
            say(f"{loaded} {'loaded' if imported else 'is there'}")


def kubeconfig(name: str = DEFAULT_NAME) -> Path:
    """Return the path of the cluster's kubeconfig."""
    if external():
        return external_kubeconfig()
    return Cluster.get(name).configuration.kubeconfig


def kubectl() -> Path:
    """Return the path of kubectl; it is built if need be."""
    if external() and (found := shutil.which("kubectl")):
        return Path(found)
    return binaries.KUBERNETES.build() / "kubectl"


def addresses(name: str = DEFAULT_NAME) -> Addresses:
    """Return the addresses of a cluster of this host: host, node, pods, services."""
    return Addresses(Cluster.get(name).slot)
