"""What a client may take its time for, how often it may come, and how much it may ask."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import trio

from stickyproxy.errors import H2Code
from stickyproxy.model import Headers
from stickyproxy.proxy.admission import Admission
from stickyproxy.proxy.server import Patience
from stickyproxy.wire.conduct import Conduct
from support import rawframes as raw
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.plan import GET, GRPC, OK, POST, Plan
from support.wires import Wire

STRICT = Plan(conduct=Conduct(head_timeout=10, most_requests=3))


async def read_to_end(wire: Wire) -> bytes:
    with trio.fail_after(600):
        return await read_to_end_of(wire)


async def read_to_end_of(wire: Wire) -> bytes:
    said = b""
    while data := await wire.receive_some():
        said += data
    return said


SLOW_HEADS = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "HTTP/2": raw.PREFACE + raw.settings() + raw.frame(raw.HEADERS, 0, 1, b"\x82"),
}


@pytest.mark.parametrize("said", SLOW_HEADS.values(), ids=SLOW_HEADS)
@pytest.mark.parametrize("engine", ["fast", "reference"])
@on_jumping_clock
async def test_a_head_that_does_not_end_ends_its_connection(engine: str, said: bytes) -> None:
    async with open_house(Plan(engine=engine, conduct=Conduct(head_timeout=10))) as house:
        wire = house.raw_client()
        await wire.send_all(said)
        begun = trio.current_time()
        answer = await read_to_end(wire)
        assert 10 <= trio.current_time() - begun < 14
        if said.startswith(raw.PREFACE):
            assert [f.code for f in raw.parse(answer) if f.kind == raw.GOAWAY] == [
                H2Code.ENHANCE_YOUR_CALM
            ]
            assert house.rejected == []
        else:
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert [event.status for event in house.rejected] == [408]
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_second_head_that_does_not_end_is_told_so_behind_the_first_answer() -> None:
    async with open_house(STRICT) as house:
        house.nursery.start_soon(answer_all, house)
        wire = house.raw_client()
        await wire.send_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHo")
        answers = await read_to_end(wire)
        assert [line[9:12] for line in answers.split(b"\r\n") if line[:5] == b"HTTP/"] == [
            b"200",
            b"408",
        ]
        assert [dict(event.headers)[b":path"] for event in house.rejected] == [b"/b"]


@on_jumping_clock
async def test_who_is_served_slowly_is_told_no_408() -> None:
    """The next head is half there while the answer before it takes its time."""
    async with open_house(STRICT) as house:
        wire = house.raw_client()
        await wire.send_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHo")
        got = await house.backend().request(1)
        await trio.sleep(60)
        assert house.rejected == []
        got.respond(OK, end=True)
        await wire.send_all(b"st: a\r\n\r\n")
        (await house.backend().request(2)).respond(OK, end=True)


@pytest.mark.parametrize("first_byte", [3.0, 0.0])
@pytest.mark.parametrize("protocol", ["auto", "h2c"])
@on_jumping_clock
async def test_a_connection_that_says_nothing_is_closed(protocol: str, first_byte: float) -> None:
    """Where HTTP/2 is known to come, nobody waits for the first bytes but the link itself."""
    patience = Patience(first_byte=first_byte or math.inf)
    plan = Plan(conduct=Conduct(first_byte=first_byte), patience=patience)
    async with open_house(plan) as house:
        wire = house.raw_client(protocol)
        begun = trio.current_time()
        with trio.move_on_after(600) as waiting:
            await read_to_end_of(wire)
        assert waiting.cancelled_caught is not bool(first_byte)
        assert trio.current_time() - begun < 6 or not first_byte


@on_jumping_clock
async def test_a_head_that_trickles_in_is_still_one_head() -> None:
    """A byte now and then does not buy time (Slowloris)."""
    async with open_house(STRICT) as house:
        wire = house.raw_client()
        begun = trio.current_time()
        await wire.send_all(b"GET / HTTP/1.1\r\n")
        house.nursery.start_soon(trickle, wire)
        await read_to_end(wire)
        assert trio.current_time() - begun < 14


async def trickle(wire: Wire) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while True:
            await wire.send_all(b"a")
            await trio.sleep(1)


@on_jumping_clock
async def test_heads_one_after_the_other_are_not_one_slow_head() -> None:
    """At each look another request happens to be half there."""
    async with open_house(Plan(conduct=Conduct(head_timeout=5))) as house:
        wire = house.raw_client()
        head = b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n"
        house.nursery.start_soon(answer_all, house)
        await wire.send_all(head[:9])
        for _ in range(30):
            await trio.sleep(1)
            await wire.send_all(head[9:] + head[:9])
        assert not house.server.links.isdisjoint(house.watch.links)


async def answer_all(house: House) -> None:
    number = 0
    while True:
        number += 1
        got = await house.backend().request(number)
        got.respond(OK, end=True)


@on_jumping_clock
async def test_a_connection_with_enough_requests_is_sent_away_and_loses_none() -> None:
    async with open_house(STRICT) as house:
        house.nursery.start_soon(answer_all, house)
        client = await house.client()
        for _ in range(3):
            assert (await client.request(GET, end=True).end()).status == b"200"
        late = client.request(POST)
        await client.until(lambda: bool(client.goaways))
        late.say(b"x", end=True)
        assert (await late.end()).status == b"200"
        await client.gone()


# --- bodies ---


SLOW = Plan(body_timeout=60)


@on_jumping_clock
async def test_a_body_that_stands_still_is_408() -> None:
    async with open_house(SLOW) as house:
        client = await house.client()
        call = client.request(POST)
        call.say(b"x")
        got = await house.backend().request()
        begun = trio.current_time()
        assert (await call.end()).status == b"408"
        assert 60 <= trio.current_time() - begun < 80
        assert (await got.end()).reset == H2Code.CANCEL
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_body_that_comes_slowly_but_comes_is_waited_for() -> None:
    async with open_house(SLOW) as house:
        client = await house.client()
        call = client.request(POST)
        got = await house.backend().request()
        for _ in range(10):
            await trio.sleep(45)
            call.say(b"x")
        call.say(b"", end=True)
        await got.end()
        got.respond(OK, end=True)
        assert (await call.end()).status == b"200"


@on_jumping_clock
async def test_a_client_is_not_blamed_for_a_backend_that_takes_nothing() -> None:
    async with open_house(SLOW) as house:
        backend = house.backend()
        backend.granting = False
        client = await house.client()
        call = client.request(POST)
        got = await backend.request()
        house.nursery.start_soon(call.send, bytes(300_000))
        await trio.sleep(200)
        assert not call.over
        got.grant()
        await got.has(300_000)


@pytest.mark.parametrize(
    "head",
    [GRPC, [*POST, (b"content-type", b"application/connect+proto")]],
    ids=["gRPC", "Connect"],
)
@on_jumping_clock
async def test_a_stream_of_an_rpc_may_rest(head: Headers) -> None:
    async with open_house(SLOW) as house:
        client = await house.client()
        call = client.request(head)
        await house.backend().request()
        await trio.sleep(250)
        assert not call.over


@on_jumping_clock
async def test_a_request_that_is_being_answered_may_rest() -> None:
    async with open_house(SLOW) as house:
        client = await house.client()
        call = client.request(POST)
        (await house.backend().request()).respond(OK)
        await call.headed()
        await trio.sleep(250)
        assert not call.over


# --- connections ---


def test_so_many_connections_and_so_many_from_one_address() -> None:
    refused: list[str] = []
    door = Admission(3, 2, told=refused.append)
    assert [door.enter("10.0.0.1"), door.enter("10.0.0.1"), door.enter("10.0.0.1")] == [
        *(True, True, False)
    ]
    assert [door.enter("10.0.0.2"), door.enter("10.0.0.3")] == [True, False]
    assert refused == ["max-connections-per-address", "max-connections"]
    door.leave("10.0.0.1")
    assert door.enter("10.0.0.1")
    for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
        door.leave(address)
    assert door._by_address == {}


def test_a_balancers_address_is_that_of_all_its_clients() -> None:
    door = Admission(100, 2, exempt=lambda: True)
    assert all(door.enter("10.0.0.1") for _ in range(50))


def test_without_limits_and_without_an_address_everybody_comes_in() -> None:
    assert all(Admission().enter("10.0.0.1") for _ in range(10_000))
    unix = Admission(most_each=1)
    assert all(unix.enter("") for _ in range(10))


@on_jumping_clock
async def test_one_connection_too_many_is_closed_and_counted() -> None:
    async with open_house(Plan(admission=Admission(most=1))) as house:
        first = await house.client()
        wire = house.raw_client()
        assert await read_to_end(wire) == b""
        assert house.metrics.process.downstream_connections_refused_total == 1
        first.close()
        await house.until(lambda: not house.server.links)
        await house.client()
