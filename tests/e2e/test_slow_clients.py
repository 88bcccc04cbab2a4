"""Clients that take their time, before a real process whose limits are a second each."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from support.http_backends import echo_backends
from support.http_clients import PATIENCE
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy

ANNOUNCED = "127.0.0.9"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LIMITS = ("request-headers", "tls-handshake", "first-byte", "proxy-header")


@contextmanager
def impatient(*flags: str, binds: Sequence[str]) -> Iterator[ProxyProcess]:
    limits = [flag for name in LIMITS for flag in (f"--{name}-timeout", "1")]
    with echo_backends() as [web]:
        more = ("--backend", f"http://{web.address}", "--proxy-protocol-from", ANNOUNCED)
        with running_proxy(*more, *limits, *flags, binds=binds) as running:
            yield running


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with impatient(binds=["127.0.0.1:0", "h2c://127.0.0.1:0"]) as running:
        yield running


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    authority = Authority.make(tmp_path_factory.mktemp("authority"))
    with impatient(*authority.proxy_flags, binds=["https://127.0.0.1:0"]) as running:
        yield running


def said_until_closed(port: int, said: bytes, address: str = "127.0.0.1") -> bytes:
    """All that came back; fails the test if it is never closed."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE, (address, 0)) as sock:
        sock.sendall(said)
        back = b""
        while data := sock.recv(65_536):
            back += data
        return back


def test_who_says_nothing_is_closed_without_a_word(proxy: ProxyProcess) -> None:
    assert said_until_closed(proxy.ports[0], b"") == b""


def test_who_says_nothing_where_http2_is_known_to_come_is_closed_too(proxy: ProxyProcess) -> None:
    assert b"HTTP/1.1" not in said_until_closed(proxy.ports[1], b"")


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_does_not_end_is_closed(secure: ProxyProcess, said: bytes) -> None:
    assert said_until_closed(secure.port, said) == b""


def test_a_balancer_that_does_not_announce_anybody_is_closed(proxy: ProxyProcess) -> None:
    assert said_until_closed(proxy.ports[0], b"PROXY TCP4 203.0.113.7", ANNOUNCED) == b""


def test_a_slow_head_is_408_with_its_line_in_the_log(proxy: ProxyProcess) -> None:
    said = said_until_closed(proxy.ports[0], b"GET /slow HTTP/1.1\r\nHost: a\r\n")

    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nconnection: close\r\n" in said
    proxy.wait_until(lambda: any(line.get("path") == "/slow" for line in proxy.access))
    [line] = [line for line in proxy.access if line.get("path") == "/slow"]
    assert line["http_status"] == 408


def test_others_are_served(proxy: ProxyProcess) -> None:
    assert said_until_closed(proxy.ports[0], GET).startswith(b"HTTP/1.1 200")
