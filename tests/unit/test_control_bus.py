"""Messages between supervisor and worker, however the octets arrive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.control.workers import orders
from stickyproxy.control.workers.bus import Bus, Unpacker, packed
from stickyproxy.edge import Pem, ServerTls

SAID = [orders.Beat(), orders.Applied(3, 1.5), orders.Report(1, {"a": [1]}, {})]


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_messages_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    octets = b"".join(packed(message) for message in SAID)
    unpacker, found, at = Unpacker(), [], 0
    for cut in [*sorted(cuts), len(octets)]:
        found += unpacker.feed(octets[at:cut])
        at = max(at, min(cut, len(octets)))
    assert found == SAID


def test_one_octet_at_a_time() -> None:
    unpacker = Unpacker()
    found = [
        m for octet in packed(SAID[2]) + packed(SAID[0]) for m in unpacker.feed(bytes([octet]))
    ]
    assert found == [SAID[2], SAID[0]]


def test_keys_arrive_and_are_not_shown() -> None:
    pair = Pem(b"chain"), Pem(b"secret")
    keys = orders.Keys(pair, (ServerTls("shop", ("*",), *pair),))
    (arrived,) = Unpacker().feed(packed(keys))
    assert arrived == keys
    assert bytes(arrived.default[1]) == b"secret"
    assert hash(arrived.default[1]) == hash(pair[1])
    assert "secret" not in repr(arrived)


@contextmanager
def buses() -> Iterator[tuple[Bus, Bus]]:
    pair = socket.socketpair()
    one, other = (Bus(stream_of(sock)) for sock in pair)
    yield one, other
    one.close()
    other.close()


def stream_of(sock: socket.socket) -> trio.SocketStream:
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def heard(bus: Bus, count: int) -> list[object]:
    found: list[object] = []
    while len(found) < count:
        found += await bus.receive()
    return found


async def test_what_is_said_before_anybody_writes_or_listens_arrives_in_order() -> None:
    with buses() as (one, other):
        for number in range(1000):
            one.send(orders.Ask(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write)
            assert await heard(other, 1000) == [orders.Ask(number) for number in range(1000)]
            nursery.cancel_scope.cancel()


async def test_a_message_larger_than_the_socket_does_not_hold_up_the_other_way() -> None:
    with buses() as (one, other):
        one.send(orders.Report(0, {"large": "x" * 3_000_000}, {}))
        other.send(orders.Beat())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write)
            nursery.start_soon(other.write)
            assert await heard(one, 1) == [orders.Beat()]
            (report,) = await heard(other, 1)
            nursery.cancel_scope.cancel()
        assert isinstance(report, orders.Report)
        assert len(report.metrics["large"]) == 3_000_000


async def test_flush_waits_until_all_is_sent() -> None:
    with buses() as (one, other):
        one.send(orders.Report(0, {"large": "x" * 3_000_000}, {}))
        flushed = trio.Event()

        async def flush() -> None:
            await one.flush()
            flushed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write)
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            assert not flushed.is_set()
            await heard(other, 1)
            await flushed.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("half", [b"", packed(SAID[2])[:7]])
async def test_the_end_of_the_other_side_is_no_message(half: bytes) -> None:
    here, there = socket.socketpair()
    bus = Bus(stream_of(here))
    there.sendall(half)
    there.close()
    assert await bus.receive() == []
    bus.close()
