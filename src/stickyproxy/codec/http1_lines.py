"""Field lines of HTTP/1.1 to fields and back, and what is plain enough to be read without h11.

Requests and responses repeat their lines, so a line that was good once is remembered with its field,
and a field with its line: one look-up each (0.1 us against the 3 us that h11 spends on a line).
Both memos are bounded and keep no secrets. Nothing is judged here by a laxer rule than h11's: a line
that is not known and not strictly RFC 9110's is no plain line, and h11 has the word.
"""

from __future__ import annotations

import re

from stickyproxy.codec.validate import NOT_KEPT
from stickyproxy.model import Headers

Field = tuple[bytes, bytes]

CHUNKED = -1
"""In place of a body's length: it comes or goes in chunks."""
UNTIL_CLOSE = -2
"""In place of a body's length: whatever goes until the connection ends (HTTP/1.0)."""

_MEMO_LINES = 2048  # with _MEMO_BYTES about 1 MB for each direction, whatever a peer makes up
_MEMO_BYTES = 192

_VALUE = rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

_field_line = re.compile(_TOKEN + rb":[ \t]*" + _VALUE + rb"[ \t]*").fullmatch
_token = re.compile(_TOKEN).fullmatch
_value = re.compile(_VALUE).fullmatch
_start_line = re.compile(rb"HTTP/1\.1 [1-9][0-9]{2} [ -~]*|" + _TOKEN + rb" [!-~]+ HTTP/1\.1")

_read: dict[bytes, Field] = {}
_written: dict[Field, bytes] = {}


def read_line(line: bytes) -> Field | None:
    """Read one line, its CR LF not counted; None for one that is not plain. Names in lower case."""
    field = _read.get(line)
    if field is not None or _field_line(line) is None:
        return field
    name, _, value = line.partition(b":")
    field = (name.lower(), value.strip(b" \t"))
    if len(line) <= _MEMO_BYTES and field[0] not in NOT_KEPT:
        if len(_read) >= _MEMO_LINES:
            _read.clear()
        _read[line] = field
    return field


def _write_line(field: Field) -> bytes:
    if _token(field[0]) is None or _value(field[1]) is None:
        message = f"field {field[0].decode('latin-1')!r}"
        raise ValueError(message)
    line = b"%b: %b\r\n" % field
    if len(line) <= _MEMO_BYTES and field[0].lower() not in NOT_KEPT:
        if len(_written) >= _MEMO_LINES:
            _written.clear()
        _written[field] = line
    return line


def write_fields(fields: Headers) -> bytes:
    """All lines and the empty one.

    Raises ValueError for a field that would not be read as it is meant.
    """
    known = _written.get
    return b"".join([known(field) or _write_line(field) for field in fields]) + b"\r\n"


def write_head(start: bytes, fields: Headers) -> bytes:
    """Put a start line, its CR LF not counted, before the lines of `fields`; raises ValueError."""
    if _start_line.fullmatch(start) is None:
        message = "start line"
        raise ValueError(message)
    return start + b"\r\n" + write_fields(fields)
