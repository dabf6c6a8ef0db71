"""DataSource: a facility's storage and where a proposal is found in it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from panosc_operator.api.base import AGE, AbsolutePath, Model, ObjectName, PrinterColumn, list_map


class AreaName(StrEnum):
    """The areas of a proposal, as at the European XFEL."""

    RAW = "raw"
    PROC = "proc"
    USR = "usr"
    SCRATCH = "scratch"


class Visibility(StrEnum):
    """How much of an area a pod sees."""

    PROPOSAL = "Proposal"
    AREA = "Area"


class HostPathVolume(Model):
    """A folder of the nodes, for file systems that every node mounts itself."""

    path: AbsolutePath = Field(description="Absolute path on the nodes.")


class NfsVolume(Model):
    """An NFS export."""

    server: str = Field(min_length=1, max_length=253, description="Host name or address of the server.")
    path: AbsolutePath = Field(description="The exported path.")


class SecretReference(Model):
    """A Secret by name and namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    namespace: ObjectName = Field(description="Namespace of the Secret.")


class CsiVolume(Model):
    """A volume of a CSI driver."""

    driver: str = Field(min_length=1, max_length=253, description="Name of the driver.")
    volume_handle: str = Field(min_length=1, max_length=512, description="The driver's name of the volume.")
    volume_attributes: Annotated[dict[str, Annotated[str, Field(max_length=1024)]] | None, Field(max_length=64)] = (
        Field(None, description="What the driver wants to know.")
    )
    node_publish_secret_ref: SecretReference | None = Field(
        None, description="Secret with which the driver mounts the volume."
    )


class Volume(Model):
    """Where the bytes are. Exactly one of the three."""

    host_path: HostPathVolume | None = None
    nfs: NfsVolume | None = None
    csi: CsiVolume | None = None

    rules: ClassVar = (
        (
            "[has(self.hostPath), has(self.nfs), has(self.csi)].filter(given, given).size() == 1",
            "give exactly one of hostPath, nfs and csi",
        ),
    )


class Area(Model):
    """One area: its volume, a proposal's folder in it, and the path at which pods see that folder."""

    name: AreaName = Field(description="`raw`, `proc`, `usr` or `scratch`.")
    volume: Volume = Field(description="The volume that holds this area of all proposals.")
    folder: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^/].*$")] = Field(
        description="A proposal's folder in the volume. {instrument}, {cycle} and {proposal} are filled in.",
    )
    path: AbsolutePath = Field(
        description="The absolute path of that folder at the facility and so in pods; the same three are filled in. "
        "With visibility `Area` it must end with the folder.",
    )
    run_folder: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/]+$")] | None = Field(
        None,
        description="The folder of a run in the proposal's folder, such as `r{run:04d}`, if this area has runs.",
    )
    read_only: bool = Field(True, description="Whether pods may only read. `raw` is always read-only.")

    rules: ClassVar = (
        ("self.name != 'raw' || self.readOnly", "the area raw is always read-only: set readOnly to true"),
        ("!self.folder.split('/').exists(part, part == '..')", "folder must not contain '..'"),
        ("!self.path.split('/').exists(part, part == '..')", "path must not contain '..'"),
    )


class DataSourceSpec(Model):
    """A facility's storage, area by area."""

    areas: Annotated[tuple[Area, ...], Field(min_length=1, max_length=8, json_schema_extra=list_map("name"))] = Field(
        description="The areas that pods can mount."
    )
    visibility: Visibility = Field(
        Visibility.PROPOSAL,
        description="`Proposal` shows a pod nothing but its proposals. `Area` shows the whole area, guarded by uid and "
        "groups alone: needed with root_squash and where links leave the proposal's folder.",
    )

    rules: ClassVar = (
        (
            "self.visibility != 'Area' || self.areas.all(area, area.path.endsWith('/' + area.folder))",
            "with visibility Area the path of each area must end with its folder",
        ),
    )
    columns: ClassVar = (
        PrinterColumn(name="Visibility", path=".spec.visibility"),
        AGE,
    )

    def area(self, name: AreaName) -> Area | None:
        """Return the area of that name, if this source has it."""
        return next((area for area in self.areas if area.name == name), None)
