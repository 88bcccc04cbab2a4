"""HTTP/1.1 behind the codec seam, both roles, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    CodecFailed,
    DataReceived,
    Event,
    HeadReceived,
    InformationalReceived,
    RequestRejected,
    StreamReset,
    TrailersReceived,
)
from stickyproxy.model import Headers

HOST = b"Host: svc.example\r\n"
OK: Headers = [(b":status", b"200")]
GET: Headers = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"svc.example"),
    (b":path", b"/a?b"),
]
POST: Headers = [(b":method", b"POST"), *GET[1:]]
SMALL = CodecLimits(stream_credit=10)


def server(limits: CodecLimits | None = None, scheme: str = "http") -> Http1Codec:
    return Http1Codec(False, limits or CodecLimits(), scheme=scheme)


def client(
    headers: Headers = GET, *, end: bool = True, limits: CodecLimits | None = None
) -> Http1Codec:
    """A client codec with its first request under way and its output taken."""
    codec = Http1Codec(True, limits or CodecLimits())
    codec.open_stream(headers, end)
    codec.take_output()
    return codec


def head(events: Iterable[Event]) -> HeadReceived:
    (found,) = (event for event in events if isinstance(event, HeadReceived))
    return found


def body(events: Iterable[Event]) -> tuple[bytes, bool]:
    """All body bytes and whether the body ended."""
    parts = [event for event in events if isinstance(event, DataReceived)]
    return b"".join(part.data for part in parts), any(part.end_stream for part in parts)


def reset(events: Iterable[Event]) -> tuple[int, int, bool]:
    (found,) = (event for event in events if isinstance(event, StreamReset))
    return found.stream_id, found.code, found.by_peer


def flags(codec: Http1Codec) -> set[str]:
    """What the codec says of itself at this moment."""
    return {flag for flag in ("buffered", "paused", "closing") if getattr(codec, flag)}


def respond(codec: Http1Codec, stream: int, headers: Headers, content: bytes = b"") -> bytes:
    """Send a whole response and take what goes out."""
    codec.send_headers(stream, headers, not content)
    if content:
        codec.send_data(stream, content, True)
    return codec.take_output()


# --- requests in ---


def test_request_head_has_pseudo_form() -> None:
    codec = server(scheme="https")
    got = head(codec.feed(b"GET /a?b HTTP/1.1\r\n" + HOST + b"X-Name:  V \r\nAccept: a\r\n\r\n"))
    assert got.stream_id == 1
    assert got.end_stream
    assert got.headers == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"svc.example"),
        (b":path", b"/a?b"),
        (b"x-name", b"V"),
        (b"accept", b"a"),
    ]
    assert codec.protocol == "HTTP/1.1"


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        (b"http://other.example/p?q", b"other.example", b"/p?q"),
        (b"http://other.example", b"other.example", b"/"),
        (b"HTTPS://other.example?q", b"other.example", b"/?q"),
    ],
)
def test_absolute_target_names_the_authority(target: bytes, authority: bytes, path: bytes) -> None:
    got = dict(head(server().feed(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")).headers)
    assert got[b":authority"] == authority
    assert got[b":path"] == path
    assert got[b":scheme"] == b"http"
    assert b"host" not in got


@pytest.mark.parametrize("target", [b"*", b"http://svc.example"])
def test_options_for_the_whole_server_is_an_asterisk(target: bytes) -> None:
    got = head(server().feed(b"OPTIONS " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"))
    assert (b":path", b"*") in got.headers


def test_hop_by_hop_fields_and_what_connection_names_stay_behind() -> None:
    got = head(
        server().feed(
            b"GET / HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, X-Hop, authorization\r\n"
            b"Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nX-Hop: 1\r\n"
            b"HTTP2-Settings: AAMAAABk\r\nTE: deflate, trailers\r\nAuthorization: b\r\n\r\n"
        )
    )
    assert got.headers[4:] == [(b"te", b"trailers"), (b"authorization", b"b")]


def test_te_without_trailers_is_dropped() -> None:
    got = head(server().feed(b"GET / HTTP/1.1\r\n" + HOST + b"TE: deflate\r\n\r\n"))
    assert len(got.headers) == 4


def test_body_by_content_length_ends_with_its_last_byte() -> None:
    codec = server()
    events = codec.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhel")
    assert not head(events).end_stream
    assert (b"content-length", b"5") in head(events).headers
    assert body(events) == (b"hel", False)
    assert body(codec.feed(b"lo")) == (b"lo", True)


def test_chunked_body_with_trailers_comes_as_body_and_trailers() -> None:
    events = server().feed(
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 9\r\nContent-Length: 7\r\n\r\n"
    )
    assert body(events) == (b"abcde", False)
    assert isinstance(events[-1], TrailersReceived)
    assert events[-1].headers == [(b"x-sum", b"9")]
    assert all(name != b"transfer-encoding" for name, _ in head(events).headers)


def test_empty_lines_before_a_request_are_skipped() -> None:
    codec = server()
    events = [
        event for byte in b"\r\n\r\nGET / HTTP/1.1\r\n" for event in codec.feed(bytes([byte]))
    ]
    assert events == []
    assert head(codec.feed(HOST + b"\r\n")).end_stream


def test_expectation_is_forwarded_and_its_answer_relayed() -> None:
    codec = server()
    got = head(
        codec.feed(
            b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        )
    )
    assert (b"expect", b"100-continue") in got.headers
    codec.send_headers(1, [(b":status", b"100")], False)
    assert codec.take_output() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert body(codec.feed(b"x")) == (b"x", True)
    assert respond(codec, 1, OK).startswith(b"HTTP/1.1 200 OK\r\n")


# --- refusals ---

REFUSED: dict[str, tuple[bytes, int]] = {
    "content-length with transfer-encoding": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "two different content-length": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        400,
    ),
    "two equal content-length": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        400,
    ),
    "content-length list": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\n", 400),
    "content-length +5": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\n", 400),
    "other coding": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    ),
    "coding twice": (
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        501,
    ),
    "coding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "folded line": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n c\r\n\r\n", 400),
    "bare LF in the head": (b"GET / HTTP/1.1\r\nHost: a\nX-B: c\r\n\r\n", 400),
    "bare LF all over": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare CR in a value": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\rc\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A : b\r\n\r\n", 400),
    "space before the first field": (b"GET / HTTP/1.1\r\n " + HOST + b"\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A\r\n\r\n", 400),
    "empty name": (b"GET / HTTP/1.1\r\n" + HOST + b": b\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\0c\r\n\r\n", 400),
    "control in a value": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\x01c\r\n\r\n", 400),
    "# in the target": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "obs-text in the target": (b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "other scheme": (b"GET ftp://svc.example/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "userinfo": (b"GET http://u:p@svc.example/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n", 400),
    "empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "slash in host": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    "junk version": (b"GET / HTTQ/1.1\r\n" + HOST + b"\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", 400),
    "CONNECT": (b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n", 501),
    "101 fields": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n" * 100 + b"\r\n", 431),
    "a long list": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: %s\r\n\r\n" % (b"v" * 61_440), 431),
    "an endless line": (b"GET /" + b"a" * 61_440, 431),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("piecewise", [False, True])
def test_refused_request_is_answered_and_ends_the_connection(name: str, *, piecewise: bool) -> None:
    wire, status = REFUSED[name]
    codec = server()
    size = 1 if piecewise and len(wire) < 2000 else len(wire)
    events = [e for at in range(0, len(wire), size) for e in codec.feed(wire[at : at + size])]
    (rejected,) = events
    assert isinstance(rejected, RequestRejected)
    assert (rejected.stream_id, rejected.status) == (1, status)
    output = codec.take_output()
    assert output.startswith(b"HTTP/1.1 %d " % status)
    assert output.endswith(b"content-length: 0\r\nconnection: close\r\n\r\n")
    assert codec.closing
    assert codec.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") == []
    assert codec.feed(b"") == []
    assert codec.take_output() == b""


def test_refused_request_is_known_by_method_and_path() -> None:
    (rejected,) = server().feed(b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n")
    assert isinstance(rejected, RequestRejected)
    assert rejected.headers == [(b":method", b"GET"), (b":path", b"/a#b")]


CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"x\r\n",
        b"-1\r\n",
        b"3\r\nabcd\r\n",
        b"3\nabc\r\n",
        b"0\r\n\n",
        b"0\r\nX-A: b\n\r\n",
        b"0\r\nX-A: b\r\n c\r\n\r\n",
        b"0\r\n X-A: b\r\n\r\n",
        b"0\r\nX-A : b\r\n\r\n",
        b"0\r\nX-A: b\nX-B: c\r\n\r\n",
        b"0\r\n" + b"X-A: b\r\n" * 101 + b"\r\n",
        b"0\r\nX-A: %s\r\n\r\n" % (b"v" * 61_440),
        b"1;%s" % (b"x" * 61_441),
    ],
)
@pytest.mark.parametrize("piecewise", [False, True])
def test_broken_chunks_reset_the_stream_and_answer_400(rest: bytes, *, piecewise: bool) -> None:
    codec = server()
    codec.feed(CHUNKED + b"2\r\nok\r\n")
    size = 1 if piecewise and len(rest) < 2000 else len(rest)
    events = [e for at in range(0, len(rest), size) for e in codec.feed(rest[at : at + size])]
    assert reset(events) == (1, H2Code.PROTOCOL_ERROR, False)
    assert not any(isinstance(e, TrailersReceived) or body([e])[1] for e in events)
    assert codec.take_output().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert codec.closing


def test_broken_chunks_after_the_response_began_add_nothing_to_it() -> None:
    codec = server()
    codec.feed(CHUNKED)
    codec.send_headers(1, OK, False)
    codec.take_output()
    assert reset(codec.feed(b"junk\r\n"))[1] == H2Code.PROTOCOL_ERROR
    assert codec.take_output() == b""


# --- responses out ---


def get(line: bytes = b"GET / HTTP/1.1", fields: bytes = b"") -> Http1Codec:
    codec = server()
    codec.feed(line + b"\r\n" + HOST + fields + b"\r\n")
    return codec


def test_response_of_known_length_keeps_it() -> None:
    codec = get()
    assert respond(codec, 1, [*OK, (b"content-length", b"2")], b"hi") == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    )
    assert not codec.closing


def test_response_of_unknown_length_is_chunked() -> None:
    output = respond(get(), 1, OK, b"hi")
    assert output == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


def test_response_to_http_1_0_ends_with_the_connection() -> None:
    codec = get(b"GET / HTTP/1.0", b"Connection: keep-alive\r\n")
    assert codec.protocol == "HTTP/1.0"
    codec.send_headers(1, [(b":status", b"103")], False)
    codec.send_headers(1, OK, False)
    codec.send_data(1, b"hi", False)
    codec.send_headers(1, [(b"x-sum", b"1")], True)
    assert codec.take_output() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"
    assert codec.closing


def test_trailers_need_chunks_and_get_them_when_expected() -> None:
    for announced in ([(b"content-type", b"application/grpc")], [(b"trailer", b"x-sum")]):
        codec = get()
        codec.send_headers(1, [*OK, *announced, (b"content-length", b"2")], False)
        codec.send_data(1, b"hi", False)
        codec.send_headers(1, [(b"x-sum", b"1"), (b"content-length", b"9")], True)
        output = codec.take_output()
        assert b"content-length" not in output
        assert output.endswith(b"2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n")
        assert not codec.closing


def test_trailers_that_cannot_be_sent_are_dropped() -> None:
    codec = get()
    codec.send_headers(1, [*OK, (b"content-length", b"2")], False)
    codec.send_data(1, b"hi", False)
    codec.send_headers(1, [(b"x-sum", b"1")], True)
    assert codec.take_output().endswith(b"\r\n\r\nhi")
    assert not codec.closing


@pytest.mark.parametrize(
    ("line", "headers", "expected"),
    [
        (b"HEAD / HTTP/1.1", [(b":status", b"200"), (b"content-length", b"9")], b"200 OK|9"),
        (
            b"GET / HTTP/1.1",
            [(b":status", b"304"), (b"content-length", b"9")],
            b"304 Not Modified|9",
        ),
        (b"GET / HTTP/1.1", [(b":status", b"204"), (b"content-length", b"0")], b"204 No Content|"),
        (b"GET / HTTP/1.1", [(b":status", b"200")], b"200 OK|0"),
        (b"GET / HTTP/1.1", [(b":status", b"200"), (b"grpc-status", b"5")], b"200 OK|0"),
    ],
)
def test_response_without_body_is_framed_so(line: bytes, headers: Headers, expected: bytes) -> None:
    codec = get(line)
    output = respond(codec, 1, headers)
    reason, length = expected.split(b"|")
    assert output.startswith(b"HTTP/1.1 " + reason + b"\r\n")
    assert output.endswith(b"\r\n\r\n")
    assert b"ransfer-" not in output
    assert (b"content-length: " + length in output) is bool(length)
    assert not codec.closing
    assert head(codec.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")).stream_id == 3


def test_connection_fields_of_an_answer_are_not_written() -> None:
    output = respond(get(), 1, [*OK, (b"connection", b"x-a"), (b"keep-alive", b"1")])
    assert output == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_goaway_closes_with_the_next_response() -> None:
    codec = server()
    codec.goaway(2**31 - 1, 0)
    assert flags(codec) == set()
    codec.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"connection: close\r\n" in respond(codec, 1, OK).lower()
    assert flags(codec) == {"closing"}
    assert codec.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") == []


def test_request_that_asks_for_it_is_the_last() -> None:
    codec = get(fields=b"Connection: Close\r\n")
    assert codec.closing
    assert respond(codec, 1, OK).lower().count(b"connection: close\r\n") == 1
    assert codec.last_peer_stream == 1


def test_body_against_its_declared_length_breaks_off_and_is_told() -> None:
    for content in (b"much too long", b"x"):
        codec = get()
        respond(codec, 1, [*OK, (b"content-length", b"3")], content)
        assert flags(codec) == {"buffered", "closing"}
        assert reset(codec.resume()) == (1, H2Code.INTERNAL_ERROR, False)
        assert flags(codec) == {"closing"}


def test_sending_on_a_stream_that_is_over_is_nothing() -> None:
    codec = get()
    codec.feed(b"")
    respond(codec, 1, OK, b"x")
    codec.grant(1, 5)
    codec.reset(1, 8)
    assert codec.take_output() == b""
    assert codec.window(1) == 0


def test_reset_says_nothing_and_ends_the_connection() -> None:
    codec = get()
    codec.reset(1, H2Code.INTERNAL_ERROR)
    assert codec.take_output() == b""
    assert codec.closing


# --- one after the other, and who waits for whom ---


def test_pipelined_request_waits_for_the_answer_before_it() -> None:
    codec = server()
    one = b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n"
    assert head(codec.feed(one + one.replace(b"/1", b"/2", 1))).stream_id == 1
    assert flags(codec) == set()
    respond(codec, 1, OK)
    assert flags(codec) == {"buffered"}
    second = head(codec.resume())
    assert second.stream_id == 3
    assert (b":path", b"/2") in second.headers
    assert flags(codec) == set()


def test_pipelined_requests_stop_the_reader_at_a_bound() -> None:
    codec = get()
    assert flags(codec) == set()
    codec.feed(b"GET /" + b"a" * 20_000)
    assert flags(codec) == {"paused"}


def test_body_stops_at_its_credit_and_goes_on_with_its_grant() -> None:
    codec = server(SMALL)
    events = codec.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 25\r\n\r\n" + b"x" * 25)
    assert body(events) == (b"x" * 10, False)
    assert flags(codec) == {"paused"}
    codec.grant(1, 4)
    assert flags(codec) == {"buffered"}
    assert body(codec.resume()) == (b"x" * 4, False)
    assert flags(codec) == {"paused"}
    codec.grant(1, 10)
    assert body(codec.resume()) == (b"x" * 10, False)
    codec.grant(1, 10)
    assert body(codec.resume()) == (b"x", True)
    assert flags(codec) == set()


def test_large_body_comes_in_parts_of_64_kib() -> None:
    codec = server(CodecLimits(stream_credit=1 << 20))
    length = 300_000
    events = codec.feed(
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % length + bytes(length)
    )
    parts = [len(event.data) for event in events if isinstance(event, DataReceived)]
    assert sum(parts) == length
    assert max(parts) == 65_536


def test_early_answer_lets_a_request_finish_that_is_here_already() -> None:
    codec = server(SMALL)
    codec.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 25\r\n\r\n" + b"x" * 25)
    respond(codec, 1, [(b":status", b"403")])
    assert not codec.closing
    codec.reset(1, H2Code.NO_ERROR)
    assert head(codec.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")).stream_id == 3


@pytest.mark.parametrize(
    ("framing", "first"),
    [(b"Content-Length: 25", b"x" * 5), (b"Transfer-Encoding: chunked", b"5\r\nxxxxx\r\n")],
)
def test_answer_before_the_end_that_closes_says_so(framing: bytes, first: bytes) -> None:
    """Else a client whose last octets are on their way takes the connection for its next request."""
    codec = server()
    codec.feed(b"POST / HTTP/1.1\r\n" + HOST + framing + b"\r\n\r\n" + first)
    assert b"\r\nConnection: close\r\n" in respond(codec, 1, [(b":status", b"403")], b"no")
    assert codec.closing


def test_answer_to_a_whole_request_leaves_the_connection() -> None:
    codec = server()
    codec.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nxxxxx")
    assert b"close" not in respond(codec, 1, [(b":status", b"403")], b"no")
    assert not codec.closing


def test_early_answer_to_a_request_still_coming_ends_the_connection() -> None:
    codec = server(SMALL)
    codec.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 25\r\n\r\n" + b"x" * 5)
    assert b" 403 " in respond(codec, 1, [(b":status", b"403")])
    assert codec.closing
    assert codec.feed(b"x" * 20) == []


@pytest.mark.parametrize(
    "so_far",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nx",
        CHUNKED + b"5\r\nab",
        CHUNKED,
    ],
)
def test_client_that_hangs_up_cancels_its_stream(so_far: bytes) -> None:
    codec = server()
    codec.feed(so_far)
    assert reset(codec.feed(b"")) == (1, H2Code.CANCEL, True)
    assert codec.closing
    assert codec.take_output() == b""


def test_client_that_hangs_up_between_requests_is_just_gone() -> None:
    codec = get()
    respond(codec, 1, OK)
    assert codec.feed(b"") == []
    assert codec.closing
    half = server()
    half.feed(b"GET / HT")
    assert half.feed(b"") == []
    assert half.closing


def test_ping_and_window_have_no_wire_form() -> None:
    codec = get()
    codec.ping(b"12345678")
    assert codec.take_output() == b""
    assert codec.window(1) > 0


# --- requests out ---


def written(headers: Headers, *, end: bool) -> bytes:
    codec = Http1Codec(True, CodecLimits())
    codec.open_stream(headers, end)
    return codec.take_output()


def test_request_without_body_has_no_framing() -> None:
    assert written(GET, end=True) == b"GET /a?b HTTP/1.1\r\nhost: svc.example\r\n\r\n"
    assert b"content-length: 0\r\n" in written(POST, end=True)


def test_request_of_unknown_length_is_chunked() -> None:
    assert b"transfer-encoding: chunked\r\n" in written(POST, end=False)
    assert b"chunked" not in written([*POST, (b"content-length", b"3")], end=False)


def test_grpc_request_is_chunked_for_its_trailers() -> None:
    output = written(
        [*POST, (b"content-type", b"application/grpc"), (b"content-length", b"3")], end=False
    )
    assert b"transfer-encoding: chunked\r\n" in output
    assert b"content-length" not in output


@pytest.mark.parametrize("kind", [b"application/grpc-web+proto", b"application/grpc-web-text"])
def test_grpc_web_keeps_its_length_for_it_has_no_trailers(kind: bytes) -> None:
    framed = [(b"content-type", kind), (b"content-length", b"2")]
    assert b"content-length: 2\r\n" in written([*POST, *framed], end=False)
    assert b"content-length: 2\r\n" in respond(get(), 1, [*OK, *framed], b"hi")


def test_cookie_crumbs_are_joined_where_the_first_stood() -> None:
    output = written(
        [*GET, (b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"c=2"), (b"cookie", b"d=3")],
        end=True,
    )
    assert output.endswith(b"\r\ncookie: a=1; c=2; d=3\r\nx-a: b\r\n\r\n")


def test_te_trailers_is_named_in_connection() -> None:
    output = written([*GET, (b"te", b"trailers")], end=True)
    assert b"te: trailers\r\nconnection: te\r\n" in output


def test_host_field_serves_where_there_is_no_authority() -> None:
    headers = [*GET[:2], GET[3], (b"host", b"h.example")]
    assert written(headers, end=True).count(b"host: h.example\r\n") == 1


def test_connect_is_refused_as_our_mistake() -> None:
    with pytest.raises(ValueError, match="tunnel"):
        written([(b":method", b"CONNECT"), (b":authority", b"a:1")], end=False)


# --- responses in ---


def test_response_by_content_length_leaves_the_link_reusable() -> None:
    codec = client()
    assert codec.capacity() == 0
    events = codec.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: x\r\n\r\nhi")
    assert head(events).headers == [(b":status", b"200"), (b"content-length", b"2")]
    assert body(events) == (b"hi", True)
    assert codec.capacity() == 1
    assert codec.open_stream(GET, True) == 3


def test_close_delimited_response_ends_with_the_input() -> None:
    codec = client()
    events = [*codec.feed(b"HTTP/1.1 200 OK\r\n\r\nhel"), *codec.feed(b"lo"), *codec.feed(b"")]
    assert body(events) == (b"hello", True)
    assert codec.closing
    assert codec.capacity() == 0


def test_close_delimited_response_waits_for_credit_before_its_end() -> None:
    codec = client(limits=SMALL)
    events = [*codec.feed(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 25), *codec.feed(b"")]
    assert body(events) == (b"x" * 10, False)
    assert codec.protocol == "HTTP/1.0"
    codec.grant(1, 10)
    assert body(codec.resume()) == (b"x" * 10, False)
    codec.grant(1, 10)
    assert body(codec.resume()) == (b"x" * 5, True)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_status_without_body_ends_with_its_head(status: bytes) -> None:
    codec = client()
    events = codec.feed(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n")
    assert head(events).end_stream
    assert codec.capacity() == 1


def test_answer_to_head_has_no_body_whatever_it_says() -> None:
    for framing in (b"Content-Length: 99", b"Transfer-Encoding: chunked"):
        codec = client([(b":method", b"HEAD"), *GET[1:]])
        assert head(codec.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")).end_stream
        assert codec.capacity() == 1


def test_informational_heads_are_told_apart() -> None:
    codec = client()
    events = codec.feed(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    assert [type(event) for event in events] == [
        InformationalReceived,
        InformationalReceived,
        HeadReceived,
    ]
    assert head(events).end_stream


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\x01\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"v" * 61_440,
        b"\0\0\x12\x04\0\0\0\0\0",
    ],
)
def test_malformed_response_resets_the_stream(wire: bytes) -> None:
    codec = client()
    assert reset(codec.feed(wire)) == (1, H2Code.PROTOCOL_ERROR, False)
    assert codec.closing
    assert codec.take_output() == b""


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
def test_response_cut_off_is_a_reset_and_never_an_end(wire: bytes) -> None:
    codec = client()
    events = [*(codec.feed(wire) if wire else []), *codec.feed(b"")]
    assert reset(events) == (1, H2Code.INTERNAL_ERROR, True)
    assert not any(isinstance(e, DataReceived) and e.end_stream for e in events)
    assert codec.closing


def test_answer_before_the_request_is_whole_spoils_the_link() -> None:
    codec = client(POST, end=False)
    assert head(codec.feed(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")).end_stream
    assert codec.closing
    assert codec.capacity() == 0
    codec.send_data(1, b"late", True)
    assert codec.take_output() == b""


def test_connection_close_and_http_1_0_end_the_link() -> None:
    for wire in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        codec = client()
        codec.feed(wire)
        assert codec.closing
        assert codec.capacity() == 0


def test_bytes_nobody_asked_for_end_the_link() -> None:
    idle = client()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    idle.feed(answer)
    assert [type(event) for event in idle.feed(b"HTTP/1.1 408 X\r\n\r\n")] == [CodecFailed]
    assert idle.closing
    eager = client()
    assert [type(event) for event in eager.feed(answer + answer)] == [HeadReceived, CodecFailed]
    assert eager.capacity() == 0


def test_idle_link_that_the_backend_closes_is_not_used_again() -> None:
    codec = client()
    codec.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert codec.feed(b"") == []
    assert codec.capacity() == 0
    assert codec.closing


def test_goaway_lets_the_request_under_way_finish() -> None:
    codec = client()
    codec.goaway(0, 0)
    assert body(codec.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")) == (b"hi", True)
    assert codec.closing
    assert codec.capacity() == 0
