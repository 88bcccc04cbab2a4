"""Laws of the end: resets with their codes, GOAWAY that harms nobody below it, failure once."""

from __future__ import annotations

from contract.harness import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Factory,
    RawPeer,
    heads,
    merged,
    of_type,
    plain,
    raw_client,
    raw_server,
    resets,
)
from stickyproxy.codec.api import MAX_STREAM_ID
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    CodecFailed,
    DataReceived,
    Event,
    GoawayReceived,
    HeadReceived,
    PongReceived,
    TrailersReceived,
)
from support import rawframes as raw

CODES = (0, 2, 5, 7, 8, 11, 0x1234)


def law_peer_reset_keeps_its_code_at_the_server(make: Factory) -> None:
    peer = raw_client(make)
    stream = -1
    for code in CODES:
        for point in ("head", "data", "end", "answered"):
            stream += 2
            peer.open(stream, end=point in ("end", "answered"))
            if point == "data":
                peer.send_data(stream, b"x")
            if point == "answered":
                peer.codec.send_headers(stream, RESPONSE, False)
            events = peer.send(raw.rst(stream, code))
            assert resets(events) == [(stream, code, True, code == H2Code.REFUSED_STREAM)]
    assert peer.of(raw.RST_STREAM) == []


def opened(peer: RawPeer, *, end: bool = True) -> int:
    stream = peer.codec.open_stream(REQUEST, end)
    peer.collect()
    return stream


def law_peer_reset_keeps_its_code_at_the_client(make: Factory) -> None:
    peer = raw_server(make)
    for code in CODES:
        for point in ("open", "request done", "head", "data"):
            stream = opened(peer, end=point == "request done")
            if point in ("head", "data"):
                peer.send(peer.headers(stream, RESPONSE))
            if point == "data":
                peer.send(raw.data(stream, b"x"))
            events = peer.send(raw.rst(stream, code))
            assert resets(events) == [(stream, code, True, code == H2Code.REFUSED_STREAM)]
    assert peer.of(raw.RST_STREAM) == []


def law_early_answer_is_heard_before_its_reset(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer, end=False)
    events = peer.send(peer.headers(stream, RESPONSE + TRAILERS, end=True), raw.rst(stream, 0))
    assert merged(events)[0] == plain(HeadReceived(stream, RESPONSE + TRAILERS, end_stream=True))
    assert resets(events) == [(stream, 0, True, False)]


def law_our_reset_carries_its_code(make: Factory) -> None:
    peer = raw_client(make)
    stream = -1
    for code in CODES:
        for point in ("head", "end", "answered"):
            stream += 2
            peer.open(stream, end=point == "end")
            if point == "answered":
                peer.codec.send_headers(stream, RESPONSE, False)
            peer.codec.reset(stream, code)
            assert [f.code for f in peer.of(raw.RST_STREAM, stream)] == [code]
            peer.codec.reset(stream, code)
            assert len(peer.of(raw.RST_STREAM, stream)) == 1
    client = raw_server(make)
    for code in CODES:
        stream = opened(client)
        client.codec.reset(stream, code)
        assert [f.code for f in client.of(raw.RST_STREAM, stream)] == [code]


def law_sending_on_a_stream_that_is_over_is_nothing(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1, end=True)
    peer.send(raw.rst(1, 8))
    peer.codec.send_headers(1, RESPONSE, False)
    peer.codec.send_data(1, b"x", True)
    peer.codec.reset(1, 2)
    peer.codec.grant(1, 1)
    assert [f for f in peer.collect() if f.stream == 1] == []
    assert heads(peer.open(3, end=True)) == [(3, True, None)]


def law_streams_below_the_peers_goaway_run_on(make: Factory) -> None:
    peer = raw_server(make)
    low, high = opened(peer, end=False), opened(peer, end=False)
    events = peer.send(raw.goaway(low, 0, b"bye"))
    (told,) = of_type(events, GoawayReceived)
    assert (told.last_id, told.code, told.debug) == (low, 0, b"bye")
    assert [event[0] for event in resets(events)] == [high]
    assert resets(events)[0][3] is True
    assert peer.codec.capacity() == 0
    assert peer.codec.closing

    peer.codec.send_data(low, b"up", True)
    assert [f.payload for f in peer.of(raw.DATA, low)] == [b"up"]
    events = peer.send(peer.headers(low, RESPONSE), raw.data(low, b"down"))
    events += peer.send(peer.headers(low, TRAILERS, end=True))
    assert merged(events) == [
        plain(HeadReceived(low, RESPONSE, end_stream=False)),
        plain(DataReceived(low, b"down", 4, end_stream=False)),
        plain(TrailersReceived(low, TRAILERS)),
    ]
    assert peer.of(raw.GOAWAY) == []


