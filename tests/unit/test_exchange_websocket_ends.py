"""The abort grid of WebSockets: who ends one, at which moment, how; and what the other side hears.

After each of them nothing is left behind, it was reported once, and another WebSocket opens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import pytest
import trio

from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.health.outcome import Outcome
from stickyproxy.proxy.websocket import SocketResponse
from stickyproxy.wire.age import AgeLimit
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.told import told
from support.websockets import MASK, WAYS, asking, close, close_code, connected, frame, plan

both_ways = pytest.mark.parametrize(("down", "up"), WAYS)
how = pytest.mark.parametrize("how", ["close", "break_off"])


@dataclass
class Moment:
    """`got` None: no backend has heard of it."""

    house: House
    down: str
    client: Peer
    call: Call
    got: Call | None


Stage = Callable[[House, str], Awaitable[Moment]]


async def dialling(house: House, down: str) -> Moment:
    house.backend().hold = trio.Event()
    client = await house.client(down)
    call = client.request(asking(down))
    await house.until(lambda: house.backend().dials == 1)
    return Moment(house, down, client, call, None)


async def asked(house: House, down: str) -> Moment:
    client = await house.client(down)
    call = client.request(asking(down))
    return Moment(house, down, client, call, await house.backend().request())


async def between_frames(house: House, down: str) -> Moment:
    socket = await connected(house, down)
    for said, heard, mask in (
        (socket.call, socket.got, MASK),
        (socket.got, socket.call, b""),
    ):
        said.say(frame(b"hello", mask=mask))
        await heard.has(len(frame(b"hello", mask=mask)))
    return Moment(house, down, socket.client, socket.call, socket.got)


async def amid_frames(house: House, down: str) -> Moment:
    moment = await between_frames(house, down)
    assert moment.got is not None
    before = len(moment.call.body), len(moment.got.body)
    moment.call.say(frame(bytes(500), mask=MASK)[:300])
    moment.got.say(frame(bytes(500))[:300])
    await moment.call.has(before[0] + 300)
    await moment.got.has(before[1] + 300)
    return moment


async def amid_a_message(house: House, down: str) -> Moment:
    """Between two frames of one message, where a control frame may stand."""
    moment = await between_frames(house, down)
    assert moment.got is not None
    before = len(moment.call.body)
    moment.got.say(frame(bytes(50), fin=False))
    await moment.call.has(before + 52)
    return moment


OPEN = (between_frames, amid_a_message, amid_frames)
ALL = (dialling, asked, *OPEN)


def stages(*which: Stage) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", which, ids=lambda stage: stage.__name__)


async def settled(moment: Moment, kind: ErrorKind | None) -> None:
    house = moment.house
    [exchange] = await house.reports()
    assert (exchange.error and exchange.error.kind) == kind
    if house.backend().hold is not None:
        house.backend().hold.set()  # type: ignore[union-attr]
    await house.until(lambda: not house.left_behind())
    socket = await connected(house, moment.down)
    socket.got.say(frame(b"again"))
    await socket.call.has(len(frame(b"again")))


async def ended(call: Call) -> None:
    """It knows that nobody is there: reset, finished, or its connection gone."""
    await call.peer.until(lambda: call.over or call.peer.eof or call.peer.broken)


@both_ways
@how
@stages(*ALL)
@on_jumping_clock
async def test_a_client_that_leaves_is_gone_for_the_backend_too(
    stage: Stage, how: str, down: str, up: str
) -> None:
    async with open_house(plan(up)) as house:
        moment = await stage(house, down)
        getattr(moment.client, how)()
        if moment.got is not None:
            await ended(moment.got)
            moment.got.peer.close() if up == "http" else None
            assert close_code(moment.got.body) is None, "a close that nobody said"
        await settled(moment, ErrorKind.CLIENT_GONE)


@pytest.mark.parametrize("up", ["http", "h2c"])
@stages(*ALL)
@on_jumping_clock
async def test_a_clients_reset_reaches_the_backend(stage: Stage, up: str) -> None:
    async with open_house(plan(up)) as house:
        moment = await stage(house, "h2")
        moment.call.rst(H2Code.CANCEL)
        if moment.got is not None:
            await ended(moment.got)
            assert up == "http" or moment.got.reset == H2Code.CANCEL
            moment.got.peer.close() if up == "http" else None
        await settled(moment, ErrorKind.CLIENT_GONE)


@both_ways
@how
@stages(*OPEN)
@on_jumping_clock
async def test_a_backend_that_dies_is_told_where_it_can_be(
    stage: Stage, how: str, down: str, up: str
) -> None:
    async with open_house(plan(up)) as house:
        moment = await stage(house, down)
        assert moment.got is not None
        getattr(moment.got.peer, how)()
        await ended(moment.call)
        if stage is amid_frames:
            assert close_code(moment.call.body) is None
            assert moment.call.reset == (H2Code.INTERNAL_ERROR if down == "h2" else None)
        else:
            assert close_code(moment.call.body) is None, "a Close that nobody said"
            orderly = (up, how) == ("http", "close")
            assert down == "h1" or moment.call.end_stream is orderly
            assert down == "h1" or moment.call.reset == (
                H2Code.NO_ERROR if orderly else H2Code.INTERNAL_ERROR
            )
        await settled(moment, ErrorKind.UPSTREAM_CLOSED)


@pytest.mark.parametrize("up", ["http", "h2c"])
@on_jumping_clock
async def test_a_client_of_http2_that_ends_without_a_close_is_told_none(up: str) -> None:
    async with open_house(plan(up)) as house:
        moment = await between_frames(house, "h2")
        assert moment.got is not None
        before = bytes(moment.call.body)
        moment.call.say(b"", end=True)
        await moment.call.end()
        assert (bytes(moment.call.body), moment.call.end_stream) == (before, True)
        await ended(moment.got)
        moment.got.peer.close() if up == "http" else None
        await settled(moment, ErrorKind.CLIENT_GONE)
        tunnel = house.ended[0].tunnel
        assert tunnel is not None
        assert tunnel.close_code is None


@both_ways
@on_jumping_clock
async def test_a_backend_that_ends_in_good_order_is_well(down: str, up: str) -> None:
    """Many servers just close: five of those in a row are no reason to move a session."""
    async with open_house(plan(up)) as house:
        with told(house) as heard:
            moment = await between_frames(house, down)
            assert moment.got is not None
            moment.got.say(b"", end=True)
            if up == "http":
                moment.got.peer.close()
            await ended(moment.call)
            await house.reports()
            assert heard == [("10.0.0.1:80", Outcome.NEUTRAL)]
        await settled(moment, ErrorKind.UPSTREAM_CLOSED)


@both_ways
@how
@on_jumping_clock
async def test_a_backend_that_dies_before_its_answer_is_503(how: str, down: str, up: str) -> None:
    async with open_house(plan(up)) as house:
        moment = await asked(house, down)
        assert moment.got is not None
        getattr(moment.got.peer, how)()
        await moment.call.end()
        assert moment.call.status == b"503"
        await settled(moment, ErrorKind.UPSTREAM_CLOSED)


@pytest.mark.parametrize("down", ["h1", "h2"])
@stages(*OPEN)
@on_jumping_clock
async def test_a_backends_reset_reaches_a_client_of_http2_with_its_code(
    stage: Stage, down: str
) -> None:
    async with open_house(plan("h2c")) as house:
        moment = await stage(house, down)
        assert moment.got is not None
        moment.got.rst(H2Code.ENHANCE_YOUR_CALM)
        await ended(moment.call)
        if down == "h2":
            assert moment.call.reset == H2Code.ENHANCE_YOUR_CALM
        else:
            assert close_code(moment.call.body) is None, "HTTP/1.1 has no code for it"
        await settled(moment, ErrorKind.UPSTREAM_RESET)


@both_ways
@stages(*OPEN)
@on_jumping_clock
async def test_silence_is_told_to_both_sides(stage: Stage, down: str, up: str) -> None:
    async with open_house(plan(up, idle_timeout=8)) as house:
        moment = await stage(house, down)
        begun = trio.current_time()
        await ended(moment.call)
        assert 7.9 <= trio.current_time() - begun <= 10.1
        assert moment.got is not None
        await ended(moment.got)
        whole = stage is not amid_frames
        assert close_code(moment.call.body) == (1001 if whole else None)
        heard = bytes(moment.got.body[-8:])
        told = heard[:2] == b"\x88\x82" and bytes(
            byte ^ mask for byte, mask in zip(heard[6:], heard[2:6], strict=False)
        )
        assert told == ((1001).to_bytes(2, "big") if whole else False)
        moment.got.peer.close() if up == "http" else None
        await settled(moment, ErrorKind.IDLE_TIMEOUT)


@both_ways
@stages(*OPEN)
@on_jumping_clock
async def test_the_end_of_a_connections_grace_is_told_to_both_sides(
    stage: Stage, down: str, up: str
) -> None:
    cut: list[bool] = []
    async with open_house(plan(up)) as house:
        moment = await stage(house, down)
        assert moment.got is not None
        [link] = house.server.links
        age = AgeLimit(60, 30, Random(7), retired=lambda: None, cut=lambda: cut.append(True))
        house.watch.add(link, age)
        await ended(moment.call)
        await moment.client.gone()
        assert cut == [True]
        whole = stage is not amid_frames
        assert close_code(moment.call.body) == (1001 if whole else None)
        await ended(moment.got)
        assert (bytes(moment.got.body[-8:-6]) == b"\x88\x82") is whole
        moment.got.peer.close() if up == "http" else None
        await settled(moment, ErrorKind.OVERLOAD)


@both_ways
@on_jumping_clock
async def test_a_backend_that_does_not_answer_a_handshake_is_silence(down: str, up: str) -> None:
    async with open_house(plan(up, idle_timeout=8)) as house:
        moment = await asked(house, down)
        await moment.call.end()
        assert moment.call.status == b"408"
        assert moment.got is not None
        await ended(moment.got)
        moment.got.peer.close() if up == "http" else None
        await settled(moment, ErrorKind.IDLE_TIMEOUT)


@both_ways
@stages(*ALL)
@on_jumping_clock
async def test_the_end_of_a_drain_is_told_before_the_connection_closes(
    stage: Stage, down: str, up: str
) -> None:
    async with open_house(plan(up, connect_timeout=60.0)) as house:
        moment = await stage(house, down)
        house.server.drain()
        await trio.sleep(20)
        assert not moment.call.over, "a drain waits for WebSockets"
        house.downstream.cancel_scope.cancel()
        await ended(moment.call)
        await moment.client.gone()
        if stage in (dialling, asked):
            assert moment.call.status == b"503"
        else:
            assert close_code(moment.call.body) == (1001 if stage is not amid_frames else None)
        if moment.got is not None:
            await ended(moment.got)
        [exchange] = house.ended
        assert exchange.error is not None
        assert exchange.error.kind is ErrorKind.OVERLOAD
        await house.until(lambda: not house.links or up == "h2c")
        assert house.left_behind() == []


@both_ways
@on_jumping_clock
async def test_a_client_that_says_close_and_leaves_is_heard_to_its_end(down: str, up: str) -> None:
    async with open_house(plan(up)) as house:
        moment = await between_frames(house, down)
        assert moment.got is not None
        before = len(moment.got.body)
        last = frame(b"last words", mask=MASK) + close(1000, MASK)
        moment.call.say(last, end=True)
        if down == "h1":
            await house.step()
            moment.client.close()
        await moment.got.has(before + len(last))
        assert bytes(moment.got.body[before:]) == last
        if down == "h2":
            moment.got.say(close(1000), end=True)
        if up == "http":
            await house.step()
            moment.got.peer.close()
        await settled(moment, None)
        tunnel = house.ended[0].tunnel
        assert tunnel is not None
        assert tunnel.close_code == 1000


@pytest.mark.parametrize("up", ["http", "h2c"])
@on_jumping_clock
async def test_a_backend_that_does_not_answer_a_close_is_given_up(up: str) -> None:
    async with open_house(plan(up)) as house:
        moment = await between_frames(house, "h2")
        assert moment.got is not None
        begun = trio.current_time()
        moment.call.say(close(1000, MASK), end=True)
        await house.reports()
        assert trio.current_time() - begun <= 11
        await ended(moment.got)
        moment.got.peer.close() if up == "http" else None
        await settled(moment, ErrorKind.IDLE_TIMEOUT)


@both_ways
@on_jumping_clock
async def test_a_backend_that_closes_first_ends_it_well(down: str, up: str) -> None:
    async with open_house(plan(up)) as house:
        moment = await between_frames(house, down)
        assert moment.got is not None
        moment.got.say(close(4000))
        await moment.call.until(lambda call: close_code(call.body) == 4000)
        moment.call.say(close(4000, MASK))
        await moment.got.until(lambda call: bytes(call.body).endswith(close(4000, MASK)))
        moment.got.say(b"", end=True)
        if up == "http":
            moment.got.peer.close()
        await moment.call.end()
        assert moment.call.end_stream
        assert moment.call.reset in (None, H2Code.NO_ERROR)
        await settled(moment, None)
        tunnel = house.ended[0].tunnel
        assert tunnel is not None
        assert tunnel.close_code == 4000


@pytest.mark.parametrize("up", ["http", "h2c"])
@on_jumping_clock
async def test_a_client_that_closes_right_after_the_last_close_has_ended_it_well(
    up: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries do on the answer to their Close; on a busy machine both ends are read in one turn."""
    end = SocketResponse._end

    def end_and_lose_the_client(response: SocketResponse) -> None:
        end(response)
        gone = ProxyError(ErrorKind.CLIENT_GONE, Side.DOWNSTREAM, "the connection was closed")
        trio.lowlevel.current_trio_token().run_sync_soon(response._downstream.fail, gone)

    monkeypatch.setattr(SocketResponse, "_end", end_and_lose_the_client)
    async with open_house(plan(up)) as house:
        moment = await between_frames(house, "h1")
        assert moment.got is not None
        moment.call.say(close(1000, MASK), end=True)
        await moment.got.until(lambda call: close(1000, MASK) in call.body)
        moment.got.say(close(1000), end=True)
        if up == "http":
            moment.got.peer.close()
        await settled(moment, None)
