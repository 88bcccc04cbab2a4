"""Streams that share a full link: each goes on, and none that leaves takes its turn along."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.wire.stream import CHUNK, Stream
from support import rawframes as raw
from support.clock import on_jumping_clock
from support.links import Joined, joined
from support.plan import POST

BODY = bytes(400_000)
WIDE = CodecLimits(stream_credit=1 << 20, link_credit=1 << 20)
"""Streams may send all; the link's room is what they share."""
NARROW = CodecLimits(stream_credit=1 << 20, link_credit=1 << 16)
"""The connection's window is what they share."""
GONE = ProxyError(ErrorKind.CLIENT_GONE, Side.DOWNSTREAM, "gone", code=H2Code.CANCEL)


class Sender:
    """A stream with a task that sends one body on it."""

    def __init__(self, both: Joined, body: bytes = BODY) -> None:
        self.body = body
        self.both = both
        self.stream: Stream = both.link.open_stream(POST, end_stream=False)
        self.scope = trio.CancelScope()
        self.error: ProxyError | None = None
        self.done = False
        both.nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                await self.stream.send_data(self.body, end_stream=True)
                self.done = True
            except ProxyError as error:
                self.error = error

    @property
    def arrived(self) -> int:
        call = self.both.peer.calls.get(self.stream.stream_id)
        return len(call.body) if call is not None else 0

    def leave(self, how: str) -> None:
        if how == "cancel":
            self.scope.cancel()
        elif how == "interrupt":
            self.stream.interrupt(GONE)
        elif how == "fail":
            self.stream.fail(GONE)
        self.stream.close()


@pytest.mark.parametrize("limits", [WIDE, NARROW], ids=["room", "window"])
@pytest.mark.parametrize("engine", ["reference", "fast"])
@on_jumping_clock
async def test_streams_that_share_a_full_link_get_even_shares(
    limits: CodecLimits, engine: str
) -> None:
    async with joined(peer_limits=limits, engine=engine, capacity=10_000) as both:
        senders = [Sender(both) for _ in range(8)]
        await both.until(lambda: all(sender.arrived for sender in senders))
        begun = [sender.arrived for sender in senders]
        while not any(sender.arrived == len(BODY) for sender in senders):
            shares = [s.arrived - before for s, before in zip(senders, begun, strict=True)]
            assert max(shares) - min(shares) <= 2 * CHUNK
            await trio.lowlevel.checkpoint()
        await both.until(lambda: all(sender.arrived == len(BODY) for sender in senders))
        assert not both.link.turns


@pytest.mark.parametrize("how", ["cancel", "interrupt", "fail"])
@pytest.mark.parametrize("limits", [WIDE, NARROW], ids=["room", "window"])
@on_jumping_clock
async def test_one_that_leaves_while_it_waits_stalls_nobody(how: str, limits: CodecLimits) -> None:
    async with joined(peer_limits=limits) as both:
        both.peer.reading = False
        senders = [Sender(both) for _ in range(5)]
        await trio.sleep(1)
        assert both.link.turns
        for sender in senders[:4]:
            sender.leave(how)
        both.peer.reading = True
        await both.until(lambda: senders[4].arrived == len(BODY))


@pytest.mark.parametrize("how", ["cancel", "interrupt", "fail"])
@on_jumping_clock
async def test_one_that_leaves_as_its_turn_comes_passes_the_turn_on(how: str) -> None:
    async with joined(peer_limits=NARROW, capacity=1 << 20) as both:
        both.peer.reading = False
        senders = [Sender(both) for _ in range(3)]
        await trio.sleep(1)
        both.link._take(raw.window_update(0, 30_000))
        (woken,) = [sender for sender in senders if sender.stream not in both.link.turns]
        woken.leave(how)
        await both.until(lambda: both.link.codec.window(0) == 0)
        assert not woken.done


@on_jumping_clock
async def test_one_that_is_reset_in_the_read_that_woke_it_passes_the_turn_on() -> None:
    """Nothing is sent for it any more, so no flush will do that by the way."""
    async with joined(peer_limits=NARROW, capacity=1 << 20) as both:
        both.peer.reading = False
        senders = [Sender(both) for _ in range(3)]
        await trio.sleep(1)
        codec = both.link.codec
        assert codec.window(0) <= 0
        first = both.link.turns[0].stream_id
        await both.peer.wire.send_all(raw.window_update(0, 30_000) + raw.rst(first, H2Code.CANCEL))
        await both.until(lambda: any(sender.error for sender in senders))
        await both.until(lambda: codec.window(0) == 0)


@on_jumping_clock
async def test_one_whose_own_window_is_shut_does_not_block_the_queue() -> None:
    limits = CodecLimits(stream_credit=20_000, link_credit=1 << 16)
    async with joined(peer_limits=limits) as both:
        both.peer.granting = False
        stuck = [Sender(both) for _ in range(3)]
        await trio.sleep(1)
        both.peer.granting = True
        free = [Sender(both) for _ in range(3)]
        await both.until(lambda: all(sender.arrived == len(BODY) for sender in free))
        assert [sender.arrived for sender in stuck] == [20_000] * 3
        for call in both.peer.calls.values():
            call.grant()
        await both.until(lambda: all(sender.arrived == len(BODY) for sender in stuck))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "cancel", "interrupt", "fail", "rst", "stop", "go", "hold", "grant", "wait"]
        ),
        st.integers(0, 5),
        st.integers(1, 90_000),
    ),
    max_size=40,
)


@given(ACTIONS, st.sampled_from([WIDE, NARROW, CodecLimits(stream_credit=20_000)]), st.booleans())
def test_whatever_happens_the_rest_arrives_whole(
    actions: list[tuple[str, int, int]], limits: CodecLimits, fast: bool
) -> None:
    """Open, cancel, reset, stop reading, hold credit back, in any order: bytes are conserved."""
    engine = "fast" if fast else "reference"
    on_jumping_clock(partial(_play, actions, limits, engine))()


async def _play(actions: list[tuple[str, int, int]], limits: CodecLimits, engine: str) -> None:
    async with joined(peer_limits=limits, engine=engine, capacity=30_000) as both:
        senders: list[Sender] = []
        for what, number, size in actions:
            _act(both, senders, what, number, size)
            if what == "wait":
                await trio.sleep(size / 1e6)
        both.peer.reading = both.peer.granting = True
        for call in both.peer.calls.values():
            call.grant()
        await both.until(lambda: all(sender.done for sender in senders))
        await both.until(lambda: all(sender.arrived == len(sender.body) for sender in senders))
        for sender in senders:
            assert bytes(both.peer.calls[sender.stream.stream_id].body) == sender.body
            sender.stream.close()
        assert not both.link.turns
        last = Sender(both)
        await both.until(lambda: last.arrived == len(BODY))


def _act(both: Joined, senders: list[Sender], what: str, number: int, size: int) -> None:
    peer = both.peer
    if what == "open":
        if both.link.codec.capacity() > 0:
            senders.append(Sender(both, b"%05d" % size * (size // 5 + 1)))
    elif what in ("stop", "go"):
        peer.reading = what == "go"
    elif what in ("hold", "grant"):
        peer.granting = what == "grant"
        if peer.granting:
            for call in peer.calls.values():
                call.grant()
    elif senders and what != "wait":
        sender = senders.pop(number % len(senders))
        if what == "rst" and sender.stream.stream_id in peer.calls:
            peer.calls[sender.stream.stream_id].rst(H2Code.CANCEL)
        else:
            sender.leave(what)
