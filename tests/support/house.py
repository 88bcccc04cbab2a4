"""The whole data path in memory: clients, the proxy's own parts, backends, and no socket.

    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        call = client.request(GRPC)
        got = await house.backend().request()

`house.left_behind()` says in words what an exchange left in any link, pool or queue: nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ProxyError
from stickyproxy.events import HeadReceived, RequestRejected
from stickyproxy.health.book import HealthBook
from stickyproxy.metrics import Metrics
from stickyproxy.model import ClusterSpec, Connection, Endpoint
from stickyproxy.proxy.alarm import IdleGroup
from stickyproxy.proxy.context import Context
from stickyproxy.proxy.deadlines import Deadlines
from stickyproxy.proxy.exchange import Exchange
from stickyproxy.proxy.server import Server, ServeStream
from stickyproxy.proxy.slow_bodies import SlowBodies
from stickyproxy.upstream.dial import Dialler
from stickyproxy.upstream.pool import EndpointPool
from stickyproxy.upstream.pools import PoolSet
from stickyproxy.upstream.sweep import Sweep
from stickyproxy.upstream.waiter import unreachable
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch
from support.peers import Call, Peer
from support.plan import CLUSTER, Plan
from support.wires import Wire, wire_pair


class Backend:
    """One endpoint. `down` refuses dials; `hold` makes them wait; `mute` backends say no SETTINGS."""

    def __init__(self, house: House, key: str) -> None:
        self.key = key
        self.dials = 0
        self.down = False
        self.mute = False
        self.granting = True
        self.hold: trio.Event | None = None
        self.links: list[Peer] = []
        self.preambles: list[bytes] = []
        """What each dial would have said first."""
        self.arrived: list[Call] = []
        self.raw: Callable[[Wire], None] | None = None
        """Has the backend's end of each connection, in place of a peer with a codec."""
        self._house = house

    async def dialled(self) -> Wire:
        self.dials += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise OSError
        here, there = wire_pair(self._house.plan.wire)
        if self.raw is not None:
            self.raw(there)
            return here
        plan = self._house.plan
        codecs = Codecs("reference", plan.backend_limits)
        peer = Peer(there, codecs.server(multiplexed=plan.upstream == "h2c", tls=False))
        peer.granting = self.granting
        peer.arrived = self.arrived
        peer.answering = not self.mute
        self.links.append(peer)
        self._house.nursery.start_soon(peer.run)
        return here

    async def linked(self, number: int = 1) -> Peer:
        """Its link of this number (from 1), once there is one."""
        await self._house.until(lambda: len(self.links) >= number)
        return self.links[number - 1]

    async def request(self, number: int = 1) -> Call:
        """The request of this number (from 1) that came, on whichever link."""
        await self._house.until(lambda: len(self.arrived) >= number)
        return self.arrived[number - 1]


