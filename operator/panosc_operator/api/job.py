"""AnalysisJob: one run of a workflow over runs of a proposal, on Dask workers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from panosc_operator.api.base import AGE, Conditions, Model, ObjectName, PrinterColumn, Timestamp, list_map
from panosc_operator.api.data import ProposalData
from panosc_operator.api.datasource import AreaName
from panosc_operator.api.owner import Owner


class WorkflowReference(Model):
    """A workflow, and the version of it if that matters."""

    name: ObjectName = Field(description="The AnalysisWorkflow.")
    version: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] | None = Field(
        None, description="Refuse to run any other version than this one."
    )


class JobData(ProposalData):
    """A proposal to mount, and the runs of it that are the job's input."""

    runs: (
        Annotated[str, Field(max_length=256, pattern=r"^[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*$")] | None
    ) = Field(None, description="The input: run numbers and ranges, such as `8-9,12`.")
    runs_area: AreaName = Field(AreaName.RAW, description="The area that the runs are read from.")


class OnExists(StrEnum):
    """What to do if the output folder is there already."""

    FAIL = "Fail"
    SKIP = "Skip"
    OVERWRITE = "Overwrite"


class Output(Model):
    """Where the results go: a folder in a writable area of the first proposal of `data`."""

    area: AreaName = Field(AreaName.USR, description="The area; it must be mounted and writable.")
    path: Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] | None = Field(
        None,
        description="Folder in the proposal's folder of that area; by default `results/<name of the job>`.",
    )
    on_exists: OnExists = Field(
        OnExists.FAIL, description="If the folder has results: `Fail`, `Skip` (report those) or `Overwrite`."
    )

    rules: ClassVar = (
        ("self.area != 'raw'", "results cannot be written to raw: choose proc, usr or scratch"),
        ("!has(self.path) || !self.path.split('/').exists(part, part == '..')", "path must not contain '..'"),
    )


class Workers(Model):
    """The Dask workers of a job."""

    minimum: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="The job starts once so many are there.")
    maximum: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="How many to ask for; `kubectl scale` sets it."
    )
    flavour: ObjectName | None = Field(None, description="Size of a worker; by default the environment's first.")

    rules: ClassVar = (("self.minimum <= self.maximum", "workers.minimum must not be larger than workers.maximum"),)


