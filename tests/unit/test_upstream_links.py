"""What becomes of links: retired, replaced, lost just when a slot on them was promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.wire.link import Link
from support.answered import all_answered, answered
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import CLUSTER, GRPC, OK, POST, Plan


@on_jumping_clock
async def test_a_retired_endpoint_lets_its_streams_end_and_closes_its_links() -> None:
    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(2)]
        one = await house.backend(1).request()
        other = await house.backend(2).request()
        pools = [pool for _, pool in house.pools]
        house.context.install(Plan(endpoints=0).snapshot)
        assert list(house.pools) == []
        await trio.sleep(5)
        assert not any(call.over for call in calls)
        await all_answered(calls, [one, other])
        await one.peer.gone()
        await other.peer.gone()
        await house.until(lambda: not any(pool.links for pool in pools))


@on_jumping_clock
async def test_an_idle_link_of_a_retired_endpoint_closes_at_once() -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC, end=True)
        got = await house.backend().request()
        await answered(call, got)
        await house.reports()
        house.context.install(Plan(endpoints=0).snapshot)
        await got.peer.gone()


@pytest.mark.parametrize("up", ["h2c", "http"])
@on_jumping_clock
async def test_a_link_that_comes_too_late_for_its_endpoint_closes_again(up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        backend = house.backend()
        backend.hold = trio.Event()
        call = (await house.client()).request(GRPC, end=True)
        await house.until(lambda: backend.dials)
        pool = house.pool
        house.context.install(Plan(endpoints=0).snapshot)
        call.rst(8)
        await house.reports()
        backend.hold.set()
        await (await backend.linked()).gone()
        assert pool.links == []


async def meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Link], None]
) -> Call:
    """A call whose slot was just reserved when something `happens`, before its task runs."""
    pool = house.pool
    dialled = pool.dialled

    def then(link: Link) -> None:
        dialled(link)
        assert pool._reserved
        happens(link)

    monkeypatch.setattr(pool, "dialled", then)
    call = (await house.client()).request(GRPC, end=True)
    await house.until(lambda: house.backend().dials)
    return call


def client_goes(house: House) -> None:
    gone = ProxyError(ErrorKind.CLIENT_GONE, Side.DOWNSTREAM, "gone", code=8, relay=True)
    for link in house.server.links:
        for stream in link.streams.values():
            stream.fail(gone)


@on_jumping_clock
async def test_a_slot_goes_back_when_its_request_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house() as house:
        await meanwhile(house, monkeypatch, lambda _: client_goes(house))
        await house.reports()
        assert house.left_behind() == []
        assert house.backend().arrived == []


@on_jumping_clock
async def test_the_last_to_go_closes_a_retired_endpoints_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house() as house:

        def happens(_: Link) -> None:
            house.context.install(Plan(endpoints=0).snapshot)
            client_goes(house)

        await meanwhile(house, monkeypatch, happens)
        await house.reports()
        await (await house.backend().linked()).gone()


@pytest.mark.parametrize("happens", ["close", "drain"])
@on_jumping_clock
async def test_a_slot_on_a_link_that_is_lost_is_asked_for_again(
    happens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house() as house:

        def loses(link: Link) -> None:
            monkeypatch.undo()
            if happens == "close":
                link.close()
            else:
                link.draining = True

        call = await meanwhile(house, monkeypatch, loses)
        await answered(call, await house.backend().request())
        assert house.backend().dials == 2
        (report,) = await house.reports()
        assert report.attempts == 1


@on_jumping_clock
async def test_an_endpoint_that_comes_back_has_a_new_pool() -> None:
    async with open_house() as house:
        client = await house.client()
        running = client.request(GRPC, end=True)
        old = await house.backend().request()
        house.context.install(Plan(endpoints=0).snapshot)
        house.context.install(Plan(endpoints=1).snapshot)
        call = client.request(GRPC, end=True)
        await answered(call, await house.backend().request(2))
        await answered(running, old)
        assert house.backend().dials == 2


@pytest.mark.parametrize("changed", ["connect_timeout", "upstream"])
@on_jumping_clock
async def test_what_is_reached_differently_is_dialled_anew(changed: str) -> None:
    async with open_house() as house:
        client = await house.client()
        call = client.request(GRPC, end=True)
        await answered(call, await house.backend().request())
        plan = Plan(connect_timeout=9) if changed == "connect_timeout" else Plan(upstream="http")
        house.plan.upstream = plan.upstream
        house.context.install(plan.snapshot)
        call = client.request(GRPC, end=True)
        await answered(call, await house.backend().request(2))
        assert house.backend().dials == 2


@on_jumping_clock
async def test_a_link_is_used_again_and_counted_in_the_open() -> None:
    async with open_house(Plan(upstream="http")) as house:
        client = await house.client()
        for number in range(1, 6):
            call = client.request(POST, end=True)
            got = await house.backend().request(number)
            stats = house.metrics.endpoint(CLUSTER, house.backend().key)
            assert (stats.rq_active, stats.rq_total) == (1, number)
            got.respond([*OK, (b"content-length", b"0")], end=True)
            assert (await call.end()).status == b"200"
            await house.reports(number)
        assert house.backend().dials == 1
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_backend_that_closes_its_idle_connection_is_dialled_anew() -> None:
    for up in ("h2c", "http"):
        async with open_house(Plan(upstream=up)) as house:
            client = await house.client()
            call = client.request(GRPC, end=True)
            got = await house.backend().request()
            await answered(call, got)
            got.peer.close()
            await house.until(lambda: not house.links)
            call = client.request(GRPC, end=True)
            await answered(call, await house.backend().request(2))
            reports = await house.reports(2)
            assert [report.error for report in reports] == [None, None]


@on_jumping_clock
async def test_the_pool_tells_the_worker_of_each_dial_once() -> None:
    async with open_house() as house:
        backend = house.backend()
        client = await house.client()
        backend.down = True
        await client.request(GRPC, end=True).end()
        backend.down = False
        call = client.request(GRPC, end=True)
        await answered(call, await backend.request())
        kinds = [error and error.kind for error in house.heard]
        assert kinds == [ErrorKind.CONNECT_FAILED, None]
