"""Deadlines: on time within the width of a bucket, never early, and gone when taken back."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from stickyproxy.proxy.deadlines import COARSE, COARSE_BEYOND, FINE, Deadlines
from support.clock import on_jumping_clock


class Alarm:
    """Remembers when it rang; `again` seconds later it wants to ring once more."""

    def __init__(self, deadlines: Deadlines, again: float | None = None) -> None:
        self.rang: list[float] = []
        self._deadlines = deadlines
        self._again = again

    def due(self, now: float) -> None:
        self.rang.append(now)
        if self._again is not None:
            self._deadlines.add(now + self._again, self, trio.current_time())
            self._again = None


def test_a_time_that_lies_just_behind_a_bucket_is_not_rung_early() -> None:
    """52053392 hundredths, and the next number after it that a float can hold."""

    async def main() -> None:
        deadlines = Deadlines()
        when = math.nextafter(52053392 * FINE, math.inf)
        assert deadlines.add(when, Alarm(deadlines), trio.current_time()).end >= when

    trio.run(main, clock=MockClock())


@given(st.lists(st.tuples(st.floats(0, 400), st.booleans()), max_size=30), st.floats(0, 1e6))
def test_everyone_rings_once_on_time_and_never_early(
    plan: list[tuple[float, bool]], origin: float
) -> None:
    async def main() -> None:
        deadlines = Deadlines()
        await trio.sleep(origin)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.run)
            await trio.testing.wait_all_tasks_blocked()
            alarms = [(after, kept, Alarm(deadlines)) for after, kept in plan]
            for after, kept, alarm in alarms:
                bucket = deadlines.add(start + after, alarm, trio.current_time())
                if not kept:
                    bucket.discard(alarm)
            await trio.sleep(500)
            nursery.cancel_scope.cancel()
        for after, kept, alarm in alarms:
            width = FINE if after < COARSE_BEYOND else COARSE
            when = start + after
            assert len(alarm.rang) == kept
            assert all(when <= rang <= when + width * 1.01 for rang in alarm.rang)
        assert not any(deadlines._buckets.values())

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("again", [0.0, 0.001, 3.0, 60.0])
@on_jumping_clock
async def test_who_is_due_may_ask_to_be_told_again(again: float) -> None:
    deadlines = Deadlines()
    alarm = Alarm(deadlines, again)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        deadlines.add(trio.current_time() + 1, alarm, trio.current_time())
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    first, second = alarm.rang
    assert second - first >= again


@on_jumping_clock
async def test_an_earlier_time_shortens_a_sleep_that_has_begun() -> None:
    deadlines = Deadlines()
    late, soon = Alarm(deadlines), Alarm(deadlines)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        start = trio.current_time()
        deadlines.add(start + 3000, late, trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        deadlines.add(start + 1, soon, trio.current_time())
        await trio.sleep(2)
        assert (len(soon.rang), len(late.rang)) == (1, 0)
        nursery.cancel_scope.cancel()
