"""What the laws of the codec contract are spoken with: a raw peer, a pair of codecs, plain events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from stickyproxy.codec.api import Codec, CodecLimits
from stickyproxy.events import DataReceived, Event, HeadReceived, StreamReset
from stickyproxy.model import Headers
from support import rawframes as raw

Factory = Callable[[bool, CodecLimits], Codec]
"""`(client, limits)` to a fresh codec."""

Law = Callable[[Factory], None]
T = TypeVar("T")
Plain = tuple[object, ...]

REQUEST: Headers = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"svc.example"),
    (b":path", b"/pkg.Service/Method"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]
RESPONSE: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS: Headers = [(b"grpc-status", b"0"), (b"grpc-message", b"")]
DEFAULT_WINDOW = 65_535  # RFC 9113 §6.9.2


def plain(event: Event) -> Plain:
    """An event as a tuple, so that events compare; reasons are words for people and left out."""
    slots = sorted(type(event).__slots__)
    values = (getattr(event, slot) for slot in slots if slot != "reason")
    return (type(event).__name__, *(tuple(v) if isinstance(v, list) else v for v in values))


def merged(events: Iterable[Event]) -> list[Plain]:
    """Plain events with neighbouring parts of one body put together."""
    result: list[Plain] = []
    body: DataReceived | None = None
    for event in events:
        if isinstance(event, DataReceived):
            if body is not None and body.stream_id == event.stream_id and not body.end_stream:
                event = DataReceived(  # noqa: PLW2901 - the sum takes the part's place
                    event.stream_id,
                    body.data + event.data,
                    body.credit + event.credit,
                    event.end_stream,
                )
                result.pop()
            body = event
        else:
            body = None
        result.append(plain(event))
    return result


def of_type(events: Iterable[Event], kind: type[T]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


class RawPeer(raw.RawCoder):
    """The other end of a codec, made of raw frames. It minds the windows it is given."""

    def __init__(self, codec: Codec, limits: CodecLimits) -> None:
        super().__init__()
        self.codec = codec
        self.sent: list[raw.Frame] = []
        """Every frame that the codec sent, in order."""
        self.link_window = DEFAULT_WINDOW
        self.stream_window = limits.stream_credit
        self.windows: dict[int, int] = {}

    def send(self, *frames: bytes) -> list[Event]:
        """Feed frames in one piece and collect what the codec sends."""
        events = list(self.codec.feed(b"".join(frames)))
        self.collect()
        return events

    def collect(self) -> list[raw.Frame]:
        """Take and remember the codec's output."""
        frames = raw.parse(self.codec.take_output().removeprefix(raw.PREFACE))
        for got in frames:
            if got.kind == raw.WINDOW_UPDATE and got.stream:
                self.windows[got.stream] = self.window(got.stream) + got.number
            elif got.kind == raw.WINDOW_UPDATE:
                self.link_window += got.number
        self.sent += frames
        return frames

    def window(self, stream: int) -> int:
        return self.windows.get(stream, self.stream_window)

    def send_data(
        self, stream: int, body: bytes, *, end: bool = False, padding: int | None = None
    ) -> list[Event]:
        """DATA within both windows; that they allow it is part of what is tested."""
        cost = len(body) + (0 if padding is None else 1 + padding)
        assert self.window(stream) >= cost, "the stream window starved"
        assert self.link_window >= cost, "the connection window starved"
        self.windows[stream] = self.window(stream) - cost
        self.link_window -= cost
        return self.send(raw.data(stream, body, end=end, padding=padding))

    def open(self, stream: int, fields: Headers | None = None, *, end: bool = False) -> list[Event]:
        return self.send(self.headers(stream, fields or REQUEST, end=end))

    def of(self, kind: int, stream: int | None = None) -> list[raw.Frame]:
        """What the codec sent of one kind, on one stream or on all."""
        self.collect()
        return [f for f in self.sent if f.kind == kind and stream in (None, f.stream)]

    def setting(self, identifier: int) -> int | None:
        """What the codec announced in its first SETTINGS."""
        payload = self.of(raw.SETTINGS)[0].payload
        pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
        found = {int.from_bytes(p[:2], "big"): int.from_bytes(p[2:], "big") for p in pairs}
        return found.get(identifier)


def raw_client(make: Factory, limits: CodecLimits | None = None) -> RawPeer:
    """A raw client before a server codec, past the prefaces."""
    limits = limits or CodecLimits()
    peer = RawPeer(make(False, limits), limits)
    peer.collect()
    peer.send(raw.PREFACE, raw.settings(), raw.settings_ack())
    return peer


def raw_server(
    make: Factory,
    values: dict[int, int] | None = None,
    limits: CodecLimits | None = None,
) -> RawPeer:
    """A raw server behind a client codec, past the prefaces; `values` are its SETTINGS."""
    limits = limits or CodecLimits()
    peer = RawPeer(make(True, limits), limits)
    peer.collect()
    peer.send(raw.settings(values), raw.settings_ack())
    return peer


class Pair:
    """A client codec and a server codec joined; every event is kept, body credit granted at once."""

    def __init__(self, make: Factory, *, piece: int = 1 << 16) -> None:
        self.client = make(True, CodecLimits())
        self.server = make(False, CodecLimits())
        self.at_client: list[Event] = []
        self.at_server: list[Event] = []
        self._piece = piece
        self.run()

    def run(self) -> None:
        """Carry bytes both ways until both are silent."""
        moved = True
        while moved:
            moved = self._carry(self.client, self.server, self.at_server)
            moved |= self._carry(self.server, self.client, self.at_client)

    def _carry(self, source: Codec, target: Codec, seen: list[Event]) -> bool:
        output = source.take_output()
        for at in range(0, len(output), self._piece):
            self._take(target, target.feed(output[at : at + self._piece]), seen)
        while target.buffered:
            self._take(target, target.resume(), seen)
            output += b"+"
        return bool(output)

    def _take(self, codec: Codec, events: Sequence[Event], seen: list[Event]) -> None:
        for event in events:
            seen.append(event)
            if isinstance(event, DataReceived):
                codec.grant(event.stream_id, event.credit)

    def request(self, headers: Headers, *, end: bool) -> int:
        """Open a stream; its id at both ends is the same here."""
        assert self.client.capacity() > 0
        stream = self.client.open_stream(headers, end)
        self.run()
        return stream

    def send(self, codec: Codec, stream: int, body: bytes, *, end: bool) -> None:
        """Send a body of any size, within the window each time."""
        while body or end:
            room = codec.window(stream)
            assert room > 0, "the window starved"
            part, body = body[:room], body[room:]
            codec.send_data(stream, part, end and not body)
            end = end and bool(body)
            self.run()


def resets(events: Iterable[Event]) -> list[tuple[int, int, bool, bool]]:
    """Resets as (stream, code, by_peer, unprocessed)."""
    return [
        (e.stream_id, int(e.code), e.by_peer, e.unprocessed) for e in of_type(events, StreamReset)
    ]


def heads(events: Iterable[Event]) -> list[tuple[int, bool, str | None]]:
    """Heads as (stream, end_stream, fault)."""
    return [(e.stream_id, e.end_stream, e.fault) for e in of_type(events, HeadReceived)]
