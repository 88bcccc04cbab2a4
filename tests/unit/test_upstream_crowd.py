"""A backend that is told of clients by PROXY headers: what its connection says holds for all on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from stickyproxy.model import Client, Connection
from stickyproxy.rules import CircuitBreaker, Upkeep
from stickyproxy.upstream.crowd import Crowd, taken
from stickyproxy.upstream.dial import CLIENT_IDLE
from stickyproxy.wire.proxy_protocol import LOCAL, header
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Peer
from support.plan import GET, OK, Plan

HERE = ("192.0.2.1", 443)
BOTH = pytest.mark.parametrize("upstream", ["h2c", "http"])


def ends(number: int) -> bytes:
    return header((f"203.0.113.{number}", 4000 + number), HERE)


@asynccontextmanager
async def announcing(upstream: str, *breakers: CircuitBreaker) -> AsyncIterator[House]:
    upkeep = Upkeep(proxy_protocol="v2", circuit_breakers=breakers)
    async with open_house(Plan(upstream=upstream, announced=True, upkeep=upkeep)) as house:
        yield house
        assert house.bugs == []


async def ask(house: House, client: Peer, number: int) -> None:
    """The request of this number at the backend, answered."""
    call = client.request(GET, end=True)
    got = await (await house.backend().request(number)).end()
    got.respond([*OK, (b"content-length", b"0")], end=True)
    assert (await call.end()).status == b"200"


@BOTH
@on_jumping_clock
async def test_each_client_has_connections_of_its_own_that_begin_with_its_address(
    upstream: str,
) -> None:
    async with announcing(upstream) as house:
        one, other = await house.client(said=ends(1)), await house.client(said=ends(2))
        for number, client in enumerate([one, other, one, one, other], 1):
            await ask(house, client, number)

        assert house.backend().preambles == [ends(1), ends(2)]


@on_jumping_clock
async def test_streams_of_one_client_share_its_connection() -> None:
    async with announcing("h2c") as house:
        client = await house.client(said=ends(1))
        calls = [client.request(GET, end=True) for _ in range(50)]
        for number in range(1, 51):
            (await house.backend().request(number)).respond(OK, end=True)
        for call in calls:
            await call.end()

        assert house.backend().preambles == [ends(1)]


@BOTH
@on_jumping_clock
async def test_the_same_address_with_another_port_is_another_client(upstream: str) -> None:
    said = [header(("203.0.113.1", port), HERE) for port in (1, 2)]
    async with announcing(upstream) as house:
        for number, first in enumerate(said, 1):
            await ask(house, await house.client(said=first), number)

        assert house.backend().preambles == said


@on_jumping_clock
async def test_a_client_without_an_address_is_told_as_nobody() -> None:
    async with announcing("h2c") as house:
        await ask(house, await house.client(said=LOCAL), 1)

        assert house.backend().preambles == [LOCAL]


@BOTH
@on_jumping_clock
async def test_a_connection_that_rests_is_closed_and_made_anew_when_its_client_is_back(
    upstream: str,
) -> None:
    async with announcing(upstream) as house:
        client = await house.client(said=ends(1))
        await ask(house, client, 1)
        pool = house.pool
        assert taken(pool) == 1
        await trio.sleep(CLIENT_IDLE + 5)
        assert taken(pool) == 0
        await ask(house, client, 2)
        assert house.backend().preambles == [ends(1)] * 2


@on_jumping_clock
async def test_connections_of_all_clients_count_for_the_clusters_circuit_breaker() -> None:
    async with announcing("h2c", CircuitBreaker(max_connections=5)) as house:
        for number in (1, 2, 3):
            await ask(house, await house.client(said=ends(number)), number)

        circuit = house.pool.circuit
        assert circuit is not None
        assert circuit.room() == 2


@BOTH
@on_jumping_clock
async def test_when_the_endpoint_leaves_its_connections_are_closed(upstream: str) -> None:
    async with announcing(upstream) as house:
        for number in (1, 2):
            await ask(house, await house.client(said=ends(number)), number)
        pool = house.pool
        pool.retire()
        await house.until(lambda: all(peer.eof for peer in house.backend().links))
        assert taken(pool) == 0


def client(number: int, *, hop: bool = False) -> Client:
    connection = Connection("203.0.113.9", number, *HERE)
    return Client("198.51.100.7" if hop else "203.0.113.9", connection, hop)


class Known:
    """A pool as far as a crowd looks at it."""

    def __init__(self, preamble: bytes) -> None:
        self.preamble = preamble
        self.links: list[object] = [type("Link", (), {"streams": {}})()]
        self.dialling = 0
        self.crowd = None
        self.retired = False

    def retire(self) -> None:
        self.retired = True


def test_the_number_of_clients_is_bounded_and_who_rests_longest_goes_first() -> None:
    crowd = Crowd(Known, most=3)  # type: ignore[arg-type]
    first, second, _ = (crowd.pool(client(number)) for number in (1, 2, 3))
    assert crowd.pool(client(1)) is first
    crowd.pool(client(4))

    assert len(crowd) == 3
    assert (first.retired, second.retired) == (False, True)


def test_who_is_busy_stays_while_another_rests() -> None:
    crowd = Crowd(Known, most=2)  # type: ignore[arg-type]
    busy, resting = crowd.pool(client(1)), crowd.pool(client(2))
    busy.dialling = 1
    crowd.pool(client(3))

    assert (busy.retired, resting.retired) == (False, True)


def test_clients_that_left_are_forgotten_as_others_come() -> None:
    crowd = Crowd(Known)  # type: ignore[arg-type]
    for number in range(1, 5000):
        crowd.pool(client(number)).links.clear()

    assert len(crowd) <= 2


def test_what_a_trusted_hop_said_of_a_client_has_no_port() -> None:
    crowd = Crowd(Known)  # type: ignore[arg-type]

    assert crowd.pool(client(1, hop=True)) is crowd.pool(client(2, hop=True))
    assert crowd.pool(client(1, hop=True)).preamble == header(("198.51.100.7", 0), HERE)
