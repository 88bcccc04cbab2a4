"""A client and a backend of raw frames in one thread: a test says, step by step, who does what.

    call = scene.ask(GRPC)                        got = scene.got()
    got.head(GRPC_OK)                             scene.until(lambda: call.heard)
    got.rst(CANCEL)                               scene.until(lambda: call.over)

`Scene` may have a proxy between the two, or nothing. What each side heard of a call is a list of plain
tuples, so that two scenes can be compared.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from support import rawframes as raw

PATIENCE = 30.0
"""Seconds; a busy machine needs milliseconds."""

DEFAULT_TABLE = 4096  # RFC 9113 §6.5.2


class Heard(NamedTuple):
    """`kind` is hint (1xx), head, data, trailers or reset; `end` is END_STREAM."""

    kind: str
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    end: bool = False
    code: int = 0


class End:
    """One end of one connection; it acknowledges SETTINGS and PING, and does nothing else unasked."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        self.sock = sock
        self.coder = raw.RawCoder()
        self.calls: dict[int, Call] = {}
        self.closed = False
        self.corked: bytes | None = None
        self._buffer = b""
        self._preface = 0 if client else len(raw.PREFACE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall((raw.PREFACE if client else b"") + raw.settings())

    def fileno(self) -> int:
        return self.sock.fileno()

    def call(self, stream: int) -> Call:
        return self.calls.setdefault(stream, Call(self, stream))

    def read(self) -> None:
        """What is there, and not more."""
        try:
            data = self.sock.recv(65_536)
        except ConnectionResetError:
            data = b""
        self.closed = not data
        self._buffer += data
        if isinstance(self.sock, ssl.SSLSocket):  # what is inside it no select tells of
            self._buffer += self.sock.recv(pending) if (pending := self.sock.pending()) else b""
        if len(self._buffer) < self._preface:
            return
        self._buffer, self._preface = self._buffer[self._preface :], 0
        while len(self._buffer) >= 9 and len(self._buffer) >= (end := 9 + self._size()):
            [frame] = raw.parse(self._buffer[:end])
            self._buffer = self._buffer[end:]
            self._hear(frame)

    def _size(self) -> int:
        return int.from_bytes(self._buffer[:3], "big")

    def _hear(self, frame: raw.Frame) -> None:
        acknowledged = bool(frame.flags & raw.ACK)
        if frame.kind == raw.SETTINGS and not acknowledged:
            told = raw.read_settings(frame.payload)
            self.coder.resize(told.get(raw.HEADER_TABLE_SIZE, DEFAULT_TABLE))
            self.sock.sendall(raw.settings_ack())
        elif frame.kind == raw.PING and not acknowledged:
            self.sock.sendall(raw.ping(frame.payload, ack=True))
        elif frame.kind == raw.HEADERS:
            self.call(frame.stream).hear_fields(self.coder.fields(frame.payload), frame)
        elif frame.kind == raw.DATA:
            self.call(frame.stream).hear_data(frame)
        elif frame.kind == raw.RST_STREAM:
            self.call(frame.stream).heard.append(Heard("reset", code=frame.code))


class Call:
    """One stream as one end has it: `heard` is all that the other one said, DATA in a row as one."""

    def __init__(self, end: End, stream: int) -> None:
        self.heard: list[Heard] = []
        self._end = end
        self._stream = stream

    @property
    def path(self) -> bytes:
        """Of a call at the backend."""
        return dict(self.heard[0].fields)[b":path"]

    @property
    def headed(self) -> bool:
        return any(heard.kind == "head" for heard in self.heard)

    @property
    def ended(self) -> bool:
        return any(heard.end for heard in self.heard)

    @property
    def reset(self) -> bool:
        return any(heard.kind == "reset" for heard in self.heard)

    @property
    def over(self) -> bool:
        return self.reset or self.ended

    def said(self, size: int) -> bool:
        """That many bytes of body, by now."""
        return sum(len(heard.body) for heard in self.heard) >= size

    # --- heard ---

    def hear_fields(self, fields: raw.Fields, frame: raw.Frame) -> None:
        kind = "trailers" if self.headed else "head"
        if fields[0][0] == b":status" and fields[0][1][:1] == b"1":
            kind = "hint"
        self.heard.append(Heard(kind, tuple(fields), end=bool(frame.flags & raw.END_STREAM)))

    def hear_data(self, frame: raw.Frame) -> None:
        body = frame.payload
        if self.heard[-1].kind == "data":
            body = self.heard.pop().body + body
        self.heard.append(Heard("data", body=body, end=bool(frame.flags & raw.END_STREAM)))

    # --- said ---

    def head(self, fields: raw.Fields, *, end: bool = False) -> None:
        self._send(self._end.coder.headers(self._stream, fields, end=end))

    def data(self, body: bytes, *, end: bool = False) -> None:
        self._send(raw.data(self._stream, body, end=end))

    def trailers(self, fields: raw.Fields) -> None:
        self.head(fields, end=True)

    def rst(self, code: int) -> None:
        self._send(raw.rst(self._stream, code))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is said within arrives in one piece."""
        end = self._end
        end.corked = b""
        yield
        end.sock.sendall(end.corked)
        end.corked = None

    def goaway(self) -> None:
        """This stream is the last that is served here."""
        self._send(raw.goaway(self._stream))

    def _send(self, frames: bytes) -> None:
        if self._end.corked is None:
            self._end.sock.sendall(frames)
        else:
            self._end.corked += frames


class Scene:
    """A client's connection, and the backend behind it. `asked` are the client's calls, and

    `taken` those that were taken at the backend.
    """

    def __init__(
        self, backend: Backend, port: int, tls: ssl.SSLContext | None, patience: float
    ) -> None:
        self.backend = backend
        self.asked: list[Call] = []
        self.taken: list[Call] = []
        self._patience = patience
        sock = socket.create_connection(("127.0.0.1", port), patience)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="127.0.0.1")
        self._client = End(sock, client=True)

    def ask(self, fields: raw.Fields, *, end: bool = False) -> Call:
        call = self._client.call(2 * len(self.asked) + 1)
        self.asked.append(call)
        call.head(fields, end=end)
        return call

    def got(self) -> Call:
        """The next request that came to the backend."""
        self.until(lambda: self.backend.waiting)
        self.taken.append(self.backend.waiting.pop(0))
        return self.taken[-1]

    def until(self, happened: Callable[[], object]) -> None:
        until = time.monotonic() + self._patience
        while not happened():
            left = until - time.monotonic()
            assert left > 0, "it did not happen"
            self.backend.read(self._client, left)

    def settle(self) -> None:
        """Whatever was to come of earlier calls has come: a later one went all the way."""
        call = self.ask(request(b"/settled"), end=True)
        while (got := self.got()).path != b"/settled":
            pass
        got.head([(b":status", b"200")], end=True)
        self.until(lambda: call.over)

    def close(self) -> None:
        self._client.sock.close()


class Backend:
    """Listens; `waiting` are the calls that nobody took yet."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[End] = []

    def read(self, client: End, timeout: float) -> None:
        """Wait until somebody said something, and hear it."""
        ends = {end.fileno(): end for end in (client, *self._ends) if not end.closed}
        readable, _, _ = select.select([self._listener.fileno(), *ends], [], [], timeout)
        for number in readable:
            if number in ends:
                self._hear(ends[number], client)
            else:
                self._ends.append(End(self._listener.accept()[0], client=False))

    def _hear(self, end: End, client: End) -> None:
        known = set(end.calls)
        end.read()
        if end is not client:
            self.waiting += [call for stream, call in end.calls.items() if stream not in known]

    def close(self) -> None:
        for one in (self._listener, *(end.sock for end in self._ends)):
            one.close()


@contextmanager
def backend_of_frames() -> Iterator[Backend]:
    made = Backend()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def scene(
    backend: Backend, port: int, *, tls: ssl.SSLContext | None = None, patience: float = PATIENCE
) -> Iterator[Scene]:
    """Over TLS if there is a context for the client."""
    made = Scene(backend, port, tls, patience)
    try:
        yield made
    finally:
        made.close()


def request(path: bytes, *more: tuple[bytes, bytes]) -> raw.Fields:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"example.test"),
        (b":path", path),
        *more,
    ]
