"""The hub waits for what comes next by itself, and only while that keeps nobody else waiting."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import socket
from contextlib import ExitStack

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stickyproxy.wire.hub import Tap, hub_of
from stickyproxy.wire.linger import LINGER, MOST_VAIN, linger_of_run, read_apart


class Turns(trio.abc.Instrument):
    """How often trio waited for sockets."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, _: float) -> None:
        self.count += 1


async def turns_until_the_answer(*, tells_a_task: bool = False) -> int:
    """Turns of trio between a question, read on one connection, and its answer on another.

    The answer comes at once. `tells_a_task`: the question has a task to run in between.
    """
    told, done, turns, seen = trio.Event(), trio.Event(), Turns(), list[int]()
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        (_, client), (_, server) = pairs
        for end in (*pairs[0], *pairs[1]):
            stack.enter_context(end)

        def ask(_: bytes) -> int:
            seen.append(turns.count)
            server.sendall(b"answer")
            if tells_a_task:
                told.set()
            return 4096

        def answer(_: bytes) -> int:
            seen.append(turns.count)
            done.set()
            return 4096

        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.wait)
            for (ours, _), take in zip(pairs, (ask, answer), strict=True):
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                hub = hub_of(stream)
                assert hub is not None
                nursery.start_soon(Tap(hub, ours.fileno(), 4096, take).flow)
            await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(turns)
            client.sendall(b"question")
            with trio.fail_after(10):
                await done.wait()
            trio.lowlevel.remove_instrument(turns)
            nursery.cancel_scope.cancel()
    return seen[1] - seen[0]


async def test_an_answer_that_comes_at_once_takes_no_turn_of_trio(mock_clock: MockClock) -> None:
    assert await turns_until_the_answer() == 0


async def test_a_task_that_can_run_is_not_kept_waiting(mock_clock: MockClock) -> None:
    assert await turns_until_the_answer(tells_a_task=True) > 0


async def test_a_deadline_that_is_near_is_not_kept_waiting(mock_clock: MockClock) -> None:
    linger = linger_of_run()
    linger.begin()
    with trio.move_on_after(LINGER / 2):
        await trio.lowlevel.checkpoint()
        assert not linger.allowed()
    assert linger.allowed()


async def test_links_that_trio_reads_are_not_kept_waiting(mock_clock: MockClock) -> None:
    linger = linger_of_run()
    linger.begin()
    with read_apart():
        assert not linger.allowed()
    assert linger.allowed()


async def test_who_waits_in_vain_mostly_leaves_it(mock_clock: MockClock) -> None:
    linger = linger_of_run()
    for _ in range(10):
        linger.note(vain=True)
    linger.begin()
    assert [linger.allowed() for _ in range(MOST_VAIN)] == [False] * MOST_VAIN
    assert linger.allowed()
    linger.note(vain=False)
    assert linger.allowed()
