"""The last things said on a socket: that nothing more will come, or that something is missing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

import trio

LINGER = 1.0
"""Seconds for the peer to read our last words (Envoy's delayed_close is 1 s)."""
_READ_SIZE = 65_536


async def linger(transport: trio.abc.Stream) -> None:
    """Say that this was all, then read away what still arrives for a moment.

    Over TLS a body without a length is whole only with close_notify (RFC 9112 §9.8). The kernel
    resets a socket that is closed with unread input, and then the peer loses what we said last.
    """
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        with trio.move_on_after(LINGER):
            transport = await _say_close_notify(transport)
            if isinstance(transport, trio.abc.HalfCloseableStream):
                await transport.send_eof()
            while await transport.receive_some(_READ_SIZE):
                pass


async def _say_close_notify(transport: trio.abc.Stream) -> trio.abc.Stream:
    """What lies below TLS. A peer that goes on sending does not answer in kind: never mind."""
    while isinstance(transport, trio.SSLStream):
        below = transport.transport_stream
        with contextlib.suppress(trio.BrokenResourceError, ssl.SSLError):
            await transport.unwrap()
        transport = below
    return transport


def tear(transport: trio.abc.Stream) -> None:
    """Make the coming close a reset: the only way to tell an HTTP/1.0 client that a body is not whole."""
    while isinstance(transport, trio.SSLStream):
        transport = transport.transport_stream
    if isinstance(transport, trio.SocketStream):
        with contextlib.suppress(OSError):
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
