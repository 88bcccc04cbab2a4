"""Connections of clients end at their age, and nothing that runs on them does."""

from __future__ import annotations

from random import Random

import pytest
import trio

from stickyproxy.codec.api import MAX_STREAM_ID, CodecLimits
from stickyproxy.counters import ProcessStats
from stickyproxy.events import HeadReceived
from stickyproxy.model import Connection
from stickyproxy.proxy.server import Server, ServeStream
from stickyproxy.wire.age import JITTER, LAST_WORDS, AgeLimit
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.links import Joined, hold, joined
from support.peers import Peer
from support.plan import GET, GRPC, GRPC_OK, OK, message
from support.wires import wire_pair

AGE = 300.0
LATEST = AGE * (1 + JITTER) + 1  # the watch looks once a second
DAY = 86_400.0


class Told:
    """When connections were sent away, and when some were cut off."""

    def __init__(self) -> None:
        self.retired: list[float] = []
        self.cut: list[float] = []

    def limit(self, age: float = AGE, grace: float = 0.0, seed: int = 7) -> AgeLimit:
        return AgeLimit(
            age,
            grace,
            Random(seed),
            retired=lambda: self.retired.append(trio.current_time()),
            cut=lambda: self.cut.append(trio.current_time()),
        )


async def answer(stream: Stream, _: HeadReceived) -> None:
    stream.send_headers([*OK, (b"content-length", b"0")], end_stream=True)
    stream.close()


def idle_links(count: int) -> list[Link]:
    codecs = Codecs("reference", CodecLimits())
    return [
        Link(wire_pair()[0], codecs.server(multiplexed=True, tls=False), serve=answer)
        for _ in range(count)
    ]


