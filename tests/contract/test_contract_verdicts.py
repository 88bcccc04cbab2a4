"""Every violation and its verdict: an error of the stream, of the connection, or nothing at all.

Streams of the connection they are tried on: 1 open, 3 half-closed (the peer sent END_STREAM), 5 closed
by both, 7 reset by the peer, 9 reset by us, 11 skipped, 13 open, 15 and all above idle.
"""

from __future__ import annotations

import pytest

from contract.harness import REQUEST, RESPONSE, TRAILERS, Factory, RawPeer, of_type, raw_client
from contract.test_contract_laws import HTTP2
from contract.wild import PRIORITY_FLAG
from contract.wild_blocks import block
from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import H2Code
from stickyproxy.events import CodecFailed, RequestRejected, StreamReset
from support import rawframes as raw

PROTOCOL, FLOW, SIZE = H2Code.PROTOCOL_ERROR, H2Code.FLOW_CONTROL_ERROR, H2Code.FRAME_SIZE_ERROR
CLOSED, COMPRESSION, CALM = (
    H2Code.STREAM_CLOSED,
    H2Code.COMPRESSION_ERROR,
    H2Code.ENHANCE_YOUR_CALM,
)
HEAD, LAST = raw.END_HEADERS, raw.END_HEADERS | raw.END_STREAM
LIMITS = CodecLimits()
ITSELF = (1).to_bytes(4, "big") + b"\x10"


def head(stream: int, payload: bytes, flags: int = LAST) -> bytes:
    return raw.frame(raw.HEADERS, flags, stream, payload)


