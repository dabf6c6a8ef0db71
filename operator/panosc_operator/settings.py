"""How the operator is installed, from the environment that its Deployment sets."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from panosc_operator.domain.decision import Context

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SHORTEST_KEY = 32


class SettingsError(Exception):
    """The environment lacks something; the message says what to set."""


@dataclass(frozen=True)
class Settings:
    """The operator's settings."""

    namespace: str
    image: str | None
    """The data check's image; in a cluster by default that of the operator's own pod."""
    pod: str | None
    key: bytes
    http_port: int
    identity: str
    in_cluster: bool

    def context(self, image: str) -> Context:
        """Return what decisions need of the settings, with the image of the data check."""
        return Context(namespace=self.namespace, image=image, key=self.key)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read ``PANOSC_NAMESPACE``, ``PANOSC_KEY_FILE``, ``PANOSC_HTTP_PORT``, and ``PANOSC_POD`` or ``PANOSC_IMAGE``.

        Raises
        ------
        SettingsError
            If one is missing or the key is too short.
        """
        key_file = Path(_required("PANOSC_KEY_FILE"))
        try:
            key = key_file.read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"PANOSC_KEY_FILE: cannot read {key_file}: {error.strerror}") from error
        if len(key) < _SHORTEST_KEY:
            raise SettingsError(f"PANOSC_KEY_FILE: {key_file} holds fewer than {_SHORTEST_KEY} bytes")
        if not os.environ.get("PANOSC_IMAGE") and not os.environ.get("PANOSC_POD"):
            raise SettingsError("set PANOSC_IMAGE, or PANOSC_POD to the name of the operator's own pod")
        return cls(
            namespace=_required("PANOSC_NAMESPACE"),
            image=os.environ.get("PANOSC_IMAGE"),
            pod=os.environ.get("PANOSC_POD"),
            key=key,
            http_port=int(os.environ.get("PANOSC_HTTP_PORT", "8080")),
            identity=f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}",
            in_cluster=SERVICE_ACCOUNT.exists(),
        )


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SettingsError(f"{name} is not set")
    return value
