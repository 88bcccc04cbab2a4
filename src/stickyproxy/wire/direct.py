"""A plain socket without trio's detour: one system call a read and a write.

trio's own SocketStream asks for a checkpoint around every call, which costs a turn of the loop each
time, and tries to read before it waits, which mostly fails. A Link has one reader and one writer, and
both yield by themselves: the reader by waiting for the socket, the writer by parking when it is done.
What is not a plain socket (TLS, memory) is used as it is.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from stickyproxy.codec.api import Codec

FIRST_READ = 4096
"""Until it is known who reads the rest."""
BULK_READ = 262_144
"""Where the last read was full of bodies: a seventh cheaper by the byte. Many small frames are still
dealt with a codec's `bite` at a time, and HTTP/1.1, which has no credit, holds no more beyond its window."""
BULK_AFTER = 65_536
"""Bytes of a read that was full."""
BULK_EVENT = 4096
"""Bytes an event, from which on it is bodies."""

Send = Callable[[bytes], Awaitable[None]]
Receive = Callable[[int], Awaitable[bytes | bytearray]]


def sender_of(transport: trio.abc.Stream) -> Send:
    """As the transport's `send_all`: raises trio's errors for a connection that broke."""
    if isinstance(transport, trio.SocketStream):
        return partial(_send, transport.socket)
    return transport.send_all


def receiver_of(transport: trio.abc.Stream) -> Receive:
    """As the transport's `receive_some`; b"" when the peer has said all."""
    if isinstance(transport, trio.SocketStream):
        return partial(_receive, transport.socket)
    return transport.receive_some


def size_of_next(read: int, events: int, codec: Codec) -> int:
    """How much to read at once after `read` bytes, which made so many `events`.

    Without any they were no bodies: PINGs are answered by the codec itself.
    """
    bulk = read >= BULK_AFTER and 0 < events * BULK_EVENT < read and codec.protocol == "HTTP/2"
    return BULK_READ if bulk else codec.bite


async def _send(socket: trio.socket.SocketType, data: bytes) -> None:
    try:
        sent = os.write(socket.fileno(), data)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        raise trio.BrokenResourceError from error
    if sent < len(data):
        await _send_rest(socket, memoryview(data)[sent:])


async def _send_rest(socket: trio.socket.SocketType, rest: memoryview) -> None:
    while rest:
        await trio.lowlevel.wait_writable(socket)
        try:
            rest = rest[os.write(socket.fileno(), rest) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError from error


async def _receive(socket: trio.socket.SocketType, size: int) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(socket)
        try:
            return os.read(socket.fileno(), size)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError from error
