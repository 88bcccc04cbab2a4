"""Bodies out of step: answers that come before the request is whole, and readers that take their time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from support import rawframes as raw
from support.http_backends import Conversation, body_of, digest, scripted_backend
from support.http_clients import PATIENCE, RawH2Client, h2_request, raw_client, raw_h2_client
from support.proxy_process import ProxyProcess, running_proxy

LOTS = 20_000_000
BOTH = pytest.mark.parametrize("two", [False, True], ids=["h1", "h2"])


class Script:
    """Does as the path says; `sent` counts what of `/lots` the proxy took."""

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, talk: Conversation) -> None:
        while head := talk.read_head():
            name = head.split(b" ")[1].rpartition(b"/")[2].decode()
            if name.startswith("early"):  # nobody reads the body
                talk.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
            if name == "early-rude":
                return
            if name == "early-polite":
                talk.read_rest()
            elif name == "lots":
                self._send_counted(talk)
            elif name == "fine":
                talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine")

    def _send_counted(self, talk: Conversation) -> None:
        body = body_of(LOTS)
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 65_536):
            talk.send(body[at : at + 65_536])
            self.sent = at + 65_536


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    script: Script

    @property
    def port(self) -> int:
        return self.proxy.port


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    script = Script()
    with (
        scripted_backend(script) as backend,
        running_proxy("--backend", f"http://{backend.address}") as proxy,
    ):
        yield House(proxy, script)


@BOTH
@pytest.mark.parametrize("path", [b"/early-rude", b"/early-polite", b"/early-careless"])
@pytest.mark.parametrize("size", [1_000, 5_000_000])
def test_an_early_answer_reaches_a_client_that_uploads(
    house: House, path: bytes, size: int, *, two: bool
) -> None:
    body = body_of(size)
    for _ in range(5):  # who is first, the answer or the broken pipe, is a matter of chance
        if two:
            answer_early_h2(house, path, body)
        else:
            answer_early_h1(house, path, body)


def answer_early_h2(house: House, path: bytes, body: bytes) -> None:
    with raw_h2_client(house.port) as client:
        client.request(1, h2_request(path, method=b"POST"), end=False)
        for at in range(0, min(len(body), 60_000), 10_000):  # the rest would wait for credit
            client.send(raw.data(1, body[at : at + 10_000]))
        head, answer, _ = client.response(1)
        assert (head[b":status"], answer) == (b"413", b"big")
        found = client.ending(1)  # RFC 9113 §8.1: then RST_STREAM(NO_ERROR), no worse
        assert found is not None
        assert (found.kind, found.code) == (raw.RST_STREAM, 0)


def answer_early_h1(house: House, path: bytes, body: bytes) -> None:
    with raw_client(house.port) as client:
        client.send(b"POST %s HTTP/1.1\r\nHost: a\r\n" % path)
        client.send(b"Content-Length: %d\r\n\r\n" % (len(body) + 1))
        sender = threading.Thread(target=send_quietly, args=(client.sock, body), daemon=True)
        sender.start()
        status, _, answer = client.read_response()
        assert (status, answer) == (413, b"big")
        sender.join(PATIENCE)
        assert not sender.is_alive()


def send_quietly(sock: socket.socket, body: bytes) -> None:
    with suppress(OSError):
        sock.sendall(body)


@BOTH
def test_a_body_that_nobody_read_is_nobodys_request(house: House, *, two: bool) -> None:
    """The backend keeps its connection, and would read the rest of the body as the next request."""
    smuggled = b"GET /lots HTTP/1.1\r\nHost: a\r\n\r\n"
    house.script.sent = 0
    if two:
        with raw_h2_client(house.port) as client:
            client.request(1, h2_request(b"/early-careless", method=b"POST"), end=False)
            assert client.response(1)[1] == b"big"
            client.send(raw.data(1, smuggled, end=True))
            client.request(3, h2_request(b"/fine"))
            assert client.response(3)[1] == b"fine"
    else:
        with raw_client(house.port) as other:
            other.send(b"POST /early-careless HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n")
            assert other.read_response()[2] == b"big"
            send_quietly(other.sock, smuggled)
        with raw_client(house.port) as other:
            other.send(b"GET /fine HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.read_response()[2] == b"fine"
    assert house.script.sent == 0


@BOTH
def test_a_slow_reader_gets_everything_and_nobody_buffers_it(house: House, *, two: bool) -> None:
    house.script.sent = 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", house.port))
        if two:
            client = RawH2Client(sock)
            client.request(1, h2_request(b"/lots"))
        else:
            sock.sendall(b"GET /lots HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert standstill(house.script) < LOTS / 2, "the kernel's buffers hold some 5 MB"
        if two:
            client.send(raw.window_update(0, 2**30) + raw.window_update(1, 2**30))
            body = client.response(1)[1]
        else:
            body = read_all(sock).partition(b"\r\n\r\n")[2]
    assert digest(body) == digest(body_of(LOTS))


def standstill(script: Script) -> int:
    """What the backend had sent when for a while it could send no more."""
    last, since = -1, time.monotonic()
    while not last or time.monotonic() - since < 0.3:
        if script.sent != last:
            last, since = script.sent, time.monotonic()
        time.sleep(0.02)
    return last


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)
