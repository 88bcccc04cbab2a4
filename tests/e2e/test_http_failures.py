"""Backends that answer late, wrongly, only in part, or not at all: what the client is told.

The rule behind all of it: a transfer that was cut off never looks like one that ended.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import rawframes as raw
from support.http_backends import Conversation, scripted_backend
from support.http_clients import (
    curl,
    h2_request,
    needs_curl,
    raw_client,
    raw_h2_client,
)
from support.http_lab import PATIENT, mappings
from support.proxy_process import ProxyProcess, running_proxy

OK = b"HTTP/1.1 200 OK\r\n"
SLOW_MS = 400
NOT_SO_SLOW_MS = 1500
"""In which a backend of ours has begun to answer, busy as the machine may be."""
CURL_PARTIAL = 18  # curl's exit code for a body that was cut off
BOTH = pytest.mark.parametrize("two", [False, True], ids=["h1", "h2"])


WHOLE: dict[str, bytes] = {
    "garbage": b"hello, I am no web server\r\n\r\n",
    "binary": bytes(range(256)) * 4,
    "half-head": OK + b"content-le",
    "nothing": b"",
    "two-lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "both-framings": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": OK + b"x-a: 1\r\n  2\r\ncontent-length: 0\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\nx-a: 1\ncontent-length: 0\n\n",
    "nul": OK + b"x-a: 1\0\r\ncontent-length: 0\r\n\r\n",
    "huge-head": OK + b"x-a: " + b"a" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "short": OK + b"content-length: 1000\r\n\r\n" + b"s" * 500,
    "cut-chunks": OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "bad-chunk": OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nmore\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    + OK
    + b"content-length: 2\r\n\r\nok",
    "http10": b"HTTP/1.0 200 OK\r\n\r\nold",
    "late-length": OK
    + b"content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
}
"""What is said to a request, after which the connection is closed; other paths: see `script`."""
NO_HTTP = ["garbage", "binary", "two-lengths", "both-framings", "folded", "bare-lf"]
NO_HTTP += ["nul", "huge-head", "switch"]


def script(talk: Conversation) -> None:
    while head := talk.read_head():
        name = head.split(b" ")[1].rpartition(b"/")[2].decode()
        if name in WHOLE:
            talk.send(WHOLE[name])
            talk.sock.shutdown(socket.SHUT_WR)
            talk.read_rest()
        elif name == "poison":
            talk.send(WHOLE["late-length"])  # and the connection stays open
        elif name == "silent":
            talk.read_rest()
        elif name == "stalls":
            talk.send(OK + b"content-length: 1000\r\n\r\nstart")
            talk.read_rest()
        else:
            talk.send(OK + b"content-length: 4\r\n\r\nfine")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    config: Path = tmp_path_factory.mktemp("bad") / "bad.yaml"
    with scripted_backend(script) as backend, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
        services = {"do": f"http://{backend.address}"}
        config.write_text(
            mappings(services, PATIENT)
            + mappings({"hasty": services["do"]}, f"timeout_ms: {SLOW_MS}\n")
            + mappings({"limited": services["do"]}, f"timeout_ms: {NOT_SO_SLOW_MS}\n")
            + mappings({"idle": services["do"]}, f"idle_timeout_ms: {SLOW_MS}\n" + PATIENT)
            + mappings({"gone": gone})
        )
        with running_proxy(str(config)) as proxy:
            yield proxy


def ask(bad: ProxyProcess, path: str, *, two: bool) -> tuple[int, dict[str, str], bytes]:
    target = b"/" + path.encode()
    if two:
        with raw_h2_client(bad.port) as client:
            client.request(1, h2_request(target))
            head, body, _ = client.response(1)
            fields = {name.decode(): value.decode() for name, value in head.items()}
            return int(fields[":status"]), fields, body
    with raw_client(bad.port) as other:
        other.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        return other.read_response()


@BOTH
@pytest.mark.parametrize("path", NO_HTTP)
def test_what_is_no_http_is_a_bad_gateway(bad: ProxyProcess, path: str, *, two: bool) -> None:
    status, fields, body = ask(bad, f"do/{path}", two=two)
    assert (status, fields["x-stickyproxy-error"]) == (502, "UPE"), body


@BOTH
@pytest.mark.parametrize("path", ["do/nothing", "do/half-head"])
def test_a_backend_that_hangs_up_is_503(bad: ProxyProcess, path: str, *, two: bool) -> None:
    status, fields, _ = ask(bad, path, two=two)
    assert (status, fields["x-stickyproxy-error"]) == (503, "UC")


@BOTH
def test_a_backend_that_refuses_connections_is_503(bad: ProxyProcess, *, two: bool) -> None:
    status, fields, body = ask(bad, "gone/", two=two)
    assert (status, fields["x-stickyproxy-error"]) == (503, "UF")
    assert b"connection refused" in body


@BOTH
def test_a_backend_that_is_silent_is_504(bad: ProxyProcess, *, two: bool) -> None:
    status, fields, _ = ask(bad, "hasty/silent", two=two)
    assert (status, fields["x-stickyproxy-error"]) == (504, "UT")


@BOTH
def test_a_silent_stream_meets_its_idle_limit(bad: ProxyProcess, *, two: bool) -> None:
    status, fields, _ = ask(bad, "idle/silent", two=two)
    assert (status, fields["x-stickyproxy-error"]) == (408, "SI")


CUT = {
    "do/short": b"s" * 500,
    "do/cut-chunks": b"hello",
    "do/bad-chunk": b"hello",
    "limited/stalls": b"start",
}


@needs_curl
@pytest.mark.parametrize("path", CUT)
def test_a_body_cut_off_never_looks_whole_in_http1(bad: ProxyProcess, path: str) -> None:
    answer = curl(f"http://{bad.target}/{path}", "--http1.1", "--no-buffer")
    assert (answer.status, answer.exit_code) == (200, CURL_PARTIAL)
    assert answer.body == CUT[path] or is_part(answer.body, path)


@pytest.mark.parametrize("path", CUT)
def test_a_body_cut_off_never_looks_whole_in_http2(bad: ProxyProcess, path: str) -> None:
    with raw_h2_client(bad.port) as client:
        client.request(1, h2_request(b"/" + path.encode()))
        found = client.ending(1)
        assert client.heads[1][0] == (b":status", b"200")
        body = bytes(client.bodies.get(1, b""))
        assert body == CUT[path] or is_part(body, path)
        assert found is not None
        assert found.kind == raw.RST_STREAM
        assert found.code == (8 if path.startswith("limited") else 2)  # CANCEL, INTERNAL_ERROR


def is_part(body: bytes, path: str) -> bool:
    """What came in one piece with a broken chunk need not be believed."""
    return path == "do/bad-chunk" and CUT[path].startswith(body)


@pytest.mark.parametrize("path", [b"do/cut-chunks", b"do/bad-chunk"])
def test_an_http10_client_sees_a_cut_as_a_broken_connection(bad: ProxyProcess, path: bytes) -> None:
    with raw_client(bad.port) as client:
        client.send(b"GET /" + path + b" HTTP/1.0\r\nHost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


def test_a_cut_stream_leaves_its_neighbours_alone(bad: ProxyProcess) -> None:
    with raw_h2_client(bad.port) as client:
        for stream, path in ((1, b"/do/silent"), (3, b"/do/cut-chunks"), (5, b"/do/fine")):
            client.request(stream, h2_request(path))
        found = client.ending(3)
        assert found is not None
        assert found.kind == raw.RST_STREAM
        client.request(7, h2_request(b"/do/fine"))
        assert client.response(7)[1] == b"fine"


@BOTH
def test_bytes_behind_a_response_are_nobodys_answer(bad: ProxyProcess, *, two: bool) -> None:
    for _ in range(3):
        assert ask(bad, "do/poison", two=two)[2] == b"ok"
        assert ask(bad, "do/fine", two=two)[2] == b"fine"


@BOTH
def test_early_hints_come_before_the_answer(bad: ProxyProcess, *, two: bool) -> None:
    if two:
        assert ask(bad, "do/hints", two=two)[::2] == (200, b"ok")
        return
    with raw_client(bad.port) as client:
        client.send(b"GET /do/hints HTTP/1.1\r\nHost: a\r\n\r\n")
        hints = client.read_until(b"\r\n\r\n")
        assert hints == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        assert client.read_response()[2] == b"ok"


@needs_curl
@BOTH
def test_an_http10_backend_is_understood(bad: ProxyProcess, *, two: bool) -> None:
    answer = curl(
        f"http://{bad.target}/do/http10", "--http2-prior-knowledge" if two else "--http1.1"
    )
    assert (answer.exit_code, answer.status, answer.body) == (0, 200, b"old")
