"""What makes a field section malformed: RFC 9113 §8.2 and §8.3 on top of RFC 9110's grammar.

Every codec asks here, so a request refused over HTTP/2 is refused over HTTP/1.1 too. A fault is a
short lower-case phrase for logs; None means the section may be passed on as it is. All of it works
on the pseudo-header form (`model.Headers`), whatever the wire said.

Where the documents leave a choice the strict side is taken, for anything two parsers may read
differently is a way past one of them: a repeated content-length is refused even if equal, control
characters are refused in values (only bytes from 0x80 pass), and a path is ASCII (RFC 3986).

Fields that were good once are remembered with a number for what they are, so an ordinary gRPC head
costs one look-up a field and one for the row of its numbers, which says what stands how often and in
which order (1 us for ten, against 10 us without); what varies in it costs one match each.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stickyproxy.model import Headers

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HOST = rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)"

_name = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_value = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?").fullmatch
_host_and_port = re.compile(_HOST + rb":[0-9]{1,5}").fullmatch

_GRAMMAR: dict[bytes, Callable[[bytes], object]] = {
    b":method": re.compile(_TOKEN).fullmatch,
    b":scheme": re.compile(rb"https?").fullmatch,
    b":authority": re.compile(_HOST + rb"(?::[0-9]{0,5})?").fullmatch,
    b":path": re.compile(rb"/[\x21\x22\x24-\x7e]*|\*").fullmatch,
    b":protocol": re.compile(_TOKEN).fullmatch,
    b":status": re.compile(rb"[1-9][0-9]{2}").fullmatch,
    b"host": re.compile(_HOST + rb"(?::[0-9]{0,5})?").fullmatch,
    b"content-length": re.compile(rb"[0-9]{1,19}").fullmatch,  # 19 digits: any up to 2**63 - 1
}
"""What may stand at most once in a section, and how it must look."""

_CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))

_EVER_NEW = frozenset((b"traceparent", b"x-request-id", b"grpc-timeout", b"date"))
"""Names whose values hardly ever come twice: to remember them would push out what does."""
NOT_KEPT = _SECRET | _EVER_NEW

_VISIBLE = bytes(range(0x21, 0x7F))
"""What a value may have anywhere: a value of nothing else needs no match."""

_ORDINARY = 0
_KINDS = {name: kind for kind, name in enumerate(_GRAMMAR, 1)}
_TELLING = 255
"""The kind of a field whose value decides what else may stand beside it."""
_TELLING_NAMES = frozenset((b"host", b":protocol"))
_TELLING_PAIRS = frozenset(((b":method", b"CONNECT"), (b":path", b"*"), (b":status", b"101")))

_MEMO_PAIRS = 4096  # with _MEMO_BYTES under 2 MB, whatever a peer makes up
_MEMO_BYTES = 192
_MEMO_ROWS = 512
_ROW_BYTES = 100  # a byte a field: 150 KB in all


class _MalformedError(Exception):
    """A field that is not well-formed whatever stands beside it; the text is the fault."""


class _Kinds(dict[tuple[bytes, bytes], int]):
    """Good fields and what they are; asked for others it judges them."""

    def __missing__(self, pair: tuple[bytes, bytes]) -> int:
        name, value = pair
        if name in _EVER_NEW:  # judged here: they are asked for with each request
            if value.translate(None, _VISIBLE) and not _value(value):
                raise _MalformedError("malformed field value")
            return _ORDINARY
        return _learn(pair)


_known = _Kinds()
_kind_of = _known.__getitem__
_good_requests: set[bytes] = set()
_good_responses: set[bytes] = set()
_good_trailers: set[bytes] = set()
"""Rows of kinds that made a good section. A row with `_TELLING` in it is judged each time."""


def _pair_fault(name: bytes, value: bytes) -> str | None:
    grammar = _GRAMMAR.get(name)
    if grammar is not None:
        return None if grammar(value) else f"malformed {name.decode()}"
    if name in _CONNECTION_SPECIFIC:
        return f"connection-specific field {name.decode()}"
    if _name(name) is None:
        if name[:1] == b":":
            return "unknown pseudo-header"
        return "malformed field name" if name else "empty field name"
    if name == b"te" and value.lower() != b"trailers":
        return "te other than trailers"
    return None if _value(value) else "malformed field value"


def _learn(pair: tuple[bytes, bytes]) -> int:
    """Judge a field not met before; a good one is remembered, in bounds and without secrets."""
    name, value = pair
    fault = _pair_fault(name, value)
    if fault is not None:
        raise _MalformedError(fault)
    telling = name in _TELLING_NAMES or pair in _TELLING_PAIRS
    kind = _TELLING if telling else _KINDS.get(name, _ORDINARY)
    if len(name) + len(value) <= _MEMO_BYTES and name not in NOT_KEPT:
        if len(_known) >= _MEMO_PAIRS:
            _known.clear()
        _known[pair] = kind
    return kind


def _scan(headers: Headers, row: bytes, found: dict[bytes, bytes]) -> str | None:
    """Check what holds for every section; put the fields that stand once into `found`."""
    fields = False
    for kind, (name, value) in zip(row, headers, strict=True):
        if kind == _ORDINARY:
            fields = True
            continue
        if name in found:
            return f"repeated {name.decode()}"
        found[name] = value
        if name[:1] != b":":
            fields = True
        elif fields:
            return "pseudo-header after a field"
    return None


def _fault(
    headers: Headers, good: set[bytes], judge: Callable[[Headers, dict[bytes, bytes]], str | None]
) -> str | None:
    try:
        row = bytes(map(_kind_of, headers))
    except _MalformedError as error:
        return str(error)
    if row in good:
        return None
    found: dict[bytes, bytes] = {}
    fault = _scan(headers, row, found) or judge(headers, found)
    if fault is None and _TELLING not in row and len(row) <= _ROW_BYTES:
        if len(good) >= _MEMO_ROWS:
            good.clear()
        good.add(row)
    return fault


def request_fault(headers: Headers) -> str | None:
    """None for a well-formed request head (RFC 9113 §8.3.1, §8.5; RFC 8441 §4 for `:protocol`).

    Well-formed is not welcome: TRACE, plain CONNECT to a host and port, and extended CONNECT with
    any `:protocol` pass; whether they are served is for the exchange to say.
    """
    return _fault(headers, _good_requests, _request_fault)


def _request_fault(_: Headers, found: dict[bytes, bytes]) -> str | None:
    if b":status" in found:
        return ":status in a request"
    method = found.get(b":method")
    if method is None:
        return "missing :method"
    if method == b"CONNECT" and b":protocol" not in found:
        return _connect_fault(found)
    if b":protocol" in found and method != b"CONNECT":
        return ":protocol without CONNECT"
    return _target_fault(method, found) or _authority_fault(found)


def _target_fault(method: bytes, found: dict[bytes, bytes]) -> str | None:
    if b":scheme" not in found:
        return "missing :scheme"
    path = found.get(b":path")
    if path is None:
        return "missing :path"
    if path == b"*" and method != b"OPTIONS":
        return "asterisk without OPTIONS"
    return None


def _authority_fault(found: dict[bytes, bytes]) -> str | None:
    authority = found.get(b":authority")
    host = found.get(b"host")
    if authority is None:
        return "neither :authority nor host" if host is None else None
    if host is not None and host.lower() != authority.lower():
        return "host differs from :authority"
    return None


def _connect_fault(found: dict[bytes, bytes]) -> str | None:
    if b":scheme" in found or b":path" in found:
        return "CONNECT with :scheme or :path"
    if _host_and_port(found.get(b":authority", b"")) is None:
        return "CONNECT without host and port"
    return _authority_fault(found)


def response_fault(headers: Headers) -> str | None:
    """None for a well-formed response head, final or 1xx (RFC 9113 §8.3.2).

    101 is a fault: HTTP/2 has no such answer (§8.6), and HTTP/1.1 must look at it before asking.
    """
    return _fault(headers, _good_responses, _response_fault)


def _response_fault(headers: Headers, found: dict[bytes, bytes]) -> str | None:
    status = found.get(b":status")
    if status is None:
        return "missing :status"
    if status == b"101":
        return "101 where nothing can be switched"
    if headers[0][0] != b":status" or (len(headers) > 1 and headers[1][0][:1] == b":"):
        return "request pseudo-header in a response"
    return None


def trailers_fault(headers: Headers) -> str | None:
    """None for a well-formed trailer section: good fields, no pseudo-header (RFC 9113 §8.1)."""
    return _fault(headers, _good_trailers, _trailers_fault)


def _trailers_fault(headers: Headers, _: dict[bytes, bytes]) -> str | None:
    if headers and headers[0][0][:1] == b":":
        return "pseudo-header in trailers"
    return None


def length_of(fields: dict[bytes, bytes]) -> int | None:
    """Read content-length from the fields by name of a section without fault; None without one."""
    length = fields.get(b"content-length")
    return None if length is None else int(length)


def content_length(headers: Headers) -> int | None:
    """Read content-length from a section without fault; None without one."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


def response_length(headers: Headers, method: bytes) -> int | None:
    """How many bytes of content the answer to `method` must have; None when it does not say.

    HEAD, 204 and 304 have none, whatever content-length says (RFC 9110 §6.4.1, §8.6). `headers`
    is a response head without fault.
    """
    if method == b"HEAD" or headers[0][1] in (b"204", b"304"):
        return 0
    return content_length(headers)


class BodyLength:
    """The body of one message against its declared length (RFC 9113 §8.1.1)."""

    __slots__ = ("_left",)

    def __init__(self, declared: int | None) -> None:
        """Expect `declared` bytes; None means that anything goes."""
        self._left = declared

    def fits(self, count: int, *, end: bool) -> bool:
        """Take `count` more bytes (0 for a head or trailers); False once they cannot agree."""
        if self._left is None:
            return True
        self._left -= count
        return self._left == 0 if end else self._left >= 0
