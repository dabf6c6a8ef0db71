"""What the pods of sessions and jobs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from panosc_operator.api.base import API_VERSION
from panosc_operator.api.environment import Flavour
from panosc_operator.api.owner import Owner
from panosc_operator.domain import data, identity, names
from panosc_operator.domain.problem import Problem
from panosc_operator.domain.seen import ContainerState, Key, Seen, SeenPod, SeenVolume

DATA_CHECK = "data-check"


def child_metadata(parent: Seen, name: str, run: int | None = None) -> dict[str, Any]:
    """Return the metadata of a child: labelled with its parent and owned by it."""
    labels = {
        names.MANAGED_BY: names.OPERATOR,
        names.PARENT_KIND: parent.key.kind,
        names.PARENT_NAME: parent.key.name,
        names.PARENT_UID: parent.uid,
    }
    if run is not None:
        labels[names.RUN] = str(run)
    owner = {"apiVersion": API_VERSION, "kind": parent.key.kind, "name": parent.key.name, "uid": parent.uid}
    return {
        "name": name,
        "namespace": parent.key.namespace,
        "labels": labels,
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
    }


def resources(flavour: Flavour) -> dict[str, Any]:
    """Return a container's resources: memory is a limit, idle processor time may be borrowed."""
    return {
        "requests": {"cpu": flavour.cpu, "memory": flavour.memory},
        "limits": {"memory": flavour.memory},
    }


def pod_spec(
    owner: Owner,
    mounts: tuple[data.Mount, ...],
    container: Mapping[str, Any],
    *,
    home: str,
    volumes: list[dict[str, Any]],
    check_image: str | None,
) -> dict[str, Any]:
    """Return the spec of a pod that runs one container as the owner, with the proposals mounted.

    Parameters
    ----------
    owner
        Whose identity the pod has.
    mounts
        The proposals' areas.
    container
        Name, image, command and ports; the rest is filled in here.
    home
        Where ``HOME`` is.
    volumes
        Further volumes, with their ``mountPath`` as an extra key.
    check_image
        The image of the data check, or ``None`` where another pod has done it already.
    """
    extra = [{"name": v["name"], "mountPath": v["mountPath"]} for v in volumes]
    env = [{"name": "HOME", "value": home}, {"name": "USER", "value": owner.username}]
    spec: dict[str, Any] = {
        "securityContext": identity.pod_security(owner),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "volumes": [
            identity.account_volume(),
            {"name": "tmp", "emptyDir": {}},
            *({key: value for key, value in v.items() if key != "mountPath"} for v in volumes),
            *data.pod_volumes(mounts),
        ],
        "containers": [
            {
                "imagePullPolicy": "IfNotPresent",
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "workingDir": home,
                **container,
                "securityContext": identity.container_security(),
                "env": [*env, *data.environment_variables(mounts), *container.get("env", [])],
                "volumeMounts": [
                    *identity.account_mounts(),
                    {"name": "tmp", "mountPath": "/tmp"},
                    *extra,
                    *data.pod_mounts(mounts),
                ],
            }
        ],
    }
    if check_image and mounts:
        spec["initContainers"] = [_data_check(mounts, check_image)]
    return spec


def _data_check(mounts: tuple[data.Mount, ...], image: str) -> dict[str, Any]:
    return {
        "name": DATA_CHECK,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "panosc_operator.datacheck"],
        "args": data.check_arguments(mounts),
        "securityContext": identity.container_security(),
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": data.check_mounts(mounts),
    }


class _Finding(BaseModel):
    """The data check's termination message."""

    reason: str = Field(min_length=1, max_length=63)
    message: str


def data_check_failure(pod: SeenPod) -> Problem | None:
    """Return what the data check found, if it ended badly."""
    state = pod.containers.get(DATA_CHECK, ContainerState())
    if not state.exit_code:
        return None
    try:
        found = _Finding.model_validate_json(state.ended_message)
    except ValidationError:
        return Problem("DataCheckFailed", f"The data check ended with {state.ended_reason}: {state.ended_message}")
    return Problem(found.reason, found.message)


def waiting_problem(pod: SeenPod) -> Problem | None:
    """Return what keeps a pod from starting, if a person has to look at it."""
    if pod.unschedulable is not None:
        return Problem("Unschedulable", f"No node can take the pod: {pod.unschedulable}")
    for name, state in pod.containers.items():
        if state.waiting_reason not in (None, "PodInitializing", "ContainerCreating"):
            return Problem(str(state.waiting_reason), f"Container {name}: {state.waiting_message}")
    return None


def storage_releases(mounts: tuple[data.Mount, ...], namespace: str, shared: Mapping[Key, Seen]) -> tuple[Seen, ...]:
    """Return the volumes whose claim is gone: they never bind again and have to make room for new ones."""
    keys = dict.fromkeys(
        Key("PersistentVolume", "", names.data_volume(mount.source, mount.area.name, namespace)) for mount in mounts
    )
    found = (shared.get(key) for key in keys)
    return tuple(seen for seen in found if isinstance(seen, SeenVolume) and seen.phase in ("Released", "Failed"))


def check_claims(mounts: tuple[data.Mount, ...], namespace: str, shared: Mapping[Key, Seen]) -> None:
    """Check that no claim has lost its volume: it never binds again, and the operator may not delete claims.

    Raises
    ------
    Problem
        If one has.
    """
    for mount in mounts:
        claim = shared.get(Key("PersistentVolumeClaim", namespace, mount.claim))
        if isinstance(claim, SeenVolume) and claim.phase == "Lost":
            raise Problem(
                "DataClaimLost",
                f"The volume of PersistentVolumeClaim {mount.claim!r} was deleted. The platform team has to delete the "
                "claim too; both are then made again.",
            )
