"""Sockets without a kernel: what `trio.testing` leaves out is a limit and the ways a peer can go.

A `Wire` holds only so much that nobody has read, as a socket buffer does, so a peer that does not
read makes its other side wait. It ends like a socket: half closed, closed, closed with input left
unread (the kernel then resets), or broken in the middle.
"""

from __future__ import annotations

import trio

CAPACITY = 1 << 16


class _Half:
    """One direction."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.data = bytearray()
        self.total = 0
        self.eof = False
        self.unheard = False
        """The receiving side is closed: to send is an error."""
        self.broken = False
        """To receive is an error, once what has arrived is read."""
        self.changed = trio.lowlevel.ParkingLot()

    async def put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self.eof:
                raise trio.ClosedResourceError
            if self.unheard:
                raise trio.BrokenResourceError
            room = self.capacity - len(self.data)
            if room <= 0:
                await self.changed.park()
                continue
            self.data += rest[:room]
            self.total += min(room, len(rest))
            rest = rest[room:]
            self.changed.unpark_all()

    async def ready(self) -> None:
        while not (self.data or self.broken or self.eof):
            await self.changed.park()

    async def get(self, size: int) -> bytes:
        await self.ready()
        if not self.data:
            if self.broken:
                raise trio.BrokenResourceError
            return b""
        taken = bytes(self.data[:size])
        del self.data[:size]
        self.changed.unpark_all()
        return taken


class Wire(trio.abc.HalfCloseableStream):
    """One end of a connection in memory; `wire_pair` makes two."""

    def __init__(self, inward: _Half, outward: _Half) -> None:
        self.inward = inward
        self.outward = outward
        self.closed = False
        self.lag = 0.0
        """Seconds until this end notices that something arrived."""

    @property
    def sent(self) -> int:
        """Bytes that left this end, ever."""
        return self.outward.total

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        await self.outward.put(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError
        if self.lag:
            await self.inward.ready()
            await trio.sleep(self.lag)
        data = await self.inward.get(max_bytes or CAPACITY)
        if self.closed:
            raise trio.ClosedResourceError
        return data

    async def send_eof(self) -> None:
        self.outward.eof = True
        self.outward.changed.unpark_all()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """As the kernel does it: input left unread makes the peer lose what it has not read yet."""
        if self.closed:
            return
        if self.inward.data:
            self.outward.data.clear()
            self.outward.broken = True
        self._leave()

    def break_off(self) -> None:
        """As a cable that is cut, noticed by both ends at once."""
        self.inward.broken = self.outward.broken = True
        self.inward.data.clear()
        self.outward.data.clear()
        self._leave()

    def _leave(self) -> None:
        self.closed = self.outward.eof = self.inward.unheard = True
        self.inward.eof = True
        self.inward.changed.unpark_all()
        self.outward.changed.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def wire_pair(capacity: int = CAPACITY) -> tuple[Wire, Wire]:
    """Two ends; each direction holds `capacity` bytes that are sent and not yet read."""
    one, other = _Half(capacity), _Half(capacity)
    return Wire(one, other), Wire(other, one)
