"""HTTP/1.1 backends for end-to-end tests: one that is well-behaved, one that does as it is told.

`EchoBackend` is the standard library's server: it says what it received, and does what its path asks
for. `ScriptedBackend` hands each connection to a function that may break every rule. Both speak from
threads of their own, so that nothing of the proxy under test is shared with them.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.accepting import Accepting

PATIENCE = 30.0
"""Seconds that a backend waits for its peer; a test that needs them has failed."""

ALIVE = "stickyproxy/alive"
"""Who asks by `OPTIONS *` whether we live, as it may while we are slow: it is not kept."""
_PIECE = 65_536


def body_of(size: int) -> bytes:
    """`size` bytes that no two neighbours of a cut have in common."""
    line = b"".join(b"%07d\n" % number for number in range(_PIECE // 8))
    return (line * (size // len(line) + 1))[:size]


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class EchoBackend:
    """`name` tells several apart. `connections` counts those accepted, `requests` what was asked."""

    def __init__(
        self, name: str, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.name = name
        self.host = host
        self.connections = 0
        self.requests: list[dict[str, Any]] = []
        self.release = threading.Event()
        """Set by a test: what waits in `/wait` may answer."""
        self._server = _Server((host, 0), _Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def echo_backends(
    count: int = 1, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[list[EchoBackend]]:
    backends = [EchoBackend(f"pod-{number}", tls, host) for number in range(1, count + 1)]
    try:
        yield backends
    finally:
        for backend in backends:
            backend.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: EchoBackend

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that leaves is what some tests are about: nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.owner.connections += 1
        self.number = self.server.owner.connections

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        body, trailers = self._read_body()
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        told = {
            "backend": self.server.owner.name,
            "connection": self.number,
            "method": self.command,
            "target": self.requestline.split(" ")[1],  # `path` has lost doubled slashes
            "version": self.request_version,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "trailers": trailers,
            "length": len(body),
            "digest": digest(body),
        }
        if self.headers.get("user-agent") != ALIVE:
            self.server.owner.requests.append(told)
        name = parts.path.strip("/").rpartition("/")[2]
        action = getattr(self, f"_do_{name}", None)
        if action is None:
            self._answer(json.dumps(told).encode(), [("content-type", "application/json")])
        else:
            action(query, body)

    def _read_body(self) -> tuple[bytes, list[list[str]]]:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return self._read_chunks()
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionError  # half a request is none
        return body, []

    def _read_chunks(self) -> tuple[bytes, list[list[str]]]:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        trailers = []
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append([name.lower(), value.strip()])
        return b"".join(parts), trailers

    def _answer(
        self, body: bytes, fields: list[tuple[str, str]], *, status: int = 200, length: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if length:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _chunks(self, pieces: Iterator[bytes], trailers: bytes = b"") -> None:
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n" + trailers + b"\r\n")

    # --- what a path's last segment asks for ---

    def _do_status(self, query: dict[str, str], _: bytes) -> None:
        status = int(query["code"])
        fields = [("x-kept", "yes"), ("etag", '"1"')]
        self._answer(b"", fields, status=status, length=status not in {204, 304})

    def _do_bytes(self, query: dict[str, str], _: bytes) -> None:
        body = body_of(int(query["size"]))
        if "chunked" not in query:
            self._answer(body, [])
            return
        self._answer(b"", [("transfer-encoding", "chunked")], length=False)
        if self.command != "HEAD":
            self._chunks(body[at : at + _PIECE] for at in range(0, len(body), _PIECE))

    def _do_mirror(self, _: dict[str, str], body: bytes) -> None:
        self._answer(b"", [("transfer-encoding", "chunked")], length=False)
        self._chunks(body[at : at + _PIECE] for at in range(0, len(body), _PIECE))

    def _do_trailers(self, _: dict[str, str], __: bytes) -> None:
        self._answer(
            b"", [("transfer-encoding", "chunked"), ("trailer", "x-checksum")], length=False
        )
        self._chunks(iter([b"body"]), b"x-checksum: 17\r\nx-second: a\r\nx-second: b\r\n")

    def _do_cookies(self, _: dict[str, str], body: bytes) -> None:
        fields = [("set-cookie", f"c{number}={number}; Path=/") for number in range(10)]
        self._answer(body, [*fields, ("x-order", "1"), ("x-order", "2"), ("x-order", "3")])

    def _do_hops(self, _: dict[str, str], body: bytes) -> None:
        fields = [
            ("connection", "x-private"),
            ("x-private", "secret"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("x-public", "kept"),
        ]
        self._answer(body, fields)

    def _do_close(self, _: dict[str, str], __: bytes) -> None:
        self.close_connection = True
        self._answer(b"last words", [("connection", "close")])

    def _do_undelimited(self, _: dict[str, str], __: bytes) -> None:
        self.close_connection = True
        self._answer(b"until the end", [("connection", "close")], length=False)

    def _do_wait(self, _: dict[str, str], __: bytes) -> None:
        self.server.owner.release.wait(PATIENCE)
        with suppress(OSError):
            self._answer(b"at last", [])


@dataclass
class Conversation:
    """One connection to a `ScriptedBackend`."""

    sock: socket.socket
    number: int
    received: bytearray = field(default_factory=bytearray)

    def read_until(self, mark: bytes) -> bytes:
        """All received up to and with `mark`; b"" when the peer ended before."""
        while mark not in self.received:
            data = self.sock.recv(_PIECE)
            if not data:
                return b""
            self.received += data
        end = self.received.index(mark) + len(mark)
        head = bytes(self.received[:end])
        del self.received[:end]
        return head

    def read_head(self) -> bytes:
        return self.read_until(b"\r\n\r\n")

    def read_rest(self) -> bytes:
        """Until the peer ends its side, or is gone."""
        with suppress(OSError):
            while data := self.sock.recv(_PIECE):
                self.received += data
        return bytes(self.received)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)


class ScriptedBackend(Accepting):
    """`script` gets each connection in a thread of its own; the socket is closed behind it."""

    def __init__(self, script: Callable[[Conversation], None]) -> None:
        self._script = script
        super().__init__()

    @property
    def connections(self) -> int:
        return self.accepted

    def serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(PATIENCE)
        self._script(Conversation(sock, number))


@contextmanager
def scripted_backend(script: Callable[[Conversation], None]) -> Iterator[ScriptedBackend]:
    with closing(ScriptedBackend(script)) as backend:
        yield backend
