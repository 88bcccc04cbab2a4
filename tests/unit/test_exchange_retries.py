"""What was never processed is sent again, whole, and to whom; what was committed is not."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind, H2Code
from stickyproxy.proxy.attempts import MAX_ENDPOINTS
from stickyproxy.proxy.retries import MAX_SAME_ENDPOINT
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GRPC, GRPC_END, GRPC_OK, POST, Plan, message

ANSWER = [*GRPC_OK, *GRPC_END]
BODY = bytes(range(256)) * 100


async def answered(call: Call, got: Call) -> None:
    got.respond(ANSWER, end=True)
    assert (await call.end()).grpc_status == b"0"


async def refuse(house: House, number: int) -> Call:
    got = await house.backend().request(number)
    got.rst(H2Code.REFUSED_STREAM)
    return got


@on_jumping_clock
async def test_a_refused_request_comes_again_with_its_whole_body() -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request([*GRPC, (b"x-a", b"1")])
        call.say(BODY)
        first = await house.backend().request()
        await first.has(len(BODY))
        first.rst(H2Code.REFUSED_STREAM)
        second = await house.backend().request(2)
        call.say(b"rest", end=True)
        await second.end()
        assert bytes(second.body) == BODY + b"rest"
        assert second.head == first.head
        await answered(call, second)
        (report,) = await house.reports()
        assert (report.attempts, report.error) == (2, None)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_complete_body_and_its_trailers_come_again() -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC)
        call.say(BODY)
        call.trailer([(b"x-checksum", b"1")], end=True)
        (await (await house.backend().request()).end()).rst(H2Code.REFUSED_STREAM)
        second = await (await house.backend().request(2)).end()
        assert (bytes(second.body), second.trailers) == (BODY, [(b"x-checksum", b"1")])
        await answered(call, second)


@on_jumping_clock
async def test_an_endpoint_that_goes_on_refusing_is_quoted_and_the_session_stays() -> None:
    async with open_house(Plan(endpoints=3, sticky=True)) as house:
        client = await house.client()
        call = client.request([*GRPC, (b"x-user", b"ann")], end=True)
        refused: set[int] = set()
        while not call.over:
            await house.step()
            for backend in house.backends.values():
                for got in backend.arrived:
                    if id(got) not in refused:
                        refused.add(id(got))
                        got.rst(H2Code.REFUSED_STREAM)
        assert call.reset == H2Code.REFUSED_STREAM
        asked = [len(backend.arrived) for backend in house.backends.values()]
        assert sorted(asked) == [0, 0, MAX_SAME_ENDPOINT]


@on_jumping_clock
async def test_a_goaway_below_the_stream_moves_it_to_a_new_link_of_the_same_endpoint() -> None:
    async with open_house(Plan(endpoints=3)) as house:
        client = await house.client()
        call = client.request(GRPC)
        call.say(BODY)
        await house.until(lambda: any(b.arrived for b in house.backends.values()))
        backend = next(b for b in house.backends.values() if b.arrived)
        backend.links[0].goaway(0)
        second = await backend.request(2)
        call.say(b"", end=True)
        assert bytes((await second.end()).body) == BODY
        assert len(backend.links) == 2
        await answered(call, second)
        await backend.links[0].gone()
        assert sum(b.dials for b in house.backends.values()) == 2


@on_jumping_clock
async def test_a_goaway_above_the_stream_lets_it_finish_and_the_next_one_dials() -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC, end=True)
        got = await house.backend().request()
        got.peer.goaway(got.stream_id)
        await house.step()
        other = client.request(GRPC, end=True)
        await answered(other, await house.backend().request(2))
        await answered(call, got)
        await got.peer.gone()
        assert house.backend().dials == 2
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_body_past_the_replay_limit_is_committed() -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC)
        call.say(message(40_000))
        got = await house.backend().request()
        await got.has(40_000)
        got.rst(H2Code.REFUSED_STREAM)
        assert (await call.end()).reset == H2Code.REFUSED_STREAM
        (report,) = await house.reports()
        assert report.attempts == 1
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_client_with_a_full_window_out_is_not_stalled_by_the_replay_buffer() -> None:
    """All that it may send arrives before its task began; what was handed on is credited."""
    async with open_house() as house:
        house.backend().hold = hold = trio.Event()
        client = await house.client()
        call = client.request(GRPC)
        body = message(200_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, call, body)
            await house.until(lambda: client.codec.window(call.stream_id) == 0)
            hold.set()
            got = await house.backend().request()
            await got.end()
        assert bytes(got.body) == body
        await answered(call, got)


async def send_all(call: Call, body: bytes) -> None:
    await call.send(body, end=True)


@pytest.mark.parametrize("status", [b"103", b"200"])
@on_jumping_clock
async def test_no_retry_once_response_headers_went_on(status: bytes) -> None:
    """An informational head commits nothing, a final one everything."""
    async with open_house() as house:
        client = await house.client()
        call = client.request(POST, end=True)
        got = await house.backend().request()
        got.respond([(b":status", status)])
        await call.until(lambda c: bool(c.head or c.informational))
        got.rst(H2Code.REFUSED_STREAM)
        if status == b"200":
            assert (await call.end()).reset == H2Code.REFUSED_STREAM
        else:
            await answered(call, await house.backend().request(2))
        (report,) = await house.reports()
        assert report.attempts == (1 if status == b"200" else 2)


@on_jumping_clock
async def test_a_backend_that_cannot_be_reached_is_passed_over() -> None:
    async with open_house(Plan(endpoints=2)) as house:
        for backend in house.backends.values():
            backend.down = True
        house.backend(2).down = False
        client = await house.client()
        for _ in range(4):
            call = client.request(GRPC)
            call.say(BODY, end=True)
            seen = len(house.backend(2).arrived)
            got = await (await house.backend(2).request(seen + 1)).end()
            assert bytes(got.body) == BODY
            await answered(call, got)
        assert house.left_behind() == []


@pytest.mark.parametrize(("endpoints", "tried"), [(1, 1), (3, 3), (9, MAX_ENDPOINTS)])
@on_jumping_clock
async def test_when_all_are_down_one_answer_says_so(endpoints: int, tried: int) -> None:
    async with open_house(Plan(endpoints=endpoints)) as house:
        for backend in house.backends.values():
            backend.down = True
        client = await house.client()
        grpc, plain = client.request(GRPC), client.request(POST)
        assert (await grpc.end()).grpc_status == b"14"
        assert grpc.frames == 1
        assert (await plain.end()).status == b"503"
        assert grpc.field(b"x-stickyproxy-error") == b"UF"
        assert sum(backend.dials for backend in house.backends.values()) >= tried
        reports = await house.reports(2)
        assert [r.error and r.error.kind for r in reports] == [ErrorKind.CONNECT_FAILED] * 2
        assert reports[0].attempts == tried
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_cluster_without_endpoints_is_told_as_unhealthy() -> None:
    async with open_house(Plan(endpoints=0)) as house:
        call = (await house.client()).request(GRPC, end=True)
        assert (await call.end()).grpc_status == b"14"
        assert call.field(b"x-stickyproxy-error") == b"UH"


@on_jumping_clock
async def test_the_servers_limit_of_streams_is_kept_by_further_links() -> None:
    limits = CodecLimits(max_concurrent_streams=1)
    async with open_house(Plan(backend_limits=limits)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(5)]
        await house.backend().request(5)
        assert len(house.backend().links) == 5
        for got in house.backend().arrived:
            got.respond(ANSWER, end=True)
        for call in calls:
            assert (await call.end()).grpc_status == b"0"
        again = client.request(GRPC, end=True)
        await answered(again, await house.backend().request(6))
        assert len(house.backend().links) == 5
        assert house.left_behind() == []
