"""A path that loses segments, as the kernel would tell of it: where streams go, how many links there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from stickyproxy.health.poolplan import MOST
from stickyproxy.upstream.vigil import FULL_FROM
from stickyproxy.wire.tcpinfo import TcpInfo
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import GRPC, GRPC_END, GRPC_OK, Plan

SLOW = [*GRPC, (b"x-slow", b"1")]
ANSWER = [*GRPC_OK, *GRPC_END]


class Kernel:
    """Of all connections: each `loses` a segment with every look, at a round trip of `rtt` µs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rtt: int) -> None:
        self.loses = True
        self.rtt = rtt
        self._resent = 0
        monkeypatch.setattr("stickyproxy.upstream.vigil.tcp_socket", lambda transport: transport)
        monkeypatch.setattr("stickyproxy.upstream.vigil.look", self._look)

    def _look(self, _: object) -> TcpInfo:
        self._resent += self.loses
        return TcpInfo(0, 0, 0, 0, 0, self.rtt, 10, 0, self.rtt, 1000, self._resent, 0)


async def serve(house: House) -> None:
    """Each request is answered at once, a SLOW one never."""
    backend, done = house.backend(), 0
    while True:
        await trio.sleep(0.004)
        for got in backend.arrived[done:]:
            if not got.field(b"x-slow"):
                got.respond(ANSWER, end=True)
        done = len(backend.arrived)


async def traffic(client: Peer, calls: int) -> None:
    for _ in range(calls):
        await client.request(GRPC, end=True).end()
        await trio.sleep(0.01)


async def held(house: House, client: Peer, number: int) -> tuple[list[Call], list[int]]:
    """So many calls at once that stay open, and how many of them each link has, the most first."""
    calls = []
    for _ in range(number):
        calls.append(client.request(SLOW, end=True))
        await trio.testing.wait_all_tasks_blocked()
    return calls, sorted((len(link.streams) for link in house.links), reverse=True)


@pytest.mark.parametrize(
    ("loses", "idempotent", "shares"),
    [(True, False, [3, 3]), (True, True, [6, 0]), (False, False, [6, 0])],
)
@on_jumping_clock
async def test_where_segments_get_lost_what_is_sent_once_has_few_others_before_it(
    loses: bool, idempotent: bool, shares: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, rtt=FULL_FROM - 1)
    kernel.loses = loses
    async with open_house(Plan(idempotent=idempotent)) as house:
        house.nursery.start_soon(serve, house)
        client = await house.client()
        await traffic(client, 100)
        assert house.pool.vigil.lossy is loses
        calls, found = await held(house, client, 6)
        assert found == shares
        for call in calls:
            call.rst(8)


@pytest.mark.parametrize(("rtt", "links"), [(FULL_FROM, MOST), (FULL_FROM - 1, 2)])
@on_jumping_clock
async def test_a_long_lossy_path_gets_a_link_for_two_streams_and_a_short_one_no_more_than_usual(
    rtt: int, links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kernel(monkeypatch, rtt)
    async with open_house() as house:
        house.nursery.start_soon(serve, house)
        client = await house.client()
        await traffic(client, 50)
        calls = []
        for _ in range(6 * MOST):  # several between two looks
            calls.append(client.request(SLOW, end=True))
            client.request(GRPC, end=True)
            await trio.sleep(0.002)
        assert len(house.links) == links
        for call in calls:
            call.rst(8)


@on_jumping_clock
async def test_a_path_that_loses_nothing_any_more_is_used_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch, rtt=100)
    async with open_house() as house:
        house.nursery.start_soon(serve, house)
        client = await house.client()
        await traffic(client, 100)
        assert house.pool.vigil.lossy
        kernel.loses = False
        await until_calm(client, lambda: not house.pool.vigil.lossy)
        calls, found = await held(house, client, 4)
        assert found == [4, 0]
        for call in calls:
            call.rst(8)


async def until_calm(client: Peer, calm: Callable[[], bool]) -> None:
    with trio.fail_after(15):
        while not calm():
            await traffic(client, 10)
