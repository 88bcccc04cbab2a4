"""A port that another process has open: its connections are handed over."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import trio

from stickyproxy.control.doors import Door
from stickyproxy.control.workers.orders import DoorSpec
from stickyproxy.edge import ListenerSpec
from stickyproxy.proxy.server import Server


class Handed:
    """The way in of one such port. `take` may be called before its door runs."""

    def __init__(self, door: DoorSpec, ended: Callable[[], None]) -> None:
        """`ended` is told of each connection that is over."""
        self._spec = door
        self.ended = ended
        self.inside: HandedDoor | None = None
        self.early: list[trio.SocketStream] = []

    @property
    def key(self) -> Hashable:
        return self._spec.number

    @property
    def protocol(self) -> str:
        return self._spec.protocol

    @property
    def spec(self) -> ListenerSpec | None:
        return self._spec.spec

    def door(self, server: Server, _exhausted: Callable[[OSError], None]) -> HandedDoor:
        self.inside = HandedDoor(self, server)
        return self.inside

    def shut(self) -> None:
        """Nothing is open here."""

    def changed(self, door: DoorSpec) -> Handed:
        """As it serves from now on, through the same door."""
        fresh = Handed(door, self.ended)
        fresh.inside = self.inside
        return fresh

    def take(self, stream: trio.SocketStream) -> None:
        if self.inside is None or not self.inside.take(stream):
            self.early.append(stream)


class HandedDoor(Door):
    """Runs until it is closed; whoever closes it knows that nobody comes any more."""

    def __init__(self, way: Handed, server: Server) -> None:
        super().__init__(way, server)
        self._handed = way
        self._connections: trio.Nursery | None = None

    def take(self, stream: trio.SocketStream) -> bool:
        """False while it does not run yet."""
        if self._connections is None:
            return False
        self._connections.start_soon(self._serve, stream)
        return True

    async def run(self) -> None:
        async with trio.open_nursery() as connections:
            self._connections = connections
            early, self._handed.early = self._handed.early, []
            for stream in early:
                self.take(stream)
            with self._accepting:
                await trio.sleep_forever()
            self._end(connections)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await self._server.serve_connection(stream, self.way.protocol)
        finally:
            self._handed.ended()
