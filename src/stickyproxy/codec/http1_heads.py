"""HTTP/1.1 heads to pseudo-header form and back.

What goes no further than one connection is taken off on the way in and never written on the way
out (RFC 9110 §7.6.1); `te: trailers` stays, for gRPC servers look for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from stickyproxy.codec.http1_checks import HeadError
from stickyproxy.codec.http1_lines import CHUNKED, UNTIL_CLOSE
from stickyproxy.codec.http1_tunnel import UPGRADE_FIELDS
from stickyproxy.codec.validate import request_fault, response_fault
from stickyproxy.model import Headers

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
_NEVER_NOMINATED = frozenset((b"host", b"content-length", b"te", b"authorization", b"cookie"))
"""What a `Connection` field may not make us drop: framing, routing, and what guards a backend."""

_NOT_IN_TRAILERS = _HOP_BY_HOP | {b"host", b"content-length", b"te", b"trailer"}
_ODD = _HOP_BY_HOP | {b"te"}
_NOT_WRITTEN = frozenset(
    (b":method", b":scheme", b":authority", b":path", b":protocol", b":status", b"host")
)
_BODY_EXPECTED = frozenset((b"POST", b"PUT", b"PATCH"))

_absolute = re.compile(rb"https?://([^/?#]*)(/[^?]*)?(\?.*)?", re.IGNORECASE | re.DOTALL).fullmatch


def end_to_end(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Leave out what concerns one connection only, and what `Connection` names."""
    fields = list(fields)
    nominated = {
        option.strip(b" \t").lower()
        for name, value in fields
        if name == b"connection"
        for option in value.split(b",")
    }
    drop = _HOP_BY_HOP | (nominated - _NEVER_NOMINATED)
    kept = []
    for name, value in fields:
        if name in drop:
            continue
        if name == b"te":
            if b"trailers" in [part.strip(b" \t") for part in value.lower().split(b",")]:
                kept.append((name, b"trailers"))
            continue
        kept.append((name, value))
    return kept


def request_head(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], scheme: bytes
) -> Headers:
    """Build the pseudo-header form of a request; raises HeadError for one that is refused.

    An absolute-form target names the authority and Host is then ignored (RFC 9112 §3.2.2). The
    scheme is that of the connection: what a cleartext client claims about TLS is not believed.
    """
    if method == b"CONNECT":
        raise HeadError(501, "CONNECT is not served")
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1:
        raise HeadError(400, "repeated host" if hosts else "missing host")
    authority, path = hosts[0], target
    absolute = _absolute(target)
    if absolute is not None:
        authority = absolute[1]
        path = (absolute[2] or b"/") + (absolute[3] or b"")
        if method == b"OPTIONS" and not absolute[2] and not absolute[3]:
            path = b"*"  # RFC 9112 §3.2.4
    rest = [field for field in end_to_end(fields) if field[0] != b"host"]
    headers = [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", path),
        *rest,
    ]
    fault = request_fault(headers)
    if fault is not None:
        raise HeadError(400, fault)
    return headers


def response_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Build the pseudo-header form of a response; raises HeadError for one that is refused."""
    headers = [(b":status", b"%d" % status), *end_to_end(fields)]
    fault = response_fault(headers)
    if fault is not None:
        raise HeadError(502, fault)
    return headers


def switched_head(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The same of a 101 that was asked for."""
    headers = response_head(200, fields)
    headers[0] = (b":status", b"101")
    return headers


