"""What an Exchange is told of a link that went bad, and how it gets to another one."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.wire.pulse import doubt
from stickyproxy.wire.stream import Stream
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.plan import GRPC_OK, POST, Plan


async def opened(house: House) -> Stream:
    """A stream of ours to the backend, with no exchange behind it."""
    pool = house.pool
    waiter = pool.wait()
    await waiter.wait()
    stream = pool.open_reserved(waiter, POST, end_stream=True)
    pool.leave(waiter)
    assert stream is not None
    return stream


@on_jumping_clock
async def test_doubt_is_told_once_and_only_while_no_head_is_here() -> None:
    async with open_house() as house:
        told: list[int] = []
        first, second = await opened(house), await opened(house)
        first.on_doubt = lambda: told.append(1)
        second.on_doubt = lambda: told.append(2)
        got = await house.backend().request(2)
        got.respond(GRPC_OK)
        await house.step()
        doubt(first.link)
        doubt(first.link)
        assert told == [1]
        first.close()
        second.close()


@on_jumping_clock
async def test_a_second_try_avoids_the_link_of_the_first() -> None:
    async with open_house() as house:
        first = await opened(house)
        pool = house.pool
        assert pool.open_now(POST, end_stream=True, avoid=first.link) is None
        waiter = pool.wait(avoid=first.link)
        third = pool.open_now(POST, end_stream=True)  # nobody waits for the sake of a second try
        assert third is not None
        assert third.link is first.link
        await waiter.wait()
        second = pool.open_reserved(waiter, POST, end_stream=True)
        pool.leave(waiter)
        assert second is not None
        assert second.link is not first.link
        for stream in (first, second, third):
            stream.close()
        assert house.left_behind() == []


@pytest.mark.parametrize("after", ["wait", "assignment"])
@on_jumping_clock
async def test_a_second_try_that_is_given_up_leaves_nothing(after: str) -> None:
    async with open_house(Plan(backend_limits=CodecLimits(max_concurrent_streams=1))) as house:
        first = await opened(house)
        house.backend().hold = answers = trio.Event()
        waiter = house.pool.wait(avoid=first.link)
        if after == "assignment":
            answers.set()
            await waiter.wait()
        house.pool.leave(waiter)
        first.close()
        assert house.left_behind() == []
