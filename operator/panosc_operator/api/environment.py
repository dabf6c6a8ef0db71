"""AnalysisEnvironment: the catalogue of images and sizes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from panosc_operator.api.base import AGE, AbsolutePath, Model, ObjectName, PrinterColumn, Quantity, list_map


class EnvironmentKind(StrEnum):
    """What an environment is for."""

    JUPYTER = "Jupyter"
    JOB = "Job"


class Flavour(Model):
    """A size: the pod asks for exactly this and may use no more memory."""

    name: ObjectName = Field(description="What sessions and jobs refer to.")
    cpu: Quantity = Field(description="Processor cores, such as `2` or `500m`; a session may borrow idle ones.")
    memory: Quantity = Field(description="Memory, such as `8Gi`.")


class AnalysisEnvironmentSpec(Model):
    """An image, what it is for, and the sizes it comes in."""

    image: str = Field(min_length=1, max_length=512, description="The container image. Its own entry point is run.")
    kind: EnvironmentKind = Field(description="`Jupyter` for sessions in the browser, `Job` for workflows.")
    port: Annotated[int, Field(ge=1024, le=65535)] = Field(
        8888, description="The port on which the image of a session listens."
    )
    probe_path: AbsolutePath = Field(
        "/api", description="HTTP path that answers 200, without a token, once a session can be used."
    )
    flavours: Annotated[
        tuple[Flavour, ...],
        Field(min_length=1, max_length=32, json_schema_extra=list_map("name")),
    ] = Field(description="The sizes on offer. The first is the default.")

    columns: ClassVar = (
        PrinterColumn(name="Kind", path=".spec.kind"),
        PrinterColumn(name="Default Flavour", path=".spec.flavours[0].name"),
        PrinterColumn(name="Image", path=".spec.image", priority=1),
        AGE,
    )

    def flavour(self, name: str | None) -> Flavour | None:
        """Return the flavour of that name, the first one for ``None``, or ``None`` if there is no such."""
        if name is None:
            return self.flavours[0]
        return next((flavour for flavour in self.flavours if flavour.name == name), None)
