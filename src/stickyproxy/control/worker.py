"""The worker's nursery tree, and how it shuts down.

    root            watch, deadlines, sweeps of the endpoints' health and of their links
      upstream      dials and links to backends
        downstream  connections of clients
          listeners accept loops

Shutdown is leaving it from the inside: listeners first (what the kernel has queued is still taken),
then a deadline on the clients, and only when they are gone the links to the backends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from stickyproxy import logs
from stickyproxy.accesslog import Record
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.announcing import announced_from
from stickyproxy.control.doors import Door, Way
from stickyproxy.control.keys import default_context, load_certificates
from stickyproxy.control.levelling import send_away
from stickyproxy.control.limits import allowance_of, conduct_of, limits_of, patience_of
from stickyproxy.control.pressure import Pressure, default_mark
from stickyproxy.control.upkeep import BACK, Refusals, Teller, sweep
from stickyproxy.counters import ProcessStats
from stickyproxy.edge import ListenerSpec
from stickyproxy.errors import ErrorKind, ProxyError
from stickyproxy.events import HeadReceived
from stickyproxy.health.book import HealthBook
from stickyproxy.health.changes import Change
from stickyproxy.health.newcomers import Newcomers
from stickyproxy.metrics import Metrics
from stickyproxy.model import Cluster, ClusterSpec, Connection, Endpoint, Snapshot
from stickyproxy.proxy.admission import Admission
from stickyproxy.proxy.context import Context
from stickyproxy.proxy.deadlines import Deadlines
from stickyproxy.proxy.exchange import Exchange
from stickyproxy.proxy.report import Reporter
from stickyproxy.proxy.server import Server, ServeStream
from stickyproxy.proxy.slow_bodies import SlowBodies
from stickyproxy.upstream.dial import Dialler
from stickyproxy.upstream.loads import Loads
from stickyproxy.upstream.pools import PoolSet
from stickyproxy.upstream.probe import Probes
from stickyproxy.upstream.sweep import Sweep
from stickyproxy.wire.age import AgeLimit
from stickyproxy.wire.certificates import Certificates
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch


class Worker:
    """Everything between the sockets and the Snapshot. `install` may be called before `run`.

    One of several has `loads`, what it shares with the others, its `phase` (see `Balancer`), and `news`,
    which they have to hear too.
    """

    def __init__(
        self,
        settings: ProcessSettings,
        metrics: Metrics,
        write_record: Callable[[Record], None] | None,
        *,
        loads: Loads | None = None,
        phase: float | None = None,
        news: Callable[[Change], None] | None = None,
    ) -> None:
        self.metrics = metrics
        self._rng = random.Random()
        self.newcomers = Newcomers(settings.slow_start)
        self.health = HealthBook(
            Teller(metrics, self.newcomers, news),
            self._rng.random,
            outlier=settings.outlier_detection,
            panic=settings.panic_threshold,
        )
        self.watch = LinkWatch()
        self._settings = settings
        self._codecs = Codecs(
            settings.codec,
            limits_of(settings),
            loads.workers if loads is not None else 1,
            allowance_of(settings),
        )
        self._reporter = Reporter(metrics, write_record)
        self._deadlines = Deadlines()
        self._loads = loads
        self._phase = phase
        workers = loads.workers if loads is not None else 1
        self._mark = settings.max_memory if settings.max_memory >= 0 else default_mark(workers)
        self._admission = Admission(
            -(-settings.max_connections // workers),
            -(-settings.max_connections_per_address // workers),
            exempt=self._behind_hop,
            told=Refusals().told,
        )
        self._sweep = Sweep()
        self._drain = trio.Event()
        self._until = float("inf")
        self._context: Context | None = None
        self._probes: Probes | None = None
        self._pending: Snapshot | None = None
        self._certificates: Certificates | None = None
        self._downstream: trio.Nursery | None = None
        self._doors: dict[Hashable, Door] = {}
        self._named: set[str] = set()
        metrics.before_reading += [self._prune, self._count_tasks]

    def install(self, snapshot: Snapshot) -> None:
        before = self._pending
        self._pending = snapshot
        if self._context is not None:
            self._context.install(snapshot)
        if self._probes is not None:
            self._probes.keep(snapshot.clusters)
        changed = _changed(before.clusters if before is not None else {}, snapshot.clusters)
        self.metrics.prune(_members(snapshot, changed), changed)
        self.metrics.process.config_snapshot_version = snapshot.version

    def learn(self, change: Change) -> None:
        """What another worker found out about an endpoint."""
        now = trio.current_time()
        self.health.learn(change, now)
        if change.what in BACK:
            self.newcomers.begin(change.cluster, change.endpoint, now)

    def _prune(self) -> None:
        if self._pending is not None:
            self.metrics.prune(_members(self._pending, self._pending.clusters))

    def _count_tasks(self) -> None:
        with suppress(RuntimeError):  # nothing runs (yet)
            self.metrics.process.tasks = trio.lowlevel.current_statistics().tasks_living

    def load_certificates(self, wanted: Settings) -> Certificates:
        """For `exchange`; for a thread, as it reads files and keys. Raises `ConfigError`."""
        return load_certificates(wanted, self._settings, self._certificates)

    def exchange(self, certificates: Certificates) -> None:
        """Handshakes from now on are made with these; connections stay as they are."""
        self._certificates = certificates
        for door in self._doors.values():
            door.renew(certificates)

    def send_away(self, count: int) -> None:
        """So many clients' connections, the last that came first, over some seconds."""
        stats = self.metrics.process

        def told() -> None:
            stats.downstream_connections_levelled_total += 1

        if self._context is not None:
            self._context.nursery.start_soon(send_away, list(self.watch.links), count, told)

    def drain(self, until: float) -> None:
        """Stop listening now; whatever still runs at `until` (trio's clock) is ended."""
        self._until = until
        self._drain.set()

    async def run(
        self,
        listening: Sequence[Way],
        snapshot: Snapshot,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if self._certificates is None:
            self.exchange(Certificates(default_context(self._settings)))
        async with trio.open_nursery() as root:
            root.start_soon(self.watch.run)
            root.start_soon(self._deadlines.run)
            root.start_soon(sweep, self.health, self.newcomers, self.metrics)
            root.start_soon(self._sweep.run)
            async with trio.open_nursery() as upstream:
                self._context = self._make_context(upstream, snapshot)
                self._probes = self._make_probes(upstream)
                self._probes.keep(self._context.snapshot.clusters)
                root.start_soon(Pressure(self._mark, self._context, self.watch.links).run)
                async with trio.open_nursery() as self._downstream:
                    for one in listening:
                        self.open(one)
                    task_status.started()
                    await self._drain.wait()
                    for door in self._doors.values():
                        door.close(self._until)
                upstream.cancel_scope.cancel()
            root.cancel_scope.cancel()

    # --- ports ---

    def open(self, listening: Way) -> None:
        """Serve one more. While draining there is none more: it is closed."""
        if self._downstream is None or self._context is None or self._drain.is_set():
            listening.shut()
            return
        door = listening.door(self._make_server(self._context, listening.spec), exhausted)
        self._doors[listening.key] = door
        self._downstream.start_soon(door.run)

    def change(self, there: Way, fresh: Way) -> None:
        """The same port serves otherwise; connections of before end as in a drain, but unhurried."""
        door = self._doors.get(there.key)
        if door is not None and self._context is not None:
            door.become(fresh, self._make_server(self._context, fresh.spec))

    def close(self, listening: Way, until: float) -> None:
        """Let nobody in any more; whatever still runs there at `until` (trio's clock) is ended."""
        door = self._doors.pop(listening.key, None)
        if door is not None:
            door.close(until)

    async def serve_beside(
        self, listening: Sequence[Way], serve: Callable[[Connection], ServeStream]
    ) -> None:
        """Serve something else (the admin pages) on the same HTTP stack, until cancelled."""
        await serve_pages(listening, serve, self._codecs, self.watch)

    def _make_context(self, upstream: trio.Nursery, snapshot: Snapshot) -> Context:
        pools = PoolSet(
            upstream,
            self._dialler,
            self._heard,
            _bug,
            self.metrics,
            loads=self._loads,
            sweep=self._sweep if self._settings.connection_health else None,
            spares=self._settings.spare_connections,
        )
        return Context(
            snapshot=self._pending or snapshot,
            pools=pools,
            health=self.health,
            deadlines=self._deadlines,
            metrics=self.metrics,
            rng=self._rng,
            nursery=upstream,
            ended=self._reporter.ended,
            bug=_bug,
            phase=self._phase,
            bodies=SlowBodies(self._deadlines, self._settings.request_body_timeout),
            newcomers=self.newcomers,
        )

    def _make_probes(self, upstream: trio.Nursery) -> Probes:
        return Probes(
            upstream,
            self._dialler,
            self.health,
            self.metrics,
            rng=self._rng,
            bug=_bug,
            mine=self._loads.mine if self._loads is not None else None,
        )

    def _make_server(self, context: Context, spec: ListenerSpec | None) -> Server:
        codecs = self._codecs
        if spec is not None and spec.max_streams is not None:
            limits = replace(codecs.limits, max_concurrent_streams=spec.max_streams)
            codecs = codecs.limited(limits)
        return Server(
            serve=partial(_exchanges, context),
            rejected=self._reporter.rejected,
            bug=_bug,
            codecs=codecs,
            watch=self.watch,
            stats=self.metrics.process,
            tls=self._certificates,
            age=self._age_limit(),
            conduct=conduct_of(self._settings),
            patience=patience_of(self._settings),
            admission=self._admission,
            announced_from=announced_from(
                self._settings.proxy_protocol_from,
                always=spec is not None and spec.proxied,
                asked=lambda: context.snapshot.edge.proxy_protocol,
            ),
            idle_timeout=lambda: context.snapshot.edge.idle_timeout,
            listener=spec.name if spec is not None else "",
        )

    def _behind_hop(self) -> bool:
        return self._context is not None and self._context.behind_hop

    def _age_limit(self) -> AgeLimit | None:
        settings, stats = self._settings, self.metrics.process
        if not settings.max_connection_age:
            return None

        def retired() -> None:
            stats.downstream_connections_max_age_total += 1

        def cut() -> None:
            stats.downstream_connections_max_age_cut_total += 1

        return AgeLimit(
            settings.max_connection_age,
            settings.max_connection_age_grace,
            self._rng,
            retired=retired,
            cut=cut,
        )

    # --- towards the backends ---

    def _dialler(self, spec: ClusterSpec) -> Dialler:
        return Dialler(spec, self._codecs, self.watch, self._speaks_http1)

    def _heard(self, spec: ClusterSpec, endpoint: Endpoint, error: ProxyError | None) -> None:
        cluster = self.metrics.cluster(spec.name)
        stats = self.metrics.endpoint(spec.name, endpoint.key)
        if error is None:
            cluster.upstream_cx_total += 1
            cluster.upstream_cx_http2_total += spec.protocol.multiplexed
            cluster.upstream_cx_http1_total += not spec.protocol.multiplexed
            stats.cx_total += 1
            if self.health.connected(spec.name, endpoint):
                self._welcome(spec.name, endpoint.key)
                logs.info("endpoint_reachable", cluster=spec.name, endpoint=endpoint.key)
            return
        cluster.upstream_cx_connect_fail += 1
        stats.cx_connect_fail += 1
        if error.kind is not ErrorKind.CONNECT_FAILED:
            logs.error("connect_failed", cluster=spec.name, reason=error.detail)
            return
        admitted = self.health.admits(spec.name, endpoint, trio.current_time())
        jitter = self._rng.uniform(-1, 1)
        wait = self.health.connect_failed(spec.name, endpoint, trio.current_time(), jitter)
        if admitted:
            cluster.outlier_detection_ejections_enforced_total += 1
            logs.warning(
                "connect_failed",
                cluster=spec.name,
                reason=error.detail,
                retry_after_s=round(wait, 1),
            )

    def _welcome(self, name: str, key: str) -> None:
        """It can be connected to again. Who was only out of reach is warm, and has its share at once."""
        if self._context is None or not self._context.pools.was_silent(name, key):
            self.newcomers.begin(name, key, trio.current_time())

    def _speaks_http1(self, spec: ClusterSpec, key: str) -> None:
        """Once for each cluster: the commonest mistake deserves its own words."""
        if spec.name in self._named:
            return
        self._named.add(spec.name)
        scheme = "https" if spec.protocol.tls else "http"
        logs.warning(
            "backend_speaks_http1",
            cluster=spec.name,
            endpoint=key,
            hint=f"it was taken for {spec.protocol.value}; "
            f"write {scheme}://{key} (in a Mapping: no grpc: true) if it is an HTTP/1.1 service",
        )


async def serve_pages(
    listening: Sequence[Way],
    serve: Callable[[Connection], ServeStream],
    codecs: Codecs,
    watch: LinkWatch,
) -> None:
    """What is no traffic, until cancelled. `watch` must run."""
    server = Server(
        serve=serve,
        rejected=lambda *_: None,
        bug=_bug,
        codecs=codecs,
        watch=watch,
        stats=ProcessStats(),
    )
    async with trio.open_nursery() as nursery:
        for one in listening:
            nursery.start_soon(one.door(server, exhausted).run)


def _members(snapshot: Snapshot, names: Iterable[str]) -> dict[str, list[str]]:
    """The keys of these clusters' endpoints, as far as there are such clusters."""
    found = ((name, snapshot.clusters.get(name)) for name in names)
    return {name: [e.key for e in one.endpoints] for name, one in found if one is not None}


def _changed(before: Mapping[str, Cluster], now: Mapping[str, Cluster]) -> set[str]:
    """The clusters that are new, gone, or not what they were."""
    return {name for name in before.keys() | now.keys() if before.get(name) is not now.get(name)}


def _exchanges(context: Context, connection: Connection) -> ServeStream:
    stats = context.metrics.process

    def serve_stream(stream: Stream, head: HeadReceived) -> Coroutine[Any, Any, None] | None:
        stats.downstream_streams += 1
        stats.downstream_streams_total += 1
        return Exchange(context, stream, head, connection).serve()

    return serve_stream


def exhausted(error: OSError) -> None:
    logs.error("accept_failed", reason=error.strerror, hint="raise the limit of open files")


def _bug(error: BaseException, where: str) -> None:
    logs.bug(f"bug_in_{where}", error)
