"""One link to a backend, from connect to its end."""

from __future__ import annotations

import math
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from stickyproxy.errors import ProxyError
from stickyproxy.model import ClusterSpec, Endpoint
from stickyproxy.rules import Keepalive
from stickyproxy.upstream.pool import EndpointPool
from stickyproxy.upstream.waiter import unreachable
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.connect import connect
from stickyproxy.wire.link import Link
from stickyproxy.wire.proxy_protocol import LOCAL
from stickyproxy.wire.secured import below
from stickyproxy.wire.tcpinfo import acknowledged, stand_firm
from stickyproxy.wire.watch import LinkWatch

JITTER = 0.1
"""Of a lifetime: as much as a client's connection has (`wire.age`)."""
HTTP1_ANSWERS = (b"HTTP/1.", b"<")
"""How an answer to HTTP/2's preface begins; Python's http.server sends a page without a head."""

NEXT_TICK = 2.0
"""Seconds: the watch looks each second (`wire.watch`), and may be late."""
KEPT_WAITING = 5.0
"""Seconds that SETTINGS are awaited of a host whose kernel acknowledges and whose process does not answer, as
long as its suspects are (`linkscore.HOST_PATIENCE`). Another connection waits in the same backlog, but of
several processes behind one port it may meet one that is well."""

CLIENT_IDLE = 60.0
"""Seconds without a stream after which a link that speaks for one client is closed."""

Reach = Callable[[Endpoint, ClusterSpec, bytes], Awaitable[trio.abc.Stream]]
"""From an endpoint to a connected stream that has said these bytes first; raises `ProxyError`."""


async def reach(endpoint: Endpoint, spec: ClusterSpec, preamble: bytes = b"") -> trio.abc.Stream:
    """Over the network, with TLS where the cluster wants it, and a PROXY header before."""
    if spec.upkeep.proxy_protocol:
        preamble = preamble or LOCAL
    timeout = spec.connect_timeout
    transport, _ = await connect(
        endpoint,
        spec.protocol,
        timeout=timeout,
        tls=spec.tls,
        host=endpoint.host,
        preamble=preamble,
    )
    stand_firm(transport)
    if spec.upkeep.keepalive is not None:
        keep_alive(transport, spec.upkeep.keepalive)
    return transport


