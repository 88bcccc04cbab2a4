"""The server name of a ClientHello, read before the handshake.

OpenSSL's callback comes too late for what a Host may say for itself: versions were agreed on by then,
and a context that is exchanged inside of it brings its certificate but not what it asks of clients.
So the name is looked for first (as Envoy's tls_inspector does), and the whole handshake is made with
the context of that name.
"""

from __future__ import annotations

import trio

LARGEST_HELLO = 1 << 14
"""Bytes (Envoy's tls_inspector has 16 KiB); one with post-quantum shares is about 2 KiB."""

TLS_HANDSHAKE = 0x16  # a record's first byte, RFC 8446 §5.1
_CLIENT_HELLO = 1  # RFC 8446 §4
_SERVER_NAME = 0  # RFC 6066 §3
_HOST_NAME = 0

UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
"""A fatal alert, unrecognized_name (RFC 6066 §3), as a record of its own."""


class _Short(Exception):  # noqa: N818 - no error: more bytes are wanted
    """The bytes end before what is read."""


async def read_hello(stream: trio.abc.Stream, said: bytes = b"") -> tuple[str, bytes]:
    """The name asked for, lower case and "" for none, and all bytes read so far.

    `said` was read before. What is no ClientHello has no name; the handshake will say so.
    """
    while True:
        try:
            return server_name(said), said
        except _Short:
            data = await stream.receive_some(LARGEST_HELLO)
            said += data
            if not data or len(said) > LARGEST_HELLO:
                return "", said


def server_name(said: bytes) -> str:
    """Raises `_Short` while it cannot be known."""
    hello = _handshake_bytes(said)
    if hello is None or hello[:1] != bytes([_CLIENT_HELLO]):
        return ""
    body = _Reader(hello, 1)
    body = _Reader(body.vector(3))
    body.take(2 + 32)  # version, random
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        body.vector(size)
    try:
        return _name_among(_Reader(body.vector(2)))
    except _Short:  # inside a whole hello that is no lack of bytes
        return ""


def _handshake_bytes(said: bytes) -> bytes | None:
    """The contents of the leading handshake records, at least one message; None for another kind."""
    records, out = _Reader(said), b""
    while True:
        if records.number(1) != TLS_HANDSHAKE:
            return None
        records.take(2)
        out += records.vector(2)
        if len(out) >= 4 and len(out) - 4 >= int.from_bytes(out[1:4]):
            return out


def _name_among(extensions: _Reader) -> str:
    while extensions:
        kind, data = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names = _Reader(_Reader(data).vector(2))
            while names:
                of_host, name = names.number(1) == _HOST_NAME, names.vector(2)
                if of_host:
                    return name.decode("ascii", "replace").lower().rstrip(".")
    return ""


class _Reader:
    """Numbers and length-prefixed vectors, one after the other."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise _Short
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))
