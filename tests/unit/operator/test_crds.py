"""The CRDs: generated, bounded, structural, with the rules that the models state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from panosc_operator.api.base import Model
from panosc_operator.api.crd import all_definitions, custom_resource_definition
from panosc_operator.api.kinds import JOB, KINDS, SESSION, KindDefinition

from dev.generate import ROOT, generated, stale
from tests.unit.operator import builders
from tests.unit.operator.schemas import violations

Node = dict[str, Any]

UNBOUNDED_STRINGS = {
    ".apiVersion": "the API server checks it itself",
    ".kind": "the API server checks it itself",
}
FREE_OBJECTS = {
    "AnalysisJob.spec.parameters": "checked against the workflow's schema by the operator",
    "AnalysisWorkflow.spec.parameters": "a JSON schema, which a structural schema cannot describe",
}


def schema(kind: KindDefinition) -> Node:
    version = custom_resource_definition(kind)["spec"]["versions"][0]
    result: Node = version["schema"]["openAPIV3Schema"]
    return result


def nodes(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """Yield every schema of a schema with its path."""
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def every_node() -> list[tuple[str, Node]]:
    return [found for kind in KINDS for found in nodes(schema(kind), kind.kind)]


def test_what_is_generated_is_what_is_committed() -> None:
    assert [str(path.relative_to(ROOT)) for path in stale(generated())] == [], "run `make generate`"


def test_no_file_is_left_of_a_kind_that_is_gone() -> None:
    files = {path.name for path in (ROOT / "crds").glob("*.yaml")}
    assert files == {*all_definitions(), "kustomization.yaml"}


def test_the_walk_reaches_deep_nodes() -> None:
    paths = {path for path, _ in every_node()}
    assert "AnalysisJob.status.results[].sha256" in paths
    assert "DataSource.spec.areas[].volume.csi.volumeAttributes{}" in paths


def test_every_string_is_bounded() -> None:
    unbounded = {
        path
        for path, node in every_node()
        if node.get("type") == "string"
        and not {"maxLength", "enum"} & set(node)
        and node.get("format") != "date-time"
        and not path.endswith(tuple(UNBOUNDED_STRINGS))
    }
    assert unbounded == set()


def test_every_list_and_map_is_bounded() -> None:
    unbounded = {
        path
        for path, node in every_node()
        if (node.get("type") == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    }
    assert unbounded == set()


def test_schemas_are_structural() -> None:
    for path, node in every_node():
        assert not {"$ref", "$defs", "title", "anyOf", "oneOf", "allOf", "const", "nullable"} & set(node), path
        assert isinstance(node.get("type"), str), f"{path} has no single type"
        assert node["type"] != "null", path
        assert node.get("default", "") is not None, path


def test_only_the_listed_objects_take_unknown_fields() -> None:
    free = {path for path, node in every_node() if node.get("x-kubernetes-preserve-unknown-fields")}
    assert free == set(FREE_OBJECTS)


def test_list_maps_have_keys_that_every_item_must_give() -> None:
    found = []
    for path, node in every_node():
        if node.get("x-kubernetes-list-type") != "map":
            continue
        found.append(path)
        item = node["items"]
        for key in node["x-kubernetes-list-map-keys"]:
            assert key in item["properties"], f"{path}: {key}"
            assert key in item.get("required", ()) or "default" in item["properties"][key], f"{path}: {key}"
    assert "AnalysisSession.status.conditions" in found
    assert "AnalysisJob.spec.data" in found


def test_lists_of_objects_are_list_maps() -> None:
    """Else two appliers could not each own an item of one."""
    atomic = {
        path
        for path, node in every_node()
        if node.get("type") == "array"
        and node["items"].get("type") == "object"
        and node.get("x-kubernetes-list-type") != "map"
    }
    assert atomic == set()


def test_defaults_are_whole_and_valid() -> None:
    """The API server applies defaults of an object's fields only where the object itself is there."""
    for path, node in every_node():
        default = node.get("default")
        if isinstance(default, dict) and "properties" in node:
            wanted = {name: field["default"] for name, field in node["properties"].items() if "default" in field}
            assert default.items() >= wanted.items(), path
            assert not set(node.get("required", ())) - set(default), path


