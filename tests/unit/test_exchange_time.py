"""Deadlines and idle limits of a call: counted from where, told how, and to whom."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio

from stickyproxy.accesslog import Record
from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind, H2Code
from stickyproxy.policy.grpc import parse_timeout
from stickyproxy.proxy.report import Reporter
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import GRPC, GRPC_END, GRPC_OK, OK, POST, Plan, message

SMALL = CodecLimits(stream_credit=1000)


async def took(call: Call) -> float:
    """Seconds from now until the call is over."""
    begun = trio.current_time()
    await call.end()
    return trio.current_time() - begun


async def cancelled(got: Call) -> None:
    assert (await got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL


def timed(headers: list[tuple[bytes, bytes]], timeout: bytes) -> list[tuple[bytes, bytes]]:
    return [*headers, (b"grpc-timeout", timeout)]


@on_jumping_clock
async def test_a_backend_is_told_what_is_left_of_the_deadline_after_the_wait_for_it() -> None:
    async with open_house(Plan(connect_timeout=60)) as house:
        backend = house.backend()
        backend.hold = trio.Event()
        client = await house.client()
        client.request(timed(GRPC, b"10S"), end=True)
        await trio.sleep(4)
        backend.hold.set()
        first = parse_timeout((await backend.request()).field(b"grpc-timeout"))
        client.request(timed(GRPC, b"10S"), end=True)
        second = parse_timeout((await backend.request(2)).field(b"grpc-timeout"))
        assert first is not None
        assert 5.9 < first < 6.01
        assert second is not None
        assert 9.9 < second <= 10


@on_jumping_clock
async def test_a_step_of_the_wall_clock_moves_no_deadline_and_no_duration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NTP, a suspended machine: what is measured and waited for is another clock's."""
    async with open_house(Plan(timeout=3)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True)]
        await house.backend().request()
        today = time.time()
        for wall in (today - 86_400, today + 86_400):
            monkeypatch.setattr(time, "time", partial(float, wall))
            calls.append(client.request(GRPC, end=True))
            await trio.sleep(1)
        assert not any(call.over for call in calls)
        begun = trio.current_time()
        for call in calls:
            assert (await call.end()).grpc_status == b"4"
        assert trio.current_time() - begun < 3.1
        lines: list[Record] = []
        reporter = Reporter(house.metrics, lines.append)
        for exchange in await house.reports(3):
            reporter.ended(exchange)
        assert all(0 < line.duration < 10 for line in lines)


@on_jumping_clock
async def test_a_deadline_spans_all_attempts() -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request(timed(GRPC, b"2S"), end=True)
        first = await house.backend().request()
        await trio.sleep(1)
        first.rst(H2Code.REFUSED_STREAM)
        got = await house.backend().request(2)
        left = parse_timeout(got.field(b"grpc-timeout"))
        assert left is not None
        assert 0.9 < left < 1.001
        assert 0.9 < await took(call) < 1.1
        assert call.grpc_status == b"4"
        await cancelled(got)


@on_jumping_clock
async def test_the_routes_timeout_counts_from_the_requests_end() -> None:
    async with open_house(Plan(timeout=3)) as house:
        client = await house.client()
        call = client.request(POST)
        got = await house.backend().request()
        for _ in range(10):
            call.say(b"x")
            await trio.sleep(1)
        assert not call.over
        call.say(b"", end=True)
        assert 2.9 < await took(call) < 3.1
        assert call.status == b"504"
        await cancelled(got)
        (report,) = await house.reports()
        assert report.error is not None
        assert report.error.kind is ErrorKind.TIMEOUT


