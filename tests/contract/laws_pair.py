"""Laws that hold between any client codec and its server codec, over HTTP/2 and HTTP/1.1 alike."""

from __future__ import annotations

from contract.harness import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Factory,
    Pair,
    heads,
    merged,
    of_type,
    plain,
)
from stickyproxy.codec.api import send_in_turn
from stickyproxy.events import DataReceived, HeadReceived, InformationalReceived, TrailersReceived

PIECES = (1, 7, 1 << 16)
BODY = bytes(range(256)) * 4096  # 1 MiB: many windows of every kind


def law_body_and_trailers_cross_both_ways(make: Factory) -> None:
    for piece in PIECES:
        pair = Pair(make, piece=piece)
        stream = pair.request(REQUEST, end=False)
        pair.send(pair.client, stream, b"question", end=False)
        pair.client.send_headers(stream, [(b"x-sum", b"1")], True)
        pair.run()
        assert merged(pair.at_server)[-3:] == [
            plain(HeadReceived(stream, REQUEST, end_stream=False)),
            plain(DataReceived(stream, b"question", 8, end_stream=False)),
            plain(TrailersReceived(stream, [(b"x-sum", b"1")])),
        ]
        pair.at_client.clear()
        pair.server.send_headers(stream, [(b":status", b"103"), (b"link", b"x")], False)
        pair.server.send_headers(stream, RESPONSE, False)
        pair.send(pair.server, stream, b"answer", end=False)
        pair.server.send_headers(stream, TRAILERS, True)
        pair.run()
        assert merged(pair.at_client) == [
            plain(InformationalReceived(stream, [(b":status", b"103"), (b"link", b"x")])),
            plain(HeadReceived(stream, RESPONSE, end_stream=False)),
            plain(DataReceived(stream, b"answer", 6, end_stream=False)),
            plain(TrailersReceived(stream, TRAILERS)),
        ]


def law_trailers_without_a_field_end_the_stream(make: Factory) -> None:
    pair = Pair(make)
    stream = pair.request(REQUEST, end=False)
    pair.client.send_headers(stream, [], True)
    pair.run()
    trailers, nothing = TrailersReceived(stream, []), DataReceived(stream, b"", 0, end_stream=True)
    assert plain(pair.at_server[-1]) in (plain(trailers), plain(nothing))


def law_large_bodies_cross_whole(make: Factory) -> None:
    for length in (None, len(BODY)):
        pair = Pair(make)
        extra = [] if length is None else [(b"content-length", b"%d" % length)]
        plain_request = [(b":method", b"PUT"), *REQUEST[1:4], *extra]
        stream = pair.request(plain_request, end=False)
        pair.send(pair.client, stream, BODY, end=True)
        received = of_type(pair.at_server, DataReceived)
        assert b"".join(event.data for event in received) == BODY
        assert [event.end_stream for event in received].index(True) == len(received) - 1

        pair.server.send_headers(stream, [(b":status", b"200"), *extra], False)
        pair.send(pair.server, stream, BODY, end=True)
        received = of_type(pair.at_client, DataReceived)
        assert b"".join(event.data for event in received) == BODY
        assert [event.end_stream for event in received].index(True) == len(received) - 1


def law_bodiless_messages_end_with_their_heads(make: Factory) -> None:
    for method, status in ((b"GET", b"204"), (b"HEAD", b"200"), (b"GET", b"304")):
        pair = Pair(make)
        stream = pair.request([(b":method", method), *REQUEST[1:4]], end=True)
        assert heads(pair.at_server) == [(stream, True, None)]
        pair.server.send_headers(stream, [(b":status", status)], True)
        pair.run()
        assert heads(pair.at_client) == [(stream, True, None)]


def law_streams_follow_each_other_on_one_link(make: Factory) -> None:
    pair = Pair(make)
    streams = []
    for number in range(5):
        stream = pair.request([*REQUEST, (b"x-number", b"%d" % number)], end=True)
        streams.append(stream)
        pair.server.send_headers(stream, [*RESPONSE, (b"content-length", b"2")], False)
        pair.send(pair.server, stream, b"ok", end=True)
    assert streams == [1, 3, 5, 7, 9]
    assert [stream for stream, _, _ in heads(pair.at_server)] == streams
    assert [stream for stream, _, _ in heads(pair.at_client)] == streams
    assert pair.server.last_peer_stream == 9
    assert not pair.client.closing
    assert not pair.server.closing


def law_an_answer_said_whole_is_the_one_said_bit_by_bit(make: Factory) -> None:
    for parts in ([], [b"answer"], [b"", b"an", b"swer"], [BODY[:40_000]]):
        for trailers in (None, TRAILERS):
            whole, bits = Pair(make), Pair(make)
            for pair in (whole, bits):
                stream = pair.request([*REQUEST, (b"x-again", b"1")], end=True)
                pair.at_client.clear()
            whole.server.send_whole(stream, RESPONSE, parts, trailers)
            send_in_turn(bits.server, stream, RESPONSE, parts, trailers)
            left = whole.server.window(0), bits.server.window(0)
            for pair in (whole, bits):
                pair.run()
            assert merged(whole.at_client) == merged(bits.at_client)
            assert left[0] == left[1]
            assert whole.request(REQUEST, end=True) == bits.request(REQUEST, end=True)


def law_server_may_answer_before_the_request_is_whole(make: Factory) -> None:
    pair = Pair(make)
    stream = pair.request(REQUEST, end=False)
    pair.send(pair.client, stream, b"beginning", end=False)
    pair.server.send_headers(stream, [(b":status", b"413"), (b"content-length", b"0")], True)
    pair.run()
    assert heads(pair.at_client) == [(stream, True, None)]
    pair.client.send_data(stream, b"too late", False)


def law_client_takes_no_new_stream_after_its_goaway(make: Factory) -> None:
    pair = Pair(make)
    pair.client.goaway(0, 0)
    pair.run()
    assert pair.client.closing
