"""Small typed projections of what the API server holds: as much as decisions read, no whole bodies.

``project`` makes them of the bodies that watches and lists deliver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from panosc_operator.api.base import Model
from panosc_operator.api.kinds import KINDS
from panosc_operator.domain import names


class Key(NamedTuple):
    """What tells one object from another; ``namespace`` is empty for objects of the cluster."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An object of which nothing but its metadata matters."""

    key: Key
    uid: str
    resource_version: str
    generation: int
    created: datetime
    deleting: bool
    labels: Mapping[str, str]
    controller_uid: str | None
    applied_hash: str | None

    @property
    def parent_uid(self) -> str | None:
        """The uid of the session or job that this belongs to, however indirectly."""
        return self.labels.get(names.PARENT_UID)

    @property
    def run(self) -> int:
        """The run of its parent that this belongs to."""
        label = self.labels.get(names.RUN, "")
        return int(label) if label.isdecimal() else 0


@dataclass(frozen=True, kw_only=True)
class SeenCustom(Seen):
    """An object of one of our kinds. ``spec`` is ``None`` where ``invalid`` says why it cannot be read."""

    spec: Model | None
    status: Mapping[str, Any]
    invalid: str | None = None


@dataclass(frozen=True)
class ContainerState:
    """A container's state, as far as it explains a wait or an end."""

    started_at: datetime | None = None
    waiting_reason: str | None = None
    waiting_message: str = ""
    exit_code: int | None = None
    ended_reason: str = ""
    ended_message: str = ""


@dataclass(frozen=True, kw_only=True)
class SeenPod(Seen):
    """A pod: where it is, how far it is, and why it ended."""

    phase: str
    reason: str
    message: str
    ip: str | None
    node: str | None
    scheduled_at: datetime | None
    unschedulable: str | None
    ready_at: datetime | None
    containers: Mapping[str, ContainerState]

    @property
    def ready(self) -> bool:
        """Whether the pod passes its readiness probe."""
        return self.ready_at is not None

    @property
    def ended(self) -> bool:
        """Whether no container of it will ever run again."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def component(self) -> str | None:
        """The part that the pod plays on a Dask cluster: scheduler or worker."""
        return self.labels.get("dask.org/component")


@dataclass(frozen=True, kw_only=True)
class SeenJob(Seen):
    """A ``batch/v1`` Job."""

    complete: bool
    failed_reason: str | None
    failed_message: str


@dataclass(frozen=True, kw_only=True)
class SeenVolume(Seen):
    """A PersistentVolume or a claim."""

    phase: str


_CUSTOM = {definition.kind: definition for definition in KINDS}


def project(body: Mapping[str, Any]) -> Seen:
    """Return the projection of an object's body.

    Parameters
    ----------
    body
        The object as the API server sends it, with ``kind``.
    """
    kind = body["kind"]
    metadata = body["metadata"]
    common: dict[str, Any] = {
        "key": Key(kind, metadata.get("namespace", ""), metadata["name"]),
        "uid": metadata["uid"],
        "resource_version": metadata["resourceVersion"],
        "generation": metadata.get("generation", 0),
        "created": _time(metadata["creationTimestamp"]),
        "deleting": "deletionTimestamp" in metadata,
        "labels": dict(metadata.get("labels") or {}),
        "controller_uid": next(
            (owner["uid"] for owner in metadata.get("ownerReferences", ()) if owner.get("controller")), None
        ),
        "applied_hash": (metadata.get("annotations") or {}).get(names.APPLIED_HASH),
    }
    if kind in _CUSTOM:
        return _custom(common, body)
    if kind == "Pod":
        return _pod(common, body)
    if kind == "Job":
        return _job(common, body)
    if kind in ("PersistentVolume", "PersistentVolumeClaim"):
        return SeenVolume(**common, phase=body.get("status", {}).get("phase", "Pending"))
    return Seen(**common)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _custom(common: dict[str, Any], body: Mapping[str, Any]) -> SeenCustom:
    status = body.get("status") or {}
    try:
        spec = _CUSTOM[body["kind"]].spec.model_validate(body["spec"])
    except ValidationError as error:
        # An object of an older schema that is still stored: the API server checks only what is written.
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return SeenCustom(**common, spec=None, status=status, invalid=f"spec.{where}: {first['msg']}")
    return SeenCustom(**common, spec=spec, status=status)


def _pod(common: dict[str, Any], body: Mapping[str, Any]) -> SeenPod:
    status = body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}

    def since(type_: str) -> datetime | None:
        condition = conditions.get(type_, {})
        return _time(condition.get("lastTransitionTime")) if condition.get("status") == "True" else None

    scheduled = conditions.get("PodScheduled", {})
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return SeenPod(
        **common,
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        ip=status.get("podIP"),
        node=(body.get("spec") or {}).get("nodeName"),
        scheduled_at=since("PodScheduled"),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else None,
        ready_at=since("Ready"),
        containers={container["name"]: _container(container.get("state") or {}) for container in containers},
    )


def _container(state: Mapping[str, Any]) -> ContainerState:
    waiting, running = state.get("waiting") or {}, state.get("running") or {}
    ended = state.get("terminated") or {}
    return ContainerState(
        started_at=_time(running.get("startedAt") or ended.get("startedAt")),
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message", ""),
        exit_code=ended.get("exitCode"),
        ended_reason=ended.get("reason", ""),
        ended_message=ended.get("message", ""),
    )


def _job(common: dict[str, Any], body: Mapping[str, Any]) -> SeenJob:
    conditions = {
        condition["type"]: condition
        for condition in (body.get("status") or {}).get("conditions") or ()
        if condition["status"] == "True"
    }
    failed = conditions.get("Failed")
    return SeenJob(
        **common,
        complete="Complete" in conditions,
        failed_reason=failed.get("reason", "") if failed else None,
        failed_message=failed.get("message", "") if failed else "",
    )
