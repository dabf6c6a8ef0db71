"""What all kinds share: the model base class, bounded types, conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic.alias_generators import to_camel

GROUP = "analysis.panosc.eu"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Model(BaseModel):
    """A part of an object: camelCase in YAML, unknown fields refused, immutable in memory.

    ``rules`` are CEL validations of this part: ``(rule, message)``.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )
    rules: ClassVar[tuple[tuple[str, str], ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Carry the CEL rules along in the JSON schema, from which the CRD is made."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.rules:
            schema["x-panosc-rules"] = cls.rules
        return schema

    def to_kubernetes(self) -> dict[str, Any]:
        """Return the JSON form as the API server stores it: unset fields are absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def list_map(*keys: str) -> dict[str, Any]:
    """Mark a list whose items are told apart by ``keys``, so that two appliers can own items of it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


LIST_SET = {"x-kubernetes-list-type": "set"}

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
FOLDER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

ObjectName = Annotated[str, Field(max_length=63, pattern=NAME_PATTERN)]
"""The name of another object: a DNS label."""

FolderName = Annotated[str, Field(max_length=63, pattern=FOLDER_PATTERN)]
"""One part of a path. It starts with a letter or digit, so it is never ``..``."""

AccountName = Annotated[str, Field(max_length=32, pattern=r"^[a-z_][a-z0-9_.-]*$")]
"""A POSIX user or group name."""

AccountId = Annotated[int, Field(ge=1, le=2147483647)]
"""A uid or gid. Zero is refused: nobody's analysis runs as root."""

Quantity = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")]
"""A Kubernetes resource quantity, such as ``500m`` or ``4Gi``."""

AbsolutePath = Annotated[str, Field(max_length=512, pattern=r"^/[^\x00]*$")]


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[
    datetime, PlainSerializer(_rfc3339, return_type=str), Field(json_schema_extra={"format": "date-time"})
]
"""A moment in UTC, in whole seconds."""


class Condition(Model):
    """One ``metav1.Condition``."""

    type: str = Field(max_length=63, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=63, description="Why, in one CamelCase word for programs.")
    message: str = Field(max_length=2048, description="Why, in a sentence that says what to change.")
    observed_generation: int = Field(description="The generation of the object that this was said of.")
    last_transition_time: Timestamp = Field(description="When the status last changed.")


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        description="The latest observations, one of each type.",
        json_schema_extra=list_map("type"),
    ),
]


class PrinterColumn(BaseModel):
    """A column of ``kubectl get``; priority 1 shows with ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


AGE = PrinterColumn(name="Age", path=".metadata.creationTimestamp", type="date")
