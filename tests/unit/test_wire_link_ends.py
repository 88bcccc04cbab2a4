"""How a link ends: drained, idle, flooded, stalled, broken; and what is still heard before."""

from __future__ import annotations

import math

import pytest
import trio

from stickyproxy.codec.api import MAX_STREAM_ID
from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Retry
from stickyproxy.events import HeadReceived
from stickyproxy.wire.bounds import OUTPUT_CAP, WRITE_STALL, Allowance
from stickyproxy.wire.stream import Stream
from support import rawframes as raw
from support.clock import on_jumping_clock
from support.links import Joined, hold, joined
from support.plan import GET, OK, POST
from support.wires import Wire


async def answer(stream: Stream, _: HeadReceived) -> None:
    stream.send_headers([*OK, (b"x-filler", b"f" * 8000)], end_stream=True)
    stream.close()


def kinds(both: Joined) -> list[tuple[int, int]]:
    return [(goaway.last_id, goaway.code) for goaway in both.peer.goaways]


async def ended(both: Joined, within: float) -> float:
    begun = trio.current_time()
    with trio.fail_after(within):
        await both.over.wait()
    return trio.current_time() - begun


@on_jumping_clock
async def test_a_drain_says_goodbye_twice_and_serves_what_was_on_its_way() -> None:
    async with joined(serve=hold) as both:
        first = both.peer.request(POST)
        await both.until(lambda: both.link.streams)
        both.peer.answering = False
        both.link.drain()
        await both.until(lambda: both.peer.goaways)
        assert kinds(both) == [(MAX_STREAM_ID, 0)]
        await both.peer.wire.send_all(raw.RawCoder().headers(3, POST))  # it had not heard yet
        await both.until(lambda: 3 in both.link.streams)
        both.peer.answering = True
        both.peer.kick()
        await both.until(lambda: len(both.peer.goaways) == 2)
        assert kinds(both)[1] == (3, 0)
        await trio.sleep(10)
        assert not both.over.is_set()
        first.rst(H2Code.CANCEL)
        await both.peer.wire.send_all(raw.rst(3, H2Code.CANCEL))
        await ended(both, within=2)
        assert both.peer.eof


@on_jumping_clock
async def test_a_request_after_the_second_goodbye_is_refused_and_reported() -> None:
    async with joined(serve=hold) as both:
        both.peer.request(POST)
        await both.until(lambda: both.link.streams)
        both.link.drain()
        await both.until(lambda: len(both.peer.goaways) == 2)
        await both.peer.wire.send_all(raw.RawCoder().headers(3, POST))
        await both.until(lambda: both.rejected)
        assert [(e.stream_id, e.code) for e in both.rejected] == [(3, H2Code.REFUSED_STREAM)]
        assert list(both.link.streams) == [1]


@on_jumping_clock
async def test_a_peer_that_owes_the_pings_answer_is_drained_all_the_same() -> None:
    async with joined(serve=hold) as both:
        await trio.sleep(1)
        both.peer.answering = False
        both.link.drain()
        took = await ended(both, within=5)
        assert 1 <= took <= 4
        assert kinds(both) == [(MAX_STREAM_ID, 0), (0, 0)]


@on_jumping_clock
async def test_every_ping_is_answered_between_whatever_else_is_said() -> None:
    async with joined(serve=answer) as both:
        for number in range(22):
            call = both.peer.request(GET, end=True)
            both.peer.ping(b"%08d" % number)
            await call.end()
        await both.until(lambda: len(both.peer.pongs) == 22)


@on_jumping_clock
async def test_a_drain_that_is_asked_for_twice_is_one() -> None:
    async with joined(serve=hold) as both:
        both.link.drain()
        both.link.drain()
        await ended(both, within=5)
        assert len(both.peer.goaways) == 2


@pytest.mark.parametrize("protocol", ["h2", "h1"])
@on_jumping_clock
async def test_an_idle_client_is_sent_away(protocol: str) -> None:
    async with joined(serve=hold, protocol=protocol, idle_timeout=100) as both:
        await trio.sleep(90)
        assert not both.over.is_set()
        await ended(both, within=15)
        assert both.peer.eof


@pytest.mark.parametrize("protocol", ["h2", "h1"])
@on_jumping_clock
async def test_an_idle_backend_is_left(protocol: str) -> None:
    async with joined(protocol=protocol, idle_timeout=100) as both:
        await ended(both, within=105)
        assert both.peer.eof


@on_jumping_clock
async def test_a_link_with_a_stream_is_never_idle() -> None:
    async with joined(serve=hold, idle_timeout=100) as both:
        both.peer.request(POST)
        await trio.sleep(500)
        assert not both.over.is_set()


@on_jumping_clock
async def test_a_flood_ends_in_words_that_arrive_though_more_lies_unread() -> None:
    async with joined(serve=hold) as both:
        flood = raw.ping(b"12345678") * 12_000
        with trio.move_on_after(5):
            await both.peer.wire.send_all(flood)
        await both.peer.gone()
        assert kinds(both)[-1][1] == H2Code.ENHANCE_YOUR_CALM
        assert both.peer.eof


