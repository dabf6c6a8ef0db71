"""What the API server makes of an object of one of our kinds: defaults filled in, and what it would refuse.

CEL rules are left to the tests with a real API server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
from panosc_operator.api.crd import structural_schema
from panosc_operator.api.kinds import KINDS

_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}


@cache
def schema_of(kind: str, part: str) -> dict[str, Any]:
    """Return the structural schema of ``spec`` or ``status`` of a kind."""
    definition = next(definition for definition in KINDS if definition.kind == kind)
    return structural_schema(getattr(definition, part))


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """Return a value with the schema's defaults, as the API server stores it."""
    if isinstance(value, dict) and "properties" in schema:
        fields = schema["properties"]
        filled = {name: field["default"] for name, field in fields.items() if "default" in field} | value
        return {name: defaulted(fields.get(name, {}), item) for name, item in filled.items()}
    if isinstance(value, list) and "items" in schema:
        return [defaulted(schema["items"], item) for item in value]
    return value


def violations(kind: str, part: str, value: Any) -> list[str]:
    """Return what the API server would refuse in ``spec`` or ``status``, and what it would silently drop."""
    schema = schema_of(kind, part)
    errors = [f"{error.json_path}: {error.message}" for error in _validator(kind, part).iter_errors(value)]
    return [*errors, *_duplicates(schema, value, part), *_not_json(value, part)]


@cache
def _validator(kind: str, part: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_strict(schema_of(kind, part)))


def _strict(node: dict[str, Any]) -> dict[str, Any]:
    strict = dict(node)
    if "properties" in node:
        strict["properties"] = {name: _strict(field) for name, field in node["properties"].items()}
        strict["additionalProperties"] = False
    elif "additionalProperties" in node:
        strict["additionalProperties"] = _strict(node["additionalProperties"])
    if "items" in node:
        strict["items"] = _strict(node["items"])
    if node.get("type") == "integer":
        strict = _INT64 | strict
    return strict


def _duplicates(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    """Refuse what a list-map or a set holds twice."""
    if isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            if name in value:
                yield from _duplicates(field, value[name], f"{where}.{name}")
    elif isinstance(value, list):
        if schema.get("x-kubernetes-list-type") == "map":
            keys = [tuple(item.get(key) for key in schema["x-kubernetes-list-map-keys"]) for item in value]
        else:
            keys = list(value) if schema.get("x-kubernetes-list-type") == "set" else []
        yield from (f"{where}: {key} is there twice" for key in {key for key in keys if keys.count(key) > 1})
        for item in value:
            yield from _duplicates(schema.get("items", {}), item, where)


def _not_json(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} is not JSON"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _not_json(item, f"{where}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _not_json(item, where)
