"""HTTP/1.1 connections that become something else: Upgrade and 101 (RFC 9110 §7.8).

Only `websocket` is known here. A request that asks for it is told as in HTTP/2 (RFC 8441), by
`:protocol`, but keeps its GET; whoever serves it may take it for a plain GET all the same, for a server
is free to ignore an Upgrade. After a 101 bytes have no framing any more, in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable

from stickyproxy.model import Headers

WEBSOCKET = b"websocket"
SWITCHED = 101
UPGRADE_REQUIRED = 426
UPGRADE_FIELDS: Headers = [(b"connection", b"Upgrade"), (b"upgrade", WEBSOCKET)]


def asked_for(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The protocol that a head of these (raw) fields switches to; b"" for none that is known."""
    options: set[bytes] = set()
    wanted: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            options |= _tokens(value)
        elif name == b"upgrade":
            wanted |= _tokens(value)
    return WEBSOCKET if b"upgrade" in options and WEBSOCKET in wanted else b""


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip(b" \t").lower() for token in value.split(b",")}
