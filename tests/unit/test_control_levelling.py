"""After a worker was replaced, those who came to the others meanwhile come to it."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.control.levelling import WITHIN, send_away, surplus
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Peer
from support.plan import GRPC, GRPC_END, GRPC_OK, message


@pytest.mark.parametrize(
    ("connections", "above"),
    [
        ({0: 0, 1: 12}, {1: 6}),
        ({0: 0, 1: 4, 2: 4, 3: 4}, {1: 1, 2: 1, 3: 1}),
        ({0: 0, 1: 1}, {}),
        ({0: 2, 1: 3}, {}),
        ({0: 0, 1: 3}, {1: 1}),
        ({0: 0, 1: 9, 2: 0}, {1: 6}),
        ({1: 7}, {}),
        ({}, {}),
    ],
)
def test_an_even_share_stays(connections: dict[int, int], above: dict[int, int]) -> None:
    assert surplus(connections) == above


async def _clients(house: House, count: int) -> list[Peer]:
    return [await house.client() for _ in range(count)]


def _sent_away(clients: list[Peer]) -> list[bool]:
    return [client.codec.capacity() == 0 for client in clients]


@on_jumping_clock
async def test_the_youngest_go_and_nobody_goes_twice() -> None:
    async with open_house() as house:
        clients = await _clients(house, 5)
        told: list[None] = []
        await send_away(list(house.watch.links), 2, lambda: told.append(None))
        await house.step()
        assert _sent_away(clients) == [False, False, False, True, True]
        await send_away(list(house.watch.links), 1, lambda: told.append(None))
        await house.step()
        assert _sent_away(clients) == [False, False, True, True, True]
        assert len(told) == 3


@on_jumping_clock
async def test_they_go_one_after_the_other() -> None:
    async with open_house() as house:
        clients = await _clients(house, 4)
        house.nursery.start_soon(send_away, list(house.watch.links), 4, lambda: None)
        await trio.sleep(WITHIN / 4 + WITHIN / 8)
        assert sum(_sent_away(clients)) == 2
        await trio.sleep(WITHIN)
        assert sum(_sent_away(clients)) == 4


@on_jumping_clock
async def test_a_call_under_way_ends_well_on_a_connection_that_was_sent_away() -> None:
    async with open_house() as house:
        [client] = await _clients(house, 1)
        call = client.request(GRPC)
        got = await house.backend().request()
        await send_away(list(house.watch.links), 1, lambda: None)
        await call.send(message(100), end=True)
        await got.end()
        got.respond(GRPC_OK)
        await got.send(message(200))
        got.trailer(GRPC_END, end=True)
        await call.end()
        assert call.grpc_status == b"0"
        assert len(call.body) == 200


@on_jumping_clock
async def test_links_to_backends_stay() -> None:
    async with open_house() as house:
        [client] = await _clients(house, 1)
        client.request(GRPC)
        await house.backend().request()
        await send_away(list(house.watch.links), 9, lambda: None)
        await house.step()
        [link] = house.links
        assert not link.draining
