"""kopf's part: one event handler for each kind, and nothing else."""

from __future__ import annotations

from typing import Any

import kopf

from panosc_operator.api.base import GROUP
from panosc_operator.domain.seen import project
from panosc_operator.reconcile.resources import WATCHED, Resource
from panosc_operator.reconcile.sweep import Sweeper

_SILENCE_SECONDS = 120


def registry_for(sweeper: Sweeper) -> kopf.OperatorRegistry:
    """Return the handlers, which put what kopf sees into the store."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    for resource in WATCHED:
        _watch(registry, resource, sweeper)
    return registry


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Use the same credentials as our own client: the service account, or the kubeconfig outside a cluster."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _watch(registry: kopf.OperatorRegistry, resource: Resource, sweeper: Sweeper) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, id=resource.kind, registry=registry)
    async def on_event(*, event: Any, **_: Any) -> None:
        seen = project({**event["object"], "kind": resource.kind})
        if event["type"] == "DELETED":
            sweeper.forget(seen)
        else:
            sweeper.observe(seen)


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: the server filters children, silent watches are cut, nothing is posted or patched."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.peering.standalone = True
    # kopf takes a finalizer of its own name away where it needs none. The dask-kubernetes operator is made with kopf
    # too: under kopf's default name the two would add and remove the finalizer of each DaskCluster for ever.
    result.persistence.finalizer = f"{GROUP}/operator"
    result.scanning.disabled = True
    result.watching.server_timeout = 300
    result.watching.client_timeout = 330
    result.watching.inactivity_timeout = _SILENCE_SECONDS
    result.queueing.exit_timeout = 1
    for resource in WATCHED:
        if resource.label_selector is not None:
            result.watching.label_selectors[resource.group, resource.plural] = resource.label_selector
    return result
