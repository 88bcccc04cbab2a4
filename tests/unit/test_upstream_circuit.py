"""Circuit breakers: what is over a limit is told at once, and what is under it is not touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind
from stickyproxy.rules import CircuitBreaker, Upkeep
from stickyproxy.upstream.circuit import Limits, limits_of
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import CLUSTER, GRPC, OK, POST, Plan

BOTH = pytest.mark.parametrize("upstream", ["h2c", "http"])
EMPTY = [*OK, (b"content-length", b"0")]
ONE_STREAM = CodecLimits(max_concurrent_streams=1)


@asynccontextmanager
async def limited(
    breaker: CircuitBreaker, upstream: str = "h2c", endpoints: int = 1
) -> AsyncIterator[House]:
    plan = Plan(
        upstream=upstream,
        endpoints=endpoints,
        upkeep=Upkeep(circuit_breakers=(breaker,)),
        backend_limits=ONE_STREAM,
    )
    async with open_house(plan) as house:
        yield house
        assert not house.bugs


async def answered(house: House, call: Call, number: int) -> None:
    """The request of this number at the first backend is answered, and its call ends well."""
    got = await (await house.backend().request(number)).end()
    got.respond(EMPTY, end=True)
    assert (await call.end()).status == b"200"


@BOTH
def test_a_request_over_the_limit_is_refused_at_once_and_the_others_go_on(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=2), upstream) as house:
            client = await house.client()
            under_way = [client.request(POST, end=True) for _ in range(2)]
            await house.backend().request(2)
            before = trio.current_time()
            refused = await client.request(POST, end=True).end()
            assert refused.status == b"503"
            assert trio.current_time() - before < 0.1
            for got in house.backend().arrived:
                got.respond(EMPTY, end=True)
            assert [(await call.end()).status for call in under_way] == [b"200"] * 2
            await answered(house, client.request(POST, end=True), 3)
            assert house.metrics.cluster(CLUSTER).upstream_rq_pending_overflow == 1
            error = house.ended[0].error
            assert error is not None
            assert error.kind is ErrorKind.OVERLOAD
            assert house.left_behind() == []

    run()


def test_a_grpc_call_over_the_limit_is_unavailable() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=0)) as house:
            client = await house.client()
            call = await client.request(GRPC, end=True).end()
            assert (call.status, call.grpc_status) == (b"200", b"14")
            assert call.field(b"x-stickyproxy-error")
            assert house.backend().dials == 0

    run()


def test_the_limit_is_of_the_cluster_and_not_of_an_endpoint() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=2), endpoints=3) as house:
            client = await house.client()
            for _ in range(5):
                client.request(POST, end=True)
                await trio.sleep(1)
            assert sum(len(backend.arrived) for backend in house.backends.values()) == 2
            assert len(house.ended) == 3

    run()


@BOTH
def test_no_more_connections_than_allowed_and_the_rest_waits_its_turn(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_connections=2), upstream) as house:
            client = await house.client()
            calls = [client.request(POST, end=True) for _ in range(4)]
            await trio.sleep(1)
            assert house.backend().dials == 2
            assert len(house.backend().arrived) == 2
            for number in range(1, 5):
                got = await (await house.backend().request(number)).end()
                got.respond(EMPTY, end=True)
            assert [(await call.end()).status for call in calls] == [b"200"] * 4
            assert house.backend().dials == 2
            assert house.metrics.cluster(CLUSTER).upstream_cx_overflow == 1
            assert house.left_behind() == []

    run()


@BOTH
def test_what_is_given_holds_where_it_is_more_than_the_default(
    upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WebSocket of HTTP/1.1 has a connection to itself: 1024 for an endpoint are few."""
    monkeypatch.setattr("stickyproxy.upstream.pool.MAX_LINKS", 2)
    monkeypatch.setattr("stickyproxy.upstream.pool.MAX_WAITERS", 2)

    @on_jumping_clock
    async def run() -> None:
        given = CircuitBreaker(max_connections=4, max_pending_requests=4)
        async with limited(given, upstream) as house:
            client = await house.client()
            for _ in range(2):
                for _ in range(4):
                    client.request(POST, end=True)
                await trio.sleep(1)
            assert house.backend().dials == 4
            assert len(house.backend().arrived) == 4
            cluster = house.metrics.cluster(CLUSTER)
            assert (cluster.upstream_rq_pending_active, house.ended) == (4, [])

    run()


