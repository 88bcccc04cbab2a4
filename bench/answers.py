"""What the backends of a measurement say, as bytes in and bytes out: no sockets here.

No header block is ever decoded, since no answer depends on one.
"""

from __future__ import annotations

from bench import frames
from bench.frames import FrameReader, frame

OUR_WINDOW = 1 << 30  # what a proxy may send us at once: uploads are never held up by us
CHUNK = 16384  # the largest frame everybody must take (RFC 9113 §4.2)
PENDING = 1 << 18  # octets kept for the socket before more are produced

_CONTENT_TYPE = b"\x10application/grpc"
_STATUS = b"\x0bgrpc-status\x010"


def message(size: int) -> bytes:
    """One gRPC message of `size` octets, its prefix of five not counted."""
    return b"\0" + size.to_bytes(4) + bytes(i & 0x7F for i in range(size))


class Http2:
    """One HTTP/2 connection of a proxy. Each mode says what a request is answered with."""

    def __init__(self, body: int) -> None:
        self.out = bytearray(frames.opening(OUR_WINDOW, max_concurrent_streams=100_000))
        self.body = body
        self.window = frames.FIRST_WINDOW
        self.stream_window = frames.FIRST_WINDOW
        self._reader = FrameReader()
        self._taken = 0

    def receive(self, data: bytes) -> None:
        for kind, flags, stream, payload in self._reader.feed(data):
            if kind == frames.DATA:
                self._take(payload)
                self.take(stream, payload)
                if flags & frames.END_STREAM:
                    self.end(stream)
            elif kind == frames.HEADERS:
                self.begin(stream)
                if flags & frames.END_STREAM:
                    self.end(stream)
            elif kind == frames.WINDOW_UPDATE:
                self._credit(stream, int.from_bytes(payload))
            else:
                self._control(kind, flags, stream, payload)

    def _take(self, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken > OUR_WINDOW // 2:
            self.out += frames.window_update(0, self._taken)
            self._taken = 0

    def _credit(self, stream: int, credit: int) -> None:
        if stream:
            self.credit(stream, credit)
        else:
            self.window += credit
        self.produce()

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            for name, value in frames.read_settings(payload):
                if name == frames.INITIAL_WINDOW_SIZE:
                    self.resize(value - self.stream_window)
                    self.stream_window = value
                elif name == frames.HEADER_TABLE_SIZE and value < 4096:
                    self.without_table()
            self.out += frame(frames.SETTINGS, frames.ACK, 0)
            self.produce()
        elif kind == frames.PING and not flags & frames.ACK:
            self.out += frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.RST_STREAM:
            self.forget(stream)

    def begin(self, stream: int) -> None:
        """A request's head."""

    def take(self, stream: int, payload: bytes) -> None:
        """A part of a request's body."""

    def end(self, stream: int) -> None:
        """A request is whole."""

    def credit(self, stream: int, credit: int) -> None:
        """A stream's window grew."""

    def resize(self, change: int) -> None:
        """All streams' windows changed by that much."""

    def forget(self, stream: int) -> None:
        """A stream was reset."""

    def without_table(self) -> None:
        """The peer keeps no dynamic table."""

    def produce(self) -> None:
        """Fill `out` as far as windows and PENDING allow."""


class Unary(Http2):
    """Head, one message, trailers; the dynamic table is used as grpc's own servers use it."""

    def __init__(self, body: int) -> None:
        super().__init__(body)
        self._message = message(body)
        self._table = True
        self._held: list[int] = []
        self._prepare(b"\x88\x5f" + _CONTENT_TYPE, b"\x40" + _STATUS)

    def _prepare(self, head: bytes, trailers: bytes) -> None:
        """The pieces of an answer between which only the stream's number stands."""
        self._head = frame(frames.HEADERS, frames.END_HEADERS, 0, head)[:5]
        data = frame(frames.DATA, 0, 0, self._message)[:5]
        ending = frames.END_HEADERS | frames.END_STREAM
        self._data = head + data
        self._trailers = self._message + frame(frames.HEADERS, ending, 0, trailers)[:5]
        self._tail = trailers

    def without_table(self) -> None:
        """RFC 7541 §4.2: an encoder says so once, at the start of a block."""
        self._table = False
        self._prepare(b"\x20\x88\x0f\x10" + _CONTENT_TYPE, b"\x00" + _STATUS)

    def end(self, stream: int) -> None:
        self._held.append(stream)
        self.produce()

    def produce(self) -> None:
        size = len(self._message)
        while self._held and self.window >= size:
            self.window -= size
            self._say(self._held.pop(0))

    def _say(self, stream: int) -> None:
        number = stream.to_bytes(4)
        pieces = (self._head, self._data, self._trailers, self._tail)
        self.out += number.join(pieces)
        if len(self._tail) > 1 and self._table:  # both fields are in the peer's table now
            self._prepare(b"\x88\xbf", b"\xbe")
        elif self._data[0] == 0x20:
            self._prepare(b"\x88\x0f\x10" + _CONTENT_TYPE, b"\x00" + _STATUS)


class Windowed(Http2):
    """Keeps each stream's window, from its head until it is forgotten."""

    def __init__(self, body: int) -> None:
        super().__init__(body)
        self.windows: dict[int, int] = {}

    def begin(self, stream: int) -> None:
        self.windows[stream] = self.stream_window

    def credit(self, stream: int, credit: int) -> None:
        if stream in self.windows:
            self.windows[stream] += credit

    def resize(self, change: int) -> None:
        for stream in self.windows:
            self.windows[stream] += change

    def forget(self, stream: int) -> None:
        self.windows.pop(stream, None)

    def room(self, stream: int, left: int) -> int:
        """How much of `left` the next frame may have; 0 or less: none."""
        return min(left, self.windows[stream], self.window, CHUNK)

    def say(self, stream: int, payload: bytes, flags: int = 0) -> None:
        """A frame of a body, for which there was room."""
        self.windows[stream] -= len(payload)
        self.window -= len(payload)
        self.out += frame(frames.DATA, flags, stream, payload)


class Echo(Windowed):
    """Sends every DATA back as it comes, and trailers when the request has ended."""

    def __init__(self, body: int) -> None:
        super().__init__(body)
        self._held: dict[int, bytearray] = {}
        self._ended: set[int] = set()

    def begin(self, stream: int) -> None:
        super().begin(stream)
        self._held[stream] = bytearray()
        self.out += frame(
            frames.HEADERS, frames.END_HEADERS, stream, b"\x88\x0f\x10" + _CONTENT_TYPE
        )

    def take(self, stream: int, payload: bytes) -> None:
        if stream in self._held:
            self._held[stream] += payload
            self._push(stream)

    def end(self, stream: int) -> None:
        if stream in self._held:
            self._ended.add(stream)
            self._push(stream)

    def forget(self, stream: int) -> None:
        super().forget(stream)
        self._held.pop(stream, None)
        self._ended.discard(stream)

    def produce(self) -> None:
        for stream, held in list(self._held.items()):
            if held:
                self._push(stream)

    def _push(self, stream: int) -> None:
        held = self._held[stream]
        while held and (size := self.room(stream, len(held))) > 0:
            self.say(stream, bytes(held[:size]))
            del held[:size]
        if stream in self._ended and not held:
            ending = frames.END_HEADERS | frames.END_STREAM
            self.out += frame(frames.HEADERS, ending, stream, b"\x00" + _STATUS)
            self.forget(stream)


class Bulk(Windowed):
    """Answers a whole request with `body` octets, a frame for each CHUNK. No gRPC."""

    def __init__(self, body: int) -> None:
        super().__init__(body)
        self._left: dict[int, int] = {}
        self._chunk = bytes(CHUNK)

    def end(self, stream: int) -> None:
        length = str(self.body).encode()
        fields = b"\x88\x0f\x0d" + bytes([len(length)]) + length
        self.out += frame(frames.HEADERS, frames.END_HEADERS, stream, fields)
        self._left[stream] = self.body
        self.produce()

    def forget(self, stream: int) -> None:
        super().forget(stream)
        self._left.pop(stream, None)

    def produce(self) -> None:
        for stream in list(self._left):
            self._push(stream)

    def _push(self, stream: int) -> None:
        while len(self.out) < PENDING:
            left = self._left[stream]
            size = self.room(stream, left)
            if size <= 0 < left:
                return
            self._left[stream] -= size
            flags = frames.END_STREAM if size == left else 0
            self.say(stream, self._chunk[:size], flags)
            if flags:
                self.forget(stream)
                return


class Http1:
    """One HTTP/1.1 connection: an answer of known length to each whole request."""

    def __init__(self, body: int) -> None:
        self.out = bytearray()
        self._held = b""
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body}\r\n\r\n"
        self._answer = head.encode() + bytes(body)

    def receive(self, data: bytes) -> None:
        held = self._held + data
        while (end := held.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + content_length(held[:end])
            if len(held) < whole:
                break
            held = held[whole:]
            self.out += self._answer
        self._held = held

    def produce(self) -> None:
        """Nothing is ever held back."""


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


MODES: dict[str, type[Http2]] = {"unary": Unary, "echo": Echo, "bulk": Bulk}
