"""Laws of HTTP/2 messages: which frames make which events, and which heads are refused how."""

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
from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    DataReceived,
    HeadReceived,
    InformationalReceived,
    RequestRejected,
    TrailersReceived,
)
from stickyproxy.model import Headers
from support import rawframes as raw

WITHOUT_PATH = [field for field in REQUEST if field[0] != b":path"]
MALFORMED: list[Headers] = [
    WITHOUT_PATH,
    [*REQUEST, (b":path", b"/")],
    [*REQUEST, (b"connection", b"close")],
    [*REQUEST, (b"transfer-encoding", b"chunked")],
    [*REQUEST, (b"te", b"chunked")],
    [*REQUEST, (b"X-Upper", b"1")],
    [*REQUEST, (b"", b"1")],
    [*REQUEST, (b"x-a", b"1\r\nx-b: 2")],
    [*REQUEST, (b"x-a", b" 1")],
    [*REQUEST, (b"content-length", b"+5")],
    [*REQUEST, (b"host", b"other.example")],
    [*WITHOUT_PATH, (b"x-a", b"1"), (b":path", b"/")],
]


def law_request_is_head_body_and_end(make: Factory) -> None:
    peer = raw_client(make)
    events = peer.open(1)
    events += peer.send_data(1, b"hello")
    events += peer.send_data(1, b" world", end=True)

    assert [plain(event) for event in events] == [
        plain(HeadReceived(1, REQUEST, end_stream=False)),
        plain(DataReceived(1, b"hello", 5, end_stream=False)),
        plain(DataReceived(1, b" world", 6, end_stream=True)),
    ]


def law_request_without_body_ends_with_its_head(make: Factory) -> None:
    assert heads(raw_client(make).open(1, end=True)) == [(1, True, None)]


def law_order_of_fields_is_kept(make: Factory) -> None:
    fields = [*REQUEST, (b"x-b", b"2"), (b"x-a", b"1"), (b"x-b", b"\xff"), (b"cookie", b"a=1")]
    fields += [(b"cookie", b"b=2"), (b"data-bin", b"AAE=,AAI")]
    peer = raw_client(make)
    (head,) = of_type(peer.open(1, fields), HeadReceived)
    assert head.headers == fields


