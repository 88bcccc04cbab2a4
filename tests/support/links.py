"""One of our Links with a test's peer at the other end of the wire, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ProxyError
from stickyproxy.events import HeadReceived, RequestRejected
from stickyproxy.wire.bounds import DEFAULT, Allowance
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch
from support.peers import Peer
from support.wires import CAPACITY, wire_pair

Serve = Callable[[Stream, HeadReceived], Awaitable[None]]


@dataclass
class Joined:
    """`link` is ours, `peer` the test's; `over` once the link's task has ended."""

    link: Link
    peer: Peer
    watch: LinkWatch
    rejected: list[RequestRejected]
    over: trio.Event
    nursery: trio.Nursery

    async def step(self) -> None:
        await trio.sleep(0.005)

    async def until(self, happened: Callable[[], object]) -> None:
        with trio.fail_after(30):
            while not happened():
                await self.step()


async def hold(stream: Stream, _: HeadReceived) -> None:
    """A `Serve`: the stream stays until its link or its peer ends it; nobody can hurry it."""
    with suppress(ProxyError):
        try:
            while True:
                await stream.receive()
        finally:
            stream.close()


@asynccontextmanager
async def joined(
    *,
    serve: Serve | None = None,
    protocol: str = "h2",
    engine: str = "reference",
    limits: CodecLimits | None = None,
    peer_limits: CodecLimits | None = None,
    capacity: int = CAPACITY,
    idle_timeout: float = 3600.0,
    wait: bool = True,
    allowed: Allowance = DEFAULT,
) -> AsyncIterator[Joined]:
    """With `serve` the link is a server's and the peer a client, else the other way round."""
    here, there = wire_pair(capacity)
    ours = Codecs(engine, limits or CodecLimits())
    theirs = Codecs("reference", peer_limits or CodecLimits())
    multiplexed = protocol == "h2"
    rejected: list[RequestRejected] = []
    if serve is None:
        codec = ours.client(multiplexed=multiplexed, tls=False)
        peer = Peer(there, theirs.server(multiplexed=multiplexed, tls=False))
        link = Link(here, codec, allowed=allowed)
    else:
        codec = ours.server(multiplexed=multiplexed, tls=False)
        peer = Peer(there, theirs.client(multiplexed=multiplexed, tls=False))
        link = Link(here, codec, serve=serve, rejected=rejected.append, allowed=allowed)
    watch = LinkWatch(idle_timeout)
    watch.add(link)
    over = trio.Event()

    async def live() -> None:
        await link.run()
        over.set()

    async with trio.open_nursery() as nursery:
        both = Joined(link, peer, watch, rejected, over, nursery)
        nursery.start_soon(live)
        nursery.start_soon(peer.run)
        nursery.start_soon(watch.run)
        client = codec if serve is None else peer.codec
        if wait:
            await both.until(lambda: client.capacity() > 0)
        yield both
        nursery.cancel_scope.cancel()
