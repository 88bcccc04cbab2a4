"""A gRPC server that does to HTTP/2 what the negative cases ask, by h2 and threads.

It follows grpc's `doc/negative-http2-interop-test-descriptions.md`; nothing of the proxy is in it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings

LARGE = 314_159
"""Bytes that the client wants in each response."""
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]
PATIENCE = 30.0
"""Seconds without a byte, after which a connection is given up."""

LATE = 5.0  # seconds


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


_REPLY = _field(1, _field(2, bytes(LARGE)))  # SimpleResponse.payload.body
MESSAGE = b"\0" + len(_REPLY).to_bytes(4, "big") + _REPLY


class Behaviour(NamedTuple):
    """`resets_after` bytes of the message the stream is reset, without an error. `limit` is how many

    streams are allowed; `strict`: one more is an error of the connection, not of the stream.
    """

    resets_after: int | None = None
    pings: bool = False
    goaway: bool = False
    limit: int = 100
    strict: bool = False


CASES = {
    "goaway": Behaviour(goaway=True),
    "rst_after_header": Behaviour(resets_after=0),
    "rst_during_data": Behaviour(resets_after=LARGE // 2),
    "rst_after_data": Behaviour(resets_after=len(MESSAGE)),
    "ping": Behaviour(pings=True),
    "max_streams": Behaviour(limit=1),
    "max_streams, strict": Behaviour(limit=1, strict=True),
}


class Server:
    """`calls` names the connection of each request, by number; `pings` and `pongs` are counted."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.calls: list[int] = []
        self.pings = 0
        self.pongs = 0
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def complaint(self) -> str:
        """What the server did not like; "" if nothing. The last PING's answer may still be on its way."""
        with self._changed:
            self._changed.wait_for(lambda: self.pings == self.pongs, LATE)
        if self.pings != self.pongs or self.behaviour.pings > bool(self.pings):
            return f"{self.pongs} of {self.pings} PINGs were answered"
        if self.behaviour.goaway and len(set(self.calls)) != len(self.calls):
            return f"a connection was used after GOAWAY: {self.calls}"
        return ""

    def close(self) -> None:
        for one in (self._listener, *self._connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE)
                self._connections.append(connection)
                link = _Link(self, connection, len(self._connections))
                threading.Thread(target=link.serve, daemon=True).start()

    def count(self, *, calls: int = 0, pings: int = 0, pongs: int = 0, link: int = 0) -> None:
        with self._changed:
            self.calls += [link] * calls
            self.pings += pings
            self.pongs += pongs
            self._changed.notify_all()


class _Lenient(h2.connection.H2Connection):
    """Counts no streams: whoever has one too many is refused by us."""

    @property
    def open_inbound_streams(self) -> int:
        return 0


class _Link:
    """One connection. `_due` are the responses under way: bytes sent, by stream."""

    def __init__(self, server: Server, connection: socket.socket, number: int) -> None:
        self._server = server
        self._socket = connection
        self._number = number
        self._due: dict[int, int] = {}
        self._open: set[int] = set()
        kind = h2.connection.H2Connection if server.behaviour.strict else _Lenient
        self._h2 = kind(h2.config.H2Configuration(client_side=False, header_encoding=None))

    def serve(self) -> None:
        behaviour = self._server.behaviour
        limits = {
            SettingCodes.MAX_CONCURRENT_STREAMS: behaviour.limit,
            SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1,
        }
        self._h2.local_settings = Settings(client=False, initial_values=limits)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**30)
        with suppress(OSError), self._socket:
            self._flush()
            while data := self._socket.recv(1 << 16):
                self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._flush()  # the GOAWAY that h2 made of it
            raise ConnectionError from None
        for event in events:
            self._hear(event)
        self._send_what_fits()
        self._flush()

    def _hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self._open:
            self._answer(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._open.discard(event.stream_id)
            self._due.pop(event.stream_id, None)
        elif isinstance(event, h2.events.PingAckReceived):
            self._server.count(pongs=1)

    def _begin(self, stream: int) -> None:
        if len(self._open) >= self._server.behaviour.limit:
            self._h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return
        self._open.add(stream)
        self._server.count(calls=1, link=self._number)
        self._ping()

    def _answer(self, stream: int) -> None:
        self._h2.send_headers(stream, HEAD)
        self._ping()
        self._due[stream] = 0

    def _ping(self) -> None:
        if self._server.behaviour.pings:
            self._server.count(pings=1)
            self._h2.ping(b"negative")

    def _send_what_fits(self) -> None:
        for stream, sent in list(self._due.items()):
            self._due[stream] = self._send_some(stream, sent)
            if self._due[stream] == self._until():
                self._finish(stream)

    def _until(self) -> int:
        limit = self._server.behaviour.resets_after
        return len(MESSAGE) if limit is None else limit

    def _send_some(self, stream: int, sent: int) -> int:
        """How much was sent by now."""
        while sent < self._until():
            room = self._h2.local_flow_control_window(stream)
            size = min(room, self._h2.max_outbound_frame_size, self._until() - sent)
            if size <= 0:
                break
            self._h2.send_data(stream, MESSAGE[sent : sent + size])
            self._ping()
            sent += size
        return sent

    def _finish(self, stream: int) -> None:
        del self._due[stream]
        self._open.discard(stream)
        behaviour = self._server.behaviour
        if behaviour.resets_after is not None:
            self._h2.reset_stream(stream, ErrorCodes.NO_ERROR)
            return
        self._h2.send_headers(stream, TRAILERS, end_stream=True)
        if behaviour.goaway:
            self._flush()
            self._h2.close_connection(last_stream_id=stream)

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


@contextmanager
def behaving(behaviour: Behaviour) -> Iterator[Server]:
    server = Server(behaviour)
    try:
        yield server
    finally:
        server.close()
