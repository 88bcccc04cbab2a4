"""Back-pressure through the whole proxy: who does not read stops whom, and nobody else.

100 MB in each direction x {h1, h2} x {h1, h2}. What the proxy holds is counted where it cannot hide:
bytes that it took from one wire less the bytes that it put on the other.
"""

from __future__ import annotations

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import OK, POST, Plan

HUGE = 100 << 20
WINDOW = 1 << 16
FRAMES = 20_000
"""What heads and frames of the ordinary calls may make of a difference."""
ORDINARY = 200
BOTH = pytest.mark.parametrize("down", ["h2", "h1"])
WAYS = pytest.mark.parametrize("up", ["h2c", "http"])


async def pour(call: Call, amount: int = HUGE) -> None:
    chunk = b"x" * (1 << 20)
    for _ in range(amount >> 20):
        await call.send(chunk)
    await call.send(b"", end=True)


async def echo(house: House, seen: int) -> None:
    """Answer every further request with its own body."""
    while True:
        got = await (await house.backend().request(seen + 1)).end()
        seen += 1
        got.respond([*OK, (b"content-length", b"%d" % len(got.body))])
        got.say(bytes(got.body), end=True)


async def ordinary(client: Peer, number: int) -> None:
    for index in range(number):
        await client.until(lambda: client.codec.capacity() > 0)
        call = client.request([*POST, (b"content-length", b"9")])
        call.say(b"%09d" % index, end=True)
        await call.end()
        assert bytes(call.body) == b"%09d" % index


async def served_meanwhile(house: House, client: Peer, down: str, seen: int) -> None:
    """200 ordinary calls, on the same connection where one can carry them."""
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, house, seen)
        async with trio.open_nursery() as calls:
            for _ in range(10):
                peer = client if down == "h2" else await house.client("h1")
                calls.start_soon(ordinary, peer, ORDINARY // 10)
        nursery.cancel_scope.cancel()
    # The tests' own polling of the backend; a wait for the stalled one would be for ever.
    assert trio.current_time() - begun < 2


def may_hold(down: str, up: str) -> int:
    """The stream's window, which a first window that went through has doubled.

    With HTTP/1.1 the socket is what says stop, and there is also what was read of one at once, the
    room of a link and its send under way.
    """
    return (2 if (down, up) == ("h2", "h2c") else 5) * WINDOW


def taken(peer: Peer) -> int:
    """Bytes that the proxy read from a peer."""
    return peer.wire.sent - len(peer.wire.outward.data)


def given(peer: Peer) -> int:
    """Bytes that the proxy wrote to a peer."""
    return peer.wire.inward.total


@BOTH
@WAYS
@on_jumping_clock
async def test_a_stalled_upload_delays_nobody_and_is_held_within_bounds(down: str, up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        client = await house.client(down)
        house.backend().granting = False
        call = client.request([*POST, (b"x-stalled", b"1")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, call)
            got = await house.backend().request()
            got.peer.reading = up == "h2c"
            for peer in house.backend().links:
                peer.granting = True
            house.backend().granting = True
            await trio.sleep(5)
            held = taken(client) - given(got.peer)
            assert len(got.body) <= WINDOW
            assert held <= may_hold(down, up) + FRAMES
            await served_meanwhile(house, client, down, 1)
            assert taken(client) - given(got.peer) <= may_hold(down, up) + FRAMES
            got.peer.close()
            await house.reports(ORDINARY + 1)
            nursery.cancel_scope.cancel()
        assert house.left_behind() == []


@BOTH
@WAYS
@on_jumping_clock
async def test_a_client_that_does_not_read_stops_its_backend_only(down: str, up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        client = await house.client(down)
        client.granting = False
        call = client.request(POST, end=True)
        client.granting = True
        client.reading = down == "h2"
        got = await (await house.backend().request()).end()
        got.respond(OK)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, got)
            await trio.sleep(5)
            assert len(call.body) <= WINDOW
            assert taken(got.peer) - given(client) <= may_hold(down, up) + FRAMES
            await served_meanwhile(house, client, down, 1)
            client.reading = True
            call.rst(8)
            await house.reports(ORDINARY + 1)
            nursery.cancel_scope.cancel()
        assert house.left_behind() == []


@BOTH
@WAYS
@on_jumping_clock
async def test_what_was_stalled_goes_on_to_the_last_byte(down: str, up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        client = await house.client(down)
        house.backend().granting = client.granting = False
        call = client.request(POST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, call, 2 << 20)
            got = await house.backend().request()
            got.peer.reading = False
            await trio.sleep(5)
            got.peer.reading = True
            got.grant()
            await got.end()
            got.respond(OK)
            client.reading = False
            nursery.start_soon(pour, got, 2 << 20)
            await trio.sleep(5)
            client.reading = True
            call.grant()
            await call.end()
        assert len(got.body) == len(call.body) == 2 << 20
        await house.reports()
        assert house.left_behind() == []


@on_jumping_clock
async def test_an_early_answer_to_a_stalled_upload_lets_no_more_of_it_in() -> None:
    """Headers commit the attempt; what was not handed on yet is still to be credited, once."""
    async with open_house() as house:
        client = await house.client()
        house.backend().granting = False
        call = client.request(POST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, call)
            got = await house.backend().request()
            await got.has(WINDOW)
            await house.step()
            got.respond(OK)
            await call.headed()
            await trio.sleep(1)
            assert len(got.body) == WINDOW
            assert taken(client) - given(got.peer) <= WINDOW + FRAMES
            nursery.cancel_scope.cancel()


@on_jumping_clock
async def test_a_stalled_upload_that_empties_its_links_window_sends_others_to_another() -> None:
    limits = CodecLimits(link_credit=WINDOW)
    async with open_house(Plan(backend_limits=limits, wire=1 << 20)) as house:
        client = await house.client()
        await one_echo(house, client)
        first = house.backend().links[0]
        first.reading = False
        stalled = client.request(POST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, stalled, 1 << 20)
            await house.until(lambda: house.links[0].codec.window(0) == 0)
            got = await house.backend().request(2)  # with what a read under way still took
            await served_meanwhile(house, client, "h2", 2)
            assert len(house.backend().links) == 2
            first.reading = True
            await got.end()
        assert (got.peer, len(got.body)) == (first, 1 << 20)
        got.respond(OK, end=True)
        await stalled.end()
        await house.reports(ORDINARY + 2)
        assert house.left_behind() == []


async def one_echo(house: House, client: Peer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, house, 0)
        await ordinary(client, 1)
        nursery.cancel_scope.cancel()


@on_jumping_clock
async def test_padding_and_empty_frames_cost_no_credit_for_good() -> None:
    """Bodies of many windows, in frames that carry next to nothing."""
    async with open_house() as house:
        client = await house.client()
        call = client.request(POST)
        got = await house.backend().request()
        for _ in range(300):
            call.say(b"")
        for _ in range(3000):
            await call.send(b"y" * 50)
        call.say(b"", end=True)
        assert len((await got.end()).body) == 150_000
        got.respond(OK, end=True)
        await call.end()
        assert house.left_behind() == []
