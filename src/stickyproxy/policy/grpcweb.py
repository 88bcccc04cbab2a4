"""gRPC-Web to gRPC and back: heads, the trailers' frame, and base64 that may be cut anywhere.

Source: grpc/grpc doc/PROTOCOL-WEB.md. Browsers show pages neither HTTP/2's trailers nor its resets, so a
gRPC-Web response carries its trailers as a last message with the flag 0x80, and where its body is text
(`application/grpc-web-text`) it is base64, padded wherever a part ends.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Container
from typing import NamedTuple

from stickyproxy.model import Headers
from stickyproxy.policy.messages import MessageCounter

CONTENT_TYPE = b"application/grpc-web"
GRPC = b"application/grpc"
_TEXT = b"-text"
_TRAILERS = 0x80
_LENGTH_BYTES = 4
_QUAD, _TRIPLE = 4, 3
_UNREAD = frozenset({b"accept", b"content-length", b"content-type", b"expect", b"te"})
_BOUND_TO_BODY = frozenset({b"content-length"})
_FINE = (b":status", b"200")
_OF_HTTP = frozenset(
    b"age allow alt-svc connection date etag expires last-modified link location nel pragma"
    b" refresh referrer-policy report-to retry-after server server-timing set-cookie"
    b" strict-transport-security timing-allow-origin vary via warning www-authenticate"
    b" x-content-type-options x-frame-options".split()
)
_KINDS_OF_HTTP = (
    *(b":", b"accept-", b"access-control-", b"cache-", b"clear-site-", b"content-"),
    *(b"cross-origin-", b"keep-", b"proxy-", b"x-envoy-", b"x-stickyproxy-"),
)
"""Of a response, what browsers, caches and proxies look at (IANA's Field Name Registry)."""
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")


class Form(NamedTuple):
    """Of a body: in base64 or not, and what stands behind the name (`+proto`, `;charset=…`)."""

    text: bool
    suffix: bytes


def form_of(content_type: bytes) -> Form | None:
    """None for what is no gRPC-Web."""
    size = len(CONTENT_TYPE)
    if content_type[:size].lower() != CONTENT_TYPE:
        return None
    rest = content_type[size:]
    text = rest[: len(_TEXT)].lower() == _TEXT
    suffix = rest[len(_TEXT) :] if text else rest
    if suffix[:1] not in (b"", b"+", b";", b" "):
        return None
    return Form(text, suffix.strip())  # servers of gRPC take no blank behind the name


def wanted_form(accept: bytes | None, asked: Form) -> Form:
    """Of the response: as `accept` says, if it names one, else as the request."""
    for name in (accept or b"").split(b","):
        form = form_of(name.strip())
        if form is not None:
            return Form(form.text, asked.suffix)
    return asked


def request_head(headers: Headers, form: Form) -> Headers:
    """The head of the same call in gRPC. A length goes, for that of text is another."""
    out = [field for field in headers if field[0] not in _UNREAD]
    return [*out, (b"content-type", GRPC + form.suffix), (b"te", b"trailers")]


def response_head(headers: Headers, form: Form) -> Headers:
    """The head of the same answer in gRPC-Web; one that is no gRPC's stays as it is.

    A 200 without a type is taken for gRPC, as `policy.grpc` takes it.
    """
    kind = next((value for name, value in headers if name == b"content-type"), None)
    if kind is None and headers[0] == _FINE:
        headers, kind = [*headers, (b"content-type", GRPC)], GRPC
    if kind is None or kind[: len(GRPC)].lower() != GRPC:
        return headers
    own = (b"content-type", CONTENT_TYPE + (_TEXT if form.text else b"") + kind[len(GRPC) :])
    kept = [field for field in headers if field[0] not in _BOUND_TO_BODY]
    return [own if field[0] == b"content-type" else field for field in kept]


def is_answer(headers: Headers) -> bool:
    """Whether `response_head` made a gRPC-Web head."""
    return any(name == b"content-type" and form_of(value) is not None for name, value in headers)


def without_status(headers: Headers, theirs: Container[bytes]) -> tuple[Headers, Headers]:
    """A trailers-only head as the head and the trailers that it stands for.

    `theirs` has the names that the server itself gave: metadata, all but what is HTTP's. That is for
    the browser (a cookie for nobody else), and must be in a head.
    """
    head: Headers = []
    trailers: Headers = []
    for field in headers:
        name = field[0]
        moved = name[:5] == b"grpc-" or (name in theirs and not _is_of_http(name))
        (trailers if moved else head).append(field)
    return head, trailers


def _is_of_http(name: bytes) -> bool:
    return name in _OF_HTTP or name.startswith(_KINDS_OF_HTTP)


def trailers_frame(trailers: Headers) -> bytes:
    """The last message of a response."""
    lines = b"".join(b"%b: %b\r\n" % field for field in trailers)
    return bytes((_TRAILERS,)) + len(lines).to_bytes(_LENGTH_BYTES, "big") + lines


class TextDecoder:
    """Base64 in parts of any size, padded anywhere; at most three bytes are kept between two calls."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def decode(self, data: bytes) -> bytes:
        """Raises ValueError for what is no base64."""
        data = self._held + data
        whole = len(data) // _QUAD * _QUAD
        self._held = data[whole:]
        return _decoded(data[:whole])

    def end(self) -> bytes:
        """Nothing more comes: what is held, its padding forgotten. Raises ValueError."""
        held, self._held = self._held, b""
        if len(held) == 1:
            message = "base64 that is cut off"
            raise ValueError(message)
        return _decoded(held + b"=" * (-len(held) % _QUAD))


def _decoded(quads: bytes) -> bytes:
    """Whole groups of four, of which each may be the padded end of a part."""
    if _NO_BASE64.search(quads):
        message = "a byte that is no base64"
        raise ValueError(message)
    if b"=" not in quads:
        return binascii.a2b_base64(quads, strict_mode=True)
    parts = []
    start = 0
    while start < len(quads):
        found = quads.find(b"=", start)
        end = len(quads) if found < 0 else found // _QUAD * _QUAD + _QUAD
        parts.append(binascii.a2b_base64(quads[start:end], strict_mode=True))
        start = end
    return b"".join(parts)


class TextEncoder:
    """Base64 that is padded where a message ends, so that each can be read as soon as it is there."""

    __slots__ = ("_held", "_messages")

    def __init__(self) -> None:
        self._held = b""
        self._messages = MessageCounter()

    @staticmethod
    def bound(amount: int) -> int:
        """The most bytes that `amount` more can become."""
        return (amount + 2 * _TRIPLE - 1) // _TRIPLE * _QUAD

    def encode(self, data: bytes) -> bytes:
        before = self._messages.count
        self._messages.feed(data)
        data = self._held + data
        size = len(data)
        if self._messages.count == before:  # amid a message nobody waits for the last bytes
            size -= size % _TRIPLE
        self._held = data[size:]
        return binascii.b2a_base64(data[:size], newline=False)

    def end(self, frame: bytes) -> bytes:
        """The last of it, with the trailers' frame."""
        held, self._held = self._held, b""
        return binascii.b2a_base64(held + frame, newline=False)
