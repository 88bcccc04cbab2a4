"""The abort grid where one side or both speak HTTP/1.1: a reset is the end of a connection there."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.errors import ErrorKind, H2Code
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import OK, POST, Plan
from support.wires import Wire

BOTH = pytest.mark.parametrize("down", ["h2", "h1"])
WAYS = pytest.mark.parametrize("up", ["h2c", "http"])
HOW = pytest.mark.parametrize("how", ["close", "break_off"])
SIZED = [*POST, (b"content-length", b"2000")]


async def started(client: Peer, *, whole: bool) -> Call:
    call = client.request(SIZED)
    call.say(b"x" * (2000 if whole else 1000), end=whole)
    return call


async def dead(got: Call) -> None:
    """Reset, or its connection gone: the backend knows that nobody listens."""
    await got.peer.until(lambda: got.reset is not None or got.peer.eof or got.peer.broken)


async def cut_off(call: Call) -> None:
    """Reset, or its connection ended short of what was promised."""
    await call.end()
    assert call.reset is not None or call.lost
    assert not call.end_stream


@BOTH
@WAYS
@HOW
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("answering", [False, True])
@on_jumping_clock
async def test_a_client_that_leaves_is_no_longer_served(
    down: str, up: str, how: str, whole: bool, answering: bool
) -> None:
    async with open_house(Plan(upstream=up)) as house:
        client = await house.client(down)
        call = await started(client, whole=whole)
        got = await (await house.backend().request()).has(1000)
        if answering:
            got.respond(OK)
            got.say(b"y" * 100)
            await call.has(100)
        getattr(client, how)()
        (report,) = await house.reports()
        await dead(got)
        got.peer.close()
        await house.step()
        assert report.error is not None
        assert report.error.kind is ErrorKind.CLIENT_GONE
        assert house.left_behind() == []
        await another(house, await house.client(down))
        assert house.left_behind() == []


async def another(house: House, client: Peer) -> None:
    seen = len(house.backend().arrived)
    call = client.request(SIZED)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, call)
        got = await (await house.backend().request(seen + 1)).end()
        got.respond(OK)
        await got.send(bytes(got.body) * 200, end=True)
        await call.end()
    assert len(call.body) == 400_000


async def send_all(call: Call) -> None:
    await call.send(b"z" * 2000, end=True)


@BOTH
@HOW
@pytest.mark.parametrize("whole", [False, True])
@on_jumping_clock
async def test_a_backend_that_leaves_before_its_response_is_a_503(
    down: str, how: str, whole: bool
) -> None:
    async with open_house(Plan(upstream="http")) as house:
        client = await house.client(down)
        call = await started(client, whole=whole)
        got = await (await house.backend().request()).has(1000)
        getattr(got.peer, how)()
        await call.end()
        assert call.status == b"503"
        assert call.field(b"x-stickyproxy-error") == b"UC"
        (report,) = await house.reports()
        assert report.error is not None
        assert report.error.kind is ErrorKind.UPSTREAM_CLOSED
        assert house.left_behind() == []
        if down == "h1" and not whole:
            await client.gone()  # the rest of the request has nowhere to go
            client = await house.client(down)
        await another(house, client)


@BOTH
@WAYS
@HOW
@on_jumping_clock
async def test_a_response_that_breaks_off_is_never_a_whole_one(
    down: str, up: str, how: str
) -> None:
    async with open_house(Plan(upstream=up)) as house:
        client = await house.client(down)
        call = await started(client, whole=True)
        got = await (await house.backend().request()).end()
        got.respond([*OK, (b"content-length", b"1000")])
        got.say(b"y" * 100)
        await call.has(100)
        getattr(got.peer, how)()
        await cut_off(call)
        (report,) = await house.reports()
        assert report.error is not None
        assert report.error.kind is ErrorKind.UPSTREAM_CLOSED
        assert house.left_behind() == []


@pytest.mark.parametrize("code", [H2Code.NO_ERROR, H2Code.CANCEL, H2Code.REFUSED_STREAM])
@pytest.mark.parametrize("answered", [False, True])
@on_jumping_clock
async def test_an_http1_client_hears_of_a_reset_in_its_own_words(code: int, answered: bool) -> None:
    async with open_house() as house:
        client = await house.client("h1")
        call = await started(client, whole=False)
        got = await (await house.backend().request()).has(1000)
        if answered:
            got.respond([*OK, (b"content-length", b"1000")])
            await call.headed()
        got.rst(code)
        if code == H2Code.REFUSED_STREAM and not answered:
            for number in (2, 3):
                (await (await house.backend().request(number)).has(1000)).rst(code)
        if answered:
            await cut_off(call)
        else:
            assert (await call.end()).status == b"503"
        await house.reports()
        await client.gone()
        assert house.left_behind() == []


@BOTH
@WAYS
@on_jumping_clock
async def test_the_routes_timeout_is_told_in_either_protocol(down: str, up: str) -> None:
    async with open_house(Plan(upstream=up, timeout=3)) as house:
        client = await house.client(down)
        call = await started(client, whole=True)
        got = await (await house.backend().request()).end()
        assert (await call.end()).status == b"504"
        await dead(got)
        await house.reports()
        got.peer.close()
        await another(house, client)
        assert house.left_behind() == []


@BOTH
@WAYS
@on_jumping_clock
async def test_the_end_of_a_drain_is_told_in_either_protocol(down: str, up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        client = await house.client(down)
        call = await started(client, whole=False)
        got = await (await house.backend().request()).has(1000)
        house.downstream.cancel_scope.cancel()
        assert (await call.end()).status == b"503"
        await dead(got)
        await client.gone()
        assert len(house.ended) == 1
        assert house.left_behind() == []


@BOTH
@on_jumping_clock
async def test_an_early_answer_survives_its_backends_hanging_up_on_the_upload(down: str) -> None:
    """413 and close: what we still send meets nobody, what was said before must not be lost."""
    async with open_house(Plan(upstream="http")) as house:
        client = await house.client(down)
        call = await started(client, whole=False)
        got = await (await house.backend().request()).has(1000)
        transport = house.links[0].transport
        assert isinstance(transport, Wire)
        transport.lag = 0.1
        got.respond([(b":status", b"103")])
        await call.until(lambda c: bool(c.informational))
        said = got.peer.wire.sent
        got.respond([(b":status", b"413"), (b"connection", b"close"), (b"content-length", b"3")])
        got.say(b"big", end=True)
        await got.peer.until(lambda: got.peer.wire.sent > said and not got.peer.sending)
        got.peer.close()
        call.say(b"x" * 900)  # the proxy sends this on before it reads what was said
        await call.end()
        assert (call.status, bytes(call.body)) == (b"413", b"big")
        (report,) = await house.reports()
        assert report.error is None
        assert house.left_behind() == []
