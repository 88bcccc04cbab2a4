"""The codec seam: bytes to events and back, with no I/O, no clock and no opinion about requests.

Two rules hold every codec:

* Nothing raises because of what the *peer* did. That comes back as an event. Sending on a stream
  that the peer has ended meanwhile is silently nothing.
* A codec never answers for the application. It acknowledges SETTINGS and PING, it refuses what
  breaks the protocol, and it does nothing else unasked.

Credit (what the peer may still send us) of the link is granted on receipt by the codec, so that one
stuck stream cannot starve its link. Credit of a stream is granted by `grant`, by whoever passed the
bytes on. Window (what we may still send) is asked with `window`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stickyproxy.events import Event
from stickyproxy.model import Headers

MAX_STREAM_ID = 2**31 - 1  # RFC 9113 §5.1.1


@dataclass(frozen=True, slots=True)
class CodecLimits:
    """What a codec accepts from its peer. Sizes in bytes.

    `max_header_list` is RFC 9113 §6.5.2's measure (name + value + 32 each): 60 KiB and 100 fields
    are Envoy's defaults; both hold for trailers too. `stream_credit` is the stream window we open
    with (64 KiB, where Envoy's 16 MiB lets one slow reader hold hundreds of MB).
    """

    max_concurrent_streams: int = 1024
    max_header_list: int = 60 * 1024
    max_header_count: int = 100
    stream_credit: int = 65_536
    link_credit: int = 1 << 20


Piece = bytes | memoryview
"""Of output. What is behind a view stays as it is."""


class Outlet(Protocol):
    """The link that a passage leads to. `room`: bytes that it takes; `turns`: who waits for that.

    `taking`: what it has is written before anything else is read.
    """

    room: int
    taking: bool

    @property
    def turns(self) -> Sequence[object]: ...

    def push(self) -> None:
        """Something went straight into its codec's output."""


class Counter(Protocol):
    """What looks at a body in passing."""

    def feed(self, data: bytes) -> None: ...


class Straight(Protocol):
    """DATA of one stream that is handed on as it is read (`codec.passage`)."""

    @property
    def passed(self) -> int:
        """Bytes of body, ever."""
        ...

    def open(self) -> None:
        """The receiver waits, and all that it received was granted."""

    def close(self) -> None:
        """What comes next is told as an event."""


class Codec(Protocol):
    """One connection's protocol state. `client` is true towards a backend."""

    @property
    def client(self) -> bool: ...

    @property
    def protocol(self) -> str:
        """`HTTP/2` or `HTTP/1.1` (`HTTP/1.0` once such a request came), for the access log."""
        ...

    @property
    def cost(self) -> int:
        """CPU microseconds (`codec.limits`) that the peer has made us spend in vain, ever growing."""
        ...

    @property
    def bite(self) -> int:
        """Bytes that it is fed at once, unless they are bodies: of small frames some milliseconds' work,

        for which everybody else waits.
        """
        ...

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take received bytes. `b""` is the end of the peer's sending side.

        End of input with streams open on HTTP/1.1 completes what is close-delimited and resets
        the rest; on HTTP/2 the link resets the streams itself.
        """
        ...

    @property
    def passed(self) -> int:
        """Frames of the last `feed` that were handed straight on (`codec.passage`)."""
        ...

    def straight(
        self, stream_id: int, into: Codec, into_id: int, *, link: Outlet, counter: Counter | None
    ) -> Straight | None:
        """From a stream of this one to one of another; None where that cannot be."""
        ...

    def take_stirred(self) -> Sequence[Outlet]:
        """Links whose codecs got output by that, once."""
        ...

    @property
    def buffered(self) -> bool:
        """True while input held inside can become events without new bytes (never true on h2).

        On HTTP/1.1: a body that waited for `grant`, or a pipelined request behind a stream that is
        done now. Asked after either; the answer is `resume()`.
        """
        ...

    def resume(self) -> Sequence[Event]:
        """Events that became available without new input; empty unless `buffered`."""
        ...

    def take_output(self) -> bytes:
        """All bytes that are to be sent, once."""
        ...

    def take_pieces(self) -> list[Piece]:
        """As `take_output`, not put together."""
        ...

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would bring anything."""
        ...

    @property
    def paused(self) -> bool:
        """True while the reader should not read: HTTP/1.1 has no credit but this (never true on h2)."""
        ...

    def open_stream(self, headers: Headers, end_stream: bool) -> int:
        """Client role: send a request head, return the stream's id. Only while `capacity() > 0`."""
        ...

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        """An informational head, a response head, or trailers (then `end_stream` is true)."""
        ...

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """At most `window(stream_id)` bytes."""
        ...

    def send_whole(
        self, stream_id: int, headers: Headers, parts: Sequence[bytes], trailers: Headers | None
    ) -> None:
        """A response's head, a body of at most `window(stream_id)` bytes, and the stream's end: by

        `trailers`, or with what comes last.
        """
        ...

    def reset(self, stream_id: int, code: int) -> None:
        """RST_STREAM; on HTTP/1.1 the connection is over (`closing`)."""
        ...

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent now: the least of stream and connection window. May be <= 0.

        Stream 0 asks for the connection's own window.
        """
        ...

    def grant(self, stream_id: int, credit: int) -> None:
        """Give stream credit back; what it is worth on the wire is the codec's choice."""
        ...

    def capacity(self) -> int:
        """Client role: streams that may be opened now. 0 before the server's SETTINGS, after a

        GOAWAY, with no connection window left, and on HTTP/1.1 while one is under way.
        """
        ...

    @property
    def extended_connect(self) -> bool:
        """Client role: whether a request may have `:protocol` (RFC 8441 §3: the server said so).

        On HTTP/2 its method is CONNECT and 200 accepts it. On HTTP/1.1 it is an Upgrade: its method
        stays GET and 101 accepts it, in `send_headers` and in the head that is received; any other
        final answer is an ordinary one. Then body bytes are the protocol's; END_STREAM is its end.
        """
        ...

    def ping(self, payload: bytes) -> None:
        """Eight bytes; `PongReceived` follows. HTTP/1.1: nothing, and none follows."""
        ...

    def goaway(self, last_id: int, code: int) -> None:
        """Announce the end; it does not close. HTTP/1.1: the next response closes."""
        ...

    @property
    def amid_head(self) -> bool:
        """Server role: a request's head has begun and is not whole."""
        ...

    def refuse_head(self) -> Sequence[Event]:
        """Server role: answer a head that does not end, where there is a word for it: 408 in HTTP/1.1,

        and it is over. HTTP/2: nothing; a GOAWAY says it.
        """
        ...

    @property
    def last_peer_stream(self) -> int:
        """Highest stream id that the peer opened and we took, for the final GOAWAY."""
        ...

    @property
    def closing(self) -> bool:
        """True once no further stream can be served: close when the open ones are done."""
        ...


class Sends(Protocol):
    """The part of a `Codec` that says an answer bit by bit."""

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None: ...

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None: ...


def send_in_turn(
    codec: Sends,
    stream_id: int,
    headers: Headers,
    parts: Sequence[bytes],
    trailers: Headers | None,
) -> None:
    """`Codec.send_whole` for one that has no shorter way."""
    codec.send_headers(stream_id, headers, end_stream=not parts and trailers is None)
    left = len(parts)
    for data in parts:
        left -= 1
        codec.send_data(stream_id, data, end_stream=not left and trailers is None)
    if trailers is not None:
        codec.send_headers(stream_id, trailers, end_stream=True)