class House:
    """Everything a worker has between its sockets, on wires."""

    def __init__(self, plan: Plan, nursery: trio.Nursery, upstream: trio.Nursery) -> None:
        self.plan = plan
        self.nursery = nursery
        self.upstream = upstream
        self.downstream: trio.Nursery
        self.ended: list[Exchange] = []
        self.rejected: list[RequestRejected] = []
        self.bugs: list[tuple[BaseException, str]] = []
        self.heard: list[ProxyError | None] = []
        self.metrics = Metrics()
        self.watch = LinkWatch()
        self.deadlines = Deadlines()
        self.codecs = Codecs(plan.engine, plan.limits, allowed=plan.allowed)
        endpoints = (endpoint for cluster in plan.clusters for endpoint in cluster.endpoints)
        self.backends = {endpoint.key: Backend(self, endpoint.key) for endpoint in endpoints}
        self.clients: list[Peer] = []
        self.sweep = Sweep()
        self.pools = PoolSet(
            upstream, self._dialler, self._hear, self._bug, self.metrics, sweep=self.sweep
        )
        self.context = Context(
            snapshot=plan.snapshot,
            pools=self.pools,
            health=HealthBook(),
            deadlines=self.deadlines,
            metrics=self.metrics,
            rng=Random(7),
            nursery=upstream,
            ended=self._ended,
            bug=self._bug,
            bodies=SlowBodies(self.deadlines, plan.body_timeout),
        )
        self.server = Server(
            serve=self._exchanges,
            rejected=lambda event, *_: self.rejected.append(event),
            bug=self._bug,
            codecs=self.codecs,
            watch=self.watch,
            stats=self.metrics.process,
            conduct=plan.conduct,
            admission=plan.admission,
            patience=plan.patience,
            announced_from=lambda _: plan.announced,
        )

    # --- who is here ---

    def raw_client(self, protocol: str = "auto") -> Wire:
        """The client's end of a connection that nobody speaks on yet."""
        here, there = wire_pair(self.plan.wire)
        self.downstream.start_soon(self.server.serve_connection, here, protocol)
        return there

    async def client(
        self, protocol: str = "h2", limits: CodecLimits | None = None, said: bytes = b""
    ) -> Peer:
        """A connected client, past the prefaces. `limits` are what it lets us send, `said` comes first."""
        here, there = wire_pair(self.plan.wire)
        if said:
            await there.send_all(said)
        codecs = Codecs("reference", limits or CodecLimits())
        peer = Peer(there, codecs.client(multiplexed=protocol == "h2", tls=False))
        self.clients.append(peer)
        self.downstream.start_soon(self.server.serve_connection, here, "auto")
        self.nursery.start_soon(peer.run)
        await peer.until(lambda: peer.codec.capacity() > 0)
        return peer

    def backend(self, number: int = 1) -> Backend:
        return self.backends[f"10.0.0.{number}:80"]

    @property
    def pool(self) -> EndpointPool:
        cluster = self.context.snapshot.clusters[CLUSTER]
        return self.pools.pool(cluster, cluster.endpoints[0])

    def pool_of(self, backend: Backend) -> EndpointPool:
        return next(pool for _, pool in self.pools if pool.endpoint.key == backend.key)

    # --- what happens ---

    async def step(self) -> None:
        """Let everybody go on for a moment of the test's clock."""
        await trio.sleep(0.005)

    async def until(self, happened: Callable[[], object]) -> None:
        with trio.fail_after(30):
            while not happened():
                await self.step()

    async def reports(self, number: int = 1) -> list[Exchange]:
        """The exchanges that ended, once there are so many; more would be told."""
        await self.until(lambda: len(self.ended) >= number)
        return self.ended

    def left_behind(self) -> list[str]:
        """What should not be there when no call is under way."""
        found = [f"bug in {where}: {error!r}" for error, where in self.bugs]
        for link in [*self.server.links, *self.links]:
            found += self._left_in_link(link)
        for _, pool in self.pools:
            found += _left_in_pool(pool)
        taken = [budget.taken for budget in self.context._budgets.values()]
        if any(taken):
            found.append(f"places in budgets {taken}")
        pending = self.metrics.cluster(CLUSTER).upstream_rq_pending_active
        if pending:
            found.append(f"upstream_rq_pending_active {pending}")
        for who in (who for bucket in self.deadlines._buckets.values() for who in bucket):
            if not (isinstance(who, IdleGroup) and not who.members):
                found.append("a deadline")
        return found

    def _left_in_link(self, link: Link) -> list[str]:
        streams = set(link.streams.values()) - self._questions()
        found = [f"{len(streams)} streams in a link"] if streams else []
        if link.pulse is not None and link.pulse.waiting:
            found.append(f"{len(link.pulse.waiting)} heads awaited in a link")
        if link.turns:
            found.append("a stream waits for its turn")
        codec, room = link.codec, self.plan.backend_limits.max_concurrent_streams
        alive = codec.client and not (link.over or codec.closing)
        if alive and codec.protocol == "HTTP/2" and codec.capacity() not in (0, room):
            found.append(f"capacity {codec.capacity()} of {room}")
        return found

    def _questions(self) -> set[Stream]:
        """Those by which a pool asks whether a backend of HTTP/1.1 lives: no call's."""
        return {one.stream for _, pool in self.pools for one in pool.question._open}

    @property
    def links(self) -> list[Link]:
        return [link for _, pool in self.pools for link in pool.links]

    # --- inside ---

    def _exchanges(self, connection: Connection) -> ServeStream:
        def serve(stream: Stream, head: HeadReceived) -> Awaitable[None] | None:
            return Exchange(self.context, stream, head, connection).serve()

        return serve

    def _ended(self, exchange: Exchange) -> None:
        self.ended.append(exchange)

    def _bug(self, error: BaseException, where: str) -> None:
        self.bugs.append((error, where))

    def _hear(self, _: ClusterSpec, __: Endpoint, error: ProxyError | None) -> None:
        self.heard.append(error)

    def _dialler(self, spec: ClusterSpec) -> Dialler:
        return Dialler(spec, self.codecs, self.watch, lambda *_: None, self._reach)

    async def _reach(
        self, endpoint: Endpoint, spec: ClusterSpec, preamble: bytes
    ) -> trio.abc.Stream:
        self.backends[endpoint.key].preambles.append(preamble)
        try:
            with trio.fail_after(spec.connect_timeout):
                return await self.backends[endpoint.key].dialled()
        except (OSError, trio.TooSlowError):
            raise unreachable(endpoint, "connection refused") from None


def _left_in_pool(pool: EndpointPool) -> list[str]:
    found = []
    if pool._waiters or pool._choosy or pool._reserved:
        waiting = len(pool._waiters) + len(pool._choosy)
        found.append(f"waiters {waiting}, reserved {pool._reserved}")
    if pool.vigil.suspects - {*pool.links} or {*pool.vigil.fit} - {*pool.links}:
        found.append("a link is watched that is gone")
    if pool.stats.rq_active:
        found.append(f"rq_active {pool.stats.rq_active}")
    if pool.stats.cx_active != len(pool.links):
        found.append(f"cx_active {pool.stats.cx_active} of {len(pool.links)}")
    return found


@asynccontextmanager
async def open_house(plan: Plan | None = None) -> AsyncIterator[House]:
    """A house that works until its block is left."""
    async with trio.open_nursery() as nursery:
        house: House = await nursery.start(_live, plan or Plan(), nursery)
        yield house
        nursery.cancel_scope.cancel()


async def _live(plan: Plan, nursery: trio.Nursery, task_status: trio.TaskStatus[House]) -> None:
    """The worker's tree: cancelling `downstream` is the end of a drain."""
    async with trio.open_nursery() as upstream:
        house = House(plan, nursery, upstream)
        nursery.start_soon(house.watch.run)
        nursery.start_soon(house.deadlines.run)
        nursery.start_soon(house.sweep.run)
        async with trio.open_nursery() as house.downstream:
            house.downstream.start_soon(trio.sleep_forever)
            task_status.started(house)
        upstream.cancel_scope.cancel()
