"""One open port and the connections that came through it.

A door closes as a process does: what the kernel has queued is still taken, then everybody who came in
is told goodbye and may finish. Others stay open meanwhile.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from stickyproxy.edge import ListenerSpec
from stickyproxy.proxy.server import Server
from stickyproxy.wire.certificates import Certificates
from stickyproxy.wire.silence import silence
from stickyproxy.wire.sockets import accept_loop, accept_pending


class Way(Protocol):
    """What connections come in by, as a worker knows it: a listener, or a supervisor that has it."""

    @property
    def key(self) -> Hashable:
        """The same for the same port, however it serves."""
        ...

    @property
    def protocol(self) -> str: ...

    @property
    def spec(self) -> ListenerSpec | None: ...

    def door(self, server: Server, exhausted: Callable[[OSError], None]) -> Door: ...

    def shut(self) -> None:
        """It is not wanted any more, and there is no door to it."""
        ...


@dataclass(frozen=True, slots=True)
class Listening:
    """An open listener, the protocol of its bind, and the address it really has.

    `spec` is the Listener that it is for, None for a bind.
    """

    listener: trio.SocketListener
    protocol: str
    address: str
    spec: ListenerSpec | None = None

    @property
    def key(self) -> Hashable:
        return self.listener

    def door(self, server: Server, exhausted: Callable[[OSError], None]) -> OpenDoor:
        return OpenDoor(self, server, exhausted)

    def shut(self) -> None:
        self.listener.socket.close()


class Door(ABC):
    """Lets connections in until it is closed; `run` ends when the last of them did."""

    def __init__(self, way: Way, server: Server) -> None:
        self.way = way
        self._server = server
        self._accepting = trio.CancelScope()
        self._until = math.inf

    def renew(self, certificates: Certificates) -> None:
        """For the handshakes to come."""
        self._server.tls = certificates

    def become(self, way: Way, server: Server) -> None:
        """Who comes from now on meets another server; who is in says goodbye to the old one."""
        self.way = way
        old, self._server = self._server, server
        old.drain()

    def close(self, until: float) -> None:
        """No more come in; who is in may stay until then (trio's clock)."""
        self._until = until
        self._accepting.cancel()

    @abstractmethod
    async def run(self) -> None: ...

    def _end(self, connections: trio.Nursery) -> None:
        self._server.drain()
        connections.cancel_scope.deadline = self._until


class OpenDoor(Door):
    """An open port of this process."""

    def __init__(
        self, listening: Listening, server: Server, exhausted: Callable[[OSError], None]
    ) -> None:
        super().__init__(listening, server)
        self._listener = listening.listener
        self._exhausted = exhausted

    async def run(self) -> None:
        listener = self._listener
        async with trio.open_nursery() as connections:
            start = partial(self._start, connections)
            with self._accepting:
                await accept_loop(listener, start, self._exhausted)
            silence(listener)
            for stream in accept_pending(listener):
                start(stream)
            listener.socket.close()
            self._end(connections)

    def _start(self, connections: trio.Nursery, stream: trio.SocketStream) -> None:
        connections.start_soon(self._server.serve_connection, stream, self.way.protocol)
