"""How connections to backends are looked after: keepalive, idle limit, lifetime."""

from __future__ import annotations

import socket
import ssl
import sys

import pytest
import trio

from stickyproxy.model import ClusterSpec, Endpoint, UpstreamProtocol
from stickyproxy.rules import Keepalive, Upkeep
from stickyproxy.upstream.dial import keep_alive, reach
from stickyproxy.wire.secured import Secured
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GET, OK, POST, Plan

BOTH = pytest.mark.parametrize("upstream", ["h2c", "http"])
EMPTY = [*OK, (b"content-length", b"0")]


async def ask(house: House) -> Call:
    client = await house.client()
    seen = len(house.backend().arrived)
    call = client.request(GET, end=True)
    got = await house.backend().request(seen + 1)
    await got.end()
    got.respond(EMPTY, end=True)
    await call.end()
    assert call.status == b"200"
    return got


# --- lifetime -------------------------------------------------------------------------------------


@BOTH
def test_a_link_takes_nothing_new_after_its_lifetime(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with open_house(Plan(upstream=upstream, upkeep=Upkeep(max_lifetime=60))) as house:
            first, second = await ask(house), await ask(house)
            assert first.peer is second.peer
            await trio.sleep(62)
            third = await ask(house)

            assert third.peer is not first.peer
            assert first.peer.eof
            assert len(house.links) == 1
            assert house.left_behind() == []

    run()


@BOTH
def test_what_runs_at_the_end_of_the_lifetime_goes_on(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with open_house(Plan(upstream=upstream, upkeep=Upkeep(max_lifetime=60))) as house:
            client = await house.client()
            call = client.request(POST)
            call.say(b"begin")
            got = await (await house.backend().request()).has(5)
            await trio.sleep(300)
            other = await ask(house)
            call.say(b" end", end=True)
            await got.end()
            got.respond(EMPTY, end=True)
            await call.end()

            assert call.status == b"200"
            assert bytes(got.body) == b"begin end"
            assert other.peer is not got.peer
            await house.until(lambda: got.peer.eof)
            assert house.left_behind() == []

    run()


# --- idle -----------------------------------------------------------------------------------------


@BOTH
def test_an_idle_link_is_closed_and_a_busy_one_is_not(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with open_house(Plan(upstream=upstream, upkeep=Upkeep(idle_timeout=10))) as house:
            client = await house.client()
            call = client.request(POST)
            got = await house.backend().request()
            await trio.sleep(60)
            assert len(house.links) == 1
            call.say(b"x", end=True)
            await got.end()
            got.respond(EMPTY, end=True)
            await call.end()
            await trio.sleep(13)

            assert got.peer.eof
            assert house.links == []
            assert (await ask(house)).peer is not got.peer

    run()


# --- keepalive ------------------------------------------------------------------------------------


ASKED_FOR = Upkeep(keepalive=Keepalive(idle=33, probes=4))


@pytest.mark.skipif(sys.platform != "linux", reason="option names are Linux's")
async def test_the_socket_to_a_backend_has_the_keepalive_that_was_asked_for() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    endpoint = Endpoint(f"127.0.0.1:{port}", (("127.0.0.1", port),))
    async with listener:
        stream = await reach(
            endpoint, ClusterSpec("a", "a", UpstreamProtocol.H2C, (), upkeep=ASKED_FOR)
        )
        assert isinstance(stream, trio.SocketStream)
        async with stream:
            option = stream.getsockopt
            assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
            assert option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="option names are Linux's")
async def test_under_tls_it_is_the_socket_below() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        secured = Secured(stream, ssl.create_default_context(), server_hostname="a")
        keep_alive(secured, Keepalive(idle=44))

        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 44
        await trio.aclose_forcefully(secured)