@pytest.mark.parametrize("server", [True, False])
@on_jumping_clock
async def test_nonsense_ends_in_words_that_arrive(server: bool) -> None:
    async with joined(serve=hold if server else None) as both:
        await both.peer.wire.send_all(raw.frame(raw.DATA, 0, 0, b"x") + bytes(60_000))
        await both.peer.gone()
        assert both.peer.eof
        assert kinds(both) == [(0, H2Code.PROTOCOL_ERROR)]


@pytest.mark.parametrize("unsent", [OUTPUT_CAP, 2 * OUTPUT_CAP])
@on_jumping_clock
async def test_a_peer_that_asks_and_never_reads_is_not_answered_for_ever(unsent: int) -> None:
    """8 KB of answer for each small request; what is not sent yet has a bound."""
    async with joined(serve=answer, capacity=1000, allowed=Allowance(unsent=unsent)) as both:
        both.peer.reading = False
        coder = raw.RawCoder()
        asked = 0
        with trio.move_on_after(20):
            for number in range(1, 801, 2):
                await both.peer.wire.send_all(coder.headers(number, GET, end=True))
                asked += 1
        answered = both.link.codec.last_peer_stream // 2
        assert asked > answered
        assert unsent / 2 < answered * 8000 < 2 * unsent
        both.peer.reading = True
        await both.until(lambda: both.link.codec.last_peer_stream // 2 > answered)


@pytest.mark.parametrize(("budget", "ends"), [(10_000, True), (100_000, False), (math.inf, False)])
@on_jumping_clock
async def test_what_a_peer_may_cost_is_what_it_is_allowed(budget: float, ends: bool) -> None:
    """2,000 PINGs are some 20 ms of work."""
    async with joined(serve=answer, allowed=Allowance(work=budget, work_rate=0)) as both:
        await both.peer.wire.send_all(raw.ping(b"12345678") * 2000)
        await trio.sleep(1)
        assert both.link.over is ends
        if ends:
            assert kinds(both) == [(0, H2Code.ENHANCE_YOUR_CALM)]


@pytest.mark.parametrize("stall", [5.0, WRITE_STALL])
@on_jumping_clock
async def test_a_peer_that_takes_nothing_for_so_long_is_given_up(stall: float) -> None:
    heard: list[ProxyError] = []

    async def pour(stream: Stream, _: HeadReceived) -> None:
        stream.send_headers(OK, end_stream=False)
        try:
            await stream.send_data(bytes(1 << 20), end_stream=True)
        except ProxyError as error:
            heard.append(error)
        finally:
            stream.close()

    async with joined(serve=pour, capacity=10_000, allowed=Allowance(write_stall=stall)) as both:
        both.peer.reading = False
        both.peer.request(GET, end=True)
        assert stall < await ended(both, within=70) < stall + 4
        assert [error.kind for error in heard] == [ErrorKind.CLIENT_GONE]


@pytest.mark.parametrize("server", [True, False])
@on_jumping_clock
async def test_streams_hear_that_their_link_broke(server: bool) -> None:
    heard: list[ProxyError] = []

    async def listen(stream: Stream, _: HeadReceived | None = None) -> None:
        stream.on_end = heard.append
        try:
            await stream.receive()
        except ProxyError:
            pass
        finally:
            stream.close()

    async with joined(serve=listen if server else None) as both:
        if server:
            both.peer.request(POST)
        else:
            both.nursery.start_soon(listen, both.link.open_stream(POST, end_stream=True))
        await both.until(lambda: both.link.streams)
        await trio.sleep(1)
        both.peer.break_off()
        await ended(both, within=3)
        kind = ErrorKind.CLIENT_GONE if server else ErrorKind.UPSTREAM_CLOSED
        assert [error.kind for error in heard] == [kind]
        assert not both.link.streams


@on_jumping_clock
async def test_a_goodbye_is_heard_though_writing_failed_first() -> None:
    """The backend said GOAWAY and left; we write before we read that. It never saw the stream."""
    async with joined() as both:
        await trio.sleep(1)
        assert isinstance(both.link.transport, Wire)
        both.link.transport.lag = 0.1
        await trio.sleep(1)
        both.peer.ping(b"12345678")  # so that the lag holds for what comes next
        await trio.sleep(1)
        await both.peer.wire.send_all(raw.goaway(0))
        both.peer.wire.close()
        stream = both.link.open_stream(POST, end_stream=True)
        with pytest.raises(ProxyError) as told:
            await stream.receive()
        assert told.value.retry is Retry.SAME_ENDPOINT
        stream.close()
        await ended(both, within=3)


@on_jumping_clock
async def test_what_is_said_when_the_link_is_closed_still_arrives() -> None:
    async with joined(serve=hold) as both:
        call = both.peer.request(POST)
        await both.until(lambda: both.link.streams)
        stream = both.link.streams[call.stream_id]
        stream.send_headers(OK, end_stream=False)
        stream.send_data_nowait(b"last words", end_stream=True)
        both.link.close()
        await call.end()
        assert bytes(call.body) == b"last words"
        await ended(both, within=3)
