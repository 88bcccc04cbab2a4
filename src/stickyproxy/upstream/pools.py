"""All pools of a worker: one for each endpoint of each cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import trio

from stickyproxy.errors import ProxyError
from stickyproxy.health.poolplan import SPARES
from stickyproxy.metrics import Metrics
from stickyproxy.model import Client, Cluster, ClusterSpec, Endpoint
from stickyproxy.upstream.circuit import Circuit, limits_of
from stickyproxy.upstream.crowd import MOST_CLIENTS, Crowd
from stickyproxy.upstream.dial import Dialler
from stickyproxy.upstream.loads import Loads
from stickyproxy.upstream.pool import EndpointPool
from stickyproxy.upstream.sweep import Sweep
from stickyproxy.upstream.teller import Teller

Heard = Callable[[ClusterSpec, Endpoint, ProxyError | None], None]
"""Told of each dial: the error, or None when the link took its first stream."""


class PoolSet:
    """Owns the pools; `nursery` is the worker's upstream nursery, where dials and links live.

    `bug` is told of what should not have happened on a link, and in words where. `loads` knows what
    other workers have under way. `sweep` looks after the links, of which each endpoint with traffic has
    `spares` more than it needs.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        dialler: Callable[[ClusterSpec], Dialler],
        heard: Heard,
        bug: Callable[[BaseException, str], None],
        metrics: Metrics,
        *,
        loads: Loads | None = None,
        sweep: Sweep | None = None,
        spares: int = SPARES,
    ) -> None:
        self._metrics = metrics
        self._loads = loads
        self.workers = loads.workers if loads is not None else 1
        self._sweep = sweep
        self._spares = spares
        self._clusters: Mapping[str, Cluster] = {}
        self._nursery = nursery
        self._dialler = dialler
        self._heard = heard
        self._bug = bug
        self._pools: dict[str, dict[str, EndpointPool]] = {}
        self.doubts: set[EndpointPool] = set()
        """Pools whose endpoint itself looks bad; mostly none."""
        self._specs: dict[str, ClusterSpec] = {}
        self._circuits: dict[str, Circuit] = {}
        metrics.before_reading.append(self._measure)

    def pool(
        self, cluster: Cluster, endpoint: Endpoint, client: Client | None = None
    ) -> EndpointPool:
        """The pool of an endpoint, made on first use; that of `client` where the endpoint is told of it."""
        try:
            pool = self._pools[cluster.spec.name][endpoint.key]
        except KeyError:
            pool = self._make(cluster.spec, endpoint)
        return pool if pool.crowd is None or client is None else pool.crowd.pool(client)

    def _make(self, spec: ClusterSpec, endpoint: Endpoint) -> EndpointPool:
        self._specs.setdefault(spec.name, spec)
        pool = EndpointPool(
            endpoint,
            self._nursery,
            self._dialler(spec).dial,
            multiplexed=spec.protocol.multiplexed,
            heard=lambda error: self._heard(spec, endpoint, error),
            bug=self._bug,
            stats=self._metrics.endpoint(spec.name, endpoint.key),
            cluster=self._metrics.cluster(spec.name),
            workers=self.workers,
            sweep=self._sweep,
            doubts=self.doubts,
            told=Teller(spec, endpoint, self._metrics),
            elsewhere=lambda: self._elsewhere(spec.name, endpoint),
            spares=self._spares,
        )
        if spec.upkeep.proxy_protocol:
            most = MOST_CLIENTS // self.workers
            pool.crowd = Crowd(lambda preamble: self._make_private(spec, pool, preamble), most)
        self._pools.setdefault(spec.name, {})[endpoint.key] = pool
        self._limit(spec)
        return pool

    def _make_private(self, spec: ClusterSpec, pool: EndpointPool, preamble: bytes) -> EndpointPool:
        """For one client of the many: nobody sweeps it, and it has no spare links."""
        endpoint = pool.endpoint
        private = EndpointPool(
            endpoint,
            self._nursery,
            self._dialler(spec).dial,
            multiplexed=spec.protocol.multiplexed,
            heard=lambda error: self._heard(spec, endpoint, error),
            bug=self._bug,
            stats=pool.stats,
            cluster=self._metrics.cluster(spec.name),
            workers=self.workers,
            spares=0,
            preamble=preamble,
        )
        private.circuit = pool.circuit
        return private

    def _limit(self, spec: ClusterSpec) -> None:
        """Circuit breakers and sessions as they are now, for all pools of a cluster."""
        limits = limits_of(spec.upkeep, self._loads.workers if self._loads is not None else 1)
        pools = self._pools[spec.name].values()
        circuit = None
        if limits is not None:
            circuit = Circuit(limits, pools, self._metrics.cluster(spec.name))
            self._circuits[spec.name] = circuit
        else:
            self._circuits.pop(spec.name, None)
        for pool in pools:
            for each in (pool, *(pool.crowd or ())):
                each.circuit = circuit
            pool.sessions = spec.load_balancer.hash is not None

    def _measure(self) -> None:
        for circuit in self._circuits.values():
            circuit.measure()
        now = trio.current_time()
        self._metrics.links.clear()
        for name, pool in self:
            pool.stats.cx_suspect = len(pool.vigil.suspects)
            if words := pool.in_words(now):
                self._metrics.links[name, pool.endpoint.key] = words

    def _elsewhere(self, name: str, endpoint: Endpoint) -> bool:
        """Whether the cluster has another endpoint that does not look as bad."""
        cluster = self._clusters.get(name)
        if cluster is None:
            return False
        out = cluster.removed | cluster.inadmissible | {endpoint.key}
        return any(e.key not in out and not self.doubted(cluster, e) for e in cluster.endpoints)

    def keep(self, clusters: Mapping[str, Cluster]) -> None:
        """After a new Snapshot: pools of what is gone, or is reached differently now, retire."""
        self._clusters = clusters
        for name in list(self._pools):
            cluster = clusters.get(name)
            same = cluster is not None and _reached_alike(cluster.spec, self._specs[name])
            members = {e.key for e in cluster.endpoints} if cluster is not None and same else set()
            for key in [key for key in self._pools[name] if key not in members]:
                self._pools[name].pop(key).retire()
            if not self._pools[name]:
                del self._pools[name], self._specs[name]
                self._circuits.pop(name, None)
            elif cluster is not None:
                self._limit(cluster.spec)

    def active(self, cluster: Cluster, endpoint: Endpoint) -> int:
        """Streams under way to an endpoint, for least_request; those of all workers."""
        if self._loads is not None:
            found = self._loads.active(cluster.spec.name, endpoint.key)
            if found is not None:
                return found
        pool = self._pools.get(cluster.spec.name, {}).get(endpoint.key)
        return pool.stats.rq_active if pool is not None else 0

    def under_way(self, name: str) -> int:
        """Attempts to a cluster, in this worker: those that have a stream and those that wait for one."""
        running = sum(pool.stats.rq_active for pool in self._pools.get(name, {}).values())
        return running + self._metrics.cluster(name).upstream_rq_pending_active

    def begun(self, name: str) -> int:
        """Attempts to a cluster so far, in this worker, at the endpoints that it has."""
        return sum(pool.stats.rq_total for pool in self._pools.get(name, {}).values())

    def connected(self, cluster: Cluster, endpoint: Endpoint) -> bool:
        """Whether a live link to the endpoint exists."""
        pool = self._pools.get(cluster.spec.name, {}).get(endpoint.key)
        if pool is None or pool.crowd is None:
            return pool is not None and bool(pool.links)
        return any(each.links for each in pool.crowd)

    def was_silent(self, name: str, key: str) -> bool:
        """Whether an endpoint that is back was there all the time, as far as its connections tell."""
        pool = self._pools.get(name, {}).get(key)
        return pool is not None and pool.was_silent

    def doubted(self, cluster: Cluster, endpoint: Endpoint) -> bool:
        """Whether no link to the endpoint is to be trusted, and no new one gets ready."""
        if not self.doubts:
            return False
        pool = self._pools.get(cluster.spec.name, {}).get(endpoint.key)
        return pool is not None and pool.doubted

    def __iter__(self) -> Iterator[tuple[str, EndpointPool]]:
        for name, pools in self._pools.items():
            for pool in pools.values():
                yield name, pool


def _reached_alike(one: ClusterSpec, other: ClusterSpec) -> bool:
    return _way(one) == _way(other)


def _way(spec: ClusterSpec) -> tuple[object, ...]:
    """All that a link is made by and kept by."""
    upkeep = spec.upkeep
    kept = (upkeep.keepalive, upkeep.idle_timeout, upkeep.max_lifetime)
    return spec.protocol, spec.tls, spec.connect_timeout, upkeep.proxy_protocol, kept
