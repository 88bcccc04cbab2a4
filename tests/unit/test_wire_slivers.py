"""Bodies in slivers: what waits is kept together, so that it costs what flow control counts."""

from __future__ import annotations

import trio

from stickyproxy.events import SLIVER, DataReceived, TrailersReceived, joined
from support.clock import on_jumping_clock
from support.house import open_house
from support.plan import OK, POST, Plan

BODY = bytes(range(256)) * 200


@on_jumping_clock
async def test_single_bytes_that_wait_are_no_single_events() -> None:
    """65,535 DATA frames of one byte fit into a window; as events they would be 10 MB."""
    async with open_house(Plan(engine="fast", connect_timeout=60)) as house:
        backend = house.backend()
        backend.hold = trio.Event()
        client = await house.client()
        call = client.request(POST)
        for at in range(len(BODY)):
            client.codec.send_data(call.stream_id, BODY[at : at + 1], end_stream=False)
        client.kick()
        call.say(b"", end=True)
        [link] = house.server.links
        await house.until(lambda: link.streams and next(iter(link.streams.values())).remote_done)
        [stream] = link.streams.values()
        assert stream.held > len(BODY) // 2, "the rest was taken when the request began"
        assert len(stream._inbox) < 2 * len(BODY) / SLIVER + 4
        backend.hold.set()
        got = await (await backend.request()).end()
        assert bytes(got.body) == BODY
        got.respond(OK, end=True)
        assert (await call.end()).status == b"200"
        assert house.left_behind() == []


@on_jumping_clock
async def test_single_bytes_are_replayed_from_the_first_one() -> None:
    async with open_house(Plan(engine="fast")) as house:
        client = await house.client()
        call = client.request(POST)
        first = await house.backend().request()
        for at in range(3000):
            call.say(BODY[at : at + 1])
            if not at % 500:
                await house.step()
        await first.has(3000)
        first.rst(7)
        again = await house.backend().request(2)
        await again.has(3000)
        assert bytes(again.body) == BODY[:3000]
        call.say(b"!", end=True)
        await again.end()
        again.respond(OK, end=True)
        assert (await call.end()).status == b"200"


def test_slivers_are_joined_and_nothing_else_is() -> None:
    one, two = DataReceived(1, b"a", 5, end_stream=False), DataReceived(1, b"b", 7, end_stream=True)
    whole = joined(one, two)
    assert whole is not None
    assert (whole.data, whole.credit, whole.end_stream) == (b"ab", 12, True)
    assert (one.data, one.credit) == (b"a", 5), "it may be on its way already"
    large = DataReceived(1, bytes(SLIVER), SLIVER, end_stream=False)
    assert joined(one, large) is joined(large, one) is None
    assert joined(one, TrailersReceived(1, [])) is None
