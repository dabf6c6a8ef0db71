"""The reference to a proposal that sessions and jobs carry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from panosc_operator.api.base import LIST_SET, FolderName, Model, ObjectName
from panosc_operator.api.datasource import AreaName


class ProposalData(Model):
    """A proposal of a DataSource, to be mounted at its path at the facility."""

    source: ObjectName = Field(description="The DataSource.")
    proposal: FolderName = Field(description="The proposal, written as in the facility's folder names.")
    instrument: FolderName | None = Field(None, description="The instrument, where the source's paths name it.")
    cycle: FolderName | None = Field(None, description="The run cycle, where the source's paths name it.")
    areas: Annotated[tuple[AreaName, ...], Field(max_length=8, json_schema_extra=LIST_SET)] = Field(
        (), description="The areas to mount; by default all that the source has."
    )
