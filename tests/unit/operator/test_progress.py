"""Drivers are asked how far they are; whatever they answer, the asking goes on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from panosc_operator.adapters.progress import PERIOD_SECONDS, ProgressProbe
from panosc_operator.domain.seen import Key, SeenPod
from panosc_operator.reconcile.ports import ApiError

from tests.unit.operator import builders
from tests.unit.operator.builders import NAMESPACE
from tests.unit.operator.simulation import Simulation, simulated

RATIO = Key("AnalysisJob", NAMESPACE, "ratio")


class Driver:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answer: Callable[[], Any] = dict
        self.asked: list[str] = []

    async def __call__(self, pod: SeenPod) -> Any:
        self.asked.append(pod.key.name)
        return self.answer()


async def probing(sim: Simulation) -> tuple[Driver, asyncio.Task[None]]:
    """Return a driver whose job runs, and the task that asks it."""
    driver = Driver()
    probe = ProgressProbe(sim.operator.store, sim.operator.queue, driver)
    task = asyncio.create_task(probe.run())
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Running")
    await sim.quiet(10)
    return driver, task


@simulated
async def test_progress_reaches_the_status(sim: Simulation) -> None:
    driver, task = await probing(sim)
    driver.answer = lambda: {"progress": {"total": 9, "done": 3, "failed": 1}, "timing": {"read": 0.5}}
    await sim.until(lambda: sim.status(RATIO).get("progress") == {"total": 9, "done": 3, "failed": 1}, 10)
    assert sim.status(RATIO)["timing"]["read"] == 0.5
    task.cancel()


@simulated
async def test_the_driver_alone_is_asked_and_once_in_a_period(sim: Simulation) -> None:
    driver, task = await probing(sim)
    before = len(driver.asked)
    await sim.quiet(10 * PERIOD_SECONDS)
    assert 9 <= len(driver.asked) - before <= 11
    assert len(set(driver.asked)) == 1
    assert "worker" not in driver.asked[0]
    task.cancel()


def _raise(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


BAD = {
    "no answer": _raise(TimeoutError()),
    "the API server's error": _raise(ApiError(503, "no endpoints")),
    "no JSON": _raise(ValueError("Expecting value")),
    "too deep": _raise(RecursionError("maximum recursion depth exceeded")),
    "a list": lambda: [1, 2],
    "nothing": lambda: None,
    "lists for numbers": lambda: {"progress": {"total": []}},
    "a list for progress": lambda: {"progress": [1]},
    "NaN": lambda: {"timing": {"read": math.nan}},
    "beyond 64 bits": lambda: {"progress": {"done": 2**70}},
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
@simulated
async def test_a_bad_answer_is_no_news_and_ends_nothing(sim: Simulation, answer: Callable[[], Any]) -> None:
    driver, task = await probing(sim)
    before, asked = sim.writes, len(driver.asked)
    driver.answer = answer
    await sim.quiet(20)
    assert not task.done()
    assert len(driver.asked) > asked + 5
    assert sim.writes == before
    driver.answer = lambda: {"progress": {"total": 9, "done": 4}}
    await sim.until(lambda: sim.status(RATIO).get("progress", {}).get("done") == 4, 10)
    task.cancel()
