"""AnalysisWorkflow: the catalogue of workflows that jobs run."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

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

    columns: ClassVar = (
        PrinterColumn(name="Version", path=".spec.version"),
        PrinterColumn(name="Environment", path=".spec.environment"),
        PrinterColumn(name="Title", path=".spec.title"),
        AGE,
    )
