"""The work queue: a key is never with two workers, never lost, and looked at when it is due."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from panosc_operator.domain.seen import Key
from panosc_operator.reconcile.queue import WorkQueue

from tests.unit.operator.virtual_time import clock, play

KEYS = [Key("AnalysisSession", "n", name) for name in "abc"] + [Key("AnalysisJob", "n", "a")]
keys = st.sampled_from(KEYS)


class QueueMachine(RuleBasedStateMachine):
    """Compares the queue with what it promises, one operation at a time, on a clock moved by hand."""

    working = Bundle("working")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = WorkQueue(lambda: self.now)
        self.owed: set[Key] = set()
        """Asked for and not yet given to a worker since."""
        self.due: dict[Key, float] = {}
        self.running: set[Key] = set()

    def _pass_time(self) -> None:
        for key in [key for key, due in self.due.items() if due <= self.now]:
            del self.due[key]
            self.owed.add(key)

    @rule(key=keys)
    def add(self, key: Key) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @rule(key=keys, seconds=st.integers(-1, 20))
    def add_after(self, key: Key, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        self.due[key] = min(self.due.get(key, float("inf")), self.now + max(seconds, 0))

    @rule(seconds=st.integers(0, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        self._pass_time()
        key = self._take_now()
        if self.owed - self.running:
            assert key is not None, "a key that is owed was lost"
        if key is not None:
            assert key not in self.running, "two workers have the same key"
            assert key in self.owed, "nobody asked for it"
            self.owed.discard(key)
            self.running.add(key)

    def _take_now(self) -> Key | None:
        taking = self.queue.take()
        try:
            taking.send(None)
        except StopIteration as given_key:
            key: Key = given_key.value
            return key
        except RuntimeError:  # it would wait, for which there is no loop
            return None
        finally:
            taking.close()
        return None

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.queue.done(key)
        self.running.discard(key)

    @invariant()
    def depth_counts_what_waits(self) -> None:
        assert self.queue.depth() == Counter(key.kind for key in self.owed - self.running)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=40, stateful_step_count=25)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), workers=st.integers(1, 4))
def test_workers_see_every_key_after_its_last_change(seed: int, workers: int) -> None:
    """What was asked for while a worker had the key is looked at again."""
    chance = random.Random(seed)

    async def scene() -> None:
        queue = WorkQueue(clock)
        busy: set[Key] = set()
        changed: Counter[Key] = Counter()
        seen: Counter[Key] = Counter()

        async def work() -> None:
            while True:
                key = await queue.take()
                assert key not in busy
                busy.add(key)
                version = changed[key]
                await asyncio.sleep(chance.random())
                seen[key] = version
                busy.discard(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for _ in range(30):
            key = chance.choice(KEYS)
            changed[key] += 1
            if chance.random() < 0.5:
                queue.add(key)
            else:
                queue.add_after(key, chance.random() * 3)
            await asyncio.sleep(chance.random() * 0.5)
        await asyncio.sleep(30)
        assert [task for task in tasks if task.done()] == []
        for task in tasks:
            task.cancel()
        assert seen == changed
        assert queue.depth() == {}

    play(scene())


def test_retries_wait_longer_and_longer_and_no_more_than_a_minute() -> None:
    queue = WorkQueue(lambda: 0.0)
    pauses = [queue.retry(KEYS[0]) for _ in range(12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(pauses) == pauses[-1] == 60.0
    queue.succeeded(KEYS[0])
    assert queue.retry(KEYS[0]) == 0.5
    assert queue.retry(KEYS[1]) == 0.5, "each key has failures of its own"


def test_the_server_may_ask_for_a_longer_pause() -> None:
    queue = WorkQueue(lambda: 0.0)
    assert queue.retry(KEYS[0], at_least=17.0) == 17.0


def test_a_key_is_given_when_it_is_due_and_not_before() -> None:
    async def scene() -> None:
        queue = WorkQueue(clock)
        queue.add_after(KEYS[0], 30.0)
        queue.add_after(KEYS[1], 10.0)
        queue.add_after(KEYS[0], 20.0)
        queue.add_after(KEYS[0], 25.0)
        assert (await queue.take(), clock()) == (KEYS[1], pytest.approx(10.0))
        assert (await queue.take(), clock()) == (KEYS[0], pytest.approx(20.0))
        queue.done(KEYS[0])
        queue.done(KEYS[1])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await queue.take()

    play(scene())


def test_a_waiting_worker_is_woken_by_an_earlier_deadline() -> None:
    async def scene() -> None:
        queue = WorkQueue(clock)
        queue.add_after(KEYS[0], 1000.0)
        taking = asyncio.create_task(queue.take())
        await asyncio.sleep(1)
        queue.add_after(KEYS[1], 2.0)
        assert (await taking, clock()) == (KEYS[1], pytest.approx(3.0))

    play(scene())


def test_keys_are_taken_in_the_order_of_asking_and_each_once() -> None:
    async def scene() -> None:
        queue = WorkQueue(clock)
        for key in (KEYS[2], KEYS[0], KEYS[2], KEYS[1], KEYS[0]):
            queue.add(key)
        assert queue.depth() == {"AnalysisSession": 3}
        assert [await queue.take() for _ in range(3)] == [KEYS[2], KEYS[0], KEYS[1]]
        assert queue.depth() == {}

    play(scene())
