"""A socket without trio's detour: one system call a read and a write.

trio's own SocketStream asks for a checkpoint around every call, which costs a turn of the loop each
time, and tries to read before it waits, which mostly fails. Who reads here is read for by the hub, and a
link's writer yields by itself, by parking when it is done. TLS is sealed and opened on the way. What has
no socket (memory) is used as it is.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import TypeVar

import trio

from stickyproxy.codec.api import Codec, Piece
from stickyproxy.wire.hub import Hub, Take, Tap
from stickyproxy.wire.linger import read_apart
from stickyproxy.wire.secured import MOST_VOID, Secured, below

FIRST_READ = 4096
"""Until it is known who reads the rest."""
BULK_READ = 262_144
"""Where the last read was full of bodies: a seventh cheaper by the byte. Many small frames are still
dealt with a codec's `bite` at a time, and HTTP/1.1, which has no credit, holds no more beyond its window."""
BULK_AFTER = 49_152
"""Bytes of a read that was full: 64 KiB, without a last record of TLS that is not whole."""
BULK_EVENT = 4096
"""Bytes an event, from which on it is bodies."""

WORTH_NO_COPY = 2048
"""Bytes a piece, from which on the kernel may as well gather them."""
IOV_MAX = 1024
"""Pieces that one writev takes (POSIX's least is 16, Linux's is this)."""

T = TypeVar("T")

Send = Callable[[bytes], Awaitable[None]]
Pieces = Callable[[], list[Piece]]
Aside = Callable[[float], bool]
"""Called with the seconds that went into what TLS said for itself; whether to read on all the same."""


def sender_of(transport: trio.abc.Stream, hub: Hub | None) -> Send:
    """As a `send_all`, of what is sealed already where there is a hub: raises trio's errors."""
    socket = below(transport) if hub is not None else transport
    if isinstance(socket, trio.SocketStream):
        return partial(_send, socket.socket)
    return transport.send_all


def pieces_of(transport: trio.abc.Stream, hub: Hub | None, codec: Codec) -> Pieces:
    """What the codec has to say, sealed where TLS is written by the hub."""
    if hub is not None and isinstance(transport, Secured):
        return lambda: transport.seal(codec.take_pieces())
    return codec.take_pieces


def flow_of(
    transport: trio.abc.Stream, hub: Hub | None, size: int, take: Take, aside: Aside
) -> Callable[[], Awaitable[None]]:
    """Reads, `size` bytes at first, and gives what was read to `take`, until that says 0.

    Raises trio's errors for a socket.
    """
    if hub is None:
        return partial(_flow, transport, size, take)
    if isinstance(transport, Secured):
        return SecuredTap(transport, hub, size, take, aside).flow
    return Tap(hub, fd_of(transport), size, take).flow


class SecuredTap:
    """The reading end of TLS over a socket."""

    __slots__ = ("_aside", "_first", "_secured", "_size", "_take", "_tap")

    def __init__(self, secured: Secured, hub: Hub, size: int, take: Take, aside: Aside) -> None:
        self._secured = secured
        self._tap = Tap(hub, fd_of(secured), size, self._opened)
        self._first = self._size = size
        self._take = take
        self._aside = aside

    async def flow(self) -> None:
        """As a Tap's. What came together with the handshake's end is here already."""
        self._size = self._first
        if self._open(b""):
            await self._tap.flow()

    def _opened(self, data: bytes) -> int:
        return self._open(data) if data else self._take(data)

    def _open(self, data: bytes) -> int:
        secured, began = self._secured, perf_counter()
        opened = secured.open(data)
        spent = perf_counter() - began
        if opened:
            self._size = self._take(opened)
        if (secured.owes or secured.void > MOST_VOID) and not self._aside(spent):
            self._size = 0
        if self._size and secured.over():
            self._size = self._take(b"")
        return self._size


async def _flow(transport: trio.abc.Stream, size: int, take: Take) -> None:
    with read_apart():
        while size:
            size = take(bytes(await transport.receive_some(size)))


def fd_of(transport: trio.abc.Stream) -> int:
    """Of the socket, TLS or not; -1 where there is none."""
    socket = below(transport)
    return socket.socket.fileno() if isinstance(socket, trio.SocketStream) else -1


def write_some(fd: int, pieces: list[Piece]) -> tuple[int, bytes]:
    """How much of it was written without waiting, and the rest. An error is for the next try to meet."""
    whole = sum(map(len, pieces))
    if len(pieces) * WORTH_NO_COPY < whole:
        sent = _try(os.writev, fd, pieces[:IOV_MAX])
    else:
        pieces = [b"".join(pieces)]
        sent = _try(os.write, fd, pieces[0])
    return sent, b"" if sent == whole else b"".join(pieces)[sent:]


def _try(write: Callable[[int, T], int], fd: int, what: T) -> int:
    try:
        return write(fd, what)
    except OSError:
        return 0


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
