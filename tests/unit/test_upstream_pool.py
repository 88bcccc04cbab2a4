"""Pools of links: who dials, who waits, who hears of a failure, and what becomes of links."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.counters import ClusterStats, EndpointStats
from stickyproxy.model import Endpoint
from stickyproxy.upstream.pool import EndpointPool
from stickyproxy.upstream.waiter import MAX_WAITERS
from support.answered import all_answered, answered
from support.clock import on_jumping_clock
from support.house import open_house
from support.plan import GRPC, POST, Plan


@pytest.mark.parametrize(("up", "dials"), [("h2c", 1), ("http", 20)])
@on_jumping_clock
async def test_as_many_dials_as_the_protocol_needs(up: str, dials: int) -> None:
    async with open_house(Plan(upstream=up)) as house:
        backend = house.backend()
        backend.hold = trio.Event()
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(20)]
        await house.until(lambda: len(house.pool._waiters) == 20)
        await trio.sleep(1)
        assert backend.dials == dials
        backend.hold.set()
        await backend.request(20)
        await all_answered(calls, backend.arrived)
        assert backend.dials == dials
        await house.reports(20)
        assert house.left_behind() == []


@on_jumping_clock
async def test_no_stream_is_sent_before_the_servers_settings() -> None:
    async with open_house() as house:
        backend = house.backend()
        backend.mute = True
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(3)]
        peer = await backend.linked()
        await trio.sleep(1)
        assert backend.arrived == []
        peer.answering = True
        peer.kick()
        await backend.request(3)
        await all_answered(calls, backend.arrived)


@pytest.mark.parametrize("up", ["h2c", "http"])
@on_jumping_clock
async def test_a_failed_dial_is_told_to_all_who_waited_for_it(up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        backend = house.backend()
        backend.down = True
        backend.hold = trio.Event()
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(5)]
        await house.until(lambda: len(house.pool._waiters) == 5)
        backend.hold.set()
        for call in calls:
            assert (await call.end()).grpc_status == b"14"
        await house.reports(5)
        assert house.pool.dialling == 0
        assert house.left_behind() == []
        backend.down = False
        call = client.request(GRPC, end=True)
        await answered(call, await backend.request())


@on_jumping_clock
async def test_a_backend_that_closes_before_its_settings_is_named_so() -> None:
    async with open_house() as house:
        house.backend().mute = True
        call = (await house.client()).request(GRPC, end=True)
        (await house.backend().linked()).close()
        await call.end()
        assert b"the connection was closed" in call.field(b"grpc-message")
        assert house.pool.dialling == 0
        assert house.pool.links == []


@on_jumping_clock
async def test_all_waiters_leave_and_the_dial_still_makes_a_link() -> None:
    async with open_house() as house:
        backend = house.backend()
        backend.hold = trio.Event()
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(3)]
        await house.until(lambda: len(house.pool._waiters) == 3)
        for call in calls:
            call.rst(8)
        await house.reports(3)
        backend.hold.set()
        await house.until(lambda: house.links)
        call = client.request(GRPC, end=True)
        await answered(call, await backend.request())
        assert backend.dials == 1


@on_jumping_clock
async def test_who_comes_first_is_served_first_when_slots_are_few() -> None:
    limits = CodecLimits(max_concurrent_streams=1)
    async with open_house(Plan(backend_limits=limits)) as house:
        backend = house.backend()
        client = await house.client()
        first = client.request(GRPC, end=True)
        got = await backend.request()
        backend.hold = trio.Event()  # no further link for now
        waiting = []
        for number in range(4):
            waiting.append(client.request([*GRPC, (b"x-n", b"%d" % number)], end=True))
            await house.step()
        assert len(house.pool._waiters) == 4
        await answered(first, got)
        for number, call in enumerate(waiting):
            got = await backend.request(number + 2)
            assert got.field(b"x-n") == b"%d" % number
            await answered(call, got)
        await house.reports(5)
        assert house.left_behind() == []


@on_jumping_clock
async def test_more_than_may_wait_are_told_of_overload_at_once() -> None:
    async with open_house() as house:
        house.backend().hold = trio.Event()
        peers = [await house.client() for _ in range(2)]
        calls = [
            peer.request(POST, end=True) for peer in peers for _ in range(MAX_WAITERS // 2 + 1)
        ]
        await house.reports(2)
        told = [call for call in calls if call.over]
        assert [call.field(b"x-stickyproxy-error") for call in told] == [b"UO"] * 2
        assert len(house.pool._waiters) == MAX_WAITERS


NO_CONTENT = [(b":status", b"204")]


@on_jumping_clock
async def test_http_1_1_uses_the_link_that_became_free_last() -> None:
    async with open_house(Plan(upstream="http")) as house:
        backend = house.backend()
        client = await house.client()
        for _ in range(3):
            client.request(POST, end=True)
        await backend.request(3)
        for done, number in enumerate((2, 0, 1), start=1):
            backend.arrived[number].respond(NO_CONTENT, end=True)
            await house.reports(done)
        for number in (3, 4, 5):
            client.request(POST, end=True)
            await backend.request(number + 1)
        assert [call.peer for call in backend.arrived[3:]] == [
            backend.arrived[number].peer for number in (1, 0, 2)
        ]
        assert backend.dials == 3


@on_jumping_clock
async def test_http_1_1_does_not_use_an_idle_link_that_the_backend_closed() -> None:
    async with open_house(Plan(upstream="http")) as house:
        backend = house.backend()
        client = await house.client()
        for number in (1, 2):
            call = client.request(POST, end=True)
            (await backend.request(number)).respond(NO_CONTENT, end=True)
            assert (await call.end()).status == b"204"
            (await backend.linked(number)).close()
            await house.until(lambda: not house.pool.links)
        assert backend.dials == 2
        assert not house.pool._spare


@on_jumping_clock
async def test_a_spare_link_that_is_promised_to_a_waiter_goes_to_nobody_else() -> None:
    async with open_house(Plan(upstream="http")) as house:
        client = await house.client()
        call = client.request(POST, end=True)
        (await house.backend().request()).respond(NO_CONTENT, end=True)
        await call.end()
        await house.reports(1)
        pool = house.pool
        waiter = pool.wait()
        assert waiter.link is pool.links[0]
        assert pool.open_now(POST, end_stream=True) is None
        pool.leave(waiter)
        stream = pool.open_now(POST, end_stream=True)
        assert stream is not None
        assert stream.link is pool.links[0]
        stream.close()


async def _never_connected(_: EndpointPool) -> None:
    await trio.sleep_forever()


async def test_one_of_several_workers_lets_its_part_of_the_requests_wait(
    nursery: trio.Nursery,
) -> None:
    pool = EndpointPool(
        Endpoint("a:1", ()),
        nursery,
        _never_connected,
        multiplexed=True,
        heard=lambda _: None,
        bug=lambda *_: None,
        stats=EndpointStats(),
        cluster=ClusterStats(),
        workers=4,
    )
    waiters = [pool.wait() for _ in range(MAX_WAITERS // 4 + 1)]
    assert [waiter.error is not None for waiter in waiters] == [False] * 256 + [True]
    nursery.cancel_scope.cancel()