class AnalysisJobSpec(Model):
    """What to compute, from which runs, where to put it, with how many workers."""

    workflow: WorkflowReference = Field(description="The workflow to run.")
    parameters: dict[str, Any] = Field(
        {},
        description="The workflow's parameters; `kubectl get awf NAME -o yaml` has their schema.",
    )
    owner: Owner = Field(description="Whose job it is: files are read and written as this user.")
    data: Annotated[
        tuple[JobData, ...],
        Field(min_length=1, max_length=16, json_schema_extra=list_map("source", "proposal")),
    ] = Field(description="The input.")
    output: Output = Field(Output(), description="Where the results go.")
    workers: Workers = Field(Workers(), description="The Dask workers.")
    active_deadline: Annotated[str, Field(max_length=32, pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$")] | None = Field(
        None, description="The job fails if it runs longer than this, such as `90m` or `8h`."
    )
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = Field(
        2, description="How often the driver is started again after a failure that is not the input's fault."
    )

    rules: ClassVar = tuple(
        (f"{left} == {right}", f"{name} cannot be changed: create another job")
        for name, left, right in (
            ("workflow", "self.workflow", "oldSelf.workflow"),
            ("parameters", "self.parameters", "oldSelf.parameters"),
            ("owner", "self.owner", "oldSelf.owner"),
            ("data", "self.data", "oldSelf.data"),
            ("output", "self.output", "oldSelf.output"),
        )
    )
    columns: ClassVar = (
        PrinterColumn(name="Workflow", path=".spec.workflow.name"),
        PrinterColumn(name="Runs", path=".spec.data[0].runs"),
        PrinterColumn(name="Phase", path=".status.phase"),
        PrinterColumn(name="Done", path=".status.progress.done", type="integer"),
        PrinterColumn(name="Total", path=".status.progress.total", type="integer"),
        PrinterColumn(name="Workers", path=".status.workers.ready", type="integer"),
        PrinterColumn(name="Reason", path='.status.conditions[?(@.type=="Failed")].reason'),
        PrinterColumn(name="Output", path=".status.outputPath", priority=1),
        AGE,
    )
    scale: ClassVar = {
        "specReplicasPath": ".spec.workers.maximum",
        "statusReplicasPath": ".status.workers.ready",
        "labelSelectorPath": ".status.workers.selector",
    }


class JobPhase(StrEnum):
    """One word for people; programs read the conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Progress(Model):
    """Partitions of the input, counted."""

    total: int = Field(0, description="Partitions in all.")
    done: int = Field(0, description="Partitions that are finished.")
    failed: int = Field(0, description="Partitions that failed.")


class WorkersStatus(Model):
    """The Dask workers now."""

    desired: int = Field(0, description="How many were asked for.")
    ready: int = Field(0, description="How many run.")
    selector: str | None = Field(None, max_length=512, description="Label selector of their pods.")


class Figure(Model):
    """A number with its uncertainty."""

    value: float | None = Field(None, description="The value; absent where only a limit could be given.")
    uncertainty: float | None = Field(None, description="Its standard uncertainty.")
    unit: str | None = Field(None, max_length=32, description="Its unit; absent for a pure number.")
    note: str | None = Field(None, max_length=256, description="What a reader must know, such as `upper limit`.")


class Result(Model):
    """A file of the output."""

    name: str = Field(max_length=256, description="File name.")
    path: str = Field(max_length=1024, description="Absolute path, as at the facility.")
    bytes: int = Field(description="Size in bytes.")
    sha256: str = Field(max_length=64, description="Checksum.")


class Timing(Model):
    """Seconds spent in each step, summed over the workers."""

    read: float = Field(0, description="Reading the input.")
    compute: float = Field(0, description="Computing.")
    write: float = Field(0, description="Writing the output.")


class Provenance(Model):
    """What the results were made with."""

    image: str | None = Field(None, max_length=512, description="Image of the driver and the workers.")
    versions: Annotated[dict[str, Annotated[str, Field(max_length=64)]] | None, Field(max_length=32)] = Field(
        None, description="Versions of the packages."
    )
    parameters_hash: str | None = Field(None, max_length=64, description="SHA-256 of the parameters.")
    inputs_hash: str | None = Field(None, max_length=64, description="SHA-256 of the list of input files.")
    manifest_sha256: str | None = Field(None, max_length=64, description="SHA-256 of the output's manifest.")
    workers: Annotated[tuple[Annotated[str, Field(max_length=253)], ...] | None, Field(max_length=64)] = Field(
        None, description="The workers that took part."
    )


class AnalysisJobStatus(Model):
    """What the operator observed; it alone writes here."""

    phase: JobPhase | None = Field(None, description="Summary of the conditions, for people.")
    conditions: Conditions = ()
    observed_generation: int | None = Field(None, description="The generation that this status speaks of.")
    run: int | None = Field(None, description="How often a driver Job was made.")
    started_at: Timestamp | None = Field(None, description="When the first driver Job was made.")
    finished_at: Timestamp | None = Field(None, description="When the job completed or failed.")
    output_path: str | None = Field(None, max_length=1024, description="The folder of the results, as at the facility.")
    progress: Progress | None = Field(None, description="How far it is.")
    workers: WorkersStatus | None = Field(None, description="The Dask workers.")
    summary: Annotated[dict[str, Figure] | None, Field(max_length=32)] = Field(
        None, description="The figures that a person asks for."
    )
    results: Annotated[tuple[Result, ...] | None, Field(max_length=50, json_schema_extra=list_map("name"))] = Field(
        None, description="The first files of the output."
    )
    timing: Timing | None = Field(None, description="Seconds spent in each step.")
    provenance: Provenance | None = Field(None, description="What the results were made with.")
