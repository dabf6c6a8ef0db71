"""The *restricted* Pod Security Standard, and what the facility's storage asks for beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(spec: dict[str, Any]) -> list[str]:
    """Return what a pod spec has that it must not have."""
    return [*_pod(spec), *(flaw for container in _containers(spec) for flaw in _container(container))]


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if not context.get("runAsUser"):
        yield "runAsUser"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if "fsGroup" in context:
        yield "fsGroup"
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken"
    for field in ("hostNetwork", "hostPID", "hostIPC", "serviceAccountName"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= _VOLUMES:
            yield f"volume {volume['name']}: {kinds}"


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", ()), *spec["containers"], *spec.get("ephemeralContainers", ())]


def _container(container: dict[str, Any]) -> Iterator[str]:
    context, name = container.get("securityContext", {}), container["name"]
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name}: capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: readOnlyRootFilesystem"
    for field in ("privileged", "procMount", "runAsUser", "runAsNonRoot", "seccompProfile"):
        if field in context:
            yield f"{name}: {field} is the pod's to say"
    if any("hostPort" in port for port in container.get("ports", ())):
        yield f"{name}: hostPort"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield f"{name}: memory limit"
