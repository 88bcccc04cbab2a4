"""What the fast codec keeps, and for how long: nothing that a peer can make grow."""

from __future__ import annotations

import gc
import weakref

from contract.harness import REQUEST, RESPONSE, RawPeer, of_type, raw_client, raw_server
from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.fast import FastCodec
from stickyproxy.codec.fast_state import REMEMBERED
from stickyproxy.codec.limits import CreditMark
from stickyproxy.errors import H2Code
from stickyproxy.events import CodecFailed, DataReceived, HeadReceived, StreamReset
from support import rawframes as raw


def codec_of(peer: RawPeer) -> FastCodec:
    assert isinstance(peer.codec, FastCodec)
    return peer.codec


def test_resets_are_remembered_in_bounds() -> None:
    peer = raw_client(FastCodec)
    for stream in range(1, 6 * REMEMBERED, 2):
        peer.open(stream)
        peer.codec.reset(stream, 8)
        peer.collect()
        assert len(codec_of(peer)._resets) <= REMEMBERED


def test_late_frames_of_as_many_streams_as_we_allow_are_let_go() -> None:
    limits = CodecLimits()
    peer = raw_client(FastCodec, limits)
    streams = range(1, 2 * limits.max_concurrent_streams, 2)
    for stream in streams:
        peer.open(stream)
    for stream in streams:
        peer.codec.reset(stream, 8)
    for stream in streams:
        assert peer.send(raw.data(stream, b"late", end=True)) == []


def test_late_frames_of_a_reset_that_was_forgotten_are_let_go() -> None:
    peer = raw_client(FastCodec)
    for stream in range(1, 4 * REMEMBERED, 2):
        peer.open(stream)
        peer.codec.reset(stream, 8)
        peer.collect()
    assert 1 not in codec_of(peer)._resets
    assert peer.send(raw.data(1, b"late"), peer.headers(1, [(b"x-sum", b"1")], end=True)) == []
    assert peer.of(raw.GOAWAY) == []


def test_gaps_between_streams_are_remembered_in_bounds() -> None:
    peer = raw_client(FastCodec)
    for stream in range(5, 20 * REMEMBERED, 10):
        peer.open(stream)
        peer.codec.reset(stream, 8)
        peer.collect()
    assert len(codec_of(peer)._skipped) <= REMEMBERED
    assert [e.code for e in of_type(peer.open(7), CodecFailed)] == [H2Code.PROTOCOL_ERROR]


def test_settings_that_alternate_are_held_as_one() -> None:
    peer = raw_server(FastCodec)
    for _ in range(100):
        values = b"\0\1\0\0\0\0\0\1\0\0\x10\0" * 16
        peer.send(raw.frame(raw.SETTINGS, 0, 0, values))
    peer.sent.clear()
    peer.codec.open_stream(REQUEST, True)
    (head,) = peer.of(raw.HEADERS)
    assert head.payload.startswith(b"\x20\x3f\xe1\x1f\x83")  # none, 4096, then POST


def test_a_reset_returns_what_a_stream_borrowed() -> None:
    mark = CreditMark()
    whole = mark.left
    limits = CodecLimits()
    peer = RawPeer(FastCodec(False, limits, mark=mark), limits)
    peer.send(raw.PREFACE, raw.settings())
    peer.open(1)
    for _ in range(12):
        for event in of_type(peer.send_data(1, b"x" * 16_000), DataReceived):
            peer.codec.grant(1, event.credit)
        peer.collect()
    assert mark.left < whole
    peer.send(raw.rst(1, 8))
    assert mark.left == whole


def test_credit_is_the_ledgers_however_late_it_is_opened() -> None:
    # Up to half the window there is nothing to tell; from then on each grant counts from the start.
    limits = CodecLimits(stream_credit=1000)
    peer = RawPeer(FastCodec(False, limits), limits)
    peer.send(raw.PREFACE, raw.settings())
    peer.open(1)
    for _ in range(4):
        peer.send_data(1, b"x" * 100)
        peer.codec.grant(1, 100)
    assert peer.of(raw.WINDOW_UPDATE, 1) == []
    peer.send_data(1, b"x" * 100)
    peer.codec.grant(1, 100)
    assert [frame.number for frame in peer.of(raw.WINDOW_UPDATE, 1)] == [500]


def test_more_than_the_window_in_small_parts_is_refused() -> None:
    limits = CodecLimits(stream_credit=1000)
    peer = RawPeer(FastCodec(False, limits), limits)
    peer.send(raw.PREFACE, raw.settings())
    peer.open(1)
    events = peer.send(*[raw.data(1, b"x" * 100)] * 10, raw.data(1, b"x", end=True))
    assert len(of_type(events, DataReceived)) == 10
    assert [event.code for event in of_type(events, StreamReset)] == [H2Code.FLOW_CONTROL_ERROR]


def test_a_request_by_head_is_known_wherever_its_method_stands() -> None:
    answer = [*RESPONSE, (b"content-length", b"9")]
    for head in (
        [(b":method", b"HEAD"), *REQUEST[1:]],
        [*REQUEST[1:3], (b":method", b"HEAD"), *REQUEST[3:]],
    ):
        peer = raw_server(FastCodec)
        stream = peer.codec.open_stream(head, True)
        assert of_type(peer.send(peer.headers(stream, answer, end=True)), HeadReceived)
    peer = raw_server(FastCodec)
    stream = peer.codec.open_stream([(b":authority", b"HEAD"), *REQUEST], True)
    assert of_type(peer.send(peer.headers(stream, answer, end=True)), StreamReset)


def test_a_connection_is_gone_with_its_last_reference() -> None:
    class Watched(FastCodec):
        """Slots leave no room for weak references."""

    gc.disable()
    try:
        codec = Watched(False)
        codec.feed(raw.PREFACE + raw.settings())
        gone = weakref.ref(codec)
        del codec
        assert gone() is None  # else an idle connection would wait for the collector
    finally:
        gc.enable()
