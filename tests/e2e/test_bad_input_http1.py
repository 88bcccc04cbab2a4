"""Malformed HTTP/1.1: what two parsers may read differently is refused before any backend sees it.

Throughout, a neighbour holds a request open on a connection of its own; at the end it gets its answer.
"""

from __future__ import annotations

import socket

import pytest

from support.http_backends import Conversation, scripted_backend
from support.http_clients import (
    PATIENCE,
    RawClient,
    h2_request,
    raw_client,
    raw_h2_client,
)
from support.http_lab import Guarded
from support.proxy_process import running_proxy

GET = b"GET /bad HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /bad HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


HEADS: dict[str, bytes] = {
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "equal lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "list of lengths": POST + b"Content-Length: 0, 44\r\n\r\n",
    "length +0": POST + b"Content-Length: +0\r\n\r\n",
    "length -1": POST + b"Content-Length: -1\r\n\r\n",
    "length 0x0": POST + b"Content-Length: 0x0\r\n\r\n",
    "length 1_0": POST + b"Content-Length: 1_0\r\n\r\n",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "endless length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": GET + b"X-A: 1\r\n  2\r\n\r\n",
    "folded length": POST + b"Content-Length:\r\n 44\r\n\r\n",
    "folded first line": b"GET /bad HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before colon": POST + b"Content-Length : 44\r\n\r\n",
    "tab before colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "no colon": GET + b"X-A\r\n\r\n",
    "empty name": GET + b": 1\r\n\r\n",
    "NUL in value": GET + b"X-A: a\0b\r\n\r\n",
    "NUL in name": GET + b"X\0A: 1\r\n\r\n",
    "NUL in target": b"GET /bad\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "control in value": GET + b"X-A: a\x01b\r\n\r\n",
    "CR in value": GET + b"X-A: a\rX-B: b\r\n\r\n",
    "bare LF": b"GET /bad HTTP/1.1\nHost: a\n\n",
    "one bare LF": GET + b"X-A: 1\nX-B: 2\r\n\r\n",
    "bare LF at the end": GET + b"X-A: 1\r\n\n",
    "no host": b"GET /bad HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "host with a path": b"GET /bad HTTP/1.1\r\nHost: a/evil\r\n\r\n",
    "host with userinfo": b"GET /bad HTTP/1.1\r\nHost: u:p@a\r\n\r\n",
    "host with a space": b"GET /bad HTTP/1.1\r\nHost: a b\r\n\r\n",
    "fragment": b"GET /bad#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute with userinfo": b"GET http://u:p@a/bad HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute with another scheme": b"GET ftp://a/bad HTTP/1.1\r\nHost: a\r\n\r\n",
    "no slash": b"GET bad HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  /bad HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab for a space": b"GET\t/bad\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": b"GET /bad x HTTP/1.1\r\nHost: a\r\n\r\n",
    "space at the end": b"GET /bad HTTP/1.1 \r\nHost: a\r\n\r\n",
    "bad method": b"GE(T) /bad HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /bad\r\nHost: a\r\n\r\n",
    "junk version": b"GET /bad HTTX/1.1\r\nHost: a\r\n\r\n",
    "lower case version": b"GET /bad http/1.1\r\nHost: a\r\n\r\n",
    "no text at all": b"\x00\x01\x02\x03\r\n\r\n",
}
OTHER: dict[str, tuple[bytes, set[int]]] = {
    "HTTP/2.0": (b"GET /bad HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
    "HTTP/1.2": (b"GET /bad HTTP/1.2\r\nHost: a\r\n\r\n", {505}),
    "HTTP/0.9": (b"GET /bad HTTP/0.9\r\nHost: a\r\n\r\n", {505}),
    "unknown coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {501}),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", {501}),
    "hidden chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", {501}),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked in two fields": (
        POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
        {400, 501},
    ),
    "chunked not last": (
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        {400, 501},
    ),
    "CONNECT": (b"CONNECT internal:22 HTTP/1.1\r\nHost: internal:22\r\n\r\n", {400, 404, 501}),
    "endless line": (b"GET /" + b"a" * 100_000, {414, 431}),
    "endless head": (GET + b"X-A: 1\r\n" * 20_000, {431}),
    "endless field": (GET + b"X-A: " + b"a" * 100_000, {431}),
}


def refused(client: RawClient, sent: bytes) -> int:
    """The one answer to `sent`, behind which the connection must end."""
    client.send(sent)
    status, fields, _ = client.read_response()
    assert fields["connection"] == "close"
    assert client.read_to_end() == b"", "one answer, and nothing else"
    return status


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS.keys())
def test_a_malformed_head_is_400_and_the_end(target: Guarded, sent: bytes) -> None:
    with raw_client(target.port) as client:
        assert refused(client, sent + SMUGGLED) == 400
    assert target.asked() == []


@pytest.mark.parametrize(("sent", "statuses"), OTHER.values(), ids=OTHER.keys())
def test_what_cannot_be_served_says_why(target: Guarded, sent: bytes, statuses: set[int]) -> None:
    with raw_client(target.port) as client:
        assert refused(client, sent + SMUGGLED * ended(sent)) in statuses
    assert target.asked() == []


