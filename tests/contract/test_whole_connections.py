"""Whole connections through the proxy's own parts, one of the two sides hostile.

Whatever it says (`conversations`), it concerns its own connection: no exception leaves it (one that
reached a nursery would end the test), nothing of it is left behind, and a neighbour is answered all the
while, on the same links to the same backends, whose credit is all there afterwards: bodies larger than
every window pass.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from contract.conversations import BACKENDS, CLIENTS, STAY, STREAMS, Said, Speaker
from stickyproxy.model import Headers
from stickyproxy.wire.conduct import Conduct
from support import dealing
from support.clock import on_jumping_clock
from support.dealing import FAVOUR, Dealer
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import GET, GRPC, Plan, message
from support.wires import Wire

SOON = 2.0
"""Seconds of the test's clock, on which work takes no time: what is later was made to wait."""
PACE = SOON / 10
LARGE = 200_000
"""Bytes: more than any window there is."""
BRIEF = 5.0
"""Seconds of all timeouts."""
BEHAVIOURS = st.lists(st.sampled_from(dealing.BEHAVIOURS), min_size=1, max_size=5)
PLANS = st.builds(
    Plan,
    engine=st.sampled_from(["fast", "reference"]),
    wire=st.sampled_from([5_000, 1 << 16]),
    idempotent=st.booleans(),
    timeout=st.just(BRIEF),
    idle_timeout=st.just(BRIEF),
    body_timeout=st.just(BRIEF),
    conduct=st.just(Conduct(head_timeout=BRIEF)),
)


async def _answered(client: Peer, head: Headers, size: int) -> None:
    """A neighbour's call is, and soon."""
    sent = message(size)
    with trio.fail_after(SOON):
        call = client.request([*head, FAVOUR])
        await call.send(sent, end=True)
        await call.end()
    assert (call.grpc_status, bytes(call.body) == sent) == (b"0", True), (call.head, call.reset)


async def _nothing_left(house: House, client: Peer) -> None:
    """Only the neighbour is there, and no call is."""
    await trio.sleep(2 * BRIEF)
    assert house.left_behind() == []
    assert len(house.server.links) == 1
    assert (client.eof, client.broken, client.failed) == (False, False, None)


# --- a hostile client ---


@pytest.mark.parametrize("protocol", CLIENTS)
@given(st.data(), PLANS, st.sampled_from(sorted(BACKENDS)), BEHAVIOURS)
def test_a_client_harms_nobody_but_itself(
    protocol: str, data: st.DataObject, plan: Plan, upstream: str, behaviours: list[str]
) -> None:
    said = data.draw(CLIENTS[protocol])
    plan = replace(plan, upstream=upstream)
    on_jumping_clock(partial(_hostile_client, plan, said, behaviours))()


async def _hostile_client(plan: Plan, said: Said, behaviours: list[str]) -> None:
    async with open_house(plan) as house:
        house.nursery.start_soon(Dealer(house, behaviours, pace=PACE).serve)
        neighbour = await house.client()
        await _answered(neighbour, GRPC, 500)
        speaker, halfway = Speaker(house.raw_client(), said), trio.Event()
        house.nursery.start_soon(speaker.run, halfway)
        await halfway.wait()
        await _answered(neighbour, GRPC, 500)
        await speaker.over.wait()
        await _answered(neighbour, GRPC, LARGE)
        await _nothing_left(house, neighbour)


# --- a hostile backend ---

ENDPOINTS = 2
"""The first is hostile."""


@cache
def _users() -> dict[int, bytes]:
    """Somebody whose home is that endpoint."""
    homes: dict[int, bytes] = {}

    async def look() -> None:
        async with open_house(Plan(endpoints=ENDPOINTS, sticky=True)) as house:
            client = await house.client()
            for number in range(40):
                user = b"user-%d" % number
                client.request([*GET, (b"x-user", user)], end=True)
                await house.until(lambda: any(_has(house, n) for n in range(1, ENDPOINTS + 1)))
                home = next(n for n in range(1, ENDPOINTS + 1) if _has(house, n))
                house.backend(home).arrived.clear()
                homes[home] = user

    def _has(house: House, number: int) -> bool:
        return bool(house.backend(number).arrived)

    on_jumping_clock(look)()
    return homes


def _victims(client: Peer, user: bytes) -> list[Call]:
    """Calls for the hostile one: whole, begun, and without a body; as many as it answers."""
    kinds = ((GRPC, False), (GRPC, False), (GET, True))
    calls = [client.request([*head, (b"x-user", user)], end=end) for head, end in kinds]
    calls[0].say(message(500), end=True)
    calls[1].say(message(500)[:100])
    assert len(calls) == len(STREAMS)
    return calls


@pytest.mark.parametrize("upstream", BACKENDS)
@given(st.data(), PLANS)
def test_a_backend_harms_nobody_but_its_own_calls(
    upstream: str, data: st.DataObject, plan: Plan
) -> None:
    said = data.draw(BACKENDS[upstream])
    plan = replace(plan, upstream=upstream, endpoints=ENDPOINTS, sticky=True)
    on_jumping_clock(partial(_hostile_backend, plan, said, _users()))()


async def _hostile_backend(plan: Plan, said: Said, users: dict[int, bytes]) -> None:
    good: Headers = [*GRPC, (b"x-user", users[2])]
    async with open_house(plan) as house:
        house.nursery.start_soon(Dealer(house, ["echo"], pace=PACE).serve)
        wires: list[Wire] = []

        def dialled(wire: Wire) -> None:
            """Each of its connections goes the same way; a step later, so that requests are there."""
            wires.append(wire)
            house.nursery.start_soon(Speaker(wire, said).run)

        house.backend(1).raw = dialled
        client = await house.client()
        await _answered(client, good, 500)
        victims = _victims(client, users[1])
        await house.step()
        await _answered(client, good, 500)
        with trio.fail_after(STAY):
            for call in victims:
                await call.end()
        await _answered(client, good, LARGE)
        for wire in wires:
            wire.close()
        await _nothing_left(house, client)
