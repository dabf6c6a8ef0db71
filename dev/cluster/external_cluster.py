"""A cluster that somebody else runs: ``CLUSTER=external`` and ``KUBECONFIG``."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from dev.cluster.host import ClusterError, run, say


def external() -> bool:
    """Whether the cluster of ``KUBECONFIG`` is to be used: ``CLUSTER=external``.

    Raises
    ------
    ClusterError
        If ``CLUSTER`` has another value.
    """
    value = os.environ.get("CLUSTER", "")
    if value not in ("", "external"):
        raise ClusterError(f"CLUSTER={value} is not known: set it to external, or unset it")
    return value == "external"


def external_kubeconfig() -> Path:
    """Return the file that ``KUBECONFIG`` names.

    Raises
    ------
    ClusterError
        If it names none.
    """
    path = os.environ.get("KUBECONFIG", "")
    if not Path(path).is_file():
        raise ClusterError(f"CLUSTER=external needs KUBECONFIG to name a file, it is {path!r}")
    return Path(path)


def external_name() -> str:
    """Return the name of the cluster in the current context of the kubeconfig.

    Raises
    ------
    ClusterError
        If there is no current context.
    """
    config = yaml.safe_load(external_kubeconfig().read_text()) or {}
    for entry in config.get("contexts") or []:
        if entry["name"] == config.get("current-context"):
            return str(entry["context"]["cluster"])
    raise ClusterError("KUBECONFIG has no current context: set one with `kubectl config use-context`")


def push(image: str) -> None:
    """Push an image of buildah to the registry that its name begins with.

    Raises
    ------
    ClusterError
        If its name has no registry, or the push fails.
    """
    if image.startswith("localhost/"):
        raise ClusterError(f"{image} cannot be pushed: set IMAGE_PREFIX to a registry of the external cluster")
    run("buildah", "push", "--quiet", image, f"docker://{image}", timeout=900)
    say(f"{image} pushed")
