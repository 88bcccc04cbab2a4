"""WebSockets as far as a proxy must know them: the handshake of each HTTP, and frames looked at in passing.

Sources: RFC 6455 (handshake §4, frames §5, closing §7), RFC 8441 (over HTTP/2). Over HTTP/1.1 each hop
proves by Sec-WebSocket-Key and -Accept that it understood; over HTTP/2 neither is used. So we make and
check our own on each hop of HTTP/1.1, whatever is spoken on the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from http import HTTPStatus

from stickyproxy.model import Headers

NAME = b"websocket"
GOING_AWAY = 1001
FAILED = 1011
"""Not 1014 (bad gateway): wsproto, and with it trio-websocket and Hypercorn, take that for a broken frame."""

_VERSION = b"13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_OF_ONE_HOP = frozenset(
    {b"content-length", b"sec-websocket-accept", b"sec-websocket-key", b"te", b"transfer-encoding"}
)

_CLOSE = 0x8
_FIN, _OPCODE, _MASKED, _LENGTH = 0x80, 0x0F, 0x80, 0x7F
_SMALL_HEAD, _MASK_BYTES, _CODE_BYTES = 2, 4, 2
_LONG_LENGTHS = {126: 2, 127: 8}


# --- the handshake ----------------------------------------------------------------------------------


def key_of(entropy: int) -> bytes:
    """A `sec-websocket-key` of 128 bits."""
    return base64.b64encode(entropy.to_bytes(_KEY_BYTES, "big"))


def accept_of(key: bytes) -> bytes:
    """The `sec-websocket-accept` that answers `key`."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def refusal_of(headers: Headers, *, keyed: bool) -> tuple[Headers, bytes] | None:
    """The whole answer to a broken handshake; None for a good one. `keyed`: it came by HTTP/1.1."""
    (method,) = _values(headers, b":method")
    if method != b"GET":
        told, body = _answer(405, "a WebSocket begins with GET", [(b"allow", b"GET")])
        return told, b"" if method == b"HEAD" else body
    if _values(headers, b"sec-websocket-version") != [_VERSION]:
        more = [(b"sec-websocket-version", _VERSION)]
        return _answer(426, "the version of WebSocket served here is 13", more)
    if keyed and not _is_key(_values(headers, b"sec-websocket-key")):
        return _answer(400, "Sec-WebSocket-Key is not 16 bytes in base64, said once", [])
    return None


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for field, value in headers if field == name]