CONNECTION_ERRORS: dict[str, tuple[H2Code, bytes]] = {
    "4.2 frame of 16,385 bytes": (SIZE, raw.frame(raw.PING, 0, 0, bytes(16_385))),
    "4.2 padded DATA without pad length": (SIZE, raw.frame(raw.DATA, raw.PADDED, 1)),
    "4.3 HPACK index 0": (COMPRESSION, head(15, b"\x80")),
    "4.3 HPACK index out of the table": (COMPRESSION, head(15, b"\xfe")),
    "4.3 HPACK broken on a closed stream": (COMPRESSION, head(9, b"\x80")),
    "4.3 HPACK size update after a field": (COMPRESSION, head(15, block(REQUEST) + b"\x20")),
    "4.3 HPACK size above the limit": (COMPRESSION, head(15, b"\x3f\xe2\x1f")),
    "5.1 DATA on idle": (PROTOCOL, raw.data(15, b"x")),
    "5.1 RST_STREAM on idle": (PROTOCOL, raw.rst(15, 8)),
    "5.1 WINDOW_UPDATE on idle": (PROTOCOL, raw.window_update(15, 1)),
    "5.1 DATA on closed": (CLOSED, raw.data(5, b"x")),
    "5.1 HEADERS on closed": (CLOSED, head(5, block(TRAILERS))),
    "5.1.1 HEADERS on a skipped stream": (PROTOCOL, head(11, block(REQUEST))),
    "5.1.1 HEADERS on an even stream": (PROTOCOL, head(16, block(REQUEST))),
    "5.3 HEADERS depending on itself": (PROTOCOL, head(1, ITSELF, HEAD | PRIORITY_FLAG)),
    "6.1 DATA on stream 0": (PROTOCOL, raw.data(0, b"x")),
    "6.1 padding as long as its frame": (PROTOCOL, raw.frame(raw.DATA, raw.PADDED, 1, b"\x01")),
    "6.2 HEADERS on stream 0": (PROTOCOL, head(0, block(REQUEST))),
    "6.2 padding as long as its frame": (PROTOCOL, head(15, b"\x01", LAST | raw.PADDED)),
    "6.2 too short for its priority": (SIZE, head(15, b"1234", LAST | PRIORITY_FLAG)),
    "6.3 PRIORITY on stream 0": (PROTOCOL, raw.frame(raw.PRIORITY, 0, 0, bytes(5))),
    "6.3 PRIORITY of four bytes": (SIZE, raw.frame(raw.PRIORITY, 0, 15, bytes(4))),
    "6.3 PRIORITY on itself": (PROTOCOL, raw.frame(raw.PRIORITY, 0, 1, ITSELF)),
    "6.4 RST_STREAM on stream 0": (PROTOCOL, raw.rst(0, 8)),
    "6.4 RST_STREAM of three bytes": (SIZE, raw.frame(raw.RST_STREAM, 0, 1, bytes(3))),
    "6.5 SETTINGS on a stream": (PROTOCOL, raw.frame(raw.SETTINGS, 0, 1)),
    "6.5 SETTINGS of five bytes": (SIZE, raw.frame(raw.SETTINGS, 0, 0, bytes(5))),
    "6.5 SETTINGS ACK with a payload": (SIZE, raw.frame(raw.SETTINGS, raw.ACK, 0, bytes(6))),
    "6.5.2 ENABLE_PUSH 2": (PROTOCOL, raw.settings({raw.ENABLE_PUSH: 2})),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31": (FLOW, raw.settings({raw.INITIAL_WINDOW_SIZE: 2**31})),
    "6.5.2 MAX_FRAME_SIZE 16,383": (PROTOCOL, raw.settings({raw.MAX_FRAME_SIZE: 16_383})),
    "6.5.2 MAX_FRAME_SIZE 2^24": (PROTOCOL, raw.settings({raw.MAX_FRAME_SIZE: 2**24})),
    "8441 ENABLE_CONNECT_PROTOCOL 2": (PROTOCOL, raw.settings({raw.ENABLE_CONNECT_PROTOCOL: 2})),
    "6.6 PUSH_PROMISE": (
        PROTOCOL,
        raw.frame(raw.PUSH_PROMISE, HEAD, 1, bytes(4) + block(REQUEST)),
    ),
    "6.7 PING on a stream": (PROTOCOL, raw.frame(raw.PING, 0, 1, bytes(8))),
    "6.7 PING of seven bytes": (SIZE, raw.frame(raw.PING, 0, 0, bytes(7))),
    "6.8 GOAWAY on a stream": (PROTOCOL, raw.frame(raw.GOAWAY, 0, 1, bytes(8))),
    "6.8 GOAWAY of seven bytes": (SIZE, raw.frame(raw.GOAWAY, 0, 0, bytes(7))),
    "6.9 WINDOW_UPDATE of three bytes": (SIZE, raw.frame(raw.WINDOW_UPDATE, 0, 1, bytes(3))),
    "6.9 WINDOW_UPDATE of 0 for the link": (PROTOCOL, raw.window_update(0, 0)),
    "6.9.1 link window above 2^31-1": (FLOW, raw.window_update(0, 2**31 - 1)),
    "6.9.2 SETTINGS push a window too far": (
        FLOW,
        raw.window_update(1, 2**31 - 65_536) + raw.settings({raw.INITIAL_WINDOW_SIZE: 65_536}),
    ),
    "6.10 CONTINUATION alone": (PROTOCOL, raw.frame(raw.CONTINUATION, HEAD, 1)),
    "6.10 CONTINUATION alone on a reset stream": (
        PROTOCOL,
        raw.frame(raw.CONTINUATION, HEAD, 7),
    ),
    "6.10 PING inside a block": (PROTOCOL, head(15, b"", 0) + raw.ping(bytes(8))),
    "6.10 unknown type inside a block": (PROTOCOL, head(15, b"", 0) + raw.frame(0x20, 0, 15)),
    "6.10 CONTINUATION of another stream": (
        PROTOCOL,
        head(15, b"", 0) + raw.frame(raw.CONTINUATION, HEAD, 17),
    ),
    "10.5 33 SETTINGS in a frame": (CALM, raw.frame(raw.SETTINGS, 0, 0, b"\0\x99\0\0\0\1" * 33)),
    "10.5.1 list without end": (CALM, head(15, b"\x82" * 4000)),
    "10.5.1 list of too many bytes": (
        CALM,
        head(15, block([(b"x", b"v" * 4000)]) + b"\xbe" * 31),
    ),
}

STREAM_ERRORS: dict[str, tuple[int, H2Code, bytes]] = {
    "5.1 DATA on half-closed": (3, CLOSED, raw.data(3, b"x")),
    "5.1 HEADERS on half-closed": (3, CLOSED, head(3, block(TRAILERS))),
    "5.1 DATA after the peer's reset": (7, CLOSED, raw.data(7, b"x")),
    "5.1 HEADERS after the peer's reset": (7, CLOSED, head(7, block(TRAILERS))),
    "6.9.1 stream window above 2^31-1": (1, FLOW, raw.window_update(1, 2**31 - 1)),
    "8.1 a second head that does not end": (1, PROTOCOL, head(1, block(TRAILERS), HEAD)),
    "8.1 trailers with a pseudo-header": (1, PROTOCOL, head(1, block([(b":path", b"/")]))),
    "8.3 request without :path": (15, PROTOCOL, head(15, block(REQUEST[:3]))),
}

