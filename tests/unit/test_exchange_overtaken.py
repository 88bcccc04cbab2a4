"""A response may begin at any moment of the request's body, and the body still arrives whole.

A backend that answers at once (gRPC's initial metadata) can overtake the task that sends the body:
between two turns of the scheduler lies as much time as the machine takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from stickyproxy.errors import H2Code
from support import rawframes as raw
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GET, OK, POST

MOMENTS = range(1, 16)
"""Counted in tasks made ready since the stream was opened; by the last, all that came is sent."""
HEAD_OK = b"\x88"  # RFC 7541 §6.1, entry 8 of the static table
REST = bytes(range(256)) * 400


class AtMoment(trio.abc.Instrument):
    """Response headers for `stream_id` arrive when a task is made ready for the `number`th time."""

    def __init__(self, house: House, stream_id: int, number: int) -> None:
        self.left = number
        self._link = house.links[0]
        self._stream_id = stream_id

    def task_scheduled(self, _: trio.lowlevel.Task) -> None:
        if self._stream_id in self._link.streams:
            self.left -= 1
            if not self.left:
                head = raw.frame(raw.HEADERS, raw.END_HEADERS, self._stream_id, HEAD_OK)
                self._link._take(head)


@contextmanager
def answered_at(house: House, stream_id: int, number: int) -> Iterator[AtMoment]:
    moment = AtMoment(house, stream_id, number)
    trio.lowlevel.add_instrument(moment)
    yield moment
    trio.lowlevel.remove_instrument(moment)


async def link_up(house: House) -> None:
    call = (await house.client()).request(GET, end=True)
    (await house.backend().request()).respond(OK, end=True)
    await call.end()


async def send_rest(call: Call, got: Call) -> None:
    """More than a window, so that all of the credit has to come back."""
    await call.send(REST, end=True)
    await got.end()


@pytest.mark.parametrize("number", MOMENTS)
@on_jumping_clock
async def test_no_byte_of_a_request_is_lost_whenever_the_response_begins(number: int) -> None:
    first = bytes(60_000)
    async with open_house() as house:
        await link_up(house)
        with answered_at(house, 3, number) as moment:
            call = house.clients[0].request(POST)
            call.say(first)
            got = await house.backend().request(2)
            await call.headed()
            assert moment.left <= 0
            await send_rest(call, got)
        assert bytes(got.body) == first + REST


@pytest.mark.parametrize("number", MOMENTS)
@on_jumping_clock
async def test_nor_of_one_that_comes_again(number: int) -> None:
    first = bytes(30_000)
    async with open_house() as house:
        await link_up(house)
        with answered_at(house, 5, number) as moment:
            call = house.clients[0].request(POST)
            call.say(first)
            (await house.backend().request(2)).rst(H2Code.REFUSED_STREAM)
            got = await house.backend().request(3)
            await call.headed()
            assert moment.left <= 0
            await send_rest(call, got)
        assert bytes(got.body) == first + REST