def _is_key(values: list[bytes]) -> bool:
    if len(values) != 1:
        return False
    try:
        return len(base64.b64decode(values[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _answer(status: int, words: str, more: Headers) -> tuple[Headers, bytes]:
    body = f"stickyproxy: {words} ({HTTPStatus(status).phrase})\n".encode()
    headers = [
        (b":status", b"%d" % status),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]
    return headers, body


def asking(headers: Headers, key: bytes) -> Headers:
    """The request for a backend, from the same as a GET: with a `key` for HTTP/1.1, with b"" for HTTP/2."""
    pseudo = [field for field in headers if field[0][:1] == b":"]
    rest = [field for field in headers if field[0][:1] != b":" and field[0] not in _OF_ONE_HOP]
    if key:
        return [*pseudo, (b":protocol", NAME), *rest, (b"sec-websocket-key", key)]
    pseudo = [(b":method", b"CONNECT") if field[0] == b":method" else field for field in pseudo]
    return [*pseudo, (b":protocol", NAME), *rest]


def accepting(headers: Headers, client_key: bytes) -> Headers:
    """The answer for a client, from a backend's that accepted: for the client's key, or (b"") for HTTP/2."""
    rest = [field for field in headers[1:] if field[0] not in _OF_ONE_HOP]
    if not client_key:
        return [(b":status", b"200"), *rest]
    return [(b":status", b"101"), *rest, (b"sec-websocket-accept", accept_of(client_key))]


def is_accepted(headers: Headers, key: bytes) -> bool:
    """Whether a backend's answer accepts: to a `key` by 101, over HTTP/2 (no key) by 2xx."""
    status = headers[0][1]
    return status == b"101" if key else status[:1] == b"2"


def is_proven(headers: Headers, key: bytes) -> bool:
    """Whether an answer that accepts over HTTP/1.1 is one to our request (RFC 6455 §4.1)."""
    return _values(headers, b"sec-websocket-accept") == [accept_of(key)]


# --- frames -----------------------------------------------------------------------------------------


class FrameScanner:
    """Looks at the bytes of one direction as they pass, split anywhere; holds at most a frame's head.

    `count` is the number of whole messages, `close_code` that of the Close frame: None before it, 1005
    for one without a code (RFC 6455 §7.4.1). Nothing is judged: what breaks the rules is for the ends.
    """

    __slots__ = ("_code", "_completes", "_head", "_mask", "_missing", "close_code", "count")

    def __init__(self) -> None:
        self.count = 0
        self.close_code: int | None = None
        self._head = b""
        self._missing = 0
        self._completes = False
        self._code: bytes | None = None
        """What has come of a Close frame's code; None outside of one."""
        self._mask = b""

    @property
    def at_boundary(self) -> bool:
        """True between two frames, where a Close frame may stand."""
        return not (self._missing or self._head)

    def feed(self, data: bytes) -> None:
        """Take the next bytes, of any length."""
        at, end = 0, len(data)
        while at < end:
            at = self._take_payload(data, at) if self._missing else self._take_head(data, at)

    def _take_payload(self, data: bytes, at: int) -> int:
        size = min(self._missing, len(data) - at)
        if self._code is not None and len(self._code) < _CODE_BYTES:
            self._code += data[at : at + min(size, _CODE_BYTES - len(self._code))]
        self._missing -= size
        if not self._missing:
            self._frame_ends()
        return at + size

    def _take_head(self, data: bytes, at: int) -> int:
        """One byte more than is there is never taken: a head is small and mostly whole."""
        held = len(self._head)
        head = self._head + data[at : at + _head_size(self._head, data, at) - held]
        size = _head_size(head, b"", 0)
        if len(head) < size:
            self._head = head
            return at + len(head) - held
        self._head = b""
        self._begin(head)
        return at + size - held

    def _begin(self, head: bytes) -> None:
        masked = head[1] & _MASKED
        length = head[1] & _LENGTH
        more = _LONG_LENGTHS.get(length)
        if more is not None:
            length = int.from_bytes(head[_SMALL_HEAD : _SMALL_HEAD + more], "big")
        opcode = head[0] & _OPCODE
        self._mask = head[-_MASK_BYTES:] if masked else b""
        self._code = b"" if opcode == _CLOSE else None
        self._completes = bool(head[0] & _FIN) and opcode < _CLOSE
        self._missing = length
        if not length:
            self._frame_ends()

    def _frame_ends(self) -> None:
        self.count += self._completes
        code, self._code = self._code, None
        if code is None or self.close_code is not None:
            return
        if self._mask:
            code = bytes(one ^ other for one, other in zip(code, self._mask, strict=False))
        self.close_code = int.from_bytes(code, "big") if len(code) == _CODE_BYTES else 1005


def _head_size(head: bytes, data: bytes, at: int) -> int:
    """Bytes of the frame's head that `head` and then `data` begin, as far as they can tell."""
    first = head[1:2] or data[at + 1 - len(head) : at + 2 - len(head)]
    if not first:
        return _SMALL_HEAD
    more = _LONG_LENGTHS.get(first[0] & _LENGTH, 0)
    return _SMALL_HEAD + more + (_MASK_BYTES if first[0] & _MASKED else 0)


def close_frame(code: int, reason: str, mask: bytes = b"") -> bytes:
    """A whole Close frame; towards a backend it has a `mask` of four bytes (RFC 6455 §5.3).

    The reason is cut to what fits (123 bytes).
    """
    payload = code.to_bytes(_CODE_BYTES, "big") + reason.encode("ascii", "replace")[:123]
    if not mask:
        return bytes((_FIN | _CLOSE, len(payload))) + payload
    masked = bytes(byte ^ mask[index % _MASK_BYTES] for index, byte in enumerate(payload))
    return bytes((_FIN | _CLOSE, _MASKED | len(payload))) + mask + masked
