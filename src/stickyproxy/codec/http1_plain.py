"""Heads that say nothing unusual, read at once; all others are for h11 and the checks before it.

Plain is a whole head of strict lines, HTTP/1.1, with an origin-form target, one Host, at most one
framing field and a `Connection` that is keep-alive or close. What is plain is judged by the same
`codec.validate` as everything else. None always means "not plain": never "bad", never "good".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.http1_lines import CHUNKED, Field, read_line
from stickyproxy.codec.validate import NOT_KEPT, request_fault, response_fault
from stickyproxy.model import Headers, Section

_request_line = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*) HTTP/1\.1").fullmatch
_status_line = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2})(?: [\t -~\x80-\xff]*)?").fullmatch

_DROPPED = frozenset((b"keep-alive", b"proxy-connection", b"http2-settings"))
_NOTABLE = _DROPPED | {
    b"close",  # a field of this name would be dropped by `Connection: close`
    b"connection",
    b"content-length",
    b"host",
    b"te",
    b"transfer-encoding",
    b"upgrade",
}
_BODILESS = (b"HEAD", b"CONNECT")
"""Methods whose answers are not read as all others are."""
_MEMO_HEADS = 512
"""Of each kind; with the two below about 1 MB for each, whatever a peer makes up."""
_MEMO_BYTES = 512
_MEMO_FIELDS = 32
_MEMO_LIST = _MEMO_BYTES + 4 + 32 * _MEMO_FIELDS
_LENGTH_DIGITS = 19  # codec.validate takes no more


class PlainHead(NamedTuple):
    """`length` is the body's, or CHUNKED. `last`: the connection ends with this exchange."""

    headers: Headers
    method: bytes
    length: int
    last: bool


class Known:
    """Heads that came twice, word for word, and were plain: one look-up and the same object from then on.

    Those of pollers and of backends that say no date, but none with a secret, which goes with its connection.
    """

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[tuple[bytes, bytes], PlainHead | None] = {}
        """By head and by what else it was judged by; None stands for one that came once."""

    def find(self, head: bytes, by: bytes, limits: CodecLimits) -> PlainHead | None:
        found = self._heads.get((head, by))
        if (
            found is None
            or limits.max_header_count < _MEMO_FIELDS
            or limits.max_header_list < _MEMO_LIST
        ):
            return None
        return found

    def keep(self, head: bytes, by: bytes, plain: PlainHead) -> None:
        headers, heads = plain.headers, self._heads
        if len(head) > _MEMO_BYTES or len(headers) > _MEMO_FIELDS:
            return
        if not NOT_KEPT.isdisjoint([name for name, _ in headers]):
            return
        if (head, by) in heads:
            heads[head, by] = plain._replace(headers=Section(headers))
            return
        if len(heads) >= _MEMO_HEADS:
            heads.clear()
        heads[head, by] = None


_requests, _responses = Known(), Known()


class _Notable:
    """What the fields that concern the connection say; `take` is false for what is not plain."""

    __slots__ = ("host", "last", "length")

    def __init__(self) -> None:
        self.host: bytes | None = None
        self.length: int | None = None
        self.last = False

    def take(self, field: Field, kept: Headers) -> bool:
        name, value = field
        if name == b"host":
            plain = self.host is None
            self.host = value
            return plain
        if name in (b"content-length", b"transfer-encoding"):
            return self._take_framing(field, kept)
        if name == b"connection":
            option = value.lower()
            self.last = self.last or option == b"close"
            return option in (b"keep-alive", b"close")
        if name == b"te":
            kept.append(field)
            return value == b"trailers"
        return name in _DROPPED

    def _take_framing(self, field: Field, kept: Headers) -> bool:
        name, value = field
        if self.length is not None:
            return False
        if name == b"transfer-encoding":
            self.length = CHUNKED
            return value.lower() == b"chunked"
        if not value.isdigit() or len(value) > _LENGTH_DIGITS:
            return False
        self.length = int(value)
        kept.append(field)
        return True


def _take_fields(lines: list[bytes], kept: Headers) -> _Notable | None:
    """Put what goes on into `kept`. The start line was taken off `lines`."""
    notable = _Notable()
    for line in lines:
        field = read_line(line)
        if field is None:
            return None
        if field[0] not in _NOTABLE:
            kept.append(field)
        elif not notable.take(field, kept):
            return None
    return notable


def _lines(head: bytes, limits: CodecLimits) -> list[bytes] | None:
    """Split a head; None when it might be beyond a limit, which is then found out exactly."""
    lines = head.split(b"\r\n")
    count = len(lines) - 1
    if count > limits.max_header_count or len(head) + 4 + 32 * count > limits.max_header_list:
        return None
    return lines


def plain_request(head: bytes, scheme: bytes, limits: CodecLimits) -> PlainHead | None:
    """Read a head, its two last CR LF not counted, into pseudo-header form."""
    known = _requests.find(head, scheme, limits)
    if known is not None:
        return known
    lines = _lines(head, limits)
    start = _request_line(lines.pop(0)) if lines else None
    if lines is None or start is None or start[1] == b"CONNECT":
        return None
    method, path = start.groups()
    headers = [(b":method", method), (b":scheme", scheme), (b":authority", b""), (b":path", path)]
    notable = _take_fields(lines, headers)
    if notable is None or notable.host is None:
        return None
    headers[2] = (b":authority", notable.host)
    if request_fault(headers) is not None:
        return None
    plain = PlainHead(headers, method, notable.length or 0, notable.last)
    _requests.keep(head, scheme, plain)
    return plain


def plain_response(head: bytes, method: bytes, limits: CodecLimits) -> PlainHead | None:
    """Read a final head, its two last CR LF not counted, of an answer to `method`."""
    judged_by = method if method in _BODILESS else b""
    known = _responses.find(head, judged_by, limits)
    if known is not None:
        return known
    lines = _lines(head, limits)
    start = _status_line(lines.pop(0)) if lines else None
    if lines is None or start is None:
        return None
    status = start[1]
    headers = [(b":status", status)]
    notable = _take_fields(lines, headers)
    if notable is None or notable.host is not None or response_fault(headers) is not None:
        return None
    length = notable.length
    if method == b"HEAD" or status in (b"204", b"304"):
        length = 0  # RFC 9112 §6.3: whatever the fields say
    if length is None or method == b"CONNECT":
        return None  # it lasts until the connection ends
    plain = PlainHead(headers, method, length, notable.last)
    _responses.keep(head, judged_by, plain)
    return plain