def keep_alive(transport: trio.abc.Stream, wanted: Keepalive) -> None:
    """TCP keepalive; what the system does not know of it is left out."""
    socket_stream = below(transport)
    if not isinstance(socket_stream, trio.SocketStream):
        return
    socket_stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", wanted.idle),
        ("TCP_KEEPINTVL", wanted.interval),
        ("TCP_KEEPCNT", wanted.probes),
    ):
        if value is not None and hasattr(socket, option):
            socket_stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a link takes new streams at most, in seconds; `pool` is told when that is over."""

    seconds: float
    pool: EndpointPool

    def begin(self, now: float) -> Lifespan:
        """For a link that begins now, shorter by chance, so that links do not end together."""
        return Lifespan(self.pool, now + self.seconds * random.uniform(1 - JITTER, 1))


class Lifespan:
    """Of one link."""

    __slots__ = ("_due", "_pool")

    def __init__(self, pool: EndpointPool, due: float) -> None:
        self._pool = pool
        self._due = due

    def tick(self, link: Link, now: float) -> None:
        if link.draining:
            return
        if now >= self._due or self._pool.is_spare_no_more(link, now):
            self._pool.retire_link(link)


class Settling:
    """One link until it takes streams: with HTTP/2 after the server's SETTINGS, with HTTP/1.1 at once, or
    (`EndpointPool.asks`) after an answer. `scope` ends it when that takes too long: not while its host lives,
    its endpoint looks bad as a whole, and no request waits for it.
    """

    __slots__ = ("_asked", "_failing", "_last", "_pool", "_ready", "_told", "scope")

    def __init__(
        self, pool: EndpointPool, deadline: float, failing: Callable[[Link, bool], ProxyError]
    ) -> None:
        """`failing` says why a link, too late or not, will never be ready."""
        self.scope = trio.CancelScope(deadline=deadline)
        self._pool = pool
        self._failing = failing
        self._last = trio.current_time() + KEPT_WAITING
        self._asked = self._ready = self._told = False

    def begin(self, now: float) -> Settling:
        del now
        return self

    def tick(self, link: Link, now: float) -> None:
        sleeps = self._pool.only_hopes and acknowledged(link.transport)
        if sleeps:
            later = min(now + NEXT_TICK, self._last)
            self.scope.deadline = max(self.scope.deadline, later)

    def changed(self, link: Link) -> None:
        """The link tells of itself: whether it has room, and that it is over."""
        if self._ready:
            self._pool.changed(link)
        elif self._told:
            return
        elif link.over:
            self._told = True
            late = self.scope.cancel_called
            if late or not _shutting_down():
                self._pool.undialled(self._failing(link, late))
        elif link.codec.capacity() > 0 and not link.streams:
            if self._pool.asks and not self._asked:
                self._asked = True
                self._pool.question.ask(link, self._answered)
            else:
                self._begin(link)

    def _begin(self, link: Link) -> None:
        self._told = self._ready = True
        self._last, self.scope.deadline = -math.inf, math.inf
        link.tells(self._pool.changed)
        self._pool.dialled(link)

    def _answered(self, link: Link, lives: bool) -> None:
        """Whatever it said; mostly the link can be used, too."""
        if not lives or self._told:
            return
        if link.codec.capacity() > 0 and not link.over:
            self._begin(link)
            return
        self._told = True
        self._pool.answered()
        link.close()


@dataclass(frozen=True, slots=True)
class Dialler:
    """Makes links for the endpoints of one cluster.

    `taken_for_h2` hears of a backend that answered HTTP/1.x where HTTP/2 was expected.
    """

    spec: ClusterSpec
    codecs: Codecs
    watch: LinkWatch
    taken_for_h2: Callable[[ClusterSpec, str], None]
    reach: Reach = reach

    async def dial(self, pool: EndpointPool) -> None:
        """Run one link: the pool hears `dialled` once it takes streams, `undialled` if it never will."""
        deadline = trio.current_time() + self.spec.connect_timeout
        try:
            transport = await self.reach(pool.endpoint, self.spec, pool.preamble)
        except ProxyError as error:
            pool.undialled(error)
            return
        await self._serve(pool, transport, deadline)

    async def _serve(self, pool: EndpointPool, transport: trio.abc.Stream, deadline: float) -> None:
        settling = Settling(pool, deadline, partial(self._never_ready, pool))
        protocol = self.spec.protocol
        codec = self.codecs.client(multiplexed=protocol.multiplexed, tls=protocol.tls)
        link = Link(transport, codec, changed=settling.changed, allowed=self.codecs.allowed)
        upkeep = self.spec.upkeep
        limit = Lifetime(upkeep.max_lifetime or math.inf, pool)
        idle = upkeep.idle_timeout
        if pool.preamble:
            idle = min(idle or CLIENT_IDLE, CLIENT_IDLE)
        self.watch.add(link, limit, settling, idle_timeout=idle)
        try:
            with settling.scope:
                settling.changed(link)
                await link.run()
        finally:
            self.watch.discard(link)

    def _never_ready(self, pool: EndpointPool, link: Link, late: bool) -> ProxyError:
        endpoint = pool.endpoint
        multiplexed = self.spec.protocol.multiplexed
        if multiplexed and link.first_bytes.startswith(HTTP1_ANSWERS):
            self.taken_for_h2(self.spec, endpoint.key)
            return unreachable(endpoint, "it speaks HTTP/1.x, not HTTP/2")
        if late:
            sign = "SETTINGS" if multiplexed else "answer to OPTIONS *"
            waited = trio.current_time() - link.began
            return unreachable(endpoint, f"no {sign} within {round(waited, 1):g} s")
        detail = link.failure.detail if link.failure is not None else "the link failed"
        return unreachable(endpoint, detail)


def _shutting_down() -> bool:
    return trio.current_effective_deadline() == -math.inf
