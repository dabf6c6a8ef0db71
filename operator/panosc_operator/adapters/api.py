"""The API server through ``kubernetes.aio``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from panosc_operator import metrics
from panosc_operator.domain.decision import Notice
from panosc_operator.domain.names import OPERATOR, short_hash
from panosc_operator.domain.seen import Key, Seen, project
from panosc_operator.reconcile.ports import ApiError
from panosc_operator.reconcile.resources import RESOURCES, Resource

_TIMEOUT = 30.0
_APPLY = {
    "content_type": "application/apply-patch+yaml",
    "field_manager": OPERATOR,
    "force_conflicts": "true",
}
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 500


class ApiCluster:
    """Reads and writes objects; one HTTP request for each call.

    Parameters
    ----------
    client
        A configured client.
    identity
        Which replica this is, for Events.
    """

    def __init__(self, client: ApiClient, identity: str) -> None:
        # Used for its requests alone: our paths are known, so nothing has to be discovered.
        self._client = DynamicClient(client)  # type: ignore[no-untyped-call]
        self._identity = identity

    async def create(self, manifest: Mapping[str, Any]) -> Seen:
        """Create an object; if it is there already, return it."""
        resource, key = _locate(manifest)
        try:
            body = await self._request("post", resource, resource.path(namespace=key.namespace), dict(manifest))
        except ApiError as error:
            if error.code != 409:
                raise
            seen = await self.get(key)
            if seen is None:
                raise
            return seen
        return project(body)

    async def apply(self, manifest: Mapping[str, Any]) -> Seen:
        """Apply an object on the server's side."""
        resource, key = _locate(manifest)
        return project(await self._request("patch", resource, resource.path(key), dict(manifest), **_APPLY))

    async def apply_status(self, parent: Seen, status: Mapping[str, Any]) -> Seen:
        """Apply the whole status of a session or job; refused if another object took its name."""
        resource = RESOURCES[parent.key.kind]
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": parent.key.name, "namespace": parent.key.namespace, "uid": parent.uid},
            "status": status,
        }
        return project(await self._request("patch", resource, resource.path(parent.key) + "/status", body, **_APPLY))

    async def delete(self, seen: Seen) -> None:
        """Delete this very object and what it owns; one that is gone already is fine."""
        resource = RESOURCES[seen.key.kind]
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": seen.uid},
            "propagationPolicy": "Background",
        }
        try:
            await self._request("delete", resource, resource.path(seen.key), body)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def emit(self, parent: Seen, notice: Notice) -> None:
        """Post an Event about a session or job."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        resource = RESOURCES[parent.key.kind]
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{parent.key.name}.{short_hash(f'{parent.uid}{now}')}",
                "namespace": parent.key.namespace,
            },
            "eventTime": now,
            "type": notice.type,
            "reason": notice.reason,
            "action": notice.reason,
            "note": notice.message[:1024],
            "reportingController": f"{OPERATOR}.analysis.panosc.eu",
            "reportingInstance": self._identity,
            "regarding": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": parent.key.namespace,
                "name": parent.key.name,
                "uid": parent.uid,
            },
        }
        await self._request("post", _EVENTS, _EVENTS.path(namespace=parent.key.namespace), event)

    async def get(self, key: Key) -> Seen | None:
        """Read one object."""
        resource = RESOURCES[key.kind]
        try:
            return project(await self._request("get", resource, resource.path(key)) | {"kind": key.kind})
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list_all(self, kind: str) -> list[Seen]:
        """Read all objects of a kind that the operator watches."""
        return [project(item | {"kind": kind}) for item in await self._items(RESOURCES[kind])]

    async def list_identities(self, kind: str) -> dict[Key, str]:
        """Return the uid of every object of a kind, from a metadata-only list."""
        items = await self._items(RESOURCES[kind], header_params={"Accept": _METADATA_ONLY})
        metadata = [item["metadata"] for item in items]
        return {Key(kind, entry.get("namespace", ""), entry["name"]): entry["uid"] for entry in metadata}

    async def _items(self, resource: Resource, **options: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        token = None
        while True:
            answer = await self._request(
                "get", resource, resource.path(), label_selector=resource.label_selector, limit=_PAGE,
                _continue=token, **options,
            )  # fmt: skip
            items += answer["items"] or []
            token = answer["metadata"].get("continue")
            if not token:
                return items

    async def image_of(self, namespace: str, pod: str) -> str:
        """Return the image of a pod's first container."""
        resource = RESOURCES["Pod"]
        body = await self._request("get", resource, resource.path(Key("Pod", namespace, pod)))
        return str(body["spec"]["containers"][0]["image"])

    async def proxy(self, pod: Key, port: int, path: str) -> Any:
        """Return what a pod answers over HTTP, asked through the API server."""
        resource = RESOURCES["Pod"]
        url = f"{resource.path(Key('Pod', pod.namespace, f'{pod.name}:{port}'))}/proxy/{path.lstrip('/')}"
        return await self._request("get", resource, url)

    async def _request(
        self, verb: str, resource: Resource, path: str, body: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        code = 0
        try:
            response = await self._client.request(
                verb, path, body=body, serialize=False, _request_timeout=_TIMEOUT, query_params=[], **options
            )
            answer: dict[str, Any] = json.loads(await response.read())
            code = response.status
        except ApiException as error:
            code = error.status or 0
            raise ApiError(code, _message(error), _retry_after(error)) from error
        except TimeoutError as error:
            raise ApiError(0, f"no answer within {_TIMEOUT:.0f} s") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise ApiError(0, f"{type(error).__name__}: {error}") from error
        finally:
            metrics.API_REQUESTS.labels(verb, resource.plural, code).inc()
        return answer


_EVENTS = Resource("Event", "events.k8s.io", "v1", "events", namespaced=True, watched=False)


def _locate(manifest: Mapping[str, Any]) -> tuple[Resource, Key]:
    metadata = manifest["metadata"]
    key = Key(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
    return RESOURCES[key.kind], key


def _message(error: ApiException) -> str:
    """Return the server's own sentence: the body of its answer is a Status object."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _retry_after(error: ApiException) -> float | None:
    value = (error.headers or {}).get("Retry-After", "")
    return float(value) if str(value).isdigit() else None