def law_request_trailers_end_the_stream(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    peer.send_data(1, b"x")
    events = peer.send(peer.headers(1, [(b"x-sum", b"1")], end=True))
    assert [plain(e) for e in events] == [plain(TrailersReceived(1, [(b"x-sum", b"1")]))]


def opened(peer: RawPeer, *, end: bool = True) -> int:
    stream = peer.codec.open_stream(REQUEST, end)
    peer.collect()
    return stream


def law_response_is_head_body_and_trailers(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    events = peer.send(
        peer.headers(stream, RESPONSE),
        raw.data(stream, b"abc"),
        peer.headers(stream, TRAILERS, end=True),
    )
    assert [plain(event) for event in events] == [
        plain(HeadReceived(stream, RESPONSE, end_stream=False)),
        plain(DataReceived(stream, b"abc", 3, end_stream=False)),
        plain(TrailersReceived(stream, TRAILERS)),
    ]


def law_trailers_only_is_one_head(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    fields = RESPONSE + TRAILERS
    events = peer.send(peer.headers(stream, fields, end=True))
    assert [plain(e) for e in events] == [plain(HeadReceived(stream, fields, end_stream=True))]


def law_head_then_trailers_without_data(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    events = peer.send(peer.headers(stream, RESPONSE), peer.headers(stream, TRAILERS, end=True))
    assert merged(events) == [
        plain(HeadReceived(stream, RESPONSE, end_stream=False)),
        plain(TrailersReceived(stream, TRAILERS)),
    ]


def law_informational_heads_come_before_the_head(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    hint = [(b":status", b"103"), (b"link", b"</a>; rel=preload")]
    events = peer.send(
        peer.headers(stream, [(b":status", b"100")]),
        peer.headers(stream, hint),
        peer.headers(stream, RESPONSE, end=True),
    )
    assert merged(events) == [
        plain(InformationalReceived(stream, [(b":status", b"100")])),
        plain(InformationalReceived(stream, hint)),
        plain(HeadReceived(stream, RESPONSE, end_stream=True)),
    ]


def law_empty_data_ends_a_stream_only_with_its_flag(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    silent = peer.send_data(1, b"")
    assert all(not event.end_stream for event in of_type(silent, DataReceived))
    assert merged(peer.send_data(1, b"", end=True)) == [
        plain(DataReceived(1, b"", 0, end_stream=True))
    ]


def law_end_comes_from_the_frame_and_not_from_content_length(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    fields = [*RESPONSE, (b"content-length", b"0")]
    assert heads(peer.send(peer.headers(stream, fields))) == [(stream, False, None)]
    events = peer.send(peer.headers(stream, TRAILERS, end=True))
    assert merged(events) == [plain(TrailersReceived(stream, TRAILERS))]


def law_head_answer_may_promise_a_body_it_has_not(make: Factory) -> None:
    peer = raw_server(make)
    fields = [(b":method", b"HEAD"), *REQUEST[1:]]
    stream = peer.codec.open_stream(fields, True)
    peer.collect()
    answer = [(b":status", b"200"), (b"content-length", b"1234")]
    assert heads(peer.send(peer.headers(stream, answer, end=True))) == [(stream, True, None)]


def law_an_answer_that_has_no_body_is_held_to_it(make: Factory) -> None:
    # RFC 9113 §8.1.1; over HTTP/1.1 the bytes would be taken for the next answer.
    head = [(b":method", b"HEAD"), *REQUEST[1:]]
    for request, status in ((head, b"200"), (REQUEST, b"204"), (REQUEST, b"304")):
        peer = raw_server(make)
        for body in (b"", b"x"):
            stream = peer.codec.open_stream(request, True)
            peer.collect()
            peer.send(peer.headers(stream, [(b":status", status), (b"content-length", b"1")]))
            events = peer.send(raw.data(stream, body, end=True))
            told = [(stream, H2Code.PROTOCOL_ERROR, False, False)] if body else []
            assert resets(events) == told
            assert len(of_type(events, DataReceived)) == (not body)


def law_what_is_sent_is_what_was_said(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1, end=True)
    peer.codec.send_headers(1, [(b":status", b"103"), (b"link", b"x")], False)
    peer.codec.send_headers(1, RESPONSE, False)
    peer.codec.send_data(1, b"abc", False)
    peer.codec.send_headers(1, TRAILERS, True)
    frames = [f for f in peer.collect() if f.stream == 1]

    assert [f.kind for f in frames] == [raw.HEADERS, raw.HEADERS, raw.DATA, raw.HEADERS]
    assert [bool(f.flags & raw.END_STREAM) for f in frames] == [False, False, False, True]
    assert frames[2].payload == b"abc"
    blocks = [peer.fields(f.payload) for f in frames if f.kind == raw.HEADERS]
    assert blocks == [[(b":status", b"103"), (b"link", b"x")], RESPONSE, TRAILERS]


def law_trailers_only_is_sent_as_one_frame(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1, end=True)
    peer.codec.send_headers(1, RESPONSE + TRAILERS, True)
    (frame,) = [f for f in peer.collect() if f.stream == 1]
    assert frame.kind == raw.HEADERS
    assert frame.flags & raw.END_STREAM
    assert peer.fields(frame.payload) == RESPONSE + TRAILERS


def law_large_head_crosses_in_continuation_both_ways(make: Factory) -> None:
    fields = [*REQUEST, *((b"x-%02d" % n, b"v" * 1100) for n in range(50))]
    peer = raw_client(make)
    (head,) = of_type(peer.send(peer.headers(1, fields, end=True)), HeadReceived)
    assert head.headers == fields
    assert head.fault is None
    peer.codec.send_headers(1, [*RESPONSE, *fields[len(REQUEST) :]], True)
    frames = [f for f in peer.collect() if f.stream == 1]
    assert [f.kind for f in frames[:2]] == [raw.HEADERS, raw.CONTINUATION]
    assert max(len(f.payload) for f in frames) <= 16_384
    block = b"".join(f.payload for f in frames)
    assert peer.fields(block) == [*RESPONSE, *fields[len(REQUEST) :]]


def law_oversize_list_is_told_and_answerable(make: Factory) -> None:
    too_many = [*REQUEST, *((b"x-%d" % n, b"v") for n in range(100))]
    too_long = [*REQUEST, *((b"x-%d" % n, b"v" * 2000) for n in range(31))]
    peer = raw_client(make)
    for stream, fields in ((1, too_many), (3, too_long)):
        events = peer.send(peer.headers(stream, fields, end=True))
        assert heads(events) == [(stream, True, "headers_too_large")]
        peer.codec.send_headers(stream, [(b":status", b"431")], True)
        assert [f.kind for f in peer.collect() if f.stream == stream] == [raw.HEADERS]
    assert heads(peer.open(5, end=True)) == [(5, True, None)]


def law_malformed_request_costs_its_stream_only(make: Factory) -> None:
    peer = raw_client(make)
    peer.open(1)
    for index, fields in enumerate(MALFORMED):
        stream = 3 + 2 * index
        events = peer.send(peer.headers(stream, fields, end=True))
        (rejected,) = of_type(events, RequestRejected)
        assert (rejected.stream_id, rejected.code, rejected.status) == (stream, 1, 400)
        assert heads(events) == []
        assert [f.code for f in peer.of(raw.RST_STREAM, stream)] == [H2Code.PROTOCOL_ERROR]
    assert peer.of(raw.GOAWAY) == []
    assert merged(peer.send_data(1, b"alive", end=True)) == [
        plain(DataReceived(1, b"alive", 5, end_stream=True))
    ]
    assert heads(peer.open(101, end=True)) == [(101, True, None)]


def law_malformed_response_costs_its_stream_only(make: Factory) -> None:
    peer = raw_server(make)
    bad: list[Headers] = [
        [(b"server", b"x")],
        [(b":status", b"20x")],
        [*RESPONSE, (b"connection", b"close")],
        [*RESPONSE, (b"x-a", b"1\n2")],
        [(b":status", b"101")],
    ]
    for fields in bad:
        stream = opened(peer)
        events = peer.send(peer.headers(stream, fields))
        assert resets(events) == [(stream, H2Code.PROTOCOL_ERROR, False, False)]
        assert [f.code for f in peer.of(raw.RST_STREAM, stream)] == [H2Code.PROTOCOL_ERROR]
    stream = opened(peer)
    assert heads(peer.send(peer.headers(stream, RESPONSE, end=True))) == [(stream, True, None)]


def law_malformed_trailers_reset_their_stream(make: Factory) -> None:
    peer = raw_client(make)
    for stream, fields, end in (
        (1, [(b":path", b"/")], True),
        (3, [(b"connection", b"x")], True),
        (5, [(b"x-a", b"1")], False),
    ):
        peer.open(stream)
        events = peer.send(peer.headers(stream, fields, end=end))
        assert resets(events) == [(stream, H2Code.PROTOCOL_ERROR, False, False)]
        assert [f.code for f in peer.of(raw.RST_STREAM, stream)] == [H2Code.PROTOCOL_ERROR]
    assert peer.of(raw.GOAWAY) == []


def law_body_against_content_length_resets_its_stream(make: Factory) -> None:
    peer = raw_client(make)
    cases = [(b"0", b"x", False), (b"50", b"short", True), (b"3", b"long", False)]
    for index, (length, body, end) in enumerate(cases):
        stream = 1 + 2 * index
        peer.open(stream, [*REQUEST, (b"content-length", length)])
        events = peer.send_data(stream, body, end=end)
        assert resets(events) == [(stream, H2Code.PROTOCOL_ERROR, False, False)]
        assert of_type(events, DataReceived) == [] or not end
    peer.open(7, [*REQUEST, (b"content-length", b"5")])
    events = peer.send(peer.headers(7, TRAILERS, end=True))
    assert resets(events) == [(7, H2Code.PROTOCOL_ERROR, False, False)]
    events = peer.open(9, [*REQUEST, (b"content-length", b"5")], end=True)
    assert heads(events) == []
    for stream in (1, 3, 5, 7, 9):
        assert [f.code for f in peer.of(raw.RST_STREAM, stream)] == [H2Code.PROTOCOL_ERROR]
    assert peer.of(raw.GOAWAY) == []
    peer.open(11, [*REQUEST, (b"content-length", b"5")])
    assert merged(peer.send_data(11, b"right", end=True)) == [
        plain(DataReceived(11, b"right", 5, end_stream=True))
    ]


def law_response_against_content_length_resets_its_stream(make: Factory) -> None:
    peer = raw_server(make)
    stream = opened(peer)
    peer.send(peer.headers(stream, [*RESPONSE, (b"content-length", b"9")]))
    events = peer.send(raw.data(stream, b"short", end=True))
    assert resets(events) == [(stream, H2Code.PROTOCOL_ERROR, False, False)]


def law_streams_over_the_limit_are_refused_alone(make: Factory) -> None:
    peer = raw_client(make, CodecLimits(max_concurrent_streams=2))
    peer.open(1)
    peer.open(3)
    (rejected,) = of_type(peer.open(5, end=True), RequestRejected)
    assert (rejected.stream_id, rejected.code) == (5, H2Code.REFUSED_STREAM)
    assert [f.code for f in peer.of(raw.RST_STREAM, 5)] == [H2Code.REFUSED_STREAM]
    assert merged(peer.send_data(1, b"x", end=True)) == [
        plain(DataReceived(1, b"x", 1, end_stream=True))
    ]
    peer.codec.send_headers(1, RESPONSE, True)
    assert heads(peer.open(7, end=True)) == [(7, True, None)]
    assert peer.of(raw.GOAWAY) == []


def law_server_announces_its_limits(make: Factory) -> None:
    limits = CodecLimits(max_concurrent_streams=77, stream_credit=70_000)
    peer = raw_client(make, limits)
    assert peer.setting(raw.MAX_CONCURRENT_STREAMS) == 77
    assert peer.setting(raw.INITIAL_WINDOW_SIZE) == 70_000
    assert peer.setting(raw.MAX_HEADER_LIST_SIZE) == limits.max_header_list
    assert peer.setting(raw.ENABLE_CONNECT_PROTOCOL) == 1
    assert peer.link_window == limits.link_credit
