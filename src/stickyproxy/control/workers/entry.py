"""An open port of the supervisor: what comes in is given to workers."""

from __future__ import annotations

import trio

from stickyproxy.control.worker import exhausted
from stickyproxy.control.workers.handover import Given
from stickyproxy.control.workers.orders import DoorSpec
from stickyproxy.control.workers.spread import Spread
from stickyproxy.wire.silence import silence
from stickyproxy.wire.sockets import accept_loop, accept_pending


class Entry:
    """Accepts until it is closed. `run` ends when all that came has been taken by a worker."""

    def __init__(self, listener: trio.SocketListener, door: DoorSpec, spread: Spread) -> None:
        self.listener = listener
        self.door = door
        self.until = float("inf")
        self._spread = spread
        self._accepting = trio.CancelScope()

    def close(self, until: float) -> None:
        self.until = until
        self._accepting.cancel()

    async def run(self) -> None:
        with self._accepting:
            await accept_loop(_WithRoom(self.listener, self._spread), self._give, exhausted)
        silence(self.listener)
        for stream in accept_pending(self.listener):
            self._give(stream)
        self.listener.socket.close()
        await self._spread.wait_taken(self.door.number)

    def _give(self, stream: trio.SocketStream) -> None:
        self._spread.give(Given(self.door.number, stream.socket.detach()))


class _WithRoom(trio.abc.Listener[trio.SocketStream]):
    """Accepts when somebody can take it."""

    def __init__(self, listener: trio.SocketListener, spread: Spread) -> None:
        self._listener = listener
        self._spread = spread

    async def accept(self) -> trio.SocketStream:
        await self._spread.wait_room()
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()
