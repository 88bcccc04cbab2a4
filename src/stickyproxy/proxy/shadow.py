"""Copies of requests for another cluster: fire and forget.

The request itself never waits for its copy and never hears of it. Body parts are handed to the copy as
they arrive, by reference; a copy that lags further behind than `HELD_LIMIT`, that cannot be connected,
or that comes when too many are under way is dropped and counted. What the shadow answers is read and
thrown away. A copy whose request broke off is reset; one that is whole may finish after its request,
within the route's timeout, or `GRACE` where that has none.

Copies are tasks in the nursery that `Context.nursery` names: the worker's upstream one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.events import DataReceived, HeadReceived, TrailersReceived
from stickyproxy.model import Headers
from stickyproxy.policy.headers import HeaderPlan, clean_trailers, join_cookies
from stickyproxy.policy.redirect import authority_of, path_of
from stickyproxy.policy.routes import rewrite_path
from stickyproxy.policy.shadow import is_mirrored, shadow_authority

if TYPE_CHECKING:
    from stickyproxy.model import Cluster, Endpoint, Route, Snapshot, Target
    from stickyproxy.proxy.context import Context
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.rules import Shadow
    from stickyproxy.upstream.pool import EndpointPool
    from stickyproxy.wire.stream import Stream

HELD_LIMIT = 1024 * 1024
"""Bytes a copy may lag behind; Envoy buffers as much of a request for its shadow."""
HELD_TOTAL = 32 * HELD_LIMIT
"""The same over all copies of a worker."""
MAX_MIRRORS = 1024
"""Copies under way in a worker; as many requests may wait for one endpoint."""
GRACE = 15.0
"""Seconds for a copy after its request ended, on a route without a timeout (Envoy's default one)."""

Part = DataReceived | TrailersReceived


class Mirrors:
    """What the copies of a worker take together."""

    __slots__ = ("held", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.held = 0

    def is_full(self) -> bool:
        return self.under_way >= MAX_MIRRORS or self.held >= HELD_TOTAL


class Mirroring:
    """The shadow of a Target's route, compiled."""

    __slots__ = ("_cluster", "_grace", "_headers", "_match", "_shadow", "_target")

    def __init__(
        self, shadow: Shadow, cluster: Cluster, route: Route, target: Target, snapshot: Snapshot
    ) -> None:
        self._shadow = shadow
        self._cluster = cluster
        self._match = route.match
        self._target = target
        self._grace = target.timeout or GRACE
        tls = cluster.spec.protocol.tls
        self._headers = HeaderPlan(target, snapshot.edge, upstream_tls=tls)

    @classmethod
    def compiled(cls, route: Route, target: Target, snapshot: Snapshot) -> Mirroring | None:
        shadow = route.shadow
        cluster = snapshot.clusters.get(shadow.cluster) if shadow is not None else None
        if shadow is None or cluster is None:
            return None
        return cls(shadow, cluster, route, target, snapshot)

    def begin(self, exchange: Exchange, context: Context) -> None:
        """Start the copy of this request, if it is one of the percent. Never raises, never waits."""
        if not is_mirrored(self._shadow, context.rng):
            return
        stats = context.metrics.cluster(self._cluster.spec.name)
        stats.upstream_rq_shadow_total += 1
        if context.mirrors.is_full():
            stats.upstream_rq_shadow_dropped += 1
            return
        headers = self._request_headers(exchange, context)
        ended = exchange.head.end_stream
        hash_ = exchange.key.hash
        mirror = Mirror(context, self._cluster, headers, hash_, ended=ended, grace=self._grace)
        exchange.upload.mirror = mirror
        context.nursery.start_soon(mirror.run, name=f"shadow {self._shadow.name}")

    def _request_headers(self, exchange: Exchange, context: Context) -> Headers:
        received = exchange.head.headers
        if not exchange.request_id:
            exchange.request_id = b"%032x" % context.rng.getrandbits(128)
        rewritten = (self._target.host_rewrite or "").encode()
        headers = self._headers.request(
            received,
            exchange.client,
            path=rewrite_path(self._target, self._match, path_of(received)),
            authority=shadow_authority(rewritten or authority_of(received)) or None,
            grpc_timeout=None,
            request_id=exchange.request_id,
        )
        return headers if self._cluster.spec.protocol.multiplexed else join_cookies(headers)


class Mirror:
    """One copy. `feed` and `leave` come from its request's tasks, synchronously; `run` is its own."""

    __slots__ = (
        "_cluster",
        "_context",
        "_ended",
        "_grace",
        "_hash",
        "_head",
        "_head_only",
        "_held",
        "_over",
        "_parts",
        "_scope",
        "_wake",
    )

    def __init__(
        self,
        context: Context,
        cluster: Cluster,
        head: Headers,
        hash_: int | None,
        *,
        ended: bool,
        grace: float,
    ) -> None:
        self._context = context
        self._cluster = cluster
        self._head = head
        self._head_only = ended
        self._hash = hash_
        self._ended = ended
        self._grace = grace
        self._parts: deque[Part] = deque()
        self._held = 0
        self._over = False
        self._scope = trio.CancelScope()
        self._wake = trio.Event()
        context.mirrors.under_way += 1

    # --- from the request ---

    def feed(self, part: Part) -> None:
        """The next part of the body, as it was received."""
        if self._over:
            return
        self._parts.append(part)
        if isinstance(part, DataReceived):
            self._hold(len(part.data))
            self._ended = part.end_stream
        else:
            self._ended = True
        self._wake.set()
        if self._held > HELD_LIMIT or self._context.mirrors.held > HELD_TOTAL:
            self._drop()

    def leave(self) -> None:
        """The request is over: a copy that is whole may finish, any other cannot."""
        if not self._ended:
            self._drop()
        elif not self._over:
            self._scope.deadline = trio.current_time() + self._grace

    def _drop(self) -> None:
        self._over = True
        self._scope.cancel()

    def _hold(self, amount: int) -> None:
        self._held += amount
        self._context.mirrors.held += amount

    # --- its own task ---

    async def run(self) -> None:
        """The boundary of a copy: what goes wrong with it stays here."""
        answered = False
        try:
            with self._scope:
                answered = await self._send_and_forget()
        except ProxyError:
            answered = False
        except Exception as bug:  # noqa: BLE001 - the boundary: our bug ends one copy
            self._context.bug(bug, "shadow")
        finally:
            self._over = True
            self._parts.clear()
            self._hold(-self._held)
            self._context.mirrors.under_way -= 1
            if not answered:
                stats = self._context.metrics.cluster(self._cluster.spec.name)
                stats.upstream_rq_shadow_dropped += 1

    async def _send_and_forget(self) -> bool:
        pool = self._context.pools.pool(self._cluster, self._pick())
        stream = await self._lease(pool)
        pool.stats.rq_active += 1
        pool.stats.rq_total += 1
        self._context.metrics.cluster(self._cluster.spec.name).upstream_rq_total += 1
        answered = False
        try:
            async with trio.open_nursery() as nursery:
                if not self._head_only:
                    nursery.start_soon(self._send, stream)
                answered = await self._read(stream)
                nursery.cancel_scope.cancel()
        finally:
            pool.stats.rq_active -= 1
            stream.close(H2Code.CANCEL)
        return answered

    def _pick(self) -> Endpoint:
        context, cluster = self._context, self._cluster
        admits = context.admission(cluster, trio.current_time())
        found = context.balancer.pick(
            cluster, self._hash, admits, lambda endpoint: context.pools.active(cluster, endpoint)
        )
        if found is None:
            detail = f"no endpoint in {cluster.name}"
            raise ProxyError(ErrorKind.NO_HEALTHY_ENDPOINT, Side.INTERNAL, detail)
        return found

    async def _lease(self, pool: EndpointPool) -> Stream:
        while True:
            stream = pool.open_now(self._head, self._head_only)
            if stream is None:
                waiter = pool.wait()
                try:
                    await waiter.wait()
                    if waiter.error is not None:
                        raise waiter.error
                    stream = pool.open_reserved(waiter, self._head, self._head_only)
                finally:
                    pool.leave(waiter)
            if stream is not None:
                return stream

    async def _send(self, stream: Stream) -> None:
        """The body, as it comes; `_read` hears of the same failure and decides."""
        try:
            while self._parts or not self._ended:
                if not self._parts:
                    self._wake = trio.Event()
                    await self._wake.wait()
                part = self._parts.popleft()
                if isinstance(part, TrailersReceived):
                    stream.send_headers(clean_trailers(part.headers), end_stream=True)
                    continue
                await stream.send_data(part.data, part.end_stream)
                self._hold(-len(part.data))
        except ProxyError:
            return

    async def _read(self, stream: Stream) -> bool:
        """Throw the response away; True when it came to its end."""
        stats = self._context.metrics.cluster(self._cluster.spec.name)
        while True:
            try:
                event = await stream.receive()
            except ProxyError:
                return False
            if isinstance(event, TrailersReceived):
                return True
            if isinstance(event, DataReceived):
                stream.grant(event.credit)
                if event.end_stream:
                    return True
            elif isinstance(event, HeadReceived):
                if event.fault is not None:
                    return False
                stats.responded(int(event.headers[0][1]))
                if event.end_stream:
                    return True