def test_an_endpoint_without_a_connection_may_always_have_one() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_connections=1), endpoints=3) as house:
            client = await house.client()
            for _ in range(3):
                client.request(POST, end=True)
            await trio.sleep(1)
            assert [backend.dials for backend in house.backends.values()] == [1, 1, 1]

    run()


def test_more_waiting_requests_than_allowed_are_refused() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_connections=1, max_pending_requests=1)) as house:
            client = await house.client()
            first = client.request(POST, end=True)
            await house.backend().request()
            waiting = client.request(POST, end=True)
            await house.step()
            assert (await client.request(POST, end=True).end()).status == b"503"
            assert not waiting.over
            await answered(house, first, 1)
            await answered(house, waiting, 2)
            assert house.metrics.cluster(CLUSTER).upstream_rq_pending_overflow == 1
            assert house.left_behind() == []

    run()


def test_waiting_requests_do_not_slip_past_the_limit_of_requests_together() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=1)) as house:
            house.backend().hold = hold = trio.Event()
            client = await house.client()
            calls = [client.request(POST, end=True) for _ in range(3)]
            await trio.sleep(1)
            hold.set()
            await house.until(lambda: len(house.ended) == 2)
            assert sorted(call.status for call in calls) == [b"", b"503", b"503"]
            await answered(house, next(call for call in calls if not call.over), 1)
            assert house.left_behind() == []

    run()


def test_a_client_that_leaves_makes_room() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=1)) as house:
            client = await house.client()
            first = client.request(POST)
            await house.backend().request()
            first.rst(8)
            await house.until(lambda: house.ended)
            await answered(house, client.request(POST, end=True), 2)

    run()


def test_new_limits_act_on_pools_that_are_there() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=0)) as house:
            client = await house.client()
            assert (await client.request(POST, end=True).end()).status == b"503"
            snapshot = house.context.snapshot
            cluster = snapshot.clusters[CLUSTER]
            free = replace(cluster, spec=replace(cluster.spec, upkeep=Upkeep()))
            house.context.install(replace(snapshot, clusters={CLUSTER: free}))
            await answered(house, client.request(POST, end=True), 1)

    run()


def test_gauges_say_which_limit_is_reached() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with limited(CircuitBreaker(max_requests=1)) as house:
            client = await house.client()
            stats = house.metrics.cluster(CLUSTER)
            call = client.request(POST, end=True)
            await house.backend().request()
            house.metrics.refresh()
            assert stats.circuit_breakers_default_rq_open == 1
            assert stats.circuit_breakers_default_cx_open == 0
            await answered(house, call, 1)
            house.metrics.refresh()
            assert stats.circuit_breakers_default_rq_open == 0

    run()


@pytest.mark.parametrize(
    ("breakers", "workers", "wanted"),
    [
        ((), 1, None),
        ((CircuitBreaker("high", 1, 1, 1, 1),), 1, None),
        ((CircuitBreaker(),), 1, Limits(1024, 1024, 1024)),
        ((CircuitBreaker("default", 8, 3, 0, 9),), 4, Limits(2, 1, 0)),
    ],
)
def test_what_is_given_and_what_is_left_out(
    breakers: tuple[CircuitBreaker, ...], workers: int, wanted: Limits | None
) -> None:
    assert limits_of(Upkeep(circuit_breakers=breakers), workers) == wanted
