"""What a backend of the lab says, as bytes in and bytes out: no sockets and no clock here.

A request that is whole stands in `whole` until the server, which has the clock, has it answered. No
header block is decoded, since no answer depends on one.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field

from bench import frames
from bench.answers import PENDING, Windowed, content_length
from bench.frames import frame
from chaos.job import CHAT, UNARY

NAME = b"x-backend"
_CONTENT_TYPE = b"\x0f\x10\x10application/grpc"  # static name 31, a literal of its own
_STATUS = b"\x00\x0bgrpc-status\x010"


def literal(name: bytes, value: bytes) -> bytes:
    """A field that enters no table (RFC 7541 §6.2.2); name and value below 127 octets."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


@dataclass(slots=True)
class Counts:
    """What a backend saw: requests (of streams that stay open their beginnings), PINGs, resets."""

    accepted: int = 0
    requests: int = 0
    pings: int = 0
    resets: int = 0


@dataclass(slots=True)
class Speech:
    """What all connections of a backend say. `deaf`: nothing, but PING is answered."""

    name: str
    kind: str
    size: int
    counts: Counts = field(default_factory=Counts)
    deaf: bool = False

    @property
    def grpc(self) -> bool:
        return self.kind in (UNARY, CHAT)


class Answers(Windowed):
    """One HTTP/2 connection of a proxy."""

    def __init__(self, speech: Speech) -> None:
        super().__init__(speech.size)
        grpc = speech.grpc
        self.whole: list[int] = []
        self._speech = speech
        self._head = b"\x88" + _CONTENT_TYPE * grpc + literal(NAME, speech.name.encode())
        self._body = (b"\0" + speech.size.to_bytes(4)) * grpc + bytes(speech.size)
        self._trailers = _STATUS if grpc else b""
        self._sent: dict[int, int] = {}
        self._waiting: deque[int] = deque()
        self._last = 0
        self._leaving = False

    @property
    def over(self) -> bool:
        """A GOAWAY was sent, and all that it let through is answered."""
        return self._leaving and not self.windows

    def leave(self) -> None:
        """GOAWAY: streams up to now are answered, later ones are not."""
        self._leaving = True
        self.out += frame(frames.GOAWAY, 0, 0, struct.pack("!II", self._last, 0))

    def begin(self, stream: int) -> None:
        if not self._leaving:
            self._last = stream
            super().begin(stream)

    def end(self, stream: int) -> None:
        if stream in self.windows:
            self._speech.counts.requests += 1
            self.whole.append(stream)

    def answer(self, stream: int) -> None:
        """Say it, if the request was not reset meanwhile."""
        if stream in self.windows:
            self.out += frame(frames.HEADERS, frames.END_HEADERS, stream, self._head)
            self._sent[stream] = 0
            self._waiting.append(stream)
            self.produce()

    def forget(self, stream: int) -> None:
        super().forget(stream)
        self._sent.pop(stream, None)

    def produce(self) -> None:
        """Round after round a frame for each stream, as windows and PENDING allow."""
        stuck = 0
        while self._waiting and stuck < len(self._waiting) and len(self.out) < PENDING:
            stream = self._waiting.popleft()
            if stream not in self._sent:
                continue  # reset
            done = self._say(stream)
            stuck = 0 if done else stuck + 1
            if stream in self._sent:
                self._waiting.append(stream)

    def _say(self, stream: int) -> bool:
        """One frame of a body; False if there is no window."""
        at = self._sent[stream]
        size = self.room(stream, len(self._body) - at)
        if size <= 0 < len(self._body) - at:
            return False
        last = at + size == len(self._body)
        flags = frames.END_STREAM if last and not self._trailers else 0
        self.say(stream, self._body[at : at + size], flags)
        self._sent[stream] += size
        if last:
            self._close(stream)
        return True

    def _close(self, stream: int) -> None:
        if self._trailers:
            ending = frames.END_HEADERS | frames.END_STREAM
            self.out += frame(frames.HEADERS, ending, stream, self._trailers)
        self.forget(stream)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        counts = self._speech.counts
        counts.pings += kind == frames.PING and not flags & frames.ACK
        counts.resets += kind == frames.RST_STREAM
        super()._control(kind, flags, stream, payload)


class Chat(Answers):
    """Sends back what it is sent, as it comes. Messages are far below any window."""

    def begin(self, stream: int) -> None:
        super().begin(stream)
        if stream in self.windows:
            self._speech.counts.requests += 1
            if not self._speech.deaf:
                self.out += frame(frames.HEADERS, frames.END_HEADERS, stream, self._head)

    def take(self, stream: int, payload: bytes) -> None:
        if stream in self.windows and not self._speech.deaf:
            self.window -= len(payload)
            self.out += frame(frames.DATA, 0, stream, payload)

    def end(self, stream: int) -> None:
        if stream in self.windows and not self._speech.deaf:
            self._close(stream)


class Http1:
    """One HTTP/1.1 connection: an answer of known length to each whole request."""

    over = False

    def __init__(self, speech: Speech) -> None:
        self.out = bytearray()
        self.whole: list[int] = []
        self._counts = speech.counts
        self._held = b""
        head = (
            f"HTTP/1.1 200 OK\r\nx-backend: {speech.name}\r\ncontent-length: {speech.size}\r\n\r\n"
        )
        self._answer = head.encode() + bytes(speech.size)

    def receive(self, data: bytes) -> None:
        held = self._held + data
        while (end := held.find(b"\r\n\r\n")) >= 0:
            size = end + 4 + content_length(held[:end])
            if len(held) < size:
                break
            held = held[size:]
            self._counts.requests += 1
            self.whole.append(0)
        self._held = held

    def answer(self, stream: int) -> None:
        del stream
        self.out += self._answer

    def leave(self) -> None:
        """HTTP/1.1 has no word for it."""

    def produce(self) -> None:
        """Nothing is ever held back."""
