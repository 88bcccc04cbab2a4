"""Calls that came whole: no task while they wait for the backend, and nothing lost by that."""

from __future__ import annotations

import pytest

from stickyproxy.errors import ErrorKind
from stickyproxy.proxy.response import Response
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GRPC, GRPC_END, GRPC_OK, Plan, message

CALL = message(100)


async def waiting(house: House) -> tuple[Call, Call]:
    """A call that is with the backend, whole: as its client and as its backend see it."""
    client = await house.client()
    warm = client.request(GRPC)  # connects
    warm.say(CALL, end=True)
    answer(await (await house.backend().request()).end())
    await warm.end()
    call = client.request(GRPC)
    call.say(CALL, end=True)
    return call, await (await house.backend().request(2)).end()


def answer(got: Call) -> None:
    got.respond(GRPC_OK)
    got.say(CALL)
    got.trailer(GRPC_END, end=True)


def tasks(house: House) -> int:
    (link,) = house.server.links
    nursery = link.beginnings.nursery
    assert nursery is not None
    return len(nursery.child_tasks)


@on_jumping_clock
async def test_a_call_that_waits_for_its_backend_has_no_task() -> None:
    async with open_house(Plan()) as house:
        call, got = await waiting(house)
        assert tasks(house) == 0
        answer(got)
        await call.end()
        assert (bytes(call.body), call.grpc_status) == (CALL, b"0")
        assert len(await house.reports(2)) == 2
        assert house.left_behind() == []


@on_jumping_clock
async def test_an_answer_in_parts_has_a_task_from_its_first_part_on() -> None:
    async with open_house(Plan()) as house:
        call, got = await waiting(house)
        got.respond(GRPC_OK)
        await call.headed()
        assert tasks(house) == 1
        got.say(CALL)
        got.trailer(GRPC_END, end=True)
        await call.end()
        await house.reports(2)
        assert tasks(house) == 0
        assert house.left_behind() == []


@on_jumping_clock
async def test_an_answer_larger_than_the_clients_window_waits_for_it_in_a_task() -> None:
    async with open_house(Plan()) as house:
        call, got = await waiting(house)
        call.peer.granting = False
        got.respond(GRPC_OK)
        await got.send(message(60_000))
        got.trailer(GRPC_END, end=True)
        second = call.peer.request(GRPC)
        second.say(CALL, end=True)
        again = await (await house.backend().request(3)).end()
        again.respond(GRPC_OK)
        await again.send(message(60_000))
        again.trailer(GRPC_END, end=True)
        await house.step()
        call.peer.granting = True
        for one in (call, second):
            one.grant()
        await call.end()
        await second.end()
        assert (len(call.body), len(second.body)) == (60_000, 60_000)
        await house.reports(3)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_call_without_a_task_ends_with_the_proxy() -> None:
    async with open_house(Plan()) as house:
        _, got = await waiting(house)
        house.downstream.cancel_scope.cancel()
        (_, last) = await house.reports(2)
        assert last.error is not None
        assert last.error.kind is ErrorKind.OVERLOAD
        await house.until(lambda: got.over)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_bug_while_a_whole_answer_is_relayed_ends_that_call_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house(Plan()) as house:
        call, got = await waiting(house)

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(Response, "relay_whole", broken)
            answer(got)
            await house.until(lambda: call.over)
        assert [where for _, where in house.bugs] == ["exchange"]
        house.bugs.clear()
        again = call.peer.request(GRPC)
        again.say(CALL, end=True)
        answer(await (await house.backend().request(3)).end())
        await again.end()
        assert again.grpc_status == b"0"
        await house.reports(3)
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_request_behind_what_breaks_the_connection_is_counted_and_not_begun() -> None:
    async with open_house(Plan()) as house:
        call, got = await waiting(house)
        answer(got)
        await call.end()
        client = call.peer
        client.request(GRPC).say(CALL, end=True)
        data_on_stream_0 = b"\0\0\0\0\0\0\0\0\0"
        await client.wire.send_all(client.codec.take_output() + data_on_stream_0)
        reports = await house.reports(3)
        assert reports[-1].error is not None
        assert len(house.backend().arrived) == 2
        assert house.left_behind() == []
