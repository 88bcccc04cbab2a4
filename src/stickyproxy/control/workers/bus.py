"""Supervisor and worker talk: messages on a socketpair, each with its length before it.

They are pickled: values of our own between two processes of one version of ours, on a socket that
nobody else has, so nothing foreign is ever loaded. Objects that a message has twice stay one object over
there, and a table's array is its bytes. msgpack or marshal would need every class of `model` taken
apart and put together again by hand. Keys of certificates travel here, and nowhere else: no command
line, no environment, no file.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

import trio

_LENGTH = struct.Struct("!I")
_READ = 1 << 18
"""Octets a read; a table of 65,537 slots is one."""


def packed(message: object) -> bytes:
    """A message as it travels; to be sent to as many as should hear it."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Octets as they come, messages as they are whole."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> list[Any]:
        self._parts.append(data)
        self._size += len(data)
        return self._whole() if self._size >= self._wanted else []

    def _whole(self) -> list[Any]:
        held = memoryview(b"".join(self._parts))
        found, at = [], 0
        self._wanted = _LENGTH.size
        while len(held) - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(held, at)[0]
            if end > len(held):
                self._wanted = end - at
                break
            found.append(pickle.loads(held[at + _LENGTH.size : end]))  # noqa: S301 - see above
            at = end
        self._parts, self._size = [bytes(held[at:])], len(held) - at
        return found


class Bus:
    """One end. `send` never waits: what is not sent yet is kept, for a listener that hangs is killed.

    `write` has to run for anything to be sent.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._unpacker = Unpacker()
        self._waiting: list[bytes] = []
        self._wake = trio.Event()
        self._sent = trio.Event()

    def send(self, message: object) -> None:
        self.send_packed(packed(message))

    def send_packed(self, data: bytes) -> None:
        self._waiting.append(data)
        if self._sent.is_set():
            self._sent = trio.Event()
        self._wake.set()

    async def write(self) -> None:
        """Until cancelled, or nobody listens any more."""
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._waiting:
                    waiting, self._waiting = self._waiting, []
                    await self._stream.send_all(b"".join(waiting))
                self._sent.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._sent.set()

    async def flush(self) -> None:
        """Until all is sent that was said."""
        if self._waiting:
            await self._sent.wait()

    async def receive(self) -> list[Any]:
        """The next messages; none when the other end is gone."""
        while True:
            try:
                data = await self._stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return []
            if not data:
                return []
            if found := self._unpacker.feed(data):
                return found

    def close(self) -> None:
        self._stream.socket.close()
