"""Who gets the next connection."""

from __future__ import annotations

import trio
import trio.testing

from stickyproxy.control.workers.handover import Given
from stickyproxy.control.workers.spread import Spread


class Worker:
    """Takes what it is given, unless it is told not to."""

    def __init__(self) -> None:
        self.takes = True
        self.slow = False
        self.full = False
        self.had: list[Given] = []
        self.over = 0
        self.answered = True

    @property
    def load(self) -> tuple[bool, int]:
        return self.slow, len(self.had) - self.over

    def give(self, given: Given) -> bool:
        if not self.full:
            self.had.append(given)
        return not self.full

    def waits_for(self, door: int) -> bool:
        return not self.answered and any(given.door == door for given in self.had)


def spread(count: int) -> tuple[Spread, list[Worker]]:
    workers = [Worker() for _ in range(count)]
    return Spread(dict(enumerate(workers)), count), workers


def give(to: Spread, count: int, door: int = 1) -> None:
    for number in range(count):
        to.give(Given(door, number))


def had(workers: list[Worker]) -> list[int]:
    return [len(worker.had) for worker in workers]


def test_eight_connections_over_four_workers_are_two_each() -> None:
    to, workers = spread(4)
    give(to, 8)
    assert had(workers) == [2, 2, 2, 2]


def test_equals_take_turns_though_connections_are_short() -> None:
    to, workers = spread(3)
    for number in range(9):
        to.give(Given(1, number))
        for worker in workers:
            worker.over = len(worker.had)
    assert had(workers) == [3, 3, 3]


def test_the_one_with_the_fewest_gets_them_until_it_has_as_many() -> None:
    to, workers = spread(2)
    give(to, 8)
    workers[1].over = 4
    give(to, 4)
    assert had(workers) == [4, 8]


def test_a_slow_one_is_passed_over_while_another_can() -> None:
    to, workers = spread(2)
    workers[0].slow = True
    give(to, 3)
    assert had(workers) == [0, 3]
    workers[1].takes = False
    give(to, 1)
    assert had(workers) == [1, 3]


def test_one_that_cannot_be_given_to_is_no_reason_to_wait() -> None:
    to, workers = spread(2)
    workers[0].full = True
    give(to, 2)
    assert had(workers) == [0, 2]


def test_what_nobody_takes_is_kept_in_order_and_what_came_back_goes_first() -> None:
    to, (worker,) = spread(1)
    worker.takes = False
    give(to, 2)
    to.again([Given(9, 7), Given(9, 8)])
    assert worker.had == []
    worker.takes = True
    to.pump()
    assert worker.had == [Given(9, 7), Given(9, 8), Given(1, 0), Given(1, 1)]


async def test_nothing_is_accepted_while_nobody_can_take_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    to, (worker,) = spread(1)
    worker.full = True
    give(to, 1)
    began = autojump_clock.current_time()
    with trio.move_on_after(60):
        await to.wait_room()
    assert autojump_clock.current_time() - began == 60  # it did wait
    worker.full = False  # and nobody says so: it is tried again
    with trio.fail_after(60):
        await to.wait_room()
    assert len(worker.had) == 1


async def test_a_door_is_empty_when_all_was_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    to, (worker,) = spread(1)
    worker.answered = False
    give(to, 1, door=3)
    with trio.fail_after(60):
        await to.wait_taken(4)
    began = autojump_clock.current_time()
    with trio.move_on_after(60):
        await to.wait_taken(3)
    assert autojump_clock.current_time() - began == 60
    worker.answered = True
    with trio.fail_after(60):
        await to.wait_taken(3)
