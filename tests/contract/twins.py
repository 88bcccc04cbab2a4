"""Two codecs led through the same connection, compared after every frame and every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from hpack import Decoder

from contract.harness import REQUEST, RESPONSE, TRAILERS, Factory, Plain, merged, of_type
from contract.wild import Step
from stickyproxy.codec.api import Codec, CodecLimits
from stickyproxy.events import CodecFailed, Event, HeadReceived, StreamReset
from stickyproxy.model import Headers
from support import rawframes as raw

LIMITS = CodecLimits(
    max_concurrent_streams=5,
    max_header_list=700,
    max_header_count=9,
    stream_credit=20_000,
    link_credit=66_000,
)
"""So small that a few frames reach them."""

MANY = 1000
"""Without a limit of the server's, how many streams is a codec's own idea."""


class Seen(NamedTuple):
    """What one codec made of one frame or call: events, frames sent, and how it stands now."""

    events: list[Plain]
    sent: list[Plain]
    state: Plain


class Twin:
    """One of them, with the HPACK state of the peer that reads what it sends."""

    def __init__(self, make: Factory, *, client: bool) -> None:
        self.codec = make(client, LIMITS)
        self.codec.take_output()
        self.heard: list[Event] = []
        """The events of the last frame."""
        self.failed: int | None = None
        """The code of a connection error."""
        self.decoder = Decoder()
        self._block = b""

    def feed(self, pieces: list[bytes]) -> Seen:
        """One frame, in pieces."""
        self._take_settings(b"".join(pieces).removeprefix(raw.PREFACE))
        self.heard = [event for piece in pieces for event in self.codec.feed(piece)]
        for failure in of_type(self.heard, CodecFailed):
            self.failed = failure.code
        return self.seen(self.heard)

    def _take_settings(self, frame: bytes) -> None:
        """The peer's decoder insists on its own table size (RFC 7541 §4.2)."""
        if frame[3:9] == bytes((raw.SETTINGS, 0, 0, 0, 0, 0)):
            for at in range(9, len(frame) - 5, 6):
                if frame[at : at + 2] == bytes((0, raw.HEADER_TABLE_SIZE)):
                    size = int.from_bytes(frame[at + 2 : at + 6], "big")
                    self.decoder.max_allowed_table_size = size

    def seen(self, events: Iterable[Event] = ()) -> Seen:
        """What happened since the last time, and how it stands now."""
        frames = raw.parse(self.codec.take_output())
        sent = [told for frame in frames for told in self._sent(frame)]
        return Seen(merged(events), sent, self._state())

    def _state(self) -> Plain:
        codec = self.codec
        capacity = min(MANY, codec.capacity()) if codec.client else None
        if self.failed is not None:
            return (codec.closing, capacity)
        windows = tuple(codec.window(stream) for stream in range(10))
        return (codec.closing, capacity, codec.last_peer_stream, windows, codec.cost)

    def _sent(self, frame: raw.Frame) -> list[Plain]:
        """A frame as it is meant. How a head is compressed, and when the link is credited, is free."""
        if frame.kind == raw.GOAWAY:
            return [("goaway", frame.code)]
        if frame.kind == raw.WINDOW_UPDATE and not frame.stream:
            return []
        if frame.kind not in (raw.HEADERS, raw.CONTINUATION):
            return [tuple(frame)]
        told: list[Plain] = []
        if frame.kind == raw.HEADERS:
            told.append(("head", frame.stream, frame.flags & raw.END_STREAM))
        self._block += frame.payload
        if frame.flags & raw.END_HEADERS:
            block, self._block = self._block, b""
            told.append(
                tuple((bytes(n), bytes(v)) for n, v in self.decoder.decode(block, raw=True))
            )
        return told


class Talk:
    """An application that keeps to the order of a message. What it may not do now it leaves."""

    def __init__(self, twins: list[Twin], *, client: bool) -> None:
        self.twins = twins
        self.client = client
        self.open: dict[int, bool] = {}
        """Streams that we may send on; true once the head was sent."""
        self._calls: dict[str, Callable[[Step, int], Callable[[Codec], None] | None]] = {
            "answer": self._answer,
            "send": self._send,
            "finish": self._finish,
            "reset": self._reset,
            "grant": lambda s, i: lambda codec: codec.grant(i, 100 * s.size % 30_000),
            "our ping": lambda _, __: lambda codec: codec.ping(b"12345678"),
            "our goaway": lambda s, _: (
                None if s.pick else lambda codec: codec.goaway(s.size % 9, 0)
            ),
        }

    def hear(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, HeadReceived) and not self.client:
                self.open[event.stream_id] = False
            elif isinstance(event, StreamReset):
                self.open.pop(event.stream_id, None)

    def act(self, step: Step) -> int | None:
        """One call, on each of the twins; returns the stream that it opened."""
        if step.what == "open":
            return self._open(step)
        streams = sorted(self.open) or [1]
        call = self._calls[step.what](step, streams[step.pick % len(streams)])
        if call is not None:
            for twin in self.twins:
                call(twin.codec)
        return None

    def _open(self, step: Step) -> int | None:
        if not self.client or not all(twin.codec.capacity() for twin in self.twins):
            return None
        method = (b":method", b"HEAD" if step.pick == 9 else b"POST")
        fields = [method, *REQUEST[1:], (b"x-user-id", b"%d" % step.size)]
        ids = {twin.codec.open_stream(fields, step.flag) for twin in self.twins}
        assert len(ids) == 1
        stream = ids.pop()
        if not step.flag:
            self.open[stream] = True
        return stream

    def _answer(self, step: Step, stream: int) -> Callable[[Codec], None] | None:
        if self.open.get(stream, True):
            return None
        informational = step.pick == 9
        if informational:
            fields: Headers = [(b":status", b"103"), (b"link", b"x" * (step.size % 40_000))]
        else:
            fields = [
                *RESPONSE,
                (b"x-size", b"%d" % step.size),
                (b"set-cookie", b"a=%d" % step.pick),
            ]
        end = step.flag and not informational
        if end:
            del self.open[stream]
        else:
            self.open[stream] = not informational
        return lambda codec: codec.send_headers(stream, fields, end)

    def _send(self, step: Step, stream: int) -> Callable[[Codec], None] | None:
        if not self.open.get(stream):
            return None
        room = max(0, min(twin.codec.window(stream) for twin in self.twins))
        body = b"b" * min(step.size, room)
        if step.flag:
            del self.open[stream]
        return lambda codec: codec.send_data(stream, body, step.flag)

    def _finish(self, _: Step, stream: int) -> Callable[[Codec], None] | None:
        if not self.open.pop(stream, False):
            return None
        return lambda codec: codec.send_headers(stream, TRAILERS, True)

    def _reset(self, step: Step, stream: int) -> Callable[[Codec], None]:
        self.open.pop(stream, None)
        return lambda codec: codec.reset(stream, step.size % 14)
