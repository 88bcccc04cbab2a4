"""Laws of conservation: every byte of credit comes back once, and no window is overrun."""

from __future__ import annotations

from contract.harness import (
    DEFAULT_WINDOW,
    REQUEST,
    RESPONSE,
    Factory,
    RawPeer,
    of_type,
    raw_client,
    raw_server,
)
from stickyproxy.codec.api import CodecLimits
from stickyproxy.events import CapacityChanged, DataReceived, StreamReset, WindowOpened
from support import rawframes as raw

SMALL = CodecLimits(stream_credit=70_000, link_credit=140_000)


def law_granted_credit_is_never_lost(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    peer.open(1)
    for _ in range(40):
        for event in of_type(peer.send_data(1, b"x" * 16_000), DataReceived):
            peer.codec.grant(1, event.credit)
        peer.collect()
    # All was granted: at least half the window must be open again.
    assert peer.window(1) >= SMALL.stream_credit // 2


def law_padding_is_credited_with_its_data(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    peer.open(1)
    costs = set()
    for _ in range(800):  # three stream windows of padding
        (event,) = of_type(peer.send_data(1, b"x", padding=255), DataReceived)
        costs.add(event.credit)
        peer.codec.grant(1, event.credit)
        peer.collect()
    assert costs == {257}


def law_empty_padded_data_is_credited(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    peer.open(1)
    for _ in range(800):
        for event in of_type(peer.send_data(1, b"", padding=255), DataReceived):
            peer.codec.grant(1, event.credit)
        peer.collect()


def law_stream_credit_waits_for_its_grant(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    peer.open(1)
    events = []
    for _ in range(4):
        events += peer.send_data(1, b"x" * 16_000)
    assert peer.of(raw.WINDOW_UPDATE, 1) == []
    peer.codec.grant(1, sum(event.credit for event in of_type(events, DataReceived)))
    assert sum(f.number for f in peer.of(raw.WINDOW_UPDATE, 1)) >= 64_000


def law_stuck_streams_do_not_starve_their_link(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    for stream in range(1, 21, 2):
        peer.open(stream)
        for _ in range(4):
            peer.send_data(stream, b"x" * 16_000)


def law_late_data_after_a_reset_credits_the_link(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    for stream in range(1, 21, 2):
        peer.open(stream)
        peer.codec.reset(stream, 8)
        for _ in range(4):
            assert of_type(peer.send_data(stream, b"x" * 16_000), DataReceived) == []
    assert peer.of(raw.GOAWAY) == []


def law_late_frames_after_a_reset_are_let_go(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    peer.codec.reset(1, 8)
    events = peer.send(raw.window_update(1, 10), raw.rst(1, 8))
    assert of_type(events, StreamReset) == []
    peer.open(3)
    peer.codec.reset(3, 8)
    assert peer.send(peer.headers(3, [(b"x-sum", b"1")], end=True)) == []
    assert peer.of(raw.GOAWAY) == []


def law_more_than_the_stream_window_is_refused(make: Factory) -> None:
    peer = raw_client(make, CodecLimits(stream_credit=1000))
    peer.open(1)
    events = peer.send(raw.data(1, b"x" * 1001))
    assert of_type(events, DataReceived) == []
    ended = [f.code for f in peer.of(raw.RST_STREAM, 1) + peer.of(raw.GOAWAY)]
    assert ended == [3]  # FLOW_CONTROL_ERROR, of the stream or of the connection (§6.9.1)


def opened(peer: RawPeer) -> int:
    stream = peer.codec.open_stream(REQUEST, False)
    peer.collect()
    return stream


def sent_bytes(peer: RawPeer, stream: int) -> int:
    return sum(len(f.payload) for f in peer.of(raw.DATA, stream))


def law_window_follows_settings_even_below_nothing(make: Factory) -> None:
    peer = raw_server(make, {raw.INITIAL_WINDOW_SIZE: 10})
    stream = opened(peer)
    assert peer.codec.window(stream) == 10
    peer.codec.send_data(stream, b"0123456789", False)
    assert peer.codec.window(stream) <= 0
    peer.send(raw.settings({raw.INITIAL_WINDOW_SIZE: 4}))
    assert peer.codec.window(stream) <= 0
    peer.send(raw.window_update(stream, 5))
    assert peer.codec.window(stream) <= 0  # 4 - 10 + 5
    peer.send(raw.window_update(stream, 3))
    assert peer.codec.window(stream) == 2
    events = peer.send(raw.settings({raw.INITIAL_WINDOW_SIZE: 10}))
    assert peer.codec.window(stream) == 8
    assert of_type(events, WindowOpened)


def law_window_is_the_least_of_stream_and_link(make: Factory) -> None:
    peer = raw_server(make, {raw.INITIAL_WINDOW_SIZE: 50_000})
    first, second = opened(peer), opened(peer)
    for _ in range(5):
        peer.codec.send_data(first, b"x" * 10_000, False)
    assert peer.codec.window(first) == 0
    assert peer.codec.window(second) == DEFAULT_WINDOW - 50_000
    events = peer.send(raw.window_update(0, 5))
    assert 0 in [event.stream_id for event in of_type(events, WindowOpened)]
    assert peer.codec.window(second) == DEFAULT_WINDOW - 50_000 + 5
    events = peer.send(raw.window_update(first, 7))
    assert first in [event.stream_id for event in of_type(events, WindowOpened)]
    assert peer.codec.window(first) == 7
    assert sent_bytes(peer, first) == 50_000


def law_a_window_full_leaves_in_frames_the_peer_allows(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    room = peer.codec.window(stream)
    peer.codec.send_data(stream, b"x" * room, True)
    frames = peer.of(raw.DATA, stream)
    assert sum(len(f.payload) for f in frames) == room
    assert max(len(f.payload) for f in frames) <= 16_384
    assert [bool(f.flags & raw.END_STREAM) for f in frames].count(True) == 1
    assert frames[-1].flags & raw.END_STREAM


def law_no_stream_before_the_settings(make: Factory) -> None:
    limits = CodecLimits()
    peer = RawPeer(make(True, limits), limits)
    assert peer.codec.capacity() == 0
    events = peer.send(raw.settings({raw.MAX_CONCURRENT_STREAMS: 2}))
    assert of_type(events, CapacityChanged)
    assert peer.codec.capacity() == 2


def law_capacity_is_what_the_server_allows(make: Factory) -> None:
    peer = raw_server(make, {raw.MAX_CONCURRENT_STREAMS: 2})
    first = peer.codec.open_stream(REQUEST, True)
    assert peer.codec.capacity() == 1
    second = opened(peer)
    assert peer.codec.capacity() == 0
    peer.send(peer.headers(first, RESPONSE, end=True))
    assert peer.codec.capacity() == 1
    peer.codec.reset(second, 8)
    assert peer.codec.capacity() == 2
    events = peer.send(raw.settings({raw.MAX_CONCURRENT_STREAMS: 0}))
    assert of_type(events, CapacityChanged)
    assert peer.codec.capacity() == 0


def law_no_capacity_without_link_window(make: Factory) -> None:
    peer = raw_server(make, {raw.INITIAL_WINDOW_SIZE: 1 << 20})
    stream = opened(peer)
    for _ in range(100):  # bounded, for a window that never closes must fail and not hang
        room = max(0, peer.codec.window(stream))
        peer.codec.send_data(stream, b"x" * room, False)
    assert sent_bytes(peer, stream) == DEFAULT_WINDOW
    assert peer.codec.capacity() == 0
    peer.send(raw.window_update(0, 100))
    assert peer.codec.capacity() > 0


def law_http2_reading_never_pauses(make: Factory) -> None:
    peer = raw_client(make, SMALL)
    peer.open(1)
    for _ in range(4):
        peer.send_data(1, b"x" * 16_000)
    assert not peer.codec.paused
    assert not peer.codec.buffered
    assert list(peer.codec.resume()) == []
