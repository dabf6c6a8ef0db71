"""Errors that end a job, each with a reason for programs and a message for people."""

from __future__ import annotations


class JobError(Exception):
    """The job failed; it may work when it is tried again.

    Parameters
    ----------
    reason
        CamelCase, for programs.
    message
        What happened and what to change, in one line.
    """

    exit_code = 1

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class InputError(JobError):
    """The input or the parameters are wrong: trying again cannot help."""

    exit_code = 2
