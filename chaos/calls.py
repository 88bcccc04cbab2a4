"""The connection on which calls are made, as bytes in and bytes out: no socket and no clock here.

One HTTP/2 connection with all streams, so that what keeps one call waiting can be seen in others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hpack import Decoder

from bench import frames
from bench.frames import FrameReader, frame
from chaos.answers import NAME, literal
from chaos.job import CHAT, GET, USER, Setup

WINDOW = 1 << 30  # octets that may be sent to us at once: the client never holds anybody up
FIRST_STREAMS = 100  # until SETTINGS say how many streams there may be

Result = tuple[int, str, str]
"""Which call, how it ended (`200`, or `503`, `grpc:14`, `rst:8`, ...), and the backend that answered."""


class Client:
    """Calls by number. `out`: what is to be sent."""

    def __init__(self, setup: Setup) -> None:
        self.out = bytearray(frames.PREFACE)
        self.out += frames.opening(WINDOW, header_table_size=0)
        self.leaving = False
        self._setup = setup
        self._limit = FIRST_STREAMS
        self._window = frames.FIRST_WINDOW
        self._next = 1
        self._calls: dict[int, int] = {}
        self._heads: dict[int, tuple[str, str]] = {}
        self._reader = FrameReader()
        self._decoder = Decoder()
        self._block = b""
        self._block_ends = False
        self._taken = 0
        self._body = (b"\0" + setup.body.to_bytes(4)) * setup.grpc + bytes(setup.body)
        self._head = _head(setup, len(self._body))

    @property
    def free(self) -> bool:
        """Another call may be made now."""
        return len(self._calls) < self._limit and self._window >= len(self._body)

    def call(self, number: int) -> None:
        stream = self._next
        self._next += 2
        user = literal(USER.encode(), b"user-%d" % (number % self._setup.users))
        ending = frames.END_STREAM if not self._body else 0
        self.out += frame(frames.HEADERS, frames.END_HEADERS | ending, stream, self._head + user)
        if self._body:
            self._window -= len(self._body)
            ends = 0 if self._setup.kind == CHAT else frames.END_STREAM
            self.out += frame(frames.DATA, ends, stream, self._body)
        self._opened(stream, number)

    def _opened(self, stream: int, number: int) -> None:
        self._calls[stream] = number

    def receive(self, data: bytes) -> list[Result]:
        """Calls that ended by this."""
        results: list[Result] = []
        for kind, flags, stream, payload in self._reader.feed(data):
            if kind in (frames.HEADERS, frames.CONTINUATION):
                self._fields(kind, flags, stream, payload, results)
            elif kind == frames.DATA:
                self._credit(len(payload))
                self.took(stream, payload, results)
                if flags & frames.END_STREAM:
                    self._finish(stream, self._heads.get(stream, ("?", ""))[0], results)
            elif kind == frames.RST_STREAM:
                self._finish(stream, f"rst:{int.from_bytes(payload)}", results)
            else:
                self._control(kind, flags, stream, payload)
        return results

    def took(self, stream: int, payload: bytes, results: list[Result]) -> None:
        """A part of a body."""

    def _credit(self, size: int) -> None:
        self._taken += size
        if self._taken > WINDOW // 2:
            self.out += frames.window_update(0, self._taken)
            self._taken = 0

    def _fields(
        self, kind: int, flags: int, stream: int, payload: bytes, results: list[Result]
    ) -> None:
        if kind == frames.HEADERS:
            self._block = _unpadded(flags, payload)
            self._block_ends = bool(flags & frames.END_STREAM)
        else:
            self._block += payload
        if not flags & frames.END_HEADERS:
            return
        fields = dict(self._decoder.decode(self._block, raw=True))
        if status := _text(fields.get(b":status")):
            self._heads[stream] = (status, _text(fields.get(NAME)))
        if self._block_ends:
            status, _ = self._heads.get(stream, ("?", ""))
            grpc = _text(fields.get(b"grpc-status"))
            if self._setup.grpc and grpc != "0":
                status = f"grpc:{grpc}" if grpc else f"no status after {status}"
            self._finish(stream, status, results)

    def _finish(self, stream: int, status: str, results: list[Result]) -> None:
        backend = self._heads.pop(stream, ("", ""))[1]
        if (number := self._calls.pop(stream, None)) is not None:
            results += [(one, status, backend) for one in self.ended(stream, number)]

    def ended(self, stream: int, number: int) -> Sequence[int]:
        """The calls that end with a stream."""
        del stream
        return (number,)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            for name, value in frames.read_settings(payload):
                if name == frames.MAX_CONCURRENT_STREAMS:
                    self._limit = value
            self.out += frame(frames.SETTINGS, frames.ACK, 0)
        elif kind == frames.PING and not flags & frames.ACK:
            self.out += frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload)
        elif kind == frames.GOAWAY:
            self.leaving = True


class ChatClient(Client):
    """Messages by number, on streams that stay open: a stream that ended is opened anew by its next
    message. A message is answered by as many octets; the end of its stream is its end too.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._open: dict[int, int] = {}
        self._waiting: dict[int, deque[int]] = {}
        self._received: dict[int, int] = {}

    def call(self, number: int) -> None:
        stream = self._open.get(number % self._setup.streams)
        if stream is None:
            super().call(number)
        else:
            self._window -= len(self._body)
            self.out += frame(frames.DATA, 0, stream, self._body)
            self._waiting[stream].append(number)

    def _opened(self, stream: int, number: int) -> None:
        super()._opened(stream, number)
        self._open[number % self._setup.streams] = stream
        self._waiting[stream] = deque([number])
        self._received[stream] = 0

    def took(self, stream: int, payload: bytes, results: list[Result]) -> None:
        waiting = self._waiting.get(stream)
        if waiting is None:
            return
        self._received[stream] += len(payload)
        backend = self._heads.get(stream, ("", ""))[1]
        while waiting and self._received[stream] >= len(self._body):
            self._received[stream] -= len(self._body)
            results.append((waiting.popleft(), "200", backend))

    def ended(self, stream: int, number: int) -> Sequence[int]:
        self._open.pop(number % self._setup.streams, None)
        self._received.pop(stream, None)
        return self._waiting.pop(stream, ())


def client(setup: Setup) -> Client:
    return ChatClient(setup) if setup.kind == CHAT else Client(setup)


def _head(setup: Setup, size: int) -> bytes:
    """All fields but USER. Static table: 2 GET, 3 POST, 4 the path `/`, 6 http."""
    method, path = (b"\x82", b"\x84") if setup.kind == GET else (b"\x83", b"\x84")
    more = b""
    if setup.grpc:
        path = b"\x04\x0f/chaos.Lab/Call"
        more = literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
    elif size:
        more = literal(b"content-length", str(size).encode())
    return method + b"\x86" + path + literal(b":authority", b"lab") + more


def _unpadded(flags: int, payload: bytes) -> bytes:
    if flags & frames.PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if flags & frames.HAS_PRIORITY else payload


def _text(value: bytes | str | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""
