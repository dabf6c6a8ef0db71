"""CustomResourceDefinitions from the models.

A CRD wants a *structural* schema (OpenAPI v3 without ``$ref``, ``title`` or ``null``), so the JSON schema
that pydantic makes is rewritten: references are put in place, ``X | None`` becomes an optional ``X``, and the
CEL rules of a model go to the object that the model describes.
"""

from __future__ import annotations

from typing import Any

from panosc_operator.api.base import GROUP, VERSION, Model, PrinterColumn
from panosc_operator.api.kinds import KINDS, KindDefinition

_KEPT = frozenset(
    {
        "type", "format", "description", "enum", "pattern", "default", "required",
        "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    }
)  # fmt: skip


def structural_schema(model: type[Model]) -> dict[str, Any]:
    """Return the structural schema of a model."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        # What the field says of itself (description, default) goes before what its type says.
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    if "anyOf" in node:
        (variant,) = [option for option in node["anyOf"] if option.get("type") != "null"]
        node = variant | {key: value for key, value in node.items() if key != "anyOf"}
        return _structural(node, definitions)
    result = {key: value for key, value in node.items() if key in _KEPT}
    if "const" in node:
        result["enum"] = [node["const"]]
    if result.get("default", 0) in (None, [], ()):
        del result["default"]
    if node.get("type") == "object":
        _structural_object(node, result, definitions)
    if node.get("type") == "array":
        result["items"] = _structural(node["items"], definitions)
    if result.get("type") == "integer":
        result["format"] = "int64"
    return result


def _structural_object(node: dict[str, Any], result: dict[str, Any], definitions: dict[str, Any]) -> None:
    if "properties" in node:
        result["properties"] = {name: _structural(field, definitions) for name, field in node["properties"].items()}
        if "default" in result:
            result["default"] = {key: value for key, value in result["default"].items() if value is not None}
    elif isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    else:
        result["x-kubernetes-preserve-unknown-fields"] = True
    if "x-panosc-rules" in node:
        result["x-kubernetes-validations"] = [
            {"rule": rule, "message": message} for rule, message in node["x-panosc-rules"]
        ]


def custom_resource_definition(kind: KindDefinition) -> dict[str, Any]:
    """Return the CRD of a kind, ready to be applied."""
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": structural_schema(kind.spec),
    }
    if kind.scope == "Namespaced":
        # Services and DaskClusters are named after it, and their names start with a letter.
        properties["metadata"]["properties"] = {
            "name": {"type": "string", "maxLength": 63, "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$"}
        }
    subresources: dict[str, Any] = {}
    if kind.status is not None:
        properties["status"] = structural_schema(kind.status)
        subresources["status"] = {}
    scale = getattr(kind.spec, "scale", None)
    if scale:
        subresources["scale"] = scale
    columns: tuple[PrinterColumn, ...] = getattr(kind.spec, "columns", ())
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short_name],
                "categories": ["panosc"],
            },
            "scope": kind.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in columns],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": kind.description,
                            "required": ["spec"],
                            "properties": properties,
                        }
                    },
                }
                | ({"subresources": subresources} if subresources else {})
            ],
        },
    }


def _column(column: PrinterColumn) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return entry | ({"priority": column.priority} if column.priority else {})


def all_definitions() -> dict[str, dict[str, Any]]:
    """Return every CRD by the name of its file in ``crds/``."""
    return {f"{kind.plural}.yaml": custom_resource_definition(kind) for kind in KINDS}
