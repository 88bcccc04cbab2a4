"""Connections on their way from the supervisor, which accepted them, to the worker that serves them.

The supervisor keeps its own descriptor of each until the worker says that it has taken it, which it says
before it reads a byte: whatever was on the way to a worker that dies goes to another one. This socket is
apart from the bus, so that no connection waits behind a large table.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

import trio

_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_GIVEN = struct.Struct("!QI")  # serial, door
_NOTED = struct.Struct("!cQ")  # what, and a serial or a count
_TAKEN, _UNTAKEN, _ENDED = b"T", b"U", b"E"
_NOTICE = 4096  # octets a read of notices
BATCH = 64
"""Connections taken in one go, before anything else in that worker has its turn."""
UNANSWERED = 256
"""Connections on the way to one worker: one that does not answer gets no more. Above what a burst
brings until a busy worker's next turn, far below what the kernel lets be in flight."""

SLOW = 0.5
"""Seconds after which a worker that has not taken a connection is passed over while others can."""
_PAUSE = 0.1
"""Seconds for which a worker that is out of file descriptors takes no more (as `wire.sockets`)."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's."""
    here, there = socket.socketpair(socket.AF_UNIX, _KIND)
    here.setblocking(False)
    there.setblocking(False)
    return here, there


class Given(NamedTuple):
    """A connection that was accepted, and at which door."""

    door: int
    fd: int


class _OnTheWay(NamedTuple):
    given: Given
    since: float


class Giver:
    """The supervisor's end. `connections` are those on the way and those that are there."""

    def __init__(self, sock: socket.socket, changed: Callable[[list[Given]], None]) -> None:
        """`changed` is told when there may be room again, with what the worker could not take."""
        self.connections = 0
        self._sock = sock
        self._changed = changed
        self._serial = 0
        self._unanswered: dict[int, _OnTheWay] = {}

    @property
    def room(self) -> bool:
        return len(self._unanswered) < UNANSWERED

    @property
    def slow(self) -> bool:
        """Whether the first of them has been on the way for long: somebody else is better."""
        oldest = next(iter(self._unanswered.values()), None)
        return oldest is not None and trio.current_time() - oldest.since > SLOW

    def give(self, given: Given) -> bool:
        """Takes it over if it succeeds; False when it is not the time, or nobody is there."""
        self._serial += 1
        rights = array.array("i", [given.fd])
        try:
            self._sock.sendmsg(
                [_GIVEN.pack(self._serial, given.door)],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
            )
        except OSError:
            return False
        self._unanswered[self._serial] = _OnTheWay(given, trio.current_time())
        self.connections += 1
        return True

    async def hear(self) -> None:
        """What the worker says, until it is gone."""
        while True:
            try:
                data = self._sock.recv(_NOTICE)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_readable(self._sock)
                except trio.ClosedResourceError:
                    return
                continue
            except OSError:
                return
            if not data:
                return
            untaken: list[Given] = []
            for what, number in _NOTED.iter_unpack(data):
                self._noted(what, number, untaken)
            self._changed(untaken)

    def _noted(self, what: bytes, number: int, untaken: list[Given]) -> None:
        if what == _ENDED:
            self.connections -= number
        elif what == _TAKEN:
            os.close(self._unanswered.pop(number).given.fd)
        else:
            self.connections -= 1
            untaken.append(self._unanswered.pop(number).given)

    def waits_for(self, door: int) -> bool:
        """Whether a connection of that door is still on the way."""
        return any(one.given.door == door for one in self._unanswered.values())

    def take_back(self) -> list[Given]:
        """All that were not taken, when the worker is gone."""
        self._sock.close()
        left = [one.given for one in self._unanswered.values()]
        self._unanswered = {}
        self.connections = 0
        return left


class _Received(NamedTuple):
    door: int
    serial: int
    sock: socket.socket | None


class Taker:
    """The worker's end. `take` has each connection, with its door's number."""

    def __init__(self, sock: socket.socket, take: Callable[[int, trio.SocketStream], None]) -> None:
        self._sock = sock
        self._take = take
        self._ended = 0
        self._wake = trio.Event()

    async def run(self) -> None:
        """Until the supervisor is gone; then all is taken that it gave."""
        with contextlib.suppress(trio.ClosedResourceError):
            while (batch := self._receive()) is not None:
                if not batch:
                    await trio.lowlevel.wait_readable(self._sock)
                    continue
                await self._answer(batch)
                for door, _, sock in batch:
                    if sock is not None:
                        self._take(door, trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
                if any(sock is None for _, _, sock in batch):
                    await trio.sleep(_PAUSE)
                await trio.lowlevel.checkpoint()

    def _receive(self) -> list[_Received] | None:
        """What is there, at most a batch; None when nobody gives any more."""
        batch: list[_Received] = []
        for _ in range(BATCH):
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, _GIVEN.size, 1, _CLOEXEC)
            except BlockingIOError:
                break
            except OSError:
                data, fds = b"", []
            if not data:
                return batch or None
            serial, door = _GIVEN.unpack(data)
            # The kernel keeps a descriptor to itself when this process has no room for it.
            batch.append(_Received(door, serial, socket.socket(fileno=fds[0]) if fds else None))
        return batch

    async def _answer(self, batch: list[_Received]) -> None:
        await self._say(
            b"".join(
                _NOTED.pack(_TAKEN if sock is not None else _UNTAKEN, serial)
                for _, serial, sock in batch
            )
        )

    async def _say(self, notice: bytes) -> None:
        while True:
            try:
                self._sock.send(notice)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            except OSError:
                return
            else:
                return

    def ended(self) -> None:
        """A connection is over."""
        self._ended += 1
        self._wake.set()

    async def tell_ended(self) -> None:
        """Until cancelled; all that ended in one turn are one notice."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            count, self._ended = self._ended, 0
            await self._say(_NOTED.pack(_ENDED, count))
