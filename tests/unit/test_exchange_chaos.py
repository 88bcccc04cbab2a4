"""Anything in any order: calls, resets, goodbyes, stalls, lost links. Then: nothing is left behind.

The model is one of conservation. Each call ends once and is reported once; when all are over no
link, pool or queue remembers any of them; and every credit is back, for the same connection then
carries bodies larger than all windows. No request reached backends that may have processed it more
often than its route allows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import H2Code
from stickyproxy.proxy.retries import MAX_RESENT
from stickyproxy.rules import RetryPolicy
from support import dealing
from support.clock import on_jumping_clock
from support.dealing import CODES, Dealer
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import GRPC, Plan, message
from support.rounds import doubt

LARGE = message(200_000)

RETRY = RetryPolicy(("5xx", "unavailable"), 2)

MOVES = [
    *("call", "call", "stream", "timed", "reset", "wait", "wait", "step"),
    *("hold", "grant", "stop", "go", "goaway", "kill", "down", "up", "doubt", "doubt"),
]
Action = tuple[str, int]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(MOVES),
        st.integers(0, 200_000),
    ),
    max_size=30,
)
BEHAVIOURS = st.lists(st.sampled_from(dealing.BEHAVIOURS), min_size=1)
PLANS = st.builds(
    Plan,
    endpoints=st.integers(1, 2),
    engine=st.sampled_from(["reference", "fast"]),
    upstream=st.sampled_from(["h2c", "h2c", "http"]),
    backend_limits=st.sampled_from(
        [CodecLimits(), CodecLimits(max_concurrent_streams=2), CodecLimits(link_credit=1 << 16)]
    ),
    wire=st.sampled_from([5_000, 1 << 16]),
    timeout=st.sampled_from([None, 2.0]),
    idle_timeout=st.sampled_from([None, 5.0]),
    idempotent=st.booleans(),
    retry=st.sampled_from([None, RETRY, replace(RETRY, per_try_timeout=0.5)]),
)


class Player:
    """Carries the actions out; what is pointless just now is left out."""

    def __init__(self, house: House, client: Peer, dealer: Dealer) -> None:
        self.house = house
        self.client = client
        self.calls: list[Call] = []
        self.disowned = dealer.disowned
        """Requests that a backend said it would not process."""

    def act(self, what: str, number: int) -> None:
        client, house = self.client, self.house
        peers = [peer for b in house.backends.values() for peer in b.links if not peer.wire.closed]
        if what in ("call", "stream", "timed"):
            timeout = [(b"grpc-timeout", b"%dm" % (number % 3000))] if what == "timed" else []
            if client.codec.capacity() > 0:
                self.calls.append(client.request([*GRPC, *timeout]))
                house.nursery.start_soon(self._send, self.calls[-1], number, what == "stream")
        elif what == "reset" and self.calls:
            self.calls[number % len(self.calls)].rst(CODES[number % 2])
        elif what in ("hold", "grant", "stop", "go"):
            self._throttle(what, [client, *peers][number % (len(peers) + 1)])
        elif what in ("down", "up"):
            house.backend(1).down = what == "down"
        elif what == "goaway" and peers:
            peer = peers[number % len(peers)]
            last = max((0, *peer.calls)) - 2 * (number % 2)
            peer.goaway(last)
            self.disowned += [call for call in peer.calls.values() if call.stream_id > last]
        elif what == "doubt":
            doubt(house)
        elif what == "kill" and peers:
            peer = peers[number % len(peers)]
            (peer.close if number % 2 else peer.break_off)()

    async def _send(self, call: Call, size: int, streaming: bool) -> None:
        await call.send(message(size + 5), end=not streaming)

    def _throttle(self, what: str, peer: Peer) -> None:
        if what in ("stop", "go"):
            peer.reading = what == "go"
        else:
            peer.granting = what == "grant"
            for call in peer.calls.values() if peer.granting else ():
                call.grant()


@given(PLANS, ACTIONS, BEHAVIOURS)
@settings(max_examples=60)
def test_nothing_is_left_behind_whatever_happens(
    plan: Plan, actions: list[Action], behaviours: list[str]
) -> None:
    on_jumping_clock(partial(_play, plan, actions, behaviours))()


async def _play(plan: Plan, actions: list[Action], behaviours: list[str]) -> None:
    async with open_house(plan) as house:
        client = await house.client()
        dealer = Dealer(house, behaviours)
        player = Player(house, client, dealer)
        house.nursery.start_soon(dealer.serve)
        for what, number in actions:
            player.act(what, number)
            if what == "wait":
                await trio.sleep(number / 100_000)
            elif what == "step":
                await trio.lowlevel.checkpoint()
        await _calm(house, player)
        assert len(house.ended) == len(player.calls)
        assert house.left_behind() == []
        assert max(_times_processed(house, player), default=0) <= _most(plan)
        dealer.behaviours = ["echo"]
        house.context.install(Plan(endpoints=plan.endpoints, upstream=plan.upstream).snapshot)
        await _large(client)


def _most(plan: Plan) -> int:
    """Each resend and each retry may have had a hedge beside it."""
    resent = MAX_RESENT if plan.idempotent else 0
    tries = 1 + resent + (plan.retry.num_retries or 0 if plan.retry is not None else 0)
    return 2 * tries if plan.idempotent else tries


def _times_processed(house: House, player: Player) -> list[int]:
    """How often each request came to a backend that did not disown it."""
    arrived = [got for backend in house.backends.values() for got in backend.arrived]
    counted = [got for got in arrived if all(got is not one for one in player.disowned)]
    return list(Counter(got.field(b"x-request-id") for got in counted).values())


async def _calm(house: House, player: Player) -> None:
    """Everybody reads again, the client gives up what is still open, and all is over."""
    house.backend(1).down = False
    player.act("wait", 0)
    peers = [peer for backend in house.backends.values() for peer in backend.links]
    for peer in [player.client, *peers]:
        peer.reading = peer.granting = True
        for call in list(peer.calls.values()):
            call.grant()
    await trio.sleep(2)
    for call in player.calls:
        if not call.over:
            call.rst(H2Code.CANCEL)
    for peer in peers:
        if peer.codec.protocol != "HTTP/2":
            peer.close()
    await house.until(lambda: len(house.ended) >= len(player.calls))
    await house.until(lambda: not any(link.streams for link in house.server.links))
    await trio.sleep(1)


async def _large(client: Peer) -> None:
    for attempt in range(6):
        call = client.request(GRPC)
        await call.send(LARGE, end=True)
        await call.end()
        if call.grpc_status == b"0":
            assert bytes(call.body) == LARGE
            return
        assert attempt < 5, call.head  # breakers may still be shut, links on their way out
        await trio.sleep(10)