def law_late_frames_above_the_peers_goaway_are_let_go(make: Factory) -> None:
    peer = raw_server(make)
    low, high = opened(peer, end=False), opened(peer, end=False)
    peer.send(raw.goaway(low))
    late = peer.headers(high, RESPONSE), raw.data(high, b"late"), raw.rst(high, 7)
    assert peer.send(*late) == []
    assert [f.kind for f in peer.sent if f.kind in (raw.GOAWAY, raw.RST_STREAM)] == []


def law_peers_drain_in_two_steps_loses_nothing(make: Factory) -> None:
    peer = raw_server(make)
    first, second = opened(peer), opened(peer)
    assert resets(peer.send(raw.goaway(MAX_STREAM_ID))) == []
    assert peer.codec.capacity() == 0
    assert resets(peer.send(raw.goaway(second))) == []
    for stream in (first, second):
        assert heads(peer.send(peer.headers(stream, RESPONSE, end=True))) == [(stream, True, None)]


def law_our_drain_in_two_steps_loses_nothing(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    peer.codec.goaway(MAX_STREAM_ID, 0)
    assert heads(peer.open(3, end=True)) == [(3, True, None)]  # sent before it could know
    peer.codec.goaway(peer.codec.last_peer_stream, 0)
    assert [(f.number, f.code) for f in peer.of(raw.GOAWAY)] == [(MAX_STREAM_ID, 0), (3, 0)]
    assert peer.codec.closing

    assert heads(peer.open(5)) == []
    peer.send_data(5, b"never heard")
    assert merged(peer.send_data(1, b"up", end=True)) == [
        plain(DataReceived(1, b"up", 2, end_stream=True))
    ]
    for stream in (1, 3):
        peer.codec.send_headers(stream, RESPONSE, False)
        peer.codec.send_data(stream, b"down", False)
        peer.codec.send_headers(stream, TRAILERS, True)
        kinds = [f.kind for f in peer.collect() if f.stream == stream]
        assert kinds == [raw.HEADERS, raw.DATA, raw.HEADERS]


def law_both_sides_may_leave_at_once(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer, end=False)
    peer.codec.goaway(0, 0)
    assert resets(peer.send(raw.goaway(stream))) == []
    peer.codec.send_data(stream, b"up", True)
    assert [f.payload for f in peer.of(raw.DATA, stream)] == [b"up"]
    assert heads(peer.send(peer.headers(stream, RESPONSE, end=True))) == [(stream, True, None)]


def law_clients_goaway_leaves_its_streams_alone(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    events = peer.send(raw.goaway(0))
    assert of_type(events, GoawayReceived)
    assert resets(events) == []
    assert merged(peer.send_data(1, b"up", end=True)) == [
        plain(DataReceived(1, b"up", 2, end_stream=True))
    ]
    peer.codec.send_headers(1, RESPONSE, True)
    assert [f.kind for f in peer.collect() if f.stream == 1] == [raw.HEADERS]


FATAL: dict[str, bytes] = {
    "DATA on stream 0": raw.frame(raw.DATA, 0, 0, b"x"),
    "HEADERS on an even stream": raw.frame(raw.HEADERS, raw.END_HEADERS, 2, b"\x82"),
    "PING of seven bytes": raw.frame(raw.PING, 0, 0, b"1234567"),
    "frame above the size limit": raw.frame(raw.DATA, 0, 1, bytes(16_385)),
    "WINDOW_UPDATE on an idle stream": raw.window_update(9, 1),
    "RST_STREAM on an idle stream": raw.rst(9, 8),
    "connection window above 2^31-1": raw.window_update(0, 2**31 - 1),
    "CONTINUATION alone": raw.frame(raw.CONTINUATION, raw.END_HEADERS, 1, b"\x82"),
    "broken HPACK": raw.frame(raw.HEADERS, raw.END_HEADERS, 3, b"\xff\xff\xff\xff\xff"),
    "PUSH_PROMISE from a client": raw.frame(raw.PUSH_PROMISE, raw.END_HEADERS, 1, bytes(4)),
    "SETTINGS of five bytes": raw.frame(raw.SETTINGS, 0, 0, b"12345"),
    "padding longer than its frame": raw.frame(raw.DATA, raw.PADDED, 1, b"\xff"),
    "endless CONTINUATION": raw.frame(raw.HEADERS, 0, 3, b"")
    + raw.frame(raw.CONTINUATION, 0, 3, b"") * 2000,
}


def law_a_broken_connection_fails_once_and_is_silent(make: Factory) -> None:
    for name, broken in FATAL.items():
        peer = raw_client(make)
        peer.open(1)
        failures = of_type(peer.send(broken), CodecFailed)
        assert len(failures) == 1, name
        assert [f.code for f in peer.of(raw.GOAWAY)] == [failures[0].code], name
        assert failures[0].code != 0, name
        later: list[Event] = [*peer.send(peer.headers(5, REQUEST, end=True))]
        later += peer.send(raw.ping(b"12345678"), broken)
        assert later == [], name
        peer.codec.send_headers(1, RESPONSE, True)
        peer.codec.reset(1, 2)
        peer.codec.ping(b"12345678")
        assert [f for f in peer.collect() if f.kind != raw.GOAWAY] == [], name
        assert peer.codec.closing, name


def law_frames_before_the_failure_are_told(make: Factory) -> None:
    peer = raw_client(make)
    events = peer.send(peer.headers(1, REQUEST, end=True), raw.frame(raw.PING, 0, 0, b"odd"))
    assert heads(events) == [(1, True, None)]
    assert len(of_type(events, CodecFailed)) == 1


def law_a_frame_too_large_is_refused_by_its_header(make: Factory) -> None:
    # Else a peer that announces 16 MB makes us hold 16 MB, and an HTTP/1.x answer (read as such a
    # header) makes us wait for it.
    for opening in (raw.frame(raw.DATA, 0, 1, b"")[3:], b"P/1.1 400 Bad Request\r\n\r\n"[:6]):
        for peer in (raw_client(make), raw_server(make)):
            events = peer.send(b"HTT" + opening)
            assert [event.code for event in of_type(events, CodecFailed)] == [
                H2Code.FRAME_SIZE_ERROR
            ]


def law_ping_is_answered_and_pong_is_told(make: Factory) -> None:
    for peer in (raw_client(make), raw_server(make)):
        for number in range(22):
            peer.send(raw.ping(b"%08d" % number))
        answers = [f.payload for f in peer.of(raw.PING) if f.flags & raw.ACK]
        assert answers == [b"%08d" % number for number in range(22)]
        peer.codec.ping(b"abcdefgh")
        assert [f.payload for f in peer.of(raw.PING) if not f.flags & raw.ACK] == [b"abcdefgh"]
        events = peer.send(raw.ping(b"abcdefgh", ack=True))
        assert [event.payload for event in of_type(events, PongReceived)] == [b"abcdefgh"]


def law_settings_are_acknowledged(make: Factory) -> None:
    for peer in (raw_client(make), raw_server(make)):
        before = len([f for f in peer.of(raw.SETTINGS) if f.flags & raw.ACK])
        peer.send(raw.settings({raw.MAX_FRAME_SIZE: 20_000}))
        assert len([f for f in peer.of(raw.SETTINGS) if f.flags & raw.ACK]) == before + 1


def law_push_is_refused(make: Factory) -> None:
    peer = raw_server(make)
    assert peer.setting(raw.ENABLE_PUSH) == 0
    stream = opened(peer)
    promise = (2).to_bytes(4, "big") + peer.block(REQUEST)
    events = peer.send(raw.frame(raw.PUSH_PROMISE, raw.END_HEADERS, stream, promise))
    assert [event.code for event in of_type(events, CodecFailed)] == [H2Code.PROTOCOL_ERROR]


def law_frames_of_no_meaning_are_ignored(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    priority = raw.frame(raw.PRIORITY, 0, 1, bytes(4) + b"\x10")
    unknown = b"".join(raw.frame(kind, 0xFF, 1, b"junk") for kind in (0x0B, 0x0F, 0x20, 0xFF))
    assert peer.send(priority, unknown) == []
    assert merged(peer.send_data(1, b"x", end=True)) == [
        plain(DataReceived(1, b"x", 1, end_stream=True))
    ]


def law_end_of_input_raises_nothing(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    assert heads(peer.codec.feed(b"")) == []


def law_last_peer_stream_counts_only_what_was_taken(make: Factory) -> None:
    peer = raw_client(make)
    assert peer.codec.last_peer_stream == 0
    peer.open(1)
    peer.open(5)
    assert peer.codec.last_peer_stream == 5
    peer.send(peer.headers(7, REQUEST[1:], end=True))
    assert peer.codec.last_peer_stream in (5, 7)
