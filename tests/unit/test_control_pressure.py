"""The memory mark: refuse, send away, close the worst; and whom it does not blame."""

from __future__ import annotations

from pathlib import Path

import trio

from stickyproxy.control.pressure import Pressure, default_mark, held_by, resident
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GET, OK, POST, Plan

MARK = 100_000
BUSY = Plan(endpoints=1)


class Memory:
    def __init__(self) -> None:
        self.used = 0

    def __call__(self) -> int:
        return self.used


def pressure(house: House, memory: Memory) -> Pressure:
    return Pressure(MARK, house.context, house.watch.links, memory)


async def unread_answer(house: House, size: int) -> Call:
    """A client that asked for much, and reads nothing of it."""
    number = len(house.backend().arrived) + 1
    client = await house.client()
    client.granting = False
    call = client.request(GET, end=True)
    call.granting = False
    got = await house.backend().request(number)
    got.respond(OK)
    house.nursery.start_soon(got.send, bytes(size))
    await call.has(min(size, 65_535))
    await house.step()
    return call


@on_jumping_clock
async def test_above_the_mark_new_requests_are_told_so_and_old_ones_go_on() -> None:
    async with open_house() as house:
        memory = Memory()
        mark = pressure(house, memory)
        old = await unread_answer(house, 200_000)
        memory.used = MARK + 1
        mark.look()
        client = await house.client()
        assert (await client.request(POST, end=True).end()).status == b"503"
        assert not old.over
        memory.used = MARK - 1
        mark.look()
        call = client.request(POST, end=True)
        (await house.backend().request(2)).respond(OK, end=True)
        assert (await call.end()).status == b"200"


@on_jumping_clock
async def test_far_above_the_mark_the_worst_go_and_others_stay() -> None:
    async with open_house() as house:
        memory = Memory()
        mark = pressure(house, memory)
        modest = await house.client()
        worst = await unread_answer(house, 200_000)
        memory.used = int(MARK * 1.15)
        mark.look()
        await worst.peer.until(lambda: bool(worst.peer.goaways))
        assert not worst.over, "told to go, not thrown out"
        memory.used = int(MARK * 1.3)
        mark.look()
        await worst.peer.gone()
        assert not modest.goaways
        await house.until(lambda: len(house.server.links) == 1)
        assert house.left_behind() == []


@on_jumping_clock
async def test_memory_that_no_client_holds_is_no_reason_to_refuse_one() -> None:
    async with open_house() as house:
        memory = Memory()
        memory.used = 10 * MARK
        pressure(house, memory).look()
        client = await house.client()
        call = client.request(POST, end=True)
        (await house.backend().request()).respond(OK, end=True)
        assert (await call.end()).status == b"200"
        assert not client.goaways


@on_jumping_clock
async def test_what_a_client_does_not_read_counts_as_held() -> None:
    async with open_house() as house:
        await unread_answer(house, 400_000)
        [client_link] = house.server.links
        [backend_link] = house.links
        assert held_by(backend_link) > 30_000, "in the inbox, up to its window"
        assert held_by(client_link) + held_by(backend_link) < 300_000


@on_jumping_clock
async def test_no_mark_looks_at_nothing() -> None:
    async with open_house() as house:
        with trio.fail_after(1):
            await Pressure(0, house.context, house.watch.links).run()


def test_the_mark_is_a_share_of_the_containers_limit(tmp_path: Path) -> None:
    v2, v1 = tmp_path / "memory.max", tmp_path / "limit"
    v2.write_text("536870912\n")
    assert default_mark(1, v2, v1) == int(0.8 * 536_870_912)
    assert default_mark(4, v2, v1) == int(0.2 * 536_870_912)
    v2.write_text("max\n")
    machine = default_mark(1, v2, v1)
    assert machine > 536_870_912 or machine == 0
    v1.write_text("9223372036854771712")  # what cgroup 1 says for none
    assert default_mark(1, v2, v1) == machine


def test_what_is_used_is_what_is_resident() -> None:
    assert resident() > 10 << 20
