"""A drain lets go of clients only when all they asked for is answered."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.proxy.server import PREFACE
from support import rawframes as raw
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Peer
from support.plan import GET, OK
from support.wires import wire_pair


async def first_answer(house: House, client: Peer) -> None:
    call = client.request(GET, end=True)
    got = await house.backend().request(len(house.ended) + 1)
    got.respond(OK, end=True)
    assert (await call.end()).status == b"200"
    await house.reports(len(house.ended))


@pytest.mark.parametrize("protocol", ["h2", "h1"])
@on_jumping_clock
async def test_a_drain_serves_whoever_is_connected_and_then_lets_go(protocol: str) -> None:
    async with open_house() as house:
        client = await house.client(protocol)
        await first_answer(house, client)
        waiting = client.request(GET, end=True)
        got = await house.backend().request(2)
        house.server.drain()
        await trio.sleep(5)
        assert not waiting.over
        got.respond(OK, end=True)
        assert (await waiting.end()).status == b"200"
        await client.gone()
        assert client.eof
        await house.until(lambda: not house.server.links)


@on_jumping_clock
async def test_who_comes_out_of_the_accept_queue_amid_a_drain_is_served_once() -> None:
    async with open_house() as house:
        house.server.drain()
        client = await house.client("h1")
        await first_answer(house, client)
        await client.gone()
        assert client.eof
        await house.until(lambda: not house.metrics.process.downstream_connections)


@on_jumping_clock
async def test_http2_out_of_the_accept_queue_amid_a_drain_is_served_before_the_last_goodbye() -> (
    None
):
    """The request came with the preface, before the client could hear any goodbye."""
    async with open_house() as house:
        house.server.drain()
        here, there = wire_pair()
        await there.send_all(PREFACE + raw.settings() + raw.RawCoder().headers(1, GET, end=True))
        house.downstream.start_soon(house.server.serve_connection, here, "auto")
        got = await house.backend().request()
        await trio.sleep(5)
        got.respond(OK, end=True)
        frames = raw.parse(await all_of(there))
        goodbyes = [frame.number for frame in frames if frame.kind == raw.GOAWAY]
        assert goodbyes == [2**31 - 1, 1]
        assert [frame.stream for frame in frames if frame.kind == raw.HEADERS] == [1]


async def all_of(wire: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await wire.receive_some():
        received += data
    return received
