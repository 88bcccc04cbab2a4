"""Laws of a stream that becomes another protocol's, over HTTP/2 and HTTP/1.1 alike (RFC 8441, 9110 §7.8)."""

from __future__ import annotations

from contract.harness import (
    Factory,
    Pair,
    heads,
    merged,
    of_type,
    plain,
    raw_server,
    resets,
)
from stickyproxy.codec.api import CodecLimits
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.model import Headers
from support import rawframes as raw

PIECES = (1, 7, 1 << 16)
BODY = bytes(range(256)) * 4096  # many windows of every kind
FIELDS: Headers = [(b"sec-websocket-version", b"13")]


def asking(pair: Pair) -> Headers:
    """The head of a request for an upgrade, as its protocol has it."""
    method = b"CONNECT" if pair.client.protocol == "HTTP/2" else b"GET"
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", b"svc.example"),
        (b":path", b"/chat"),
        (b":protocol", b"websocket"),
        *FIELDS,
    ]


def accepting(pair: Pair) -> Headers:
    status = b"200" if pair.client.protocol == "HTTP/2" else b"101"
    return [(b":status", status), (b"sec-websocket-protocol", b"chat")]


def joined(make: Factory, piece: int = 1 << 16) -> tuple[Pair, int]:
    """A pair with a tunnel between them."""
    pair = Pair(make, piece=piece)
    stream = pair.request(asking(pair), end=False)
    pair.server.send_headers(stream, accepting(pair), False)
    pair.run()
    return pair, stream


def law_an_upgrade_is_asked_for_and_accepted(make: Factory) -> None:
    for piece in PIECES:
        pair, stream = joined(make, piece)
        [asked] = of_type(pair.at_server, HeadReceived)
        assert asked.headers == asking(pair)
        assert not asked.end_stream
        assert merged(pair.at_client)[-1:] == [
            plain(HeadReceived(stream, accepting(pair), end_stream=False))
        ]


def law_bytes_cross_a_tunnel_both_ways_as_they_are(make: Factory) -> None:
    for piece in PIECES[1:]:
        pair, stream = joined(make, piece)
        for source, seen in ((pair.client, pair.at_server), (pair.server, pair.at_client)):
            for body in (b"\x81\x05hello", b"HTTP/1.1 200 OK\r\n\r\n", BODY):
                seen.clear()
                pair.send(source, stream, body, end=False)
                received = of_type(seen, DataReceived)
                assert b"".join(event.data for event in received) == body
                assert not any(event.end_stream for event in received)


def law_what_follows_the_accepting_head_at_once_is_not_lost(make: Factory) -> None:
    for piece in PIECES:
        pair = Pair(make, piece=piece)
        stream = pair.request(asking(pair), end=False)
        pair.server.send_headers(stream, accepting(pair), False)
        pair.server.send_data(stream, b"\x81\x02hi", False)
        pair.run()
        received = of_type(pair.at_client, DataReceived)
        assert b"".join(event.data for event in received) == b"\x81\x02hi"


def law_a_tunnel_is_held_to_its_credit(make: Factory) -> None:
    pair, stream = joined(make)
    limit = CodecLimits().stream_credit
    sent = 0
    while (room := pair.client.window(stream)) > 0 and sent < 4 * limit:
        part = min(room, 1 << 14)
        pair.client.send_data(stream, bytes(part), False)
        sent += part
        events = list(pair.server.feed(pair.client.take_output()))
        while pair.server.buffered:
            events += pair.server.resume()
        pair.at_server += events
        if pair.server.paused:
            break
    held = sum(len(event.data) for event in of_type(pair.at_server, DataReceived))
    assert held <= limit
    assert pair.server.paused or pair.client.window(stream) <= 0


def law_a_refused_upgrade_is_an_ordinary_answer(make: Factory) -> None:
    pair = Pair(make)
    stream = pair.request(asking(pair), end=False)
    pair.server.send_headers(stream, [(b":status", b"403"), (b"content-length", b"4")], False)
    pair.send(pair.server, stream, b"nope", end=True)
    assert heads(pair.at_client) == [(stream, False, None)]
    received = of_type(pair.at_client, DataReceived)
    assert [(e.data, e.end_stream) for e in received if e.data] == [
        (b"nope", received[-1].data != b"")
    ]
    assert received[-1].end_stream
    assert not resets(pair.at_client)


def law_either_side_may_end_a_tunnel(make: Factory) -> None:
    pair, stream = joined(make)
    pair.send(pair.server, stream, b"\x88\x02\x03\xe8", end=True)
    if pair.client.protocol != "HTTP/2":
        pair.at_client += pair.client.feed(b"")  # the server's end is the connection's
        assert pair.server.closing
    ends = [e for e in of_type(pair.at_client, DataReceived) if e.end_stream]
    assert len(ends) == 1
    assert not resets(pair.at_client)

    pair, stream = joined(make)
    pair.send(pair.client, stream, b"\x88\x82\0\0\0\0\x03\xe8", end=True)
    if pair.client.protocol != "HTTP/2":
        pair.at_server += pair.server.feed(b"")
    ends = [e for e in of_type(pair.at_server, DataReceived) if e.end_stream]
    assert len(ends) == 1
    assert not resets(pair.at_server)


def law_a_tunnel_ends_its_http1_connection_and_no_other(make: Factory) -> None:
    pair, stream = joined(make)
    pair.client.reset(stream, 8)
    pair.run()
    assert pair.client.closing == (pair.client.protocol != "HTTP/2")


def law_extended_connect_waits_for_the_servers_word(make: Factory) -> None:
    """RFC 8441 §3. HTTP/1.1 needs no word."""
    codec = make(True, CodecLimits())
    if codec.protocol != "HTTP/2":
        assert codec.extended_connect
        return
    assert not codec.extended_connect
    assert not raw_server(make).codec.extended_connect
    for value in (0, 1):
        peer = raw_server(make, {raw.ENABLE_CONNECT_PROTOCOL: value})
        assert peer.codec.extended_connect is bool(value)