def ended(sent: bytes) -> bool:
    return sent.endswith(b"\r\n\r\n")


BODIES: dict[str, bytes] = {
    "size is no number": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "size with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with a sign": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "negative size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "size with a space before": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "size of 30 digits": CHUNKED + b"1" * 30 + b"\r\nhello\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "bare LF behind the size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "bare LF behind the chunk": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "endless extension": CHUNKED + b"5;" + b"x" * 100_000,
    "NUL in a trailer": CHUNKED + b"0\r\nX-A: a\0b\r\n\r\n",
    "folded trailer": CHUNKED + b"0\r\nX-A: a\r\n b\r\n\r\n",
    "bare LF in trailers": CHUNKED + b"0\r\nX-A: a\nX-B: b\r\n\r\n",
    "endless trailers": CHUNKED + b"0\r\n" + b"X-A: 1\r\n" * 20_000 + b"\r\n",
}


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES.keys())
def test_a_malformed_body_ends_the_connection(target: Guarded, sent: bytes) -> None:
    with raw_client(target.port) as client:
        assert refused(client, sent + SMUGGLED) in (400, 413, 431)
    assert target.asked() == [], "the backend never had it whole"


def test_a_request_behind_a_good_one_is_judged_for_itself(target: Guarded) -> None:
    with raw_client(target.port) as client:
        client.send(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n" + HEADS["length and chunks"])
        assert client.read_response()[0] == 200
        assert client.read_response()[0] == 400
        assert client.read_to_end() == b""
    assert target.asked() == ["/good"]


def test_a_body_is_never_taken_for_a_request(target: Guarded) -> None:
    with raw_client(target.port) as client:
        client.send(POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
        assert client.read_response()[0] == 200
    assert target.asked() == ["/bad"]


def test_each_refusal_has_its_line_in_the_log(target: Guarded) -> None:
    access = target.proxy.access
    with raw_client(target.port) as client:
        assert refused(client, HEADS["folded"].replace(b"/bad", b"/logged")) == 400
    target.proxy.wait_until(lambda: "/logged" in {line["path"] for line in access})
    [line] = [line for line in access if line["path"] == "/logged"]
    assert (line["method"], line["http_status"], line["response_flags"]) == ("GET", 400, "DPE")


# --- what nobody listed -----------------------------------------------------------------------


def test_a_preface_inside_an_http1_connection_is_no_way_in(target: Guarded) -> None:
    with raw_client(target.port) as client:
        client.send(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response()[0] == 200
        assert refused(client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") in (400, 505)


def test_nothing_but_empty_lines_is_held_by_nobody(target: Guarded) -> None:
    """RFC 9112 §2.2 lets an empty line pass; a megabyte of them is no request."""
    with raw_client(target.port) as client:
        client.send(
            b"\r\n" * 500_000 + b"GET /good HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        status = client.read_response()[0]
    assert status in (200, 400)


def test_a_preface_in_single_bytes_is_a_preface(target: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", target.port), timeout=PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r":
            sock.sendall(bytes((byte,)))
        sock.sendall(b"\n" + bytes.fromhex("000000040000000000"))
        assert sock.recv(9)[3] == 4, "it answers with SETTINGS"


def test_an_upgrade_to_h2c_is_answered_in_http1(target: Guarded) -> None:
    """RFC 9113 §3.1 has dropped it; taken half-way it lets a request past the routes."""
    with raw_client(target.port) as client:
        client.send(
            b"GET /good HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert client.read_response()[0] == 200
    [seen] = target.backend.requests[-1:]
    assert {"upgrade", "http2-settings"}.isdisjoint(dict(seen["headers"]))


def test_what_a_client_says_of_its_chunks_is_not_passed_on(target: Guarded) -> None:
    """Chunk extensions are of one connection (RFC 9112 §7.1.1), and parsers disagree on them."""

    def script(talk: Conversation) -> None:
        got.append(talk.read_until(b"0\r\n\r\n"))
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    got: list[bytes] = []
    with (
        scripted_backend(script) as backend,
        running_proxy("--backend", f"http://{backend.address}") as proxy,
        raw_client(proxy.port) as client,
    ):
        client.send(CHUNKED + b'5;a="b;c";d\r\nhello\r\n0\r\n\r\n')
        assert client.read_response()[0] == 200
    [said] = got
    assert said.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert b";" not in said
    assert target.asked() == []


def test_half_a_request_and_gone_leaves_nothing(target: Guarded) -> None:
    for half in (b"GET /ba", GET, POST + b"Content-Length: 10\r\n\r\nhalf", CHUNKED + b"5\r\nhe"):
        with raw_client(target.port) as client:
            client.send(half)
    with raw_h2_client(target.port) as client:
        client.request(1, h2_request(b"/good"))
        assert client.response(1)[0][b":status"] == b"200"
    assert target.asked() == ["/good"]
