"""What the loop needs of the outside world; ``adapters`` has the real thing, tests have fakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from panosc_operator.domain.decision import Notice
from panosc_operator.domain.seen import Key, Seen


class LeadershipLost(Exception):  # noqa: N818 - a fact, not a failure
    """The lease was not renewed in time: another replica may lead, so nothing may be written any more."""


class ApiError(Exception):
    """The API server said no, or nothing.

    Parameters
    ----------
    code
        The HTTP status; 0 where there was no answer.
    message
        The server's words.
    retry_after
        Seconds that the server asked us to wait.
    """

    def __init__(self, code: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def refused(self) -> bool:
        """Whether the same request will be refused again until somebody changes something (quota, security, schema)."""
        return self.code in (400, 403, 422)


class Cluster(Protocol):
    """The API server, as the loop uses it. Every method raises `ApiError`."""

    async def create(self, manifest: Mapping[str, Any]) -> Seen:
        """Create an object; if it is there already, return it."""
        ...

    async def apply(self, manifest: Mapping[str, Any]) -> Seen:
        """Apply an object on the server's side."""
        ...

    async def apply_status(self, parent: Seen, status: Mapping[str, Any]) -> Seen:
        """Apply the whole status of a session or job."""
        ...

    async def delete(self, seen: Seen) -> None:
        """Delete this very object; one that is gone already is fine."""
        ...

    async def emit(self, parent: Seen, notice: Notice) -> None:
        """Post an Event about a session or job."""
        ...

    async def get(self, key: Key) -> Seen | None:
        """Read one object."""
        ...

    async def list_all(self, kind: str) -> list[Seen]:
        """Read all objects of a kind that the operator watches."""
        ...

    async def list_identities(self, kind: str) -> dict[Key, str]:
        """Return the uid of every object of a kind, from a metadata-only list."""
        ...
