"""One look at all sockets: what is read reaches whose it is, and who breaks breaks alone."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from stickyproxy.wire.hub import Hub, Tap, hub_of

Pair = Callable[[], tuple[trio.SocketStream, socket.socket]]


@pytest.fixture
def a_pair() -> Iterator[Pair]:
    """Makes our end and a peer's, of as many connections as are asked for."""
    with ExitStack() as stack:

        def make() -> tuple[trio.SocketStream, socket.socket]:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs

        yield make


class Reader:
    """Takes all, until its end. `enough`: stop after each part."""

    def __init__(self, hub: Hub, stream: trio.SocketStream, *, enough: bool = False) -> None:
        self.data = b""
        self.ended = False
        self.enough = enough
        self._came = trio.Event()
        self.tap = Tap(hub, stream.socket.fileno(), 65_536, self.take)

    def take(self, data: bytes) -> int:
        self.data += data
        self.ended = not data
        self._came.set()
        return 0 if self.enough or not data else 65_536

    async def until(self, data: bytes) -> None:
        with trio.fail_after(10):
            while self.data != data:
                self._came = trio.Event()
                await self._came.wait()


def the_hub(stream: trio.SocketStream) -> Hub:
    hub = hub_of(stream)
    assert hub is not None
    return hub


async def test_a_run_has_one_hub_and_only_for_plain_sockets(a_pair: Pair) -> None:
    one, other = a_pair()[0], a_pair()[0]
    assert hub_of(one) is hub_of(other)
    assert hub_of(trio.testing.memory_stream_pair()[0]) is None


async def test_what_is_read_reaches_whose_it_is(a_pair: Pair) -> None:
    pairs = [a_pair() for _ in range(20)]
    readers = [Reader(the_hub(ours), ours) for ours, _ in pairs]
    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(reader.tap.flow)
        await trio.testing.wait_all_tasks_blocked()
        for number, (_, theirs) in enumerate(pairs):
            theirs.sendall(b"%d" % number)
        for number, reader in enumerate(readers):
            await reader.until(b"%d" % number)
        for _, theirs in pairs:
            theirs.close()
    assert all(reader.ended for reader in readers)


async def test_a_reader_that_has_enough_is_not_read_for(a_pair: Pair) -> None:
    ours, theirs = a_pair()
    reader = Reader(the_hub(ours), ours, enough=True)
    theirs.sendall(b"one")
    await reader.tap.flow()
    theirs.sendall(b" two")
    await trio.sleep(0.02)
    assert reader.data == b"one"
    await reader.tap.flow()
    assert reader.data == b"one two"


async def test_a_reader_that_was_cancelled_loses_nothing(a_pair: Pair) -> None:
    ours, theirs = a_pair()
    reader = Reader(the_hub(ours), ours)
    with trio.move_on_after(0.01):
        await reader.tap.flow()
    theirs.sendall(b"later")
    await trio.sleep(0.02)
    assert reader.data == b""
    theirs.close()
    await reader.tap.flow()
    assert reader.data == b"later"


async def test_a_bug_ends_its_own_reader_and_no_other(a_pair: Pair) -> None:
    (bad, bad_peer), (good, good_peer) = a_pair(), a_pair()

    def broken(data: bytes) -> int:
        raise ZeroDivisionError(data)

    reader = Reader(the_hub(good), good)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.tap.flow)
        bad_peer.sendall(b"x")
        with pytest.raises(ZeroDivisionError):
            await Tap(the_hub(bad), bad.socket.fileno(), 10, broken).flow()
        good_peer.sendall(b"well")
        await reader.until(b"well")
        good_peer.close()


async def test_a_reset_is_a_broken_resource() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    accepted = listener.accept()[0]
    ours = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
    listener.close()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(trio.BrokenResourceError):
        await Reader(the_hub(ours), ours).tap.flow()
    accepted.close()


class Marked:
    def __init__(self, *, bug: bool = False) -> None:
        self.bug = bug
        self.written = 0
        self.bugs: list[Exception] = []

    def write_now(self) -> None:
        if self.bug:
            raise ZeroDivisionError
        self.written += 1

    def fail(self, bug: Exception) -> None:
        self.bugs.append(bug)


async def test_what_is_marked_is_written_once_and_a_bug_is_its_own(a_pair: Pair) -> None:
    hub = the_hub(a_pair()[0])
    await trio.testing.wait_all_tasks_blocked()
    bad, good = Marked(bug=True), Marked()
    hub.mark(bad)
    hub.mark(good)
    await trio.testing.wait_all_tasks_blocked()
    assert (good.written, good.bugs) == (1, [])
    assert [type(bug) for bug in bad.bugs] == [ZeroDivisionError]
    hub.mark(good)
    await trio.testing.wait_all_tasks_blocked()
    assert good.written == 2


async def test_what_is_marked_while_reading_is_written_in_the_same_step(a_pair: Pair) -> None:
    ours, theirs = a_pair()
    hub, marked, seen = the_hub(ours), Marked(), []

    def take(data: bytes) -> int:
        hub.mark(marked)
        seen.append((data, marked.written))
        return 0

    theirs.sendall(b"x")
    await Tap(hub, ours.socket.fileno(), 10, take).flow()
    assert seen == [(b"x", 0)]
    assert marked.written == 1


class Speaker:
    """Says once what it is asked; `more` is marked while it is written."""

    def __init__(self, hub: Hub, more: Speaker | None = None) -> None:
        self.said = trio.Event()
        self._hub = hub
        self._more = more

    def write_now(self) -> None:
        self.said.set()
        if self._more is not None:
            self._hub.mark(self._more)

    def fail(self, bug: Exception) -> None:
        raise bug


async def test_what_is_said_before_the_hub_has_begun_leaves(a_pair: Pair) -> None:
    """The first plain socket may have something to say before the hub's task had its first turn."""
    hub = the_hub(a_pair()[0])
    speaker = Speaker(hub)
    hub.mark(speaker)
    with trio.fail_after(10):
        await speaker.said.wait()


async def test_what_is_said_while_others_write_leaves(a_pair: Pair) -> None:
    hub = the_hub(a_pair()[0])
    await trio.testing.wait_all_tasks_blocked()
    last = Speaker(hub)
    hub.mark(Speaker(hub, more=last))
    with trio.fail_after(10):
        await last.said.wait()
