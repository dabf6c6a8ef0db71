"""Network policies: both directions denied but for what is listed."""

from __future__ import annotations

from typing import Any

from panosc_operator.api.base import GROUP
from panosc_operator.domain import names
from panosc_operator.domain.decision import Context

GATEWAY_NAMESPACE = {f"{GROUP}/gateway": "true"}
"""The label of namespaces whose pods may open sessions: a portal's, an ingress controller's."""

METRICS_NAMESPACE = {f"{GROUP}/metrics": "true"}
"""The label of namespaces whose pods may read metrics: Prometheus'."""

PROGRESS_PORT = 8780
SCHEDULER_PORT = 8786
DASHBOARD_PORT = 8787


def _namespaces(labels: dict[str, str]) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": labels}}


def _ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]


def _policy(metadata: dict[str, Any], uid: str, ingress: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"podSelector": {"matchLabels": {names.PARENT_UID: uid}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            **own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [own]}, *ingress],
            "egress": [
                {"to": [own]},
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
            ],
        },
    }


def session_policy(metadata: dict[str, Any], uid: str, port: int, context: Context) -> dict[str, Any]:
    """Let the gateway and the operator in to the session's port; let out to DNS alone."""
    openers = [
        _namespaces(GATEWAY_NAMESPACE),
        _namespaces({"kubernetes.io/metadata.name": context.namespace}),
    ]
    return _policy(metadata, uid, [{"from": openers, "ports": _ports(port)}])


def job_policy(metadata: dict[str, Any], uid: str, context: Context) -> dict[str, Any]:
    """Let a job's pods talk to each other, the operators ask for progress and retire workers, Prometheus read."""
    operators = [_namespaces({"kubernetes.io/metadata.name": context.namespace})]
    return _policy(
        metadata,
        uid,
        [
            {"from": operators, "ports": _ports(PROGRESS_PORT, SCHEDULER_PORT, DASHBOARD_PORT)},
            {"from": [_namespaces(METRICS_NAMESPACE)], "ports": _ports(PROGRESS_PORT, DASHBOARD_PORT)},
        ],
    )
