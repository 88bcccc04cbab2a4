"""Bodies on their way in: of known length, in plain chunks, and all others by h11.

A body takes from the front of the inbox what it can use. Chunks are plain as long as each size stands
alone on its line and no trailer follows; where that ends, at a border between chunks, the rest of the
body is h11's.
"""

from __future__ import annotations

import re

import h11

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1_checks import is_oversize, is_strict_trailer_section
from stickyproxy.codec.http1_heads import trailer_fields
from stickyproxy.codec.validate import trailers_fault
from stickyproxy.model import Headers

_size = re.compile(rb"[0-9A-Fa-f]{1,15}").fullmatch  # 15 digits: less than 2**63
_SIZE_LINE = 17  # so many bytes with their CR LF
_LAST = b"0\r\n\r\n"


class BodyError(Exception):
    """What came cannot become this body."""


class Body:
    """`done` once it is whole, `trailers` what came after it."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Headers = []

    def take(self, inbox: bytearray, room: int) -> bytes:
        """At most `room` bytes of content; b"" when more input is needed, or it is done.

        Raises BodyError.
        """
        raise NotImplementedError

    def end(self) -> bytes:
        """The input ended, and the inbox is empty: what was held back. Raises BodyError."""
        message = "cut off amid a body"
        raise BodyError(message)


class Counted(Body):
    """A body of known length, at least one byte."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        super().__init__()
        self._left = length

    def take(self, inbox: bytearray, room: int) -> bytes:
        data = bytes(inbox[: min(room, self._left)])
        del inbox[: len(data)]
        self._left -= len(data)
        self.done = not self._left
        return data


class Chunks(Body):
    """RFC 9112 §7.1 without extensions and trailers. `plain` until there is one, or a fault."""

    __slots__ = ("_between", "_left", "plain")

    def __init__(self) -> None:
        super().__init__()
        self.plain = True
        self._left = 0
        self._between = True

    def take(self, inbox: bytearray, room: int) -> bytes:
        parts = []
        while self._left or self._begin_chunk(inbox):
            part = bytes(inbox[: min(room, self._left)])
            if not part:
                break
            del inbox[: len(part)]
            self._left -= len(part)
            room -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin_chunk(self, inbox: bytearray) -> bool:
        """Whether a chunk begins here; `_left` has its length then. Notices the end as well."""
        if not self._between and not self._end_chunk(inbox):
            return False
        end = inbox.find(b"\r\n", 0, _SIZE_LINE)
        if end < 0:
            self.plain = len(inbox) < _SIZE_LINE
            return False
        line = bytes(inbox[:end])
        self._left = int(line, 16) if _size(line) else 0
        if self._left:
            del inbox[: end + 2]
            self._between = False
        elif inbox.startswith(_LAST):
            del inbox[: len(_LAST)]
            self.done = True
        else:
            self.plain = _LAST.startswith(inbox)
        return self._left > 0

    def _end_chunk(self, inbox: bytearray) -> bool:
        if inbox.startswith(b"\r\n"):
            del inbox[:2]
            self._between = True
        elif not b"\r\n".startswith(inbox):
            message = "malformed chunk footer"
            raise BodyError(message)
        return self._between


class Endless(Body):
    """A tunnel: whatever comes until the connection ends, which is how it ends well."""

    __slots__ = ()

    def take(self, inbox: bytearray, room: int) -> bytes:
        data = bytes(inbox[:room])
        del inbox[:room]
        return data

    def end(self) -> bytes:
        self.done = True
        return b""


class ByH11(Body):
    """The body after a head that h11 has read. `chunked`: a trailer section may follow it."""

    __slots__ = ("_chunked", "_h11", "_limits", "_section")

    def __init__(self, connection: h11.Connection, limits: CodecLimits, *, chunked: bool) -> None:
        super().__init__()
        self._h11 = connection
        self._limits = limits
        self._chunked = chunked
        self._section = b""

    def take(self, inbox: bytearray, room: int) -> bytes:
        while inbox:
            piece = bytes(inbox[:room])
            del inbox[:room]
            self._section += piece
            self._h11.receive_data(piece)
            data = self._drain()
            if self.done:
                inbox[:0] = self._h11.trailing_data[0]
                return data
            if data:
                self._section = piece  # what follows the data may have begun in it
                return data
        return b""

    def end(self) -> bytes:
        self._h11.receive_data(b"")
        return self._drain()

    def _drain(self) -> bytes:
        parts: list[bytes] = []
        try:
            while isinstance(event := self._h11.next_event(), h11.Data):
                parts.append(event.data)
        except h11.RemoteProtocolError as error:
            raise BodyError(str(error)) from error
        if isinstance(event, h11.EndOfMessage):
            self._take_trailers(event)
            self.done = True
        return b"".join(parts)

    def _take_trailers(self, event: h11.EndOfMessage) -> None:
        rest = self._h11.trailing_data[0]
        section = self._section[: len(self._section) - len(rest)]
        names = [name for name, _ in event.headers.raw_items()]
        self.trailers = trailer_fields(event.headers)
        fault = trailers_fault(self.trailers)
        if self._chunked and not is_strict_trailer_section(section, names):
            fault = "malformed trailer section"
        if is_oversize(event.headers, self._limits):
            fault = "trailers_too_large"
        if fault is not None:
            raise BodyError(fault)


def parser(
    *, client: bool, method: bytes, limits: CodecLimits, upgrade: bytes = b""
) -> h11.Connection:
    """Make what reads one message; a `client` has sent a request with `method`, for an `upgrade`."""
    role = h11.CLIENT if client else h11.SERVER
    # Of a trailer section, and of one line of chunks.
    connection = h11.Connection(role, max_incomplete_event_size=limits.max_header_list)
    if client:
        headers = [(b"host", b"x")]
        if upgrade:
            headers += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
        connection.send(h11.Request(method=method, target="/", headers=headers))
        if upgrade:
            connection.send(h11.EndOfMessage())
    return connection


def amid_chunks(*, client: bool, method: bytes, limits: CodecLimits) -> ByH11:
    """Make what reads a body on from the border between two chunks."""
    connection = parser(client=client, method=method, limits=limits)
    start = b"HTTP/1.1 200 OK" if client else b"POST / HTTP/1.1\r\nhost: x"
    connection.receive_data(start + b"\r\ntransfer-encoding: chunked\r\n\r\n")
    connection.next_event()
    return ByH11(connection, limits, chunked=True)
