"""What a decision says: the children wanted, the status wanted, and when to look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from panosc_operator.api.base import Model
from panosc_operator.domain.seen import Key, Seen, SeenCustom


class Mode(Enum):
    """How a child comes to be as it is wanted."""

    CREATE = "created once and never changed"
    APPLY = "applied whenever it differs"
    REPLACE = "applied unseen, because the operator may not read it"


@dataclass(frozen=True)
class Child:
    """A wanted object."""

    manifest: Mapping[str, Any]
    mode: Mode

    @property
    def key(self) -> Key:
        """The key of the object."""
        metadata = self.manifest["metadata"]
        return Key(self.manifest["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True)
class Decision:
    """The outcome of one look at one parent.

    ``children`` is ``None`` where everything stays as it is; else what is owned and not wanted is deleted.
    ``releases`` are volumes that can never bind again: deleted first, so that they can be made again.
    ``urgent`` is false for a status that only tells of progress and may wait to be written with the next news;
    ``stage`` is true where it tells nothing but that a start has come a stage further, and may wait for longer.
    """

    status: Model | None
    children: tuple[Child, ...] | None = None
    releases: tuple[Seen, ...] = ()
    urgent: bool = True
    stage: bool = False
    requeue_at: datetime | None = None


@dataclass(frozen=True)
class Context:
    """What decisions know besides the objects: how this operator was installed."""

    namespace: str
    """The operator's namespace, which network policies let in."""
    image: str
    """The operator's image, which checks the data before a pod starts."""
    key: bytes
    """The key that tokens are made with."""


@dataclass(frozen=True)
class Catalogue:
    """The cluster-wide objects that sessions and jobs refer to, by name."""

    environments: Mapping[str, SeenCustom]
    workflows: Mapping[str, SeenCustom]
    sources: Mapping[str, SeenCustom]


@dataclass(frozen=True)
class Rejection:
    """A child that the API server refused, and its words."""

    key: Key
    message: str


@dataclass(frozen=True)
class Notice:
    """An Event for people."""

    type: str
    reason: str
    message: str
