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
    image: str
    key: bytes
    http_port: int
    identity: str
    in_cluster: bool

    @property
    def context(self) -> Context:
        """What decisions need of the settings."""
        return Context(namespace=self.namespace, image=self.image, key=self.key)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read ``PANOSC_NAMESPACE``, ``PANOSC_IMAGE``, ``PANOSC_KEY_FILE`` and ``PANOSC_HTTP_PORT``.

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
        return cls(
            namespace=_required("PANOSC_NAMESPACE"),
            image=_required("PANOSC_IMAGE"),
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
