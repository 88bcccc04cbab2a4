"""The checks on raw HTTP/1.1 heads that the parser leaves to us.

h11 reads what RFC 9112 lets a lenient recipient read: obs-fold, bare line feeds, content-length
beside transfer-encoding, a content-length said twice. Each of them is read differently somewhere,
so each is refused here, on the raw bytes, before h11 sees them (RFC 9112 §2.2, §5.2, §6.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus

from stickyproxy.codec.api import CodecLimits
from stickyproxy.model import Headers

REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}

_request_line = re.compile(rb"[!-~]+ [!-~\x80-\xff]+ HTTP/([0-9])\.([0-9])").fullmatch
_status_line = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: .*)?").fullmatch
_lengths = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([^\r]*)", re.IGNORECASE).findall
_codings = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE).findall


class HeadError(Exception):
    """A head that is refused; `status` is the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class HeadSplitter:
    """Cuts one head, up to and with its empty line, off the front of a growing buffer."""

    __slots__ = ("_checked", "_count", "_limit", "_searched", "line")

    def __init__(self, limit: int, count: int) -> None:
        """Take heads of at most `limit` bytes and `count` fields."""
        self._limit = limit
        self._count = count
        self._searched = 0
        self._checked = False
        self.line = b""
        """The first line of the head under way or just taken, as far as it is known."""

    @property
    def begun(self) -> bool:
        """True while a part of a head was looked at and more must come."""
        return self._searched > 0

    def take(self, buffer: bytearray, *, request: bool) -> bytes | None:
        """Cut off a whole head; None when more must come.

        Raises HeadError as soon as what is there cannot become a good head.
        """
        while not self._searched and buffer.startswith(b"\r\n"):
            del buffer[:2]  # RFC 9112 §2.2: some senders put an empty line after a body
        if not self._searched:
            if not buffer or buffer == b"\r":
                return None
            self.line = b""
            if buffer[0] <= 0x20:  # no line begins with a control or a space
                raise HeadError(400, "not HTTP")
        end = buffer.find(b"\r\n\r\n", max(self._searched - 3, 0))
        stop = len(buffer) if end < 0 else end + 4
        self._check_line_ends(buffer, stop)
        if not self._checked and (line_end := buffer.find(b"\r\n", 0, stop)) >= 0:
            self._checked = True
            self.line = bytes(buffer[:line_end])
            _check_first_line(self.line, request=request)
        if stop > self._limit:
            raise HeadError(431, "headers_too_large")
        if end < 0:
            self._searched = stop
            return None
        head = bytes(buffer[:stop])
        del buffer[:stop]
        self._searched = 0
        self._checked = False
        if head.count(b"\n") - 2 > self._count:
            raise HeadError(431, "headers_too_many")
        _check_framing(head)
        return head

    def _check_line_ends(self, buffer: bytearray, stop: int) -> None:
        start = self._searched
        pairs = buffer.count(b"\r\n", max(start - 1, 0), stop)
        if buffer.count(b"\n", start, stop) != pairs:
            raise HeadError(400, "bare line feed")
        # A carriage return may be the last byte so far; counted from one byte earlier, as above.
        returns = buffer.count(b"\r", max(start - 1, 0), max(stop - 1, 0))
        if returns != pairs:
            raise HeadError(400, "bare carriage return")


def _check_first_line(line: bytes, *, request: bool) -> None:
    if not request:
        if _status_line(line) is None:
            raise HeadError(502, "malformed status line")
        return
    match = _request_line(line)
    if match is None:
        raise HeadError(400, "malformed request line")
    if match.groups() not in ((b"1", b"1"), (b"1", b"0")):
        raise HeadError(505, "HTTP version other than 1.0 and 1.1")


def _check_framing(head: bytes) -> None:
    if b"\r\n " in head or b"\r\n\t" in head:
        raise HeadError(400, "folded field line")
    lengths = _lengths(head)
    codings = _codings(head)
    if len(lengths) > 1:
        raise HeadError(400, "repeated content-length")
    if lengths and not lengths[0].strip(b" \t").isdigit():
        raise HeadError(400, "malformed content-length")
    if codings and lengths:
        raise HeadError(400, "content-length beside transfer-encoding")
    if codings and b"HTTP/1.0" in head[: head.index(b"\r\n")]:
        raise HeadError(400, "transfer-encoding in HTTP/1.0")


def list_size(fields: Iterable[tuple[bytes, bytes]]) -> int:
    """The size of a field section in bytes, by RFC 9113 §6.5.2's measure."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def is_oversize(fields: Sequence[tuple[bytes, bytes]], limits: CodecLimits) -> bool:
    """Whether a field section is more than is taken."""
    return len(fields) > limits.max_header_count or list_size(fields) > limits.max_header_list


def is_strict_trailer_section(raw: bytes, names: list[bytes]) -> bool:
    """Whether `raw` ends with exactly these field lines, each and the last one ended by CR LF.

    h11 reads bare line feeds and folded lines here too; it hands the names over as it saw them.
    """
    lines = raw.rsplit(b"\r\n", len(names) + 2)[1:]
    if len(lines) != len(names) + 2 or lines[-1] or lines[-2]:
        return False
    return all(
        line.startswith(name + b":") and b"\n" not in line
        for line, name in zip(lines, names, strict=False)
    )


def rejection(status: int) -> bytes:
    """Build a whole answer to a request that never became a stream; the connection ends with it."""
    reason = REASONS.get(status, b"")
    return b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (status, reason)


def glimpse(line: bytes) -> Headers:
    """Read what can be read of a refused request's first line, for its line in the log."""
    parts = line.split(b" ")
    if len(parts) != 3:  # method, target, version
        return []
    return [(b":method", parts[0]), (b":path", parts[1])]
