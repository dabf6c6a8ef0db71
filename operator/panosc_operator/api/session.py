"""AnalysisSession: one person's interactive work with proposals at hand."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from panosc_operator.api.base import (
    AGE,
    Conditions,
    Model,
    ObjectName,
    PrinterColumn,
    Quantity,
    Timestamp,
    list_map,
)
from panosc_operator.api.data import ProposalData
from panosc_operator.api.owner import Owner


class Home(Model):
    """Where the owner's files live: a claim that exists, or one that is made at the first session."""

    claim: ObjectName | None = Field(None, description="An existing PersistentVolumeClaim of this namespace.")
    size: Quantity = Field("10Gi", description="Size of the home that is made if the owner has none here yet.")
    storage_class: ObjectName | None = Field(
        None, description="StorageClass of the home that is made; by default the cluster's default."
    )

    rules: ClassVar = (
        (
            "!has(self.claim) || !has(self.storageClass)",
            "give either claim or storageClass: an existing claim has one",
        ),
    )


class AnalysisSessionSpec(Model):
    """What session, for whom, with which data."""

    environment: ObjectName = Field(description="The AnalysisEnvironment to run.")
    flavour: ObjectName | None = Field(None, description="Its size; by default the environment's first flavour.")
    owner: Owner = Field(description="Whose session it is; cannot be changed.")
    data: Annotated[
        tuple[ProposalData, ...], Field(max_length=16, json_schema_extra=list_map("source", "proposal"))
    ] = Field((), description="The proposals to mount.")
    home: Home = Field(Home(), description="The owner's home folder.")

    rules: ClassVar = (("self.owner == oldSelf.owner", "owner cannot be changed: create another session"),)
    columns: ClassVar = (
        PrinterColumn(name="Environment", path=".spec.environment"),
        PrinterColumn(name="Owner", path=".spec.owner.username"),
        PrinterColumn(name="Phase", path=".status.phase"),
        PrinterColumn(name="Reason", path='.status.conditions[?(@.type=="Ready")].reason'),
        PrinterColumn(name="Proposal", path=".spec.data[0].proposal"),
        PrinterColumn(name="URL", path=".status.url", priority=1),
        PrinterColumn(name="Node", path=".status.node", priority=1),
        AGE,
    )


class SessionPhase(StrEnum):
    """One word for people; programs read the conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    READY = "Ready"
    STOPPED = "Stopped"
    FAILED = "Failed"


class Startup(Model):
    """When the current run reached each stage: the answer to why a start was slow."""

    queued_at: Timestamp | None = Field(None, description="The pod was created.")
    scheduled_at: Timestamp | None = Field(None, description="A node was found.")
    started_at: Timestamp | None = Field(None, description="The session's container started: image and data are there.")
    ready_at: Timestamp | None = Field(None, description="The session answered for the first time.")


class AnalysisSessionStatus(Model):
    """What the operator observed; it alone writes here."""

    phase: SessionPhase | None = Field(None, description="Summary of the conditions, for people.")
    conditions: Conditions = ()
    observed_generation: int | None = Field(None, description="The generation that this status speaks of.")
    run: int | None = Field(None, description="How often the session's pod was started.")
    url: str | None = Field(
        None, max_length=512, description="Where to open the session once it is ready. It holds no token."
    )
    token_secret: str | None = Field(
        None, max_length=253, description="The Secret of this namespace whose key `token` opens the session."
    )
    pod_name: str | None = Field(None, max_length=253, description="The pod of the current run.")
    node: str | None = Field(None, max_length=253, description="The node it runs on.")
    startup: Startup | None = Field(None, description="When the current run reached each stage.")
