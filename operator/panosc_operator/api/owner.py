"""Whose work it is: the POSIX identity that sessions and jobs run under."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from panosc_operator.api.base import AccountId, AccountName, Model, list_map


class Group(Model):
    """A supplemental group of the owner."""

    gid: AccountId = Field(description="Group id at the facility.")
    name: AccountName | None = Field(None, description="Group name; by default `group<gid>`.")


class Owner(Model):
    """The person the work runs as: the pod's processes have this identity, so file permissions hold."""

    rules: ClassVar = (("!(self.username in ['root', 'nobody'])", "username is a system account: name a person's"),)

    username: AccountName = Field(description="Login name; also the name of the home folder.")
    uid: AccountId = Field(description="User id at the facility.")
    gid: AccountId = Field(description="Id of the primary group; its name in the pod is the username.")
    supplemental_groups: Annotated[
        tuple[Group, ...],
        Field(
            max_length=64,
            description="Further groups, such as those of proposals. NFS with AUTH_SYS honours the first 16 only.",
            json_schema_extra=list_map("gid"),
        ),
    ] = ()
