"""What we read and write of HTTP/1.1 ourselves, against h11: any head, however odd, the same verdict.

The twin reads nothing by itself: each of its heads goes through the checks and h11, as an unusual head
of the real codec does. What is written is read back by h11 in the other role.
"""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.harness import Plain, merged
from contract.test_contract_splits import CUTS, pieces
from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1 import Http1Codec
from stickyproxy.codec.http1_bodies import ByH11, amid_chunks, parser
from stickyproxy.codec.http1_lines import CHUNKED
from stickyproxy.codec.http1_plain import PlainHead, plain_request, plain_response
from stickyproxy.events import Event, StreamReset
from stickyproxy.model import Headers

LIMITS = CodecLimits(max_header_list=900, max_header_count=9)
"""So small that a few fields reach them."""


class ByH11Only(Http1Codec):
    """The same codec without a path of its own for what is plain."""

    def _take_plain(self) -> PlainHead | None:
        return None


def names(*usual: bytes) -> st.SearchStrategy[bytes]:
    odd = (b"X-\xe9", b"", b" X", b"X ", b"X\t", b"X(", b":path", b"x\0")
    return st.sampled_from([*usual, *odd]) | st.binary(max_size=3)


def any_of(words: bytes) -> st.SearchStrategy[bytes]:
    """One of those between bars."""
    return st.sampled_from(words.split(b"|"))


NAME = any_of(
    b"Host|host|X-A|x-b|Accept|Cookie|Authorization|X-Request-Id|Content-Length|content-length|"
    b"Transfer-Encoding|Connection|TE|Expect|Keep-Alive|Upgrade|Proxy-Connection|HTTP2-Settings|"
    b"Close|Trailer"
) | names(b"date", b"grpc-timeout")
LONG = st.sampled_from([b"9" * 19, b"9" * 20, b"x" * 200])
VALUE = (
    any_of(
        b"|v|a b|5|0|05|+5|5, 5|5 5|0x5|chunked|Chunked|gzip, chunked|keep-alive|close|Close|"
        b"close, x-a|te|trailers|Trailers|gzip, trailers|h2c|svc.example|svc:80|a/b|100-continue|"
        b"caf\xe9|\x7f|a\x01b|a\0b|a\rb|a\nb|\x0b|a\x85"
    )
    | LONG
    | st.binary(max_size=4)
)
LINE = st.builds(
    lambda name, gap, value, tail: name + b":" + gap + value + tail,
    NAME,
    st.sampled_from([b" ", b" ", b" ", b"", b"\t ", b"  "]),
    VALUE,
    st.sampled_from([b"", b"", b"", b" ", b"\t", b"\r\n folded"]),
)
METHOD = any_of(b"GET|POST|HEAD|OPTIONS|CONNECT|get|X-Y|G T")
TARGET = any_of(
    b"/|/a?b|/a#b|/a b|/\xe9|*|a||//x|/%|http://svc.example/x|svc.example:80|/" + b"p" * 300
)
VERSION = any_of(b"HTTP/1.1|" * 5 + b"HTTP/1.0|HTTP/1.2|HTTP/2.0|http/1.1")
REQUEST_LINE = st.builds(lambda *parts: b" ".join(parts), METHOD, TARGET, VERSION)
STATUS_LINE = st.builds(
    lambda version, status, reason: version + b" " + status + reason,
    VERSION,
    any_of(b"200|204|304|404|100|101|103|999|99|2000"),
    any_of(b" OK| || a\tb| \xe9| \x01|  OK"),
)
CHUNK = any_of(
    b"3\r\nabc\r\n|00a\r\n0123456789\r\n|A;ext=1\r\n0123456789\r\n|1 \r\nx\r\n|0\r\n|"
    b"3\r\nabcd\r\n|3\nabc\r\n|\r\n|-1\r\n|g\r\n| 1\r\nx\r\n|"
    b"0\r\n\r\n|0\r\n\r\n|00\r\n\r\n|0\r\nX-A: b\r\n\r\n|0\r\nX-A : b\r\n\r\n|0\r\nX-A: b\n\r\n"
) | st.sampled_from(
    [b"f" * 21 + b"\r\n", b"0" * 30 + b"\r\n\r\n", b"12c\r\n" + b"d" * 300 + b"\r\n"]
)
BODY = st.lists(CHUNK, max_size=5).map(b"".join) | st.binary(max_size=12)


