"""The abort grid over HTTP/2: who ends a call, at which moment, how; and what the other side hears.

After each of them nothing is left behind, the call was reported once, and the same links serve
another call whose bodies are larger than every window.
"""

from __future__ import annotations

import pytest
import trio

from stickyproxy.errors import ErrorKind, H2Code
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.plan import GRPC, GRPC_END, GRPC_OK, Plan, message
from support.stages import (
    ALL,
    ANSWERED,
    SENT,
    UNANSWERED,
    WAITING,
    Scene,
    Stage,
    amid_response,
    amid_response_message,
)

CODES = [H2Code.NO_ERROR, H2Code.INTERNAL_ERROR, H2Code.CANCEL, H2Code.ENHANCE_YOUR_CALM]
LARGE = message(300_000)


@pytest.fixture(params=["reference", "fast"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def named(value: object) -> str | None:
    return getattr(value, "__name__", None)


async def settled(scene: Scene, kind: ErrorKind | None) -> None:
    """One report, of this kind, and no trace."""
    house = scene.house
    reports = await house.reports()
    await trio.testing.wait_all_tasks_blocked()
    assert [exchange.error and exchange.error.kind for exchange in reports] == [kind]
    assert house.left_behind() == []
    backend = house.backend()
    if backend.hold is not None:
        backend.hold.set()
    for peer in backend.links:
        peer.answering = True
        peer.kick()
    await another_call(scene)
    assert len(house.ended) == 2
    assert house.left_behind() == []


async def another_call(scene: Scene) -> None:
    """More than any window in both directions, on the same client link if it is still there."""
    house, client = scene.house, scene.client
    if client.eof or client.broken or client.wire.closed:
        client = await house.client()
    seen = len(house.backend().arrived)
    links = len(house.backend().links)
    call = client.request(GRPC)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_large, call)
        got = await house.backend().request(seen + 1)
        await got.has(len(LARGE))
        got.respond(GRPC_OK)
        await got.send(LARGE)
        got.trailer(GRPC_END, end=True)
        await call.end()
    assert bytes(got.body) == bytes(call.body) == LARGE
    assert call.grpc_status == b"0"
    if not any(peer.eof or peer.broken or peer.wire.closed for peer in house.backend().links):
        assert len(house.backend().links) == max(links, 1)
    await house.until(lambda: not house.left_behind())


async def send_large(call: object) -> None:
    await call.send(LARGE, end=True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", [H2Code.CANCEL, H2Code.NO_ERROR, H2Code.STREAM_CLOSED])
@pytest.mark.parametrize("stage", ALL, ids=named)
@on_jumping_clock
async def test_a_clients_reset_reaches_the_backend_with_its_code(
    stage: Stage, code: int, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        scene.call.rst(code)
        await house.reports()
        if scene.got is not None:
            assert (await scene.got.until(lambda c: c.reset is not None)).reset == code
        await settled(scene, ErrorKind.CLIENT_GONE)


@pytest.mark.parametrize("how", ["close", "break_off"])
@pytest.mark.parametrize("stage", ALL, ids=named)
@on_jumping_clock
async def test_a_client_that_leaves_cancels_its_streams_at_the_backend(
    stage: Stage, how: str, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        getattr(scene.client, how)()
        await house.reports()
        if scene.got is not None:
            assert (await scene.got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await settled(scene, ErrorKind.CLIENT_GONE)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("stage", SENT, ids=named)
@on_jumping_clock
async def test_a_backends_reset_reaches_the_client_with_its_code(
    stage: Stage, code: int, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        scene.at_backend.rst(code)
        assert (await scene.call.end()).reset == code
        assert not scene.call.trailers
        await settled(scene, ErrorKind.UPSTREAM_RESET)


@pytest.mark.parametrize("how", ["close", "break_off"])
@pytest.mark.parametrize("stage", UNANSWERED, ids=named)
@on_jumping_clock
async def test_a_backend_that_leaves_before_its_response_is_unavailable(
    stage: Stage, how: str, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        getattr(scene.at_backend.peer, how)()
        await scene.call.end()
        assert (scene.call.status, scene.call.grpc_status) == (b"200", b"14")
        assert scene.call.frames == 1
        await settled(scene, ErrorKind.UPSTREAM_CLOSED)


@pytest.mark.parametrize("how", ["close", "break_off"])
@pytest.mark.parametrize("stage", ANSWERED, ids=named)
@on_jumping_clock
async def test_a_backend_that_leaves_amid_its_response_ends_it_as_unfinished(
    stage: Stage, how: str, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        getattr(scene.at_backend.peer, how)()
        await scene.call.end()
        if stage is amid_response_message:
            assert scene.call.reset == H2Code.INTERNAL_ERROR
        else:
            assert scene.call.grpc_status == b"14"
        await settled(scene, ErrorKind.UPSTREAM_CLOSED)


@pytest.mark.parametrize("stage", ALL, ids=named)
@on_jumping_clock
async def test_a_deadline_is_told_to_both_sides(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    async with open_house(Plan(engine=engine, connect_timeout=60)) as house:
        scene = await with_deadline(stage, house, monkeypatch)
        await scene.call.end()
        if stage is amid_response_message:
            assert scene.call.reset == H2Code.CANCEL
        else:
            assert scene.call.grpc_status == b"4"
            assert scene.call.frames == (3 if stage in ANSWERED else 1)
        if scene.got is not None:
            assert (await scene.got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await settled(scene, ErrorKind.TIMEOUT)


async def with_deadline(stage: Stage, house: House, monkeypatch: pytest.MonkeyPatch) -> Scene:
    with monkeypatch.context() as patch:
        patch.setattr("support.stages.GRPC", [*GRPC, (b"grpc-timeout", b"1S")])
        return await stage(house)


@pytest.mark.parametrize("stage", ALL, ids=named)
@on_jumping_clock
async def test_silence_ends_a_call_after_the_idle_timeout(stage: Stage, engine: str) -> None:
    async with open_house(Plan(engine=engine, idle_timeout=8, connect_timeout=60)) as house:
        scene = await stage(house)
        begun = trio.current_time()
        await scene.call.end()
        assert 7.9 <= trio.current_time() - begun <= 10.1
        if stage is amid_response_message:
            assert scene.call.reset == H2Code.INTERNAL_ERROR
        else:
            assert scene.call.grpc_status == b"14"
        if scene.got is not None:
            assert (await scene.got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await settled(scene, ErrorKind.IDLE_TIMEOUT)


@pytest.mark.parametrize("stage", ALL, ids=named)
@on_jumping_clock
async def test_the_end_of_a_drain_is_told_before_the_connection_closes(
    stage: Stage, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        house.downstream.cancel_scope.cancel()
        await scene.call.end()
        if stage is amid_response_message:
            assert scene.call.reset == H2Code.INTERNAL_ERROR
        else:
            assert scene.call.grpc_status == b"14"
        if scene.got is not None:
            assert (await scene.got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await scene.client.gone()
        assert [exchange.error and exchange.error.kind for exchange in house.ended] == [
            ErrorKind.OVERLOAD
        ]
        assert house.left_behind() == []


@pytest.mark.parametrize("stage", WAITING, ids=named)
@on_jumping_clock
async def test_a_client_that_leaves_kills_no_dial_that_others_wait_for(
    stage: Stage, engine: str
) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await stage(house)
        other = scene.client.request(GRPC, end=True)
        await house.step()
        scene.call.rst(H2Code.CANCEL)
        await house.reports()
        backend = house.backend()
        if backend.hold is not None:
            backend.hold.set()
        for peer in backend.links:
            peer.answering = True
            peer.kick()
        got = await backend.request()
        got.respond([*GRPC_OK, *GRPC_END], end=True)
        assert (await other.end()).grpc_status == b"0"
        assert backend.dials == 1
        await house.reports(2)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_reset_in_the_same_read_as_the_head_sends_nothing_to_a_backend(engine: str) -> None:
    async with open_house(Plan(engine=engine)) as house:
        client = await house.client()
        call = client.request(GRPC, end=True)
        call.rst(H2Code.CANCEL)
        reports = await house.reports()
        await house.step()
        assert [r.error and r.error.kind for r in reports] == [ErrorKind.CLIENT_GONE]
        assert house.backend().dials == 0
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_backends_words_before_it_left_are_heard_first(engine: str) -> None:
    async with open_house(Plan(engine=engine)) as house:
        scene = await amid_response(house)
        scene.at_backend.say(message(700))
        scene.at_backend.trailer(GRPC_END, end=True)
        await house.until(lambda: scene.at_backend.peer.wire.outward.total > 1200)
        scene.at_backend.peer.close()
        await scene.call.end()
        assert (len(scene.call.body), scene.call.grpc_status) == (1200, b"0")
        await house.reports()
        assert house.ended[0].error is None