NOTHING: dict[str, bytes] = {
    "5.1 RST_STREAM on closed": raw.rst(5, 8),
    "5.1 WINDOW_UPDATE on closed": raw.window_update(5, 1),
    "5.1 PRIORITY on idle": raw.frame(raw.PRIORITY, 0, 99, bytes(5)),
    "5.1 DATA after our reset": raw.data(9, b"x"),
    "5.1 HEADERS after our reset": head(9, block(TRAILERS)),
    "5.1 WINDOW_UPDATE after our reset": raw.window_update(9, 1),
    "5.1 RST_STREAM after our reset": raw.rst(9, 8),
    "5.1 RST_STREAM twice": raw.rst(7, 8),
    "5.5 unknown type with every flag": raw.frame(0xFA, 0xFF, 1, b"junk"),
    "4.1 unknown flags": raw.frame(raw.RST_STREAM, 0xFF, 9, bytes(4)),
    "6.5 SETTINGS ACK unasked": raw.settings_ack(),
}


def connection(make: Factory) -> RawPeer:
    peer = raw_client(make)
    peer.open(1)
    peer.open(3, end=True)
    peer.open(5, end=True)
    peer.codec.send_headers(5, RESPONSE, True)
    peer.open(7)
    peer.send(raw.rst(7, 8))
    peer.open(9)
    peer.codec.reset(9, 8)
    peer.open(13)
    peer.collect()
    peer.sent.clear()
    return peer


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
@pytest.mark.parametrize("codec", HTTP2)
def test_error_of_the_connection(codec: str, name: str) -> None:
    code, frames = CONNECTION_ERRORS[name]
    peer = connection(HTTP2[codec])
    failures = of_type(peer.send(frames), CodecFailed)
    assert [failure.code for failure in failures] == [code]
    assert [frame.code for frame in peer.of(raw.GOAWAY)] == [code]


@pytest.mark.parametrize("name", STREAM_ERRORS)
@pytest.mark.parametrize("codec", HTTP2)
def test_error_of_the_stream(codec: str, name: str) -> None:
    stream, code, frames = STREAM_ERRORS[name]
    peer = connection(HTTP2[codec])
    cost = peer.codec.cost
    told = [
        event for event in peer.send(frames) if isinstance(event, StreamReset | RequestRejected)
    ]
    assert [(frame.stream, frame.code) for frame in peer.of(raw.RST_STREAM)] == [(stream, code)]
    assert [(event.stream_id, event.code) for event in told] in ([(stream, code)], [])
    assert told or stream == 7  # of which the application has heard the end
    assert peer.codec.cost >= cost + 67  # MadeYouReset (CVE-2025-8671): ours count as theirs do
    alive(peer)


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("codec", HTTP2)
def test_let_go(codec: str, name: str) -> None:
    peer = connection(HTTP2[codec])
    assert list(peer.send(NOTHING[name])) == []
    assert [frame.kind for frame in peer.collect()] == []
    assert [frame.kind for frame in peer.sent] == []
    alive(peer)


def alive(peer: RawPeer) -> None:
    """The neighbour of what went wrong goes on."""
    assert len(peer.send_data(13, b"well", end=True)) == 1
    assert peer.of(raw.GOAWAY) == []


@pytest.mark.parametrize("codec", ["fast"])  # for hyperframe it is an error of the connection
def test_window_update_of_0_is_an_error_of_its_stream(codec: str) -> None:
    peer = connection(HTTP2[codec])
    peer.send(raw.window_update(1, 0))
    assert [(frame.stream, frame.code) for frame in peer.of(raw.RST_STREAM)] == [(1, PROTOCOL)]
    alive(peer)


@pytest.mark.parametrize("first", [raw.settings_ack(), raw.ping(bytes(8)), raw.frame(0x20, 0, 0)])
@pytest.mark.parametrize("codec", HTTP2)
def test_the_first_frame_is_settings(codec: str, first: bytes) -> None:
    peer = RawPeer(HTTP2[codec](False, LIMITS), LIMITS)
    assert [e.code for e in of_type(peer.send(raw.PREFACE, first), CodecFailed)] == [PROTOCOL]
