"""The operator dies after its n-th write, for every n of a life: the next process ends at the same state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import repeat
from typing import Any

import pytest
from panosc_operator.domain.seen import Key, project
from panosc_operator.reconcile.store import Store

from tests.unit.operator import builders
from tests.unit.operator.builders import NAMESPACE
from tests.unit.operator.simulation import Simulation, complete_words, simulation, until_end
from tests.unit.operator.virtual_time import play

LOOK = Key("AnalysisSession", NAMESPACE, "look")
RATIO = Key("AnalysisJob", NAMESPACE, "ratio")
_TIMES = {"lastTransitionTime", "startedAt", "finishedAt", "startup", "creationTimestamp", "resourceVersion"}

Scene = Callable[[Simulation], Awaitable[None]]


async def session_to_ready(sim: Simulation) -> None:
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Ready")


async def session_to_failed(sim: Simulation) -> None:
    sim.kubernetes.every_pod([(1.5, "check-failed", {"message": "no such folder"})])
    sim.server.put(builders.session())
    await sim.until(lambda: sim.phase(LOOK) == "Failed")


async def session_lost_and_ready_again(sim: Simulation) -> None:
    await session_to_ready(sim)
    await sim.quiet(10)
    sim.kubernetes.move(builders.key_of(sim.children("Pod")[-1]), "evicted")
    await sim.until(lambda: sim.phase(LOOK) == "Ready" and sim.status(LOOK)["run"] == 2)


async def session_of_two_to_deleted(sim: Simulation) -> None:
    sim.server.put(builders.session(data=[]))
    sim.server.put(builders.session("other", data=[]))
    await sim.until(lambda: sim.phase(LOOK) == sim.phase(LOOK._replace(name="other")) == "Ready")
    sim.server.delete(LOOK)


async def job_scaled_to_complete(sim: Simulation) -> None:
    sim.kubernetes.steps["driver"] = until_end(60, "succeeded", message=complete_words())
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Running")
    sim.server.edit(RATIO, workers={"minimum": 1, "maximum": 3})
    await sim.until(lambda: sim.status(RATIO)["workers"]["ready"] == 3)
    await sim.until(lambda: sim.phase(RATIO) == "Succeeded")


async def job_to_failed(sim: Simulation) -> None:
    words = '{"outcome": "Failed", "reason": "SourceMissing", "message": "Choose another run."}'
    sim.kubernetes.steps["driver"] = [(2.0, "failed", {"exit_code": 2, "message": words})]
    sim.server.put(builders.job())
    await sim.until(lambda: sim.phase(RATIO) == "Failed")


SCENES: list[Scene] = [
    session_to_failed,
    session_lost_and_ready_again,
    session_of_two_to_deleted,
    job_scaled_to_complete,
    job_to_failed,
]


def timeless(value: Any) -> Any:
    """Return a body without what depends on when things happened."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name not in _TIMES}
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return value


def outcome(scene: Scene, deaths: Iterable[int] = ()) -> tuple[dict[Key, Any], int]:
    """Return what is there after a life, with uids that tell how often each was made, and the writes it took."""

    async def live() -> tuple[dict[Key, Any], int]:
        async with simulation(deaths) as sim:
            await scene(sim)
            await sim.quiet(10)
            writes = sim.writes
            fresh = Store()
            for body in sim.server.objects.values():
                fresh.put(project(body))
            assert fresh.orphans() == []
            return {key: timeless(body) for key, body in sim.server.objects.items()}, writes

    return play(live())


@pytest.mark.parametrize("scene", SCENES)
def test_dying_after_any_write_changes_nothing(scene: Scene) -> None:
    wanted, writes = outcome(scene)
    assert writes > 5
    for n in range(1, writes + 1):
        state, _ = outcome(scene, [n])
        assert state == wanted, f"the operator died after write {n} of {writes}"


@pytest.mark.parametrize("scene", [session_of_two_to_deleted, session_to_failed, job_scaled_to_complete])
def test_dying_again_and_again_changes_nothing(scene: Scene) -> None:
    """Each process lives for three writes: two may repeat sessions' Secrets, which cannot be seen to be there."""
    wanted, _ = outcome(scene)
    state, _ = outcome(scene, repeat(3))
    assert state == wanted


@pytest.mark.parametrize("scene", SCENES)
def test_a_new_process_finds_nothing_to_do(scene: Scene) -> None:
    async def live() -> None:
        async with simulation() as sim:
            await scene(sim)
            await sim.quiet()
            await sim.restart()
            await sim.quiet()
            assert sim.writes == 0

    play(live())


def test_a_process_that_died_writes_no_more() -> None:
    async def live() -> None:
        async with simulation([3]) as sim:
            first = sim.operator.cluster
            await session_to_ready(sim)
            assert len(first.writes) == 3
            assert sim.operator.cluster is not first

    play(live())


def test_what_is_there_is_told_apart_by_how_often_it_was_made() -> None:
    """Else the comparisons above would not see that something had been deleted and made again."""
    once, _ = outcome(session_to_ready)
    again, _ = outcome(session_lost_and_ready_again)
    kinds = Counter(key.kind for key in once)
    assert kinds == Counter(key.kind for key in again)
    assert {key for key in once if key.kind == "Pod"} != {key for key in again if key.kind == "Pod"}
