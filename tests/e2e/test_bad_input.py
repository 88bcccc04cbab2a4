"""Malformed HTTP/2 requests: a stream error each, seen by no backend, felt by no other stream.

Throughout, a neighbour holds a request open on a connection of its own; at the end it gets its answer.
"""

from __future__ import annotations

import pytest

from support import rawframes as raw
from support.http_clients import h2_request, raw_h2_client
from support.http_lab import Guarded

PROTOCOL_ERROR = 1


def changed(**pseudo: bytes) -> raw.Fields:
    """A good head with other pseudo-header values; b"-" leaves one out."""
    named = {b":" + name.encode(): value for name, value in pseudo.items()}
    fields = [(name, named.get(name, value)) for name, value in h2_request(b"/bad")]
    return [field for field in fields if field[1] != b"-"]


def added(*fields: tuple[bytes, bytes], **pseudo: bytes) -> raw.Fields:
    return [*changed(**pseudo), *fields]


MALFORMED: dict[str, raw.Fields] = {
    "two lengths": added((b"content-length", b"0"), (b"content-length", b"1")),
    "length +0": added((b"content-length", b"+0")),
    "length promised, none came": added((b"content-length", b"5")),
    "empty length": added((b"content-length", b"")),
    "transfer-encoding": added((b"transfer-encoding", b"chunked")),
    "connection": added((b"connection", b"close")),
    "keep-alive": added((b"keep-alive", b"timeout=5")),
    "upgrade": added((b"upgrade", b"websocket")),
    "te: chunked": added((b"te", b"chunked")),
    "CR in value": added((b"x-a", b"a\rb")),
    "LF in value": added((b"x-a", b"a\nx-b: c")),
    "NUL in value": added((b"x-a", b"a\0b")),
    "leading space in value": added((b"x-a", b" a")),
    "colon in name": added((b"x:a", b"1")),
    "space in name": added((b"x a", b"1")),
    "upper case name": added((b"X-A", b"1")),
    "empty name": added((b"", b"1")),
    "LF in name": added((b"x\n-a", b"1")),
    "CRLF in path": changed(path=b"/bad HTTP/1.1\r\nx: y"),
    "CRLF in method": changed(method=b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
    "space in path": changed(path=b"/bad path"),
    "path without slash": changed(path=b"bad"),
    "empty path": changed(path=b""),
    "absolute path": changed(path=b"http://other.test/bad"),
    "fragment": changed(path=b"/bad#part"),
    "asterisk": changed(path=b"*"),
    "space in method": changed(method=b"GE T"),
    "empty method": changed(method=b""),
    "junk scheme": changed(scheme=b"http://evil/"),
    "userinfo": changed(authority=b"user:pass@example.test"),
    "slash in authority": changed(authority=b"example.test/evil"),
    "empty authority": changed(authority=b""),
    "host differs": added((b"host", b"other.test")),
    "two hosts": added((b"host", b"a"), (b"host", b"a"), authority=b"-"),
    "no host at all": changed(authority=b"-"),
    "no method": changed(method=b"-"),
    "no path": changed(path=b"-"),
    "no scheme": changed(scheme=b"-"),
    "doubled path": [*h2_request(b"/bad")[:4], (b":path", b"/bad2")],
    "late pseudo-header": [(b"x-a", b"1"), *h2_request(b"/bad")],
    "unknown pseudo-header": [(b":extra", b"1"), *h2_request(b"/bad")],
    "status in a request": [(b":status", b"200"), *h2_request(b"/bad")],
    "protocol without CONNECT": [(b":protocol", b"websocket"), *h2_request(b"/bad")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_a_stream_error(target: Guarded, fields: raw.Fields) -> None:
    with raw_h2_client(target.port) as client:
        client.request(1, fields)
        found = client.ending(1)
        assert found is not None
        assert (found.kind, found.code) == (raw.RST_STREAM, PROTOCOL_ERROR)
        client.request(3, h2_request(b"/good"))
        assert client.response(3)[0][b":status"] == b"200"
    assert target.asked() == ["/good"]


@pytest.mark.parametrize(
    ("length", "body"), [(b"0", b"12345"), (b"50", b"12345"), (b"3", b"12345")]
)
def test_a_body_that_is_not_its_length_is_a_stream_error(
    target: Guarded, length: bytes, body: bytes
) -> None:
    with raw_h2_client(target.port) as client:
        head = h2_request(b"/bad", (b"content-length", length), method=b"POST")
        # In one piece: a head alone that says 0 is a whole request, and may be answered.
        client.send(client.coder.headers(1, head) + raw.data(1, body, end=True))
        found = client.ending(1)
        assert found is not None
        assert (found.kind, found.code) == (raw.RST_STREAM, PROTOCOL_ERROR)
        client.request(3, h2_request(b"/good"))
        assert client.response(3)[0][b":status"] == b"200"
    assert "/bad" not in target.asked(), "the backend never gets it whole"


TRAILERS = {
    "pseudo-header": [(b":path", b"/")],
    "connection": [(b"connection", b"close")],
    "upper case": [(b"X-A", b"1")],
    "length": [(b"content-length", b"5"), (b"content-length", b"6")],
}


@pytest.mark.parametrize("fields", TRAILERS.values(), ids=TRAILERS.keys())
def test_malformed_trailers_are_a_stream_error(target: Guarded, fields: raw.Fields) -> None:
    with raw_h2_client(target.port) as client:
        client.request(1, h2_request(b"/bad", method=b"POST"), end=False)
        client.send(client.coder.headers(1, fields, end=True))
        found = client.ending(1)
        assert found is not None
        assert (found.kind, found.code) == (raw.RST_STREAM, PROTOCOL_ERROR)
    assert target.asked() == []


CONNECTS = {
    "plain": [(b":method", b"CONNECT"), (b":authority", b"internal.test:22")],
    "unknown protocol": [*changed(method=b"CONNECT"), (b":protocol", b"foo")],
}


@pytest.mark.parametrize("kind", CONNECTS)
def test_connect_opens_no_way_through(target: Guarded, kind: str) -> None:
    fields = sorted(CONNECTS[kind], key=lambda field: field[0][:1] != b":")
    with raw_h2_client(target.port) as client:
        client.request(1, fields, end=False)
        found = client.ending(1)
        assert found is not None
        if 1 in client.heads:
            assert dict(client.heads[1])[b":status"] in (b"400", b"404", b"501")
        else:
            assert found.kind == raw.RST_STREAM
    assert target.asked() == []
