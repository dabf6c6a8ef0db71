"""Conditions that keep their transition time while their status does not change."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from panosc_operator.api.base import Condition

Truth = Literal["True", "False", "Unknown"]
_MESSAGE_LIMIT = 2048


class ConditionSet:
    """The conditions of an object as they are rewritten in one pass."""

    def __init__(self, previous: Iterable[Condition], generation: int, now: datetime) -> None:
        self._previous = {condition.type: condition for condition in previous}
        self._generation = generation
        self._now = now.replace(microsecond=0)
        self._current: dict[str, Condition] = {}

    def set(self, type_: str, status: Truth, reason: str, message: str = "") -> None:
        """Say that a condition holds, does not hold, or is not known, and why."""
        before = self._previous.get(type_)
        unchanged = before is not None and before.status == status
        self._current[type_] = Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message[:_MESSAGE_LIMIT],
            observed_generation=self._generation,
            last_transition_time=before.last_transition_time if before and unchanged else self._now,
        )

    def previous(self, type_: str) -> Condition | None:
        """Return the condition as the last pass left it."""
        return self._previous.get(type_)

    def collect(self) -> tuple[Condition, ...]:
        """Return the conditions in the order in which they were set."""
        return tuple(self._current.values())


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of that type."""
    return next((condition for condition in conditions if condition.type == type_), None)


def holds(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition of that type is there and ``True``."""
    condition = find(conditions, type_)
    return condition is not None and condition.status == "True"
