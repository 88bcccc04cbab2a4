"""An HTTP/2 backend in a thread a connection, for many streams at once: what HTTP/1.1 cannot have.

`/wait` is never answered, `/bytes?size=N` with as many octets as the windows let through, all else with
two octets. Requests are answered when their head is there, as a service does that needs no body.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import parse_qs, urlsplit

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.fast import FastCodec
from stickyproxy.events import DataReceived, Event, HeadReceived, StreamReset
from support.accepting import Accepting

PIECE = bytes(16_384)
_LIMITS = CodecLimits(max_concurrent_streams=100_000)


class Http2Backend(Accepting):
    """`asked` are the targets of all requests, `connections` those open now."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.connections = 0
        super().__init__(backlog=1024)

    def serve(self, sock: socket.socket, number: int) -> None:
        del number
        self.connections += 1
        try:
            _Connection(self, sock).run()
        finally:
            self.connections -= 1


class _Connection:
    def __init__(self, backend: Http2Backend, sock: socket.socket) -> None:
        self._backend = backend
        self._sock = sock
        self._codec = FastCodec(False, _LIMITS)
        self._unsent: dict[int, int] = {}
        """Octets of body that each stream is still to be given."""

    def run(self) -> None:
        while True:
            self._sock.sendall(self._codec.take_output())
            data = self._sock.recv(1 << 16)
            if not data or self._codec.closing:
                return
            for event in self._codec.feed(data):
                self._on(event)
            for stream in list(self._unsent):
                self._pour(stream)

    def _on(self, event: Event) -> None:
        if isinstance(event, HeadReceived):
            self._answer(event.stream_id, event.fields[b":path"].decode())
        elif isinstance(event, DataReceived):
            self._codec.grant(event.stream_id, event.credit)
        elif isinstance(event, StreamReset):
            self._unsent.pop(event.stream_id, None)

    def _answer(self, stream: int, target: str) -> None:
        self._backend.asked.append(target)
        parts = urlsplit(target)
        if parts.path == "/wait":
            return
        size = int(parse_qs(parts.query).get("size", ["2"])[0])
        self._codec.send_headers(stream, [(b":status", b"200")], end_stream=False)
        self._unsent[stream] = size

    def _pour(self, stream: int) -> None:
        codec, left = self._codec, self._unsent[stream]
        while left and (allowed := min(codec.window(stream), left, len(PIECE))) > 0:
            left -= allowed
            codec.send_data(stream, PIECE[:allowed], end_stream=not left)
        self._unsent[stream] = left
        if not left:
            del self._unsent[stream]


@contextmanager
def h2_backend() -> Iterator[Http2Backend]:
    with closing(Http2Backend()) as backend:
        yield backend
