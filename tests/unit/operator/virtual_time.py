"""An event loop whose clock leaps to the next timer: minutes of the operator's life take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from tests.unit.operator.builders import NOW

T = TypeVar("T")


class _Leap(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits and no timer is set: nothing will ever happen again")
        self.seconds += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.seconds


def play(scene: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scene)


def clock() -> float:
    """Return the virtual monotonic time, in seconds."""
    return asyncio.get_running_loop().time()


def now() -> datetime:
    """Return the virtual time of day."""
    return NOW + timedelta(seconds=clock())
