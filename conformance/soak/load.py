"""Calls for the soak: an open loop over a few connections, some of which behave badly.

Each call has an id that the proxy's log must have exactly once. What a client of gRPC does by itself is
done here: a stream that was never processed is opened again on another connection, under a new id.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.fast import FastCodec
from stickyproxy.errors import H2Code, ProxyError, Retry
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream

CONNECTIONS = 12
SIZES = (2, 2, 2, 500, 20_000)
WAIT = 15.0
"""Seconds that a call may take before it counts as stuck: the route's timeout is 10."""
AGAIN = 3


@dataclass(eq=False)
class Call:
    """`kind`: plain, uploaded in two parts, reset by its client, or on a connection that was cut.

    `outcome` is the status, or why there is none; "" while it is under way.
    """

    name: str
    kind: str
    began: float
    ended: float = 0.0
    outcome: str = ""

    @property
    def own_fault(self) -> bool:
        return self.kind in ("reset", "cut")


class Client:
    """One connection after the other, as a client of gRPC has them: one that is told to go is followed by

    the next at once, and ends when its last call does. `calls` are those under way, and where.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.link: Link | None = None
        self.calls: dict[Call, Link] = {}
        self._over = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as links:
            while True:
                try:
                    transport = await trio.open_tcp_stream("127.0.0.1", self.port)
                except OSError:
                    await trio.sleep(0.05)
                    continue
                self._over = trio.Event()
                self.link = Link(transport, FastCodec(True, CodecLimits()), changed=self._changed)
                links.start_soon(self._live, self.link)
                await self._over.wait()
                await trio.sleep(0.01)

    async def _live(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._leave(link)

    def _changed(self, link: Link) -> None:
        if link.goaway is not None:
            self._leave(link)
            if not link.streams:
                link.close()

    def _leave(self, link: Link) -> None:
        if self.link is link:
            self.link = None
            self._over.set()

    def cut(self) -> None:
        """As a client that dies: no goodbye."""
        if self.link is not None:
            for call, link in self.calls.items():
                if link is self.link:
                    call.kind = "cut"
            self.link.close()


class Load:
    """`rate` calls a second, 0 for as many as `CLOSED` loops make. `calls` are all that there were."""

    CLOSED = 24

    def __init__(self, port: int, seed: int) -> None:
        self.calls: list[Call] = []
        self.under_way = 0
        self.clients = [Client(port) for _ in range(CONNECTIONS)]
        self._rng = random.Random(seed)
        self._number = 0

    async def connect(self, nursery: trio.Nursery) -> None:
        for client in self.clients:
            nursery.start_soon(client.run)
        while not all(client.link and client.link.codec.capacity() for client in self.clients):
            await trio.sleep(0.01)

    async def capacity(self, seconds: float) -> float:
        """Calls a second of this load, these backends and this proxy, when each waits for the last."""
        before = len(self.calls)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(self.CLOSED):
                    nursery.start_soon(self._loop)
        return (len(self.calls) - before) / seconds

    async def _loop(self) -> None:
        while True:
            await self._call("plain", AGAIN)

    async def at(self, rate: float, seconds: float, nursery: trio.Nursery) -> None:
        """By a Poisson process: calls come whether those before are answered or not."""
        end = due = trio.current_time()
        end += seconds
        while due < end:
            due += self._rng.expovariate(rate)
            await trio.sleep_until(due)
            kind = self._rng.choices(("plain", "uploaded", "reset"), (90, 7, 3))[0]
            nursery.start_soon(self._call, kind, AGAIN)

    def _ready(self) -> Client | None:
        able = [c for c in self.clients if c.link and not c.link.over and c.link.codec.capacity()]
        return self._rng.choice(able) if able else None

    async def _call(self, kind: str, tries: int) -> None:
        self._number += 1
        call = Call(f"soak-{self._number}", kind, time.monotonic())
        self.calls.append(call)
        self.under_way += 1
        again = False
        try:
            with trio.fail_after(WAIT):
                while (client := self._ready()) is None:
                    await trio.sleep(0.005)
                link = client.link
                assert link is not None  # noqa: S101 - `_ready` has just looked
                client.calls[call] = link
                try:
                    call.outcome = await self._talk(link, call)
                finally:
                    del client.calls[call]
        except ProxyError as error:
            again = error.retry is not Retry.NO and tries > 0
            call.outcome = "again" if again else str(error)
        except trio.TooSlowError:
            call.outcome = f"nothing within {WAIT:.0f} s"
        except trio.Cancelled:
            call.kind, call.outcome = "reset", "the load ended"
            raise
        finally:
            call.ended = time.monotonic()
            self.under_way -= 1
        if again:
            await self._call(kind, tries - 1)

    async def _talk(self, link: Link, call: Call) -> str:
        size = self._rng.choice(SIZES)
        whole = call.kind != "uploaded"
        stream = link.open_stream(_head(call.name, size, post=not whole), end_stream=whole)
        try:
            if call.kind == "reset":
                await trio.sleep(self._rng.uniform(0, 0.02))
                return "reset"
            if not whole:
                await stream.send_data(bytes(5000), end_stream=False)
                await trio.sleep(self._rng.uniform(0, 0.02))
                await stream.send_data(bytes(5000), end_stream=True)
            return await _answer(stream, size)
        finally:
            stream.close(H2Code.CANCEL)


async def _answer(stream: Stream, size: int) -> str:
    status, received = "none", 0
    while True:
        event = await stream.receive()
        if isinstance(event, HeadReceived):
            status = event.headers[0][1].decode()
        elif isinstance(event, DataReceived):
            received += len(event.data)
            stream.grant(event.credit)
        if getattr(event, "end_stream", True):
            break
    if status == "200" and received != size:
        return f"{received} of {size} octets"
    return status


def _head(name: str, size: int, *, post: bool) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST" if post else b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"soak"),
        (b":path", b"/calls?size=%d" % size),
        (b"x-request-id", name.encode()),
    ]
