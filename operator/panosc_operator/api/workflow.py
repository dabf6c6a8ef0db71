"""AnalysisWorkflow: the catalogue of workflows that jobs run."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import Field, field_validator

from panosc_operator.api.base import AGE, Model, ObjectName, PrinterColumn


class AnalysisWorkflowSpec(Model):
    """A workflow of the analysis package, as `panosc-analysis schema NAME` describes it."""

    version: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] = Field(
        description="Version of the workflow; a job may pin it."
    )
    title: str = Field(max_length=120, description="What a portal shows in its list.")
    description: str = Field(max_length=4096, description="What the workflow computes, for scientists.")
    environment: ObjectName = Field(description="The AnalysisEnvironment of kind `Job` that has this workflow.")
    parameters: dict[str, Any] = Field(
        description="JSON schema of the parameters. A job is checked against it before anything starts, and a "
        "portal renders its form from it.",
    )

    @field_validator("parameters")
    @classmethod
    def _are_a_schema(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            Draft202012Validator.check_schema(parameters)
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message}") from error
        return parameters

    columns: ClassVar = (
        PrinterColumn(name="Version", path=".spec.version"),
        PrinterColumn(name="Environment", path=".spec.environment"),
        PrinterColumn(name="Title", path=".spec.title"),
        AGE,
    )