def message(first: bytes, host: bytes, lines: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", body])


HOST = st.sampled_from([b"Host: svc.example"] * 4 + [b""])
REQUEST = st.builds(message, REQUEST_LINE, HOST, st.lists(LINE, max_size=6), BODY)
RESPONSE = st.builds(message, STATUS_LINE, st.just(b""), st.lists(LINE, max_size=6), BODY)


def stands(codec: Http1Codec) -> Plain:
    """How it stands between two calls."""
    flags = (codec.closing, codec.buffered, codec.paused, codec.capacity(), codec.protocol)
    return (*flags, codec.window(1), codec.last_peer_stream)


def told(codec: Http1Codec, parts: list[bytes], *, eof: bool) -> tuple[list[Plain], Plain, bytes]:
    """Everything a codec made of it. How much of a body came before its fault is left out."""
    events: list[Event] = [event for part in parts for event in codec.feed(part)]
    before = stands(codec)
    if eof:
        events += codec.feed(b"")
    plain = merged(events)
    if any(isinstance(event, StreamReset) for event in events):
        plain = [event for event in plain if event[0] != "DataReceived"]
    return plain, (before, stands(codec)), codec.take_output()


@given(whole=st.lists(REQUEST, min_size=1, max_size=2).map(b"".join), cuts=CUTS, eof=st.booleans())
@example(
    whole=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nClose: x\r\n\r\n", cuts=[], eof=False
)
@example(
    whole=b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    cuts=[],
    eof=True,
)
def test_request_is_read_as_by_h11(whole: bytes, cuts: list[int], *, eof: bool) -> None:
    for parts in ([whole], pieces(whole, cuts)):
        ours = told(Http1Codec(False, LIMITS), parts, eof=eof)
        assert ours == told(ByH11Only(False, LIMITS), parts, eof=eof)


def asked(make: type[Http1Codec], method: bytes, *, end: bool) -> Http1Codec:
    codec = make(True, LIMITS)
    codec.open_stream([(b":method", method), (b":authority", b"a"), (b":path", b"/")], end)
    codec.take_output()
    return codec


@given(
    whole=st.lists(RESPONSE, min_size=1, max_size=2).map(b"".join),
    cuts=CUTS,
    eof=st.booleans(),
    method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
    end=st.booleans(),
)
@example(
    whole=b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    cuts=[],
    eof=False,
    method=b"GET",
    end=True,
)
def test_response_is_read_as_by_h11(
    whole: bytes, cuts: list[int], eof: bool, method: bytes, end: bool
) -> None:
    for parts in ([whole], pieces(whole, cuts)):
        ours = told(asked(Http1Codec, method, end=end), parts, eof=eof)
        assert ours == told(asked(ByH11Only, method, end=end), parts, eof=eof)


# --- what is plain ---

COMMON = [
    b"GET / HTTP/1.1\r\nHost: svc.example",
    b"GET /a?b=c HTTP/1.1\r\nHost: svc:80\r\nUser-Agent: x/1 (y; z)\r\nAccept: */*\r\nCookie: a=1; b=2",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: keep-alive\r\nExpect: 100-continue",
    b"PUT /a HTTP/1.1\r\nhost:a\r\nTransfer-Encoding: chunked\r\nConnection: Close\r\nTE: trailers",
]
UNUSUAL = [
    b"GET / HTTP/1.0\r\nHost: a",
    b"GET http://a/ HTTP/1.1\r\nHost: a",
    b"OPTIONS * HTTP/1.1\r\nHost: a",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1",
    b"GET / HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-a",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded: x",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nb",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : b",
    b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip",
    b"GET / HTTP/1.1\r\nHost: a\r\nTE: Trailers",
    b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: a\nb",
    b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: \x01",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5",
    b"",
]


@pytest.mark.parametrize("head", COMMON)
def test_common_request_is_plain(head: bytes) -> None:
    plain = plain_request(head, b"http", CodecLimits())
    assert plain is not None
    assert plain.length == (CHUNKED if b"chunked" in head else 5 if b"Length" in head else 0)
    assert plain.last is (b"Close" in head)


@pytest.mark.parametrize("head", UNUSUAL)
def test_unusual_request_is_left_to_h11(head: bytes) -> None:
    assert plain_request(head, b"http", CodecLimits()) is None


def test_head_near_a_limit_is_left_to_h11() -> None:
    head = COMMON[1]  # four fields, whose measure is 32 bytes each above their length
    assert plain_request(head, b"http", CodecLimits(max_header_count=4)) is not None
    assert plain_request(head, b"http", CodecLimits(max_header_count=3)) is None
    assert plain_request(head, b"http", CodecLimits(max_header_list=len(head) + 132)) is not None
    assert plain_request(head, b"http", CodecLimits(max_header_list=len(head) + 131)) is None


@pytest.mark.parametrize(
    ("head", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: x", b"GET", 5),
        (b"HTTP/1.1 404\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive", b"GET", CHUNKED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"HEAD", 0),
        (b"HTTP/1.1 304 Not Modified", b"GET", 0),
        (b"HTTP/1.1 200 OK", b"GET", None),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5", b"GET", None),
        (b"HTTP/1.1 103 Early Hints", b"GET", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"GET", None),
    ],
)
def test_response_of_known_end_is_plain(head: bytes, method: bytes, length: int | None) -> None:
    plain = plain_response(head, method, CodecLimits())
    assert (plain and plain.length) == length


# --- what is written ---

FIELD = st.tuples(
    st.sampled_from([b"x-a", b"accept", b"set-cookie", b"content-type", b"trailer", b"server"]),
    st.sampled_from([b"", b"v", b"a, b", b"caf\xe9", b"application/grpc", b"x" * 300]),
)
FIELDS = st.lists(FIELD, max_size=5)
PARTS = st.lists(st.binary(min_size=1, max_size=40), max_size=3)


def events_of(connection: h11.Connection) -> tuple[list[tuple[bytes, bytes]], bytes, Headers]:
    """Read one message: its fields but those of the connection, its body, its trailers."""
    head = connection.next_event()
    assert isinstance(head, h11.Request | h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    framing = (b"content-length", b"transfer-encoding", b"connection", b"host")
    return [f for f in head.headers if f[0] not in framing], body, list(event.headers)


def send(codec: Http1Codec, parts: list[bytes], trailers: Headers) -> bytes:
    for part in parts:
        codec.send_data(1, part, False)
    if trailers:
        codec.send_headers(1, trailers, True)
    else:
        codec.send_data(1, b"", True)
    return codec.take_output()


@given(
    fields=FIELDS,
    parts=PARTS,
    sized=st.booleans(),
    trailers=st.lists(st.just((b"x-sum", b"1")), max_size=1),
    asking=st.sampled_from([b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0"]),
    last=st.booleans(),
)
def test_written_response_is_what_h11_reads(
    *,
    fields: Headers,
    parts: list[bytes],
    sized: bool,
    trailers: Headers,
    asking: bytes,
    last: bool,
) -> None:
    method, _, version = asking.split()
    parts = [] if method == b"HEAD" else parts
    codec = Http1Codec(False, CodecLimits())
    close = b"Connection: close\r\n" if last else b""
    codec.feed(asking + b"\r\nHost: a\r\n" + close + b"\r\n")
    length = [(b"content-length", b"%d" % sum(map(len, parts)))] if sized else []
    codec.send_headers(1, [(b":status", b"200"), *fields, *length], False)
    client = parser(client=True, method=method, limits=CodecLimits())
    client.receive_data(send(codec, parts, trailers))
    if version == b"HTTP/1.0" or last:
        client.receive_data(b"")
    got, body, ended = events_of(client)
    assert (got, body) == (fields, b"".join(parts))
    assert ended in ([], trailers)
    assert (client.their_state is h11.DONE) is not codec.closing


@given(fields=FIELDS, parts=PARTS, sized=st.booleans(), end=st.booleans())
def test_written_request_is_what_h11_reads(
    fields: Headers, parts: list[bytes], sized: bool, end: bool
) -> None:
    codec = Http1Codec(True, CodecLimits())
    head = [(b":method", b"POST"), (b":authority", b"a"), (b":path", b"/p?q"), *fields]
    if sized and not end:
        head.append((b"content-length", b"%d" % sum(map(len, parts))))
    codec.open_stream(head, end)
    server = h11.Connection(h11.SERVER)
    server.receive_data(codec.take_output() if end else send(codec, parts, []))
    assert events_of(server) == (fields, b"" if end else b"".join(parts), [])
    assert server.their_state is h11.DONE


@given(name=NAME | st.binary(max_size=6), value=VALUE | st.binary(max_size=6))
@example(name=b"x-a", value=b"b\r\nx-evil: c")
@example(name=b"x-a", value=b"b\n")
@example(name=b"x-a: b\r\nx-evil", value=b"c")
@example(name=b": ", value=b"v")
def test_field_is_written_as_one_line_or_not_at_all(name: bytes, value: bytes) -> None:
    codec = Http1Codec(True, CodecLimits())
    get = [(b":method", b"GET"), (b":authority", b"a"), (b":path", b"/")]
    codec.open_stream([*get, (b"x" + name, value)], True)
    output = codec.take_output()
    if codec.closing:
        assert output == b""
        assert [type(event) for event in codec.resume()] == [StreamReset]
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(output)
    assert events_of(server) == ([((b"x" + name).lower(), value)], b"", [])


@pytest.mark.parametrize("path", [b"/a b", b"/a\r\nx: y", b"/\n", b""])
def test_target_that_is_two_words_is_not_written(path: bytes) -> None:
    codec = Http1Codec(True, CodecLimits())
    codec.open_stream([(b":method", b"GET"), (b":authority", b"a"), (b":path", path)], True)
    assert codec.take_output() == b""
    assert codec.closing


def test_body_goes_on_by_h11_from_any_border_between_chunks() -> None:
    for client in (False, True):
        body = amid_chunks(client=client, method=b"POST", limits=CodecLimits())
        assert isinstance(body, ByH11)
        inbox = bytearray(b"3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nrest")
        assert body.take(inbox, 100) == b"abc"
        assert body.done
        assert body.trailers == [(b"x-sum", b"1")]
        assert inbox == b"rest"