def trailer_fields(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Leave out of a trailer section what may not be there (RFC 9110 §6.5.1)."""
    return [
        (name, value) for name, value in fields if name not in _NOT_IN_TRAILERS and name[:1] != b":"
    ]


def wants_trailers(headers: Headers) -> bool:
    """Whether trailers are to be expected after this head: announced, or gRPC (not its form for pages)."""
    return any(
        name == b"trailer"
        or (
            name == b"content-type"
            and value.startswith(b"application/grpc")
            and not value.startswith(b"application/grpc-web")
        )
        for name, value in headers
    )


class Framed(NamedTuple):
    """Fields as they are written, and the length of the body: bytes, CHUNKED or UNTIL_CLOSE."""

    fields: Headers
    length: int


def wire_request(headers: Headers, *, end_stream: bool) -> tuple[bytes, Framed]:
    """Return the start line and the fields for HTTP/1.1, framing included.

    `headers` is a request without fault. Cookie fields are joined (RFC 9113 §8.2.3); a length is
    kept unless trailers may follow, for they need chunks (RFC 9112 §7.1.2). Raises ValueError.
    """
    said = dict(headers)
    regular = [field for field in headers if field[0] not in _NOT_WRITTEN]
    if not _ODD.isdisjoint(said):
        regular = _with_te_named(end_to_end(regular))
    if b"cookie" in said and len(said) != len(headers):
        regular = _with_one_cookie(regular)
    fields = [(b"host", said.get(b":authority") or said.get(b"host", b"")), *regular]
    length = said.get(b"content-length")
    if length is not None and not end_stream and wants_trailers(headers):
        length = None
        fields = _without_length(fields)
    method = said[b":method"]
    start = b"%b %b HTTP/1.1" % (method, said[b":path"])
    if b":protocol" in said:
        return start, Framed(_without_length(fields) + UPGRADE_FIELDS, 0)
    if length is not None:
        return start, Framed(fields, _declared(length))
    if not end_stream:
        fields.append((b"transfer-encoding", b"chunked"))
        return start, Framed(fields, CHUNKED)
    if method in _BODY_EXPECTED:
        fields.append((b"content-length", b"0"))  # RFC 9110 §8.6
    return start, Framed(fields, 0)


def wire_response(headers: Headers, *, method: bytes, chunks: bool, end_stream: bool) -> Framed:
    """Return the fields for HTTP/1.x, framing included.

    `method` is the request's. `chunks`: the client can read them (it speaks HTTP/1.1). Raises
    ValueError.
    """
    said = dict(headers)
    status = said[b":status"]
    fields = headers[1:]
    if not _ODD.isdisjoint(said):
        fields = [field for field in end_to_end(fields) if field[0] != b"te"]
    if status == b"204" or status[:1] == b"1":
        return Framed(_without_length(fields), 0)  # RFC 9110 §8.6: no content-length here
    bodiless = method == b"HEAD" or status == b"304"
    length = said.get(b"content-length")
    if length is not None and chunks and not (bodiless or end_stream) and wants_trailers(headers):
        length = None
        fields = _without_length(fields)
    if length is None and end_stream and not bodiless:
        length = b"0"
        fields.append((b"content-length", length))
    if length is not None:
        return Framed(fields, 0 if bodiless else _declared(length))
    if chunks and status != b"304":  # HEAD is told of the framing that GET would have
        fields.append((b"Transfer-Encoding", b"chunked"))
    if bodiless:
        return Framed(fields, 0)
    return Framed(fields, CHUNKED if chunks else UNTIL_CLOSE)


def _declared(length: bytes) -> int:
    if not length.isdigit():
        message = "content-length"
        raise ValueError(message)
    return int(length)


def _without_length(fields: Headers) -> Headers:
    return [field for field in fields if field[0] != b"content-length"]


def _with_te_named(fields: Headers) -> Headers:
    """`te` concerns this connection, and `connection` has to say so (RFC 9110 §10.1.4)."""
    named = []
    for field in fields:
        named.append(field)
        if field[0] == b"te":
            named.append((b"connection", b"te"))
    return named


def _with_one_cookie(fields: Headers) -> Headers:
    crumbs = [value for name, value in fields if name == b"cookie"]
    joined = []
    for field in fields:
        if field[0] != b"cookie":
            joined.append(field)
        elif crumbs:
            joined.append((b"cookie", b"; ".join(crumbs)))
            crumbs = []
    return joined
