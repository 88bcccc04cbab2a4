"""What all exchanges of a worker share: the current Snapshot compiled, and whom to ask."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import trio

from stickyproxy.health.newcomers import Newcomers
from stickyproxy.model import (
    Cluster,
    Endpoint,
    HashPolicy,
    Route,
    Snapshot,
    Target,
)
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.gate import Gate, gate_of
from stickyproxy.policy.grpc import format_timeout
from stickyproxy.policy.headers import HeaderPlan, is_behind_hop
from stickyproxy.policy.relayed import RelayedHeads
from stickyproxy.policy.retry import Budget, max_retries, rules_of
from stickyproxy.proxy.alarm import IdleGroup
from stickyproxy.proxy.extras import Extras, extras_of
from stickyproxy.proxy.shadow import Mirrors
from stickyproxy.proxy.slow_bodies import SlowBodies

if TYPE_CHECKING:
    from stickyproxy.health.book import HealthBook
    from stickyproxy.metrics import MethodStats, Metrics, RouteStats
    from stickyproxy.proxy.deadlines import Deadlines
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.upstream.pools import PoolSet


class Plan:
    """One Target, compiled: what its requests need and a Snapshot knows beforehand."""

    __slots__ = (
        "answers",
        "auto_host",
        "budget",
        "cluster",
        "counted",
        "extras",
        "grpc_web",
        "hash",
        "headers",
        "hedged",
        "idle",
        "multiplexed",
        "retry",
        "rewrites",
        "target",
        "timeout_said",
        "websocket",
    )

    def __init__(
        self,
        route: Route,
        target: Target,
        snapshot: Snapshot,
        idle: IdleGroup | None,
        budget: Budget,
    ) -> None:
        cluster = snapshot.clusters.get(target.cluster)
        spec = cluster.spec if cluster is not None else None
        self.target = target
        self.cluster: Cluster | None = cluster
        self.hash: HashPolicy | None = spec.load_balancer.hash if spec is not None else None
        self.multiplexed = spec is not None and spec.protocol.multiplexed
        tls = spec is not None and spec.protocol.tls
        self.headers = HeaderPlan(target, snapshot.edge, upstream_tls=tls)
        self.answers = RelayedHeads(self.headers.response)
        self.auto_host = target.auto_host_rewrite
        self.rewrites = target.rewrite is not None or target.regex_rewrite is not None
        self.idle = idle
        self.counted: RouteStats | None = None  # until its first request
        self.timeout_said = format_timeout(target.timeout or 0.0)
        self.grpc_web = target.grpc_web
        self.websocket = "websocket" in target.upgrades
        self.retry = rules_of(target.retry, idempotent=target.idempotent)
        self.hedged = target.idempotent
        self.budget = budget
        self.extras: Extras | None = extras_of(route, target, snapshot)


class Context:
    """One per worker. `install` swaps the Snapshot; an exchange keeps the plan it began with.

    `nursery` is for what outlives its exchange: copies of requests. `gate` None lets all pass.
    `newcomers` None: everybody has a whole share at once.
    `ended` is told of every exchange that is over, `bug` of what should not have happened. `phase` is
    the Balancer's.
    """

    def __init__(
        self,
        *,
        snapshot: Snapshot,
        pools: PoolSet,
        health: HealthBook,
        deadlines: Deadlines,
        metrics: Metrics,
        rng: Random,
        nursery: trio.Nursery,
        ended: Callable[[Exchange], None],
        bug: Callable[[BaseException, str], None],
        phase: float | None = None,
        bodies: SlowBodies | None = None,
        newcomers: Newcomers | None = None,
    ) -> None:
        self.now = trio.lowlevel.current_clock().current_time
        """As `trio.current_time`, without looking for the clock of this run each time."""
        self.pools = pools
        self.health = health
        self.newcomers = newcomers if newcomers is not None else Newcomers()
        self.deadlines = deadlines
        self.metrics = metrics
        self.rng = rng
        self.balancer = Balancer(rng, phase)
        self.nursery = nursery
        self.mirrors = Mirrors()
        self.gate: Gate | None = None
        self.bodies = bodies or SlowBodies(deadlines)
        self.overloaded = False
        """No new request is taken: the worker is above its memory mark."""
        self.ended = ended
        self.bug = bug
        self.snapshot = snapshot
        self._plans: dict[int, Plan] = {}
        self._idle_groups: dict[float, IdleGroup] = {}
        self._budgets: dict[tuple[str, int | None], Budget] = {}
        self.install(snapshot)

    def install(self, snapshot: Snapshot) -> None:
        # By identity: a Target is equal to its twin in another route, hashing one costs 2 µs.
        same = self.snapshot.routes is snapshot.routes and self.snapshot.edge == snapshot.edge
        old = self._plans if same else {}
        self._plans = {
            id(target): _kept(old.get(id(target)), snapshot)
            or self._plan_of(route, target, snapshot)
            for route in snapshot.routes.routes
            for target in route.targets
        }
        self.snapshot = snapshot
        self.behind_hop = is_behind_hop(snapshot.edge)
        self.gate = gate_of(snapshot.edge)
        self.preserves_ids = snapshot.edge.preserve_request_id
        self.pools.keep(snapshot.clusters)
        self.balancer.keep(snapshot.clusters)
        self.health.keep(snapshot.clusters)
        self.newcomers.keep(snapshot.clusters, trio.current_time())

    def _plan_of(self, route: Route, target: Target, snapshot: Snapshot) -> Plan:
        idle = self._idle_group(target.idle_timeout)
        budget = self._budget(target.cluster, snapshot.clusters.get(target.cluster))
        return Plan(route, target, snapshot, idle, budget)

    def _budget(self, name: str, cluster: Cluster | None) -> Budget:
        """One for all routes to a cluster, whatever Snapshot they are of."""
        most = max_retries(cluster.spec.upkeep.circuit_breakers) if cluster is not None else None
        return self._budgets.setdefault((name, most), Budget(most, self.pools.workers))

    def _idle_group(self, limit: float | None) -> IdleGroup | None:
        if limit is None:
            return None
        return self._idle_groups.setdefault(limit, IdleGroup(self.deadlines, limit))

    def entropy(self) -> int:
        return self.rng.getrandbits(64)

    def plan(self, target: Target) -> Plan:
        return self._plans[id(target)]

    def stats_of(self, plan: Plan, route: Route, path: bytes, grpc: bool) -> MethodStats:
        """The counters of a request."""
        method = path.partition(b"?")[0] if b"?" in path else path
        counted = plan.counted
        if counted is None:
            counted = plan.counted = self.metrics.route(route.name)
        found = counted.methods.get(method if grpc else b"")
        return found or self.metrics.method(route.name, method, grpc)

    def first_plan(self, route: Route) -> Plan:
        """Members of a group share their hash policy (Emissary's rule)."""
        return self._plans[id(route.targets[0])]

    def admission(self, cluster: Cluster, now: float) -> Callable[[Endpoint], bool]:
        """Whether an endpoint may be used: one whose links are all suspect, and to which no new one

        gets ready, is not, whatever the book says.
        """
        health, pools, name = self.health, self.pools, cluster.spec.name
        if not health.suspected and not pools.doubts:
            return _everyone
        return lambda endpoint: (
            not pools.doubted(cluster, endpoint)
            and health.admits(name, endpoint, now, linked=pools.connected(cluster, endpoint))
        )


def _kept(plan: Plan | None, snapshot: Snapshot) -> Plan | None:
    """A plan of the same routes, if its cluster is the same too: a pod that comes or goes compiles

    one Plan and not a thousand.
    """
    if plan is None or plan.extras is not None:
        return None
    return plan if plan.cluster is snapshot.clusters.get(plan.target.cluster) else None


def _everyone(_: Endpoint) -> bool:
    return True