def models(model: type[Model]) -> Iterator[type[Model]]:
    """Yield a model and all models that its fields hold."""
    yield model
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            yield from models(inner)


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_each_cel_rule_reaches_the_crd(kind: KindDefinition) -> None:
    stated = {rule for model in models(kind.spec) for rule in model.rules}
    carried = {
        (rule["rule"], rule["message"])
        for _, node in nodes(schema(kind), kind.kind)
        for rule in node.get("x-kubernetes-validations", ())
    }
    assert carried == stated


def test_there_are_cel_rules_to_carry() -> None:
    rules = {rule for kind in KINDS for model in models(kind.spec) for rule, _ in model.rules}
    assert {"self.owner == oldSelf.owner", "self.minimum <= self.maximum"} <= rules


def test_a_rule_stands_at_the_object_it_speaks_of() -> None:
    spec = schema(JOB)["properties"]["spec"]
    workers = spec["properties"]["workers"]["x-kubernetes-validations"]
    assert [rule["rule"] for rule in workers] == ["self.minimum <= self.maximum"]
    assert "self.minimum" not in str(spec["x-kubernetes-validations"])


def test_status_and_scale_are_subresources() -> None:
    subresources = {
        kind.kind: set(custom_resource_definition(kind)["spec"]["versions"][0].get("subresources", ()))
        for kind in KINDS
    }
    assert subresources == {
        "AnalysisSession": {"status"},
        "AnalysisJob": {"status", "scale"},
        "AnalysisEnvironment": set(),
        "AnalysisWorkflow": set(),
        "DataSource": set(),
    }


@pytest.mark.parametrize("kind", [SESSION, JOB], ids=lambda kind: kind.kind)
def test_every_field_says_what_it_is_for(kind: KindDefinition) -> None:
    silent = {
        path
        for path, node in nodes(schema(kind), kind.kind)
        if "." in path
        and not path.endswith(("[]", "{}", ".metadata", ".metadata.name", ".apiVersion", ".kind"))
        and not node.get("description")
    }
    assert silent == set()


def test_columns_and_scale_name_fields_that_exist() -> None:
    for kind in KINDS:
        version = custom_resource_definition(kind)["spec"]["versions"][0]
        known = {path for path, _ in nodes(schema(kind), "")}
        scale = version.get("subresources", {}).get("scale", {})
        paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
        for path in [*paths, *(value for key, value in scale.items() if key.endswith("Path"))]:
            plain = path.replace("[0]", "[]").split("[?")[0]
            assert plain in known or plain.startswith(".metadata."), f"{kind.kind}: {path}"


def test_the_committed_yaml_is_yaml_of_these_crds() -> None:
    for name, definition in all_definitions().items():
        assert yaml.safe_load((ROOT / "crds" / name).read_text()) == definition


def test_the_examples_are_objects_that_the_api_server_would_take() -> None:
    checked = []
    for folder in ("examples", "catalogue"):
        for path in sorted((ROOT / "manifests" / folder).glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if str(document.get("apiVersion")).startswith("analysis.panosc.eu/"):
                    assert violations(document["kind"], "spec", document["spec"]) == [], path
                    checked.append(document["kind"])
    assert set(checked) == {kind.kind for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("AnalysisSession", {"environment": "jupyter", "owner": builders.OWNER | {"uid": 0}}),
        ("AnalysisSession", {"environment": "Jupyter!", "owner": builders.OWNER}),
        ("AnalysisSession", {"environment": "jupyter", "owner": builders.OWNER, "surprise": 1}),
        ("AnalysisSession", {"owner": builders.OWNER}),
        (
            "AnalysisSession",
            {"environment": "jupyter", "owner": builders.OWNER, "data": [builders.PROPOSAL | {"proposal": ".."}]},
        ),
        (
            "AnalysisSession",
            {"environment": "jupyter", "owner": builders.OWNER, "data": [builders.PROPOSAL, builders.PROPOSAL]},
        ),
    ],
)
def test_the_schema_refuses(kind: str, spec: Node) -> None:
    assert violations(kind, "spec", spec) != []
