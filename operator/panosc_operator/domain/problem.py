"""Input that somebody has to change before anything can start."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - not an error of the program but a finding about its input
    """What is wrong with the input.

    Parameters
    ----------
    reason
        One CamelCase word, the reason of a condition.
    message
        A sentence that says what to change, the message of a condition.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def words(self) -> tuple[str, str]:
        """Reason and message, as a condition takes them."""
        return self.reason, self.message
