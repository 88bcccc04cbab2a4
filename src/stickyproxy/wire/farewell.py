"""The last things said on a socket: that nothing more will come, or that something is missing."""

from __future__ import annotations

import contextlib
import socket
import struct

import trio

from stickyproxy.wire.secured import Secured, below

LINGER = 1.0
"""Seconds for the peer to read our last words (Envoy's delayed_close is 1 s)."""
_READ_SIZE = 65_536


async def linger(transport: trio.abc.Stream, *, whole: bool = True) -> None:
    """Say that this was all, then read away what still arrives for a moment.

    Over TLS a body without a length is whole only with close_notify (RFC 9112 §9.8), so that none is said
    where it is not `whole`. The kernel resets a socket that is closed with unread input, and then the peer
    loses what we said last.
    """
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        with trio.move_on_after(LINGER):
            if isinstance(transport, Secured):
                goodbye = transport.farewell() if whole else b""
                transport = transport.transport_stream
                await transport.send_all(goodbye)
            if isinstance(transport, trio.abc.HalfCloseableStream):
                await transport.send_eof()
            while await transport.receive_some(_READ_SIZE):
                pass


def tear(transport: trio.abc.Stream) -> None:
    """Make the coming close a reset: the only way to tell an HTTP/1.0 client that a body is not whole."""
    transport = below(transport)
    if isinstance(transport, trio.SocketStream):
        with contextlib.suppress(OSError):
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