@on_jumping_clock
async def test_a_request_that_ended_times_out_though_its_backend_does_not_read_it() -> None:
    """Half of the body waits for the backend's window when the client has said all."""
    async with open_house(Plan(timeout=3, backend_limits=SMALL)) as house:
        house.backend().granting = False
        client = await house.client()
        call = client.request(POST)
        got = await house.backend().request()
        call.say(b"x" * 2000, end=True)
        await got.has(1000)
        assert 2.9 < await took(call) < 3.1
        assert call.status == b"504"
        await cancelled(got)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_slow_attempt_does_not_begin_the_routes_timeout_anew() -> None:
    async with open_house(Plan(timeout=3, backend_limits=SMALL)) as house:
        house.backend().granting = False
        client = await house.client()
        call = client.request(POST)
        call.say(b"x" * 2000, end=True)
        got = await house.backend().request()
        await trio.sleep(2)
        got.grant()
        await got.end()
        assert 0.9 < await took(call) < 1.1
        assert call.status == b"504"


@pytest.mark.parametrize("grpc", [True, False])
@on_jumping_clock
async def test_an_answer_in_time_is_not_touched_by_the_deadline_later(grpc: bool) -> None:
    async with open_house(Plan(timeout=5)) as house:
        client = await house.client()
        call = client.request(timed(GRPC, b"5S") if grpc else POST, end=True)
        got = await house.backend().request()
        await trio.sleep(4.9)
        got.respond([*(GRPC_OK if grpc else OK), *GRPC_END], end=True)
        await call.end()
        await trio.sleep(10)
        (report,) = house.ended
        assert report.error is None
        assert call.reset is None
        assert house.left_behind() == []


async def stalled_reader(house: House, headers: list[tuple[bytes, bytes]]) -> tuple[Call, Call]:
    """A call whose client has taken 1000 bytes of a message of 3000 and does not read on."""
    client = await house.client("h2", SMALL)
    client.granting = False
    call = client.request(headers, end=True)
    got = await house.backend().request()
    got.respond(GRPC_OK)
    got.say(message(3000))
    await call.has(1000)
    return call, got


@on_jumping_clock
async def test_a_deadline_amid_a_message_that_the_client_does_not_read_is_a_reset() -> None:
    """The proxy holds the whole message; the client has a third of it. Trailers would be a lie."""
    async with open_house() as house:
        call, got = await stalled_reader(house, timed(GRPC, b"1S"))
        await call.end()
        assert (call.reset, call.trailers) == (H2Code.CANCEL, [])
        await cancelled(got)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_backend_lost_amid_a_message_that_the_client_does_not_read_is_a_reset() -> None:
    async with open_house() as house:
        call, got = await stalled_reader(house, GRPC)
        got.peer.close()
        await house.step()
        call.grant()
        await call.end()
        assert bytes(call.body) == message(3000)
        assert call.grpc_status == b"14"


@on_jumping_clock
async def test_movement_in_either_direction_keeps_a_call_from_idling() -> None:
    async with open_house(Plan(idle_timeout=4)) as house:
        client = await house.client()
        call = client.request(GRPC)
        got = await house.backend().request()
        for _ in range(10):
            await trio.sleep(3)
            call.say(message(10))
        got.respond(GRPC_OK)
        for _ in range(10):
            await trio.sleep(3)
            got.say(message(10))
        assert not call.over
        assert 3.9 <= await took(call) <= 5.1
        assert call.grpc_status == b"14"
        assert house.left_behind() == []


@pytest.mark.parametrize("headers", [POST, GRPC])
@on_jumping_clock
async def test_an_idle_call_is_told_in_its_own_words(headers: list[tuple[bytes, bytes]]) -> None:
    async with open_house(Plan(idle_timeout=4)) as house:
        call = (await house.client()).request(headers, end=True)
        await call.end()
        told = (call.status, call.grpc_status)
        assert told == ((b"408", b"") if headers is POST else (b"200", b"14"))


@on_jumping_clock
async def test_who_waits_for_a_dead_dial_hears_of_it_within_the_connect_timeout() -> None:
    async with open_house(Plan(connect_timeout=2)) as house:
        house.backend().mute = True
        call = (await house.client()).request(GRPC, end=True)
        assert await took(call) < 2.2
        assert call.grpc_status == b"14"
        peer: Peer = await house.backend().linked()
        await peer.gone()
