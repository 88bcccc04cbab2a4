"""Settings and members become Snapshots: at once where it is cheap, in slices where it is not.

A table over many endpoints takes up to half a second to build in Python; on the loop it is built in
slices of at most 2 ms, so that no stream waits longer (a thread would hold the interpreter for 5 to
12 ms at a time). What must act at once does not wait for it: an endpoint that left is walked past in
the old table (`Cluster.removed`) until the new one is there, and one that takes nothing just now
(`Cluster.inadmissible`) needs no other table at all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from stickyproxy.config.load import Settings
from stickyproxy.control.members import ClusterMembers, MembersOf
from stickyproxy.control.pace import Pace
from stickyproxy.edge import Front
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HostTable,
    Route,
    Snapshot,
    Table,
)
from stickyproxy.policy.hosts import hosts_of
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.routes import Routes
from stickyproxy.policy.tables import MAX_WEIGHT_SUM
from stickyproxy.rules import EdgePolicy

MERGE = 0.1
"""Seconds within which further changes are merged; the first change never waits."""


class SnapshotMaker:
    """Owns the current Snapshot; `install` is told of every new one, synchronously."""

    def __init__(self, install: Callable[[Snapshot], None]) -> None:
        self.current: Snapshot | None = None
        self._install = install
        self._version = 0
        self._specs: dict[str, ClusterSpec] = {}
        self._members: dict[str, ClusterMembers] = {}
        self._compiled: tuple[tuple[Route, ...], Routes] | None = None
        self._compiled_hosts: tuple[tuple[Front, EdgePolicy, Routes], HostTable | None] | None = (
            None
        )

    async def publish(self, settings: Settings, members: MembersOf) -> bool:
        """Make what was changed come true: what left at once, the rest in one swap.

        Until all tables are there the old routes stay: a new route without its table would send a
        session anywhere, and its next request elsewhere. True if `refresh` brought more meanwhile:
        publish again.
        """
        self._specs = {spec.name: spec for spec in settings.clusters}
        self._members = dict(members)
        routes = self._routes(settings.routes)
        old = self.current.clusters if self.current is not None else {}
        clusters: dict[str, Cluster] = {}
        pace = Pace()
        for name, spec in self._specs.items():
            clusters[name] = _made(old.get(name), spec, self._members[name])
            await pace.turn()
        unbuilt = [cluster for cluster in clusters.values() if _lacks_table(cluster)]
        if unbuilt and self.current is not None:
            self._take_out(self.current)
        for cluster in unbuilt:
            table = await build_table(cluster.spec.load_balancer.policy, cluster.endpoints, pace)
            clusters[cluster.name] = replace(cluster, table=table)
        whole = {name: _as_of(one, self._members[name]) for name, one in clusters.items()}
        hosts = self._hosts(settings, routes)
        self._swap(Snapshot(0, routes, whole, settings.edge, hosts))
        return any(_is_behind(one, self._members[name]) for name, one in whole.items())

    def refresh(self, members: MembersOf) -> bool:
        """Other members of some clusters, as far as they can act now: at once, and in a table that

        is being built too. True if there is more to it than that: publish.
        """
        known = {name: found for name, found in members.items() if name in self._specs}
        self._members.update(known)
        if self.current is None:
            return True
        fresh = {
            name: _as_of(cluster, found)
            for name, found in known.items()
            if (cluster := self.current.clusters.get(name)) is not None
            and cluster.spec.kube == self._specs[name].kube
        }
        changed = {n: one for n, one in fresh.items() if one is not self.current.clusters[n]}
        if changed:
            self._swap(replace(self.current, clusters={**self.current.clusters, **changed}))
        return len(fresh) < len(members) or any(
            _is_behind(one, known[name]) for name, one in fresh.items()
        )

    def _hosts(self, settings: Settings, routes: Routes) -> HostTable | None:
        """Some milliseconds for a thousand Hosts: not for each pod that comes."""
        recipe = settings.front, settings.edge, routes
        known = self._compiled_hosts
        if known is None or any(a is not b for a, b in zip(known[0], recipe, strict=True)):
            known = recipe, hosts_of(settings.front, routes, settings.edge)
            self._compiled_hosts = known
        return known[1]

    def _routes(self, routes: tuple[Route, ...]) -> Routes:
        if self._compiled is None or self._compiled[0] is not routes:
            self._compiled = routes, Routes(routes)
        return self._compiled[1]

    def _take_out(self, current: Snapshot) -> None:
        """While tables are built: all as it was, without the endpoints that left."""
        interim = dict(current.clusters)
        for name, spec in self._specs.items():
            if name in interim:
                wanted = _made(interim[name], spec, self._members[name])
                interim[name] = _without_gone(interim[name], wanted)
        if any(interim[name] is not cluster for name, cluster in current.clusters.items()):
            self._swap(replace(current, clusters=interim))

    def _swap(self, fresh: Snapshot) -> None:
        self._version += 1
        self.current = replace(fresh, version=self._version)
        self._install(self.current)


def _hashes(spec: ClusterSpec) -> bool:
    return spec.load_balancer.policy in ("maglev", "ring_hash")


def _lacks_table(cluster: Cluster) -> bool:
    return _hashes(cluster.spec) and bool(cluster.endpoints) and cluster.table is None


def _made(old: Cluster | None, spec: ClusterSpec, members: ClusterMembers) -> Cluster:
    """The same members by the same policy have the same table. Without any difference it is the old

    object: what was compiled from it stays good.
    """
    fresh = Cluster(spec, members.endpoints, inadmissible=members.inadmissible)
    if old is None:
        return fresh
    if _hashes(spec) and _recipe(old) == _recipe(fresh):
        fresh = replace(fresh, table=old.table)
    return old if fresh == old else fresh


def _recipe(cluster: Cluster) -> tuple[str, list[tuple[str, int]]]:
    """All that a table is made from."""
    weighted = [(endpoint.key, endpoint.weight) for endpoint in cluster.endpoints]
    return cluster.spec.load_balancer.policy, weighted


def _as_of(cluster: Cluster, members: ClusterMembers) -> Cluster:
    """What these members make of a cluster without building a table."""
    same = cluster.endpoints is members.endpoints and cluster.inadmissible == members.inadmissible
    if same and not cluster.removed:
        return cluster
    fresh = _made(cluster, cluster.spec, members)
    return _without_gone(cluster, fresh) if _lacks_table(fresh) else fresh


def _without_gone(old: Cluster, new: Cluster) -> Cluster:
    """The old table walks past those who left. Where that would lead nowhere, and the new members

    have somebody, these are there at once, for a moment without a table.
    """
    members = {endpoint.key for endpoint in new.endpoints}
    gone = frozenset(e.key for e in old.endpoints if e.key not in members)
    if old.table is None:
        return new if gone or new.inadmissible != old.inadmissible else old
    interim = replace(old, removed=gone, inadmissible=new.inadmissible)
    if _leads_nowhere(interim) and not _leads_nowhere(new):
        return new
    return old if interim == old else interim


def _is_behind(cluster: Cluster, members: ClusterMembers) -> bool:
    """Whether a table is missing until these members are what is chosen from."""
    current = cluster.endpoints is members.endpoints or cluster.endpoints == members.endpoints
    return not current or _lacks_table(cluster)


def _leads_nowhere(cluster: Cluster) -> bool:
    shut = cluster.removed | cluster.inadmissible
    return all(endpoint.key in shut for endpoint in cluster.endpoints)


async def build_table(
    policy: str, endpoints: tuple[Endpoint, ...], pace: Pace | None = None
) -> Table:
    """Build in slices; other tasks run in between. `pace` is that of the work it is part of."""
    weighted = _fitting(endpoints)
    steps: Generator[None, None, Table] = (
        MaglevTable.build_steps(weighted) if policy == "maglev" else RingHash.build_steps(weighted)
    )
    pace = pace or Pace()
    while True:
        await pace.turn()
        try:
            next(steps)
        except StopIteration as done:
            table: Table = done.value
            return table


def _fitting(endpoints: tuple[Endpoint, ...]) -> list[tuple[str, float]]:
    """Keys and weights. A name may have more addresses than its weight leaves room for in a table;

    halving all of them is exact, and only their proportions count.
    """
    weights = [float(endpoint.weight) for endpoint in endpoints]
    while sum(weights) > MAX_WEIGHT_SUM:
        weights = [weight / 2 for weight in weights]
    return [(endpoint.key, weight) for endpoint, weight in zip(endpoints, weights, strict=True)]
