"""Connections on their way: none is lost, and none is served twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest
import trio
import trio.testing

from stickyproxy.control.workers import handover
from stickyproxy.control.workers.handover import UNANSWERED, Given, Giver, Taker


class Way:
    """Both ends, with what was taken."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _door, stream in self.taken:
            stream.socket.close()
        self.here.close()
        self.there.close()

    def __init__(self) -> None:
        self.here, self.there = handover.pair()
        self.untaken: list[Given] = []
        self.giver = Giver(self.here, self.untaken.extend)
        self.taken: list[tuple[int, trio.SocketStream]] = []
        self.came = trio.Event()
        self.taker = Taker(self.there, self._take)

    def _take(self, door: int, stream: trio.SocketStream) -> None:
        self.taken.append((door, stream))
        self.came.set()
        self.came = trio.Event()

    async def until_taken(self, count: int) -> None:
        while len(self.taken) < count:
            await self.came.wait()


@contextmanager
def connected() -> Iterator[tuple[socket.socket, int]]:
    """A client, and the descriptor of what was accepted from it."""
    client, accepted = socket.socketpair()
    client.settimeout(30)
    with client:
        yield client, accepted.detach()


async def test_a_connection_arrives_with_its_door_and_works() -> None:
    with Way() as way, connected() as (client, fd):
        assert way.giver.give(Given(7, fd))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.taker.run)
            nursery.start_soon(way.giver.hear)
            await way.until_taken(1)
            ((door, stream),) = way.taken
            await stream.send_all(b"hello")
            nursery.cancel_scope.cancel()
        assert door == 7
        assert client.recv(10) == b"hello"


async def test_after_it_was_taken_only_the_worker_holds_it() -> None:
    with Way() as way, connected() as (client, fd):
        way.giver.give(Given(1, fd))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.taker.run)
            nursery.start_soon(way.giver.hear)
            await way.until_taken(1)
            await trio.testing.wait_all_tasks_blocked()
            assert not way.giver.waits_for(1)
            way.taken[0][1].socket.close()
            nursery.cancel_scope.cancel()
        assert client.recv(10) == b""  # nobody else keeps it open


async def test_what_was_not_taken_comes_back_when_the_worker_dies() -> None:
    with Way() as way, connected() as (one, first), connected() as (other, second):
        way.giver.give(Given(1, first))
        way.giver.give(Given(2, second))
        way.there.close()
        await way.giver.hear()
        left = way.giver.take_back()
        assert left == [Given(1, first), Given(2, second)]
        for client, given in ((one, left[0]), (other, left[1])):
            with socket.socket(fileno=given.fd) as back:
                back.sendall(b"still there")
            assert client.recv(20) == b"still there"


async def test_what_was_taken_before_it_died_does_not_come_back() -> None:
    """The word that it was taken is read although nobody is there any more."""
    with Way() as way, connected() as (_, fd):
        way.giver.give(Given(1, fd))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.taker.run)
            await way.until_taken(1)
            nursery.cancel_scope.cancel()
        way.there.close()
        await way.giver.hear()
        assert way.giver.take_back() == []


async def test_connections_count_until_they_end() -> None:
    with Way() as way, connected() as (_, one), connected() as (_, other):
        way.giver.give(Given(1, one))
        way.giver.give(Given(1, other))
        assert way.giver.connections == 2
        async with trio.open_nursery() as nursery:
            for task in (way.taker.run, way.giver.hear, way.taker.tell_ended):
                nursery.start_soon(task)
            await way.until_taken(2)
            assert way.giver.connections == 2
            way.taker.ended()
            await trio.testing.wait_all_tasks_blocked()
            assert way.giver.connections == 1
            way.taker.ended()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert way.giver.connections == 0


async def test_a_worker_out_of_descriptors_says_so_and_another_can_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_room(sock: socket.socket, *_: int) -> tuple[bytes, list[int], int, None]:
        return sock.recv(100), [], socket.MSG_CTRUNC, None  # what the kernel tells then

    monkeypatch.setattr(socket, "recv_fds", without_room)
    with Way() as way, connected() as (_, fd):
        given = Given(1, fd)
        way.giver.give(given)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.taker.run)
            nursery.start_soon(way.giver.hear)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert way.untaken == [given]
        assert (way.taken, way.giver.connections, way.giver.waits_for(1)) == ([], 0, False)
        socket.socket(fileno=fd).close()


async def test_a_worker_that_takes_nothing_gets_no_more_than_so_many() -> None:
    with Way() as way, connected() as (_, fd), socket.socket(fileno=fd) as accepted:
        given = 0
        while way.giver.room and way.giver.give(Given(1, accepted.dup().detach())):
            given += 1
        assert 0 < given <= UNANSWERED
        for left in way.giver.take_back():
            socket.socket(fileno=left.fd).close()
