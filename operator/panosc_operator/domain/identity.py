"""The owner's POSIX identity in a pod, and the *restricted* Pod Security Standard."""

from __future__ import annotations

from typing import Any

from panosc_operator.api.owner import Owner
from panosc_operator.domain import names

_NOLOGIN = "/usr/sbin/nologin"


def home_folder(owner: Owner) -> str:
    """Return where the owner's home is mounted."""
    return f"/home/{owner.username}"


def passwd(owner: Owner, home: str) -> str:
    """Return ``/etc/passwd`` for a pod of the owner, so that the uid has a name."""
    lines = [
        f"root:x:0:0:root:/root:{_NOLOGIN}",
        f"{owner.username}:x:{owner.uid}:{owner.gid}::{home}:/bin/bash",
        f"nobody:x:65534:65534:nobody:/nonexistent:{_NOLOGIN}",
    ]
    return "\n".join(lines) + "\n"


def group(owner: Owner) -> str:
    """Return ``/etc/group`` for a pod of the owner.

    Supplemental groups list the owner as a member, as ``initgroups`` would want it.
    """
    lines = ["root:x:0:", f"{owner.username}:x:{owner.gid}:"]
    lines += [f"{g.name or f'group{g.gid}'}:x:{g.gid}:{owner.username}" for g in owner.supplemental_groups]
    lines.append("nogroup:x:65534:")
    return "\n".join(lines) + "\n"


def account_annotations(owner: Owner, home: str) -> dict[str, str]:
    """Return the pod's annotations that become its passwd and group files, with no object of their own."""
    return {names.PASSWD: passwd(owner, home), names.GROUPS: group(owner)}


def account_volume() -> dict[str, Any]:
    """Return the volume that holds ``passwd`` and ``group``."""
    return {
        "name": "account",
        "downwardAPI": {
            "items": [
                {"path": "passwd", "fieldRef": {"fieldPath": f"metadata.annotations['{names.PASSWD}']"}},
                {"path": "group", "fieldRef": {"fieldPath": f"metadata.annotations['{names.GROUPS}']"}},
            ]
        },
    }


def account_mounts() -> list[dict[str, Any]]:
    """Return the mounts that put the two files in place."""
    return [
        {"name": "account", "mountPath": f"/etc/{name}", "subPath": name, "readOnly": True}
        for name in ("passwd", "group")
    ]


def pod_security(owner: Owner) -> dict[str, Any]:
    """Return the pod's security context: the owner's identity, and no ``fsGroup``.

    A driver may honour ``fsGroup`` by changing the group of every file of the facility's storage.
    """
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": owner.uid,
        "runAsGroup": owner.gid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if owner.supplemental_groups:
        context["supplementalGroups"] = [g.gid for g in owner.supplemental_groups]
    return context


def container_security() -> dict[str, Any]:
    """Return a container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