@on_jumping_clock
async def test_connections_that_came_together_leave_within_ten_percent_and_not_together() -> None:
    told = Told()
    watch = LinkWatch(idle_timeout=DAY)
    limit, begun = told.limit(), trio.current_time()
    for link in idle_links(400):
        watch.add(link, limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(2 * AGE)
        nursery.cancel_scope.cancel()
    ages = sorted(when - begun for when in told.retired)
    assert len(ages) == 400
    assert ages[0] >= AGE * (1 - JITTER)
    assert ages[-1] <= LATEST
    # Uniform: each tenth of the span holds 40, give or take what six sigma are (36).
    width = AGE * JITTER / 5
    tenths = [int((age - AGE * (1 - JITTER)) / width) for age in ages]
    assert all(4 <= tenths.count(tenth) <= 76 for tenth in range(10))


@on_jumping_clock
async def test_only_links_with_a_limit_grow_old_and_a_link_that_is_gone_is_forgotten() -> None:
    told = Told()
    watch = LinkWatch(idle_timeout=2 * DAY)
    ageless, gone, old = idle_links(3)
    watch.add(ageless)
    watch.add(gone, told.limit())
    watch.add(old, told.limit())
    watch.discard(gone)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(LATEST)
        nursery.cancel_scope.cancel()
    assert [link.draining for link in (ageless, gone, old)] == [False, False, True]


@on_jumping_clock
async def test_the_server_gives_each_of_its_connections_an_age() -> None:
    told, watch = Told(), LinkWatch(idle_timeout=DAY)

    def serve(_: Connection) -> ServeStream:
        return answer

    server = Server(
        serve=serve,
        rejected=lambda *_: None,
        bug=lambda *_: None,
        codecs=Codecs("reference", CodecLimits()),
        watch=watch,
        stats=ProcessStats(),
        age=told.limit(),
    )
    here, there = wire_pair()
    codec = Codecs("reference", CodecLimits()).client(multiplexed=True, tls=False)
    peer = Peer(there, codec)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        nursery.start_soon(server.serve_connection, here, "h2c")
        nursery.start_soon(peer.run)
        await peer.gone()
        nursery.cancel_scope.cancel()
    assert peer.eof
    assert [goaway.last_id for goaway in peer.goaways] == [MAX_STREAM_ID, 0]
    assert len(told.retired) == 1


# --- what runs ------------------------------------------------------------------------------------


async def grow_old(both: Joined, told: Told, limit: AgeLimit) -> None:
    both.watch.add(both.link, limit)
    with trio.fail_after(2 * AGE):
        await both.peer.until(lambda: bool(told.retired) and len(both.peer.goaways) == 2)


@on_jumping_clock
async def test_a_stream_outlives_its_connections_age_by_a_day() -> None:
    told = Told()
    async with joined(serve=hold) as both:
        call = both.peer.request(GET)
        await both.until(lambda: both.link.streams)
        await grow_old(both, told, told.limit())
        await trio.sleep(DAY)
        assert not call.over
        assert not both.over.is_set()
        call.rst(8)
        with trio.fail_after(5):
            await both.over.wait()
        assert both.peer.eof
        assert told.cut == []


@on_jumping_clock
async def test_a_link_that_drains_for_another_reason_does_not_grow_old() -> None:
    told = Told()
    async with joined(serve=hold) as both:
        both.peer.request(GET)
        await both.until(lambda: both.link.streams)
        both.watch.add(both.link, told.limit(grace=1))
        both.link.drain()
        await trio.sleep(3 * AGE)
        assert not both.over.is_set()
        assert (told.retired, told.cut) == ([], [])


@on_jumping_clock
async def test_who_says_nothing_when_the_grace_is_over_is_closed_all_the_same() -> None:
    told, grace = Told(), 50.0
    async with joined(serve=hold) as both:
        call = both.peer.request(GET)
        await both.until(lambda: both.link.streams)
        await grow_old(both, told, told.limit(grace=grace))
        with trio.fail_after(grace + LAST_WORDS + 5):
            await both.over.wait()
        assert call.lost or call.reset is not None
        [retired], [cut] = told.retired, told.cut
        assert grace <= cut - retired <= grace + 1


# --- HTTP/1.1 -------------------------------------------------------------------------------------


@on_jumping_clock
async def test_an_http1_connection_closes_with_its_next_response_and_not_before() -> None:
    told = Told()
    async with joined(serve=answer, protocol="h1", idle_timeout=DAY) as both:
        before = await both.peer.request(GET, end=True).end()
        assert (before.status, both.peer.codec.closing) == (b"200", False)
        both.watch.add(both.link, told.limit())
        await trio.sleep(3 * AGE)
        assert not both.over.is_set()  # to close now would race with the next request
        after = await both.peer.request(GET, end=True).end()
        assert (after.status, both.peer.codec.closing) == (b"200", True)
        with trio.fail_after(5):
            await both.over.wait()
        assert (len(told.retired), told.cut) == (1, [])


@on_jumping_clock
async def test_an_http1_connection_without_a_further_request_closes_when_the_grace_is_over() -> (
    None
):
    told = Told()
    async with joined(serve=answer, protocol="h1", idle_timeout=DAY) as both:
        both.watch.add(both.link, told.limit(grace=50))
        with trio.fail_after(LATEST + 60):
            await both.over.wait()
        assert both.peer.eof
        assert (len(told.retired), told.cut) == (1, [])


# --- what a client is told at the end of the grace -------------------------------------------------


async def aged(house: House, told: Told, grace: float) -> None:
    """Let the house's only client connection come to the end of its grace."""
    (link,) = house.server.links
    house.watch.add(link, told.limit(grace=grace))
    with trio.fail_after(LATEST + grace + 5):
        while not told.cut:  # noqa: ASYNC110 - what is watched is a list
            await trio.sleep(1)


@on_jumping_clock
async def test_a_call_without_an_answer_yet_is_told_unavailable() -> None:
    told = Told()
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC)
        got = await house.backend().request()
        await aged(house, told, grace=50)
        await call.end()
        await got.end()
        assert (call.status, call.grpc_status) == (b"200", b"14")
        await client.gone()
        assert client.eof
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_call_between_two_messages_ends_with_trailers() -> None:
    told = Told()
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC)
        got = await house.backend().request()
        got.respond(GRPC_OK)
        got.say(message(100))
        await call.has(100)
        await aged(house, told, grace=50)
        await call.end()
        assert (call.grpc_status, call.lost) == (b"14", False)
        await house.until(lambda: not house.server.links)
        assert house.left_behind() == []


@pytest.mark.parametrize("protocol", ["h2", "h1"])
@on_jumping_clock
async def test_a_request_of_plain_http_is_told_503(protocol: str) -> None:
    told = Told()
    async with open_house() as house:
        client = await house.client(protocol)
        call = client.request(GET, end=True)
        await house.backend().request()
        await aged(house, told, grace=50)
        assert (await call.end()).status == b"503"
        await client.gone()
        assert client.eof
        assert house.left_behind() == []
