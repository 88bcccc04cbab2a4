"""Copies of requests: what they are, and that no request ever feels them."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.errors import H2Code
from stickyproxy.proxy import shadow
from support.clock import on_jumping_clock
from support.house import Backend, House, open_house
from support.plan import GET, GRPC, GRPC_END, GRPC_OK, OK, POST, SHADOW, SHADOW_KEY, Plan, message

EVERY = Plan(shadow=100)
HUGE = 3 << 20


def shadow_of(house: House) -> Backend:
    return house.backends[SHADOW_KEY]


def counts(house: House) -> tuple[int, int]:
    """Copies meant, and those that came to nothing."""
    stats = house.metrics.cluster(SHADOW)
    return stats.upstream_rq_shadow_total, stats.upstream_rq_shadow_dropped


async def served(house: House, *, body: bytes = b"hello") -> None:
    """A call to its end, as if there were no shadow."""
    client = await house.client()
    call = client.request(POST)
    seen = len(house.backend().arrived)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call.send(body, end=True))
        got = await house.backend().request(seen + 1)
        await got.end()
    assert bytes(got.body) == body
    got.respond(OK)
    got.say(b"main", end=True)
    await call.end()
    assert (call.status, bytes(call.body)) == (b"200", b"main")


async def nothing_left(house: House) -> None:
    await house.until(lambda: not house.context.mirrors.under_way)
    await house.until(lambda: not house.left_behind())
    assert house.context.mirrors.held == 0


@on_jumping_clock
async def test_a_copy_is_the_request_under_another_name() -> None:
    async with open_house(EVERY) as house:
        await served(house)
        copy = await (await shadow_of(house).request()).end()
        main = house.backend().arrived[0]

        copy.respond([(b":status", b"500")])
        copy.say(b"nobody reads this", end=True)
        await nothing_left(house)

        mine, theirs = dict(main.head), dict(copy.head)
        assert theirs.pop(b":authority") == mine.pop(b":authority") + b"-shadow"
        assert theirs == mine
        assert bytes(copy.body) == b"hello"
        assert counts(house) == (1, 0)
        assert house.metrics.cluster(SHADOW).upstream_rq_5xx == 1
        assert len(house.ended) == 1


@on_jumping_clock
async def test_a_request_without_a_body_is_copied() -> None:
    async with open_house(EVERY) as house:
        client = await house.client()
        call = client.request(GET, end=True)
        (await house.backend().request()).respond(OK, end=True)
        await call.end()
        copy = await shadow_of(house).request()

        assert copy.end_stream
        copy.respond(OK, end=True)
        await nothing_left(house)
        assert counts(house) == (1, 0)


@on_jumping_clock
async def test_a_stream_is_copied_message_by_message() -> None:
    async with open_house(EVERY) as house:
        client = await house.client()
        call = client.request(GRPC)
        call.say(message(100))
        main, copy = await house.backend().request(), await shadow_of(house).request()
        await copy.has(100)
        main.respond(GRPC_OK)
        await call.headed()
        call.say(message(200), end=True)
        await copy.end()
        main.trailer(GRPC_END, end=True)
        await call.end()

        assert bytes(copy.body) == bytes(main.body) == message(100) + message(200)
        assert call.grpc_status == b"0"
        copy.respond([*GRPC_OK, *GRPC_END], end=True)
        await nothing_left(house)
        assert counts(house) == (1, 0)


@on_jumping_clock
async def test_percent_draws_for_each_request() -> None:
    async with open_house(Plan(shadow=0)) as house:
        await served(house)

        assert counts(house) == (0, 0)
        assert shadow_of(house).dials == 0


@pytest.mark.parametrize("trouble", ["down", "hold", "mute"])
def test_a_shadow_that_cannot_be_reached_is_not_felt(trouble: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with open_house(EVERY) as house:
            backend = shadow_of(house)
            if trouble == "hold":
                backend.hold = trio.Event()
            else:
                setattr(backend, trouble, True)
            begun = trio.current_time()
            await served(house)
            assert trio.current_time() - begun < house.plan.connect_timeout

            await nothing_left(house)
            assert counts(house) == (1, 1)
            assert house.ended[0].error is None

    run()


@on_jumping_clock
async def test_a_shadow_that_does_not_read_is_dropped_and_stops_nobody() -> None:
    async with open_house(EVERY) as house:
        shadow_of(house).granting = False
        await served(house, body=b"x" * HUGE)

        copy = await shadow_of(house).request()
        await copy.end()
        assert copy.reset == H2Code.CANCEL
        assert len(copy.body) < HUGE
        await nothing_left(house)
        assert counts(house) == (1, 1)


@on_jumping_clock
async def test_a_shadow_that_reads_gets_all_of_a_large_body() -> None:
    async with open_house(EVERY) as house:
        await served(house, body=b"x" * HUGE)
        copy = await (await shadow_of(house).request()).end()

        assert len(copy.body) == HUGE
        copy.respond(OK, end=True)
        await nothing_left(house)
        assert counts(house) == (1, 0)


@on_jumping_clock
async def test_a_request_that_breaks_off_takes_its_copy_along() -> None:
    async with open_house(EVERY) as house:
        client = await house.client()
        call = client.request(POST)
        call.say(b"begin")
        copy = await (await shadow_of(house).request()).has(5)
        call.rst(H2Code.CANCEL)
        await copy.end()

        assert copy.reset == H2Code.CANCEL
        await nothing_left(house)
        assert counts(house) == (1, 1)


@on_jumping_clock
async def test_a_whole_copy_may_finish_after_its_request_but_not_for_ever() -> None:
    async with open_house(EVERY) as house:
        await served(house)
        copy = await (await shadow_of(house).request()).end()
        assert house.context.mirrors.under_way == 1
        begun = trio.current_time()
        await copy.until(lambda call: call.reset is not None)

        assert copy.reset == H2Code.CANCEL
        assert trio.current_time() - begun <= shadow.GRACE + 1
        await nothing_left(house)
        assert counts(house) == (1, 1)


@on_jumping_clock
async def test_an_answer_before_the_requests_end_ends_the_copy_well() -> None:
    async with open_house(EVERY) as house:
        client = await house.client()
        call = client.request(POST)
        call.say(b"begin")
        copy = await shadow_of(house).request()
        copy.respond([(b":status", b"413")], end=True)
        await house.until(lambda: not house.context.mirrors.under_way)
        call.say(b" and on", end=True)
        main = await (await house.backend().request()).end()
        main.respond(OK, end=True)
        await call.end()

        assert bytes(main.body) == b"begin and on"
        await nothing_left(house)
        assert counts(house) == (1, 0)


@on_jumping_clock
async def test_beyond_so_many_copies_there_are_none() -> None:
    limit, shadow.MAX_MIRRORS = shadow.MAX_MIRRORS, 1
    try:
        async with open_house(EVERY) as house:
            await served(house)
            await shadow_of(house).request()
            await served(house)

            assert counts(house) == (2, 1)
            assert len(shadow_of(house).arrived) == 1
            shadow_of(house).arrived[0].respond(OK, end=True)
            await nothing_left(house)
    finally:
        shadow.MAX_MIRRORS = limit


@on_jumping_clock
async def test_what_all_copies_hold_together_is_bounded() -> None:
    limit, shadow.HELD_TOTAL = shadow.HELD_TOTAL, 100_000
    try:
        async with open_house(EVERY) as house:
            hold = shadow_of(house).hold = trio.Event()
            await served(house, body=b"x" * 300_000)

            await house.until(lambda: counts(house) == (1, 1))
            assert house.context.mirrors.held == 0
            shadow_of(house).down = True
            hold.set()
            await nothing_left(house)
    finally:
        shadow.HELD_TOTAL = limit


@on_jumping_clock
async def test_copies_go_over_http1_too() -> None:
    async with open_house(Plan(shadow=100, upstream="http")) as house:
        await served(house)
        copy = await (await shadow_of(house).request()).end()

        assert bytes(copy.body) == b"hello"
        copy.respond([*OK, (b"content-length", b"0")], end=True)
        await nothing_left(house)
        assert counts(house) == (1, 0)


@on_jumping_clock
async def test_the_end_of_the_worker_is_the_end_of_its_copies() -> None:
    async with open_house(EVERY) as house:
        await served(house)
        await shadow_of(house).request()
        house.upstream.cancel_scope.cancel()

        await house.until(lambda: not house.context.mirrors.under_way)
        assert counts(house) == (1, 1)
        assert house.bugs == []
