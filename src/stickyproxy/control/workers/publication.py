"""A Snapshot on its way to workers: whole for one that is new, then what differs from the last one.

What did not change stays the very same object over there, as it does here: plans, pools and tables are
known by identity. Tables travel as the bytes they are; routes and Hosts are compiled again, for they are
closures. Applied, it is one Snapshot, exchanged by one assignment.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stickyproxy.edge import Front
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HostTable,
    Route,
    RouteTable,
    Snapshot,
    Table,
    UpstreamProtocol,
)
from stickyproxy.policy.hosts import Hosts, hosts_of
from stickyproxy.policy.routes import Routes
from stickyproxy.rules import EdgePolicy
from stickyproxy.upstream.loads import RowBook


class Same(enum.Enum):
    """In the place of what did not change."""

    SAME = "same"


SAME = Same.SAME


class ClusterChange(NamedTuple):
    spec: ClusterSpec | Same
    endpoints: tuple[Endpoint, ...] | Same
    table: Table | Same | None
    removed: frozenset[str]
    inadmissible: frozenset[str]


@dataclass(frozen=True, slots=True)
class Publication:
    """Against the Snapshot before it. `hosts` is what they are compiled from.

    `rows` are where loads of clusters under least_request are told (`upstream.loads`).
    """

    version: int
    routes: tuple[Route, ...] | Same
    edge: EdgePolicy | Same
    hosts: Front | Same | None
    changed: Mapping[str, ClusterChange]
    gone: frozenset[str]
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Publisher:
    """What the supervisor keeps: the last Snapshot, and who has which row."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None
        self._book = RowBook()

    def publish(self, snapshot: Snapshot) -> Publication:
        before, self._last = self._last, snapshot
        made = difference(before, snapshot)
        rows = {n: dict(self._book.rows(n)) for n in _changed_rows(self._book, before, snapshot)}
        return replace(made, rows=rows)

    def whole(self) -> Publication:
        """For a worker that knows nothing yet."""
        if self._last is None:
            raise RuntimeError("nothing was published yet")
        balanced = [name for name, one in self._last.clusters.items() if _shares_load(one)]
        return replace(
            difference(None, self._last),
            rows={name: dict(self._book.rows(name)) for name in balanced},
        )


def _changed_rows(book: RowBook, before: Snapshot | None, now: Snapshot) -> list[str]:
    old = before.clusters if before is not None else {}
    found = []
    for name, cluster in now.clusters.items():
        if old.get(name) is not cluster:
            keys = [e.key for e in cluster.endpoints] if _shares_load(cluster) else []
            if book.want(name, keys):
                found.append(name)
    return found + [name for name in old if name not in now.clusters and book.want(name, ())]


def _shares_load(cluster: Cluster) -> bool:
    return cluster.spec.load_balancer.policy == "least_request"


def difference(before: Snapshot | None, now: Snapshot) -> Publication:
    """What turns one into the other; before None, all of it."""
    old = before.clusters if before is not None else {}
    return Publication(
        version=now.version,
        routes=SAME if before and before.routes is now.routes else tuple(now.routes.routes),
        edge=SAME if before and before.edge is now.edge else now.edge,
        hosts=SAME if before and before.hosts is now.hosts else _recipe(now.hosts),
        changed={
            name: _cluster_change(old.get(name), cluster)
            for name, cluster in now.clusters.items()
            if old.get(name) is not cluster
        },
        gone=frozenset(old.keys() - now.clusters.keys()),
    )


def _recipe(hosts: HostTable | None) -> Front | None:
    return hosts.front if isinstance(hosts, Hosts) else None


def _cluster_change(old: Cluster | None, now: Cluster) -> ClusterChange:
    return ClusterChange(
        SAME if old and old.spec is now.spec else now.spec,
        SAME if old and old.endpoints is now.endpoints else now.endpoints,
        SAME if old and old.table is now.table else now.table,
        now.removed,
        now.inadmissible,
    )


def apply(before: Snapshot | None, publication: Publication) -> Snapshot:
    """The Snapshot as it was published. Without `before` only what is whole can be applied."""
    known = before if before is not None else _NOTHING
    sent = publication.routes
    routes = known.routes if isinstance(sent, Same) else Routes(sent)
    edge = known.edge if isinstance(publication.edge, Same) else publication.edge
    clusters = {n: one for n, one in known.clusters.items() if n not in publication.gone}
    for name, change in publication.changed.items():
        clusters[name] = _cluster(clusters.get(name, _NOBODY), change)
    hosts = known.hosts
    if not isinstance(publication.hosts, Same):
        hosts = _compiled(publication.hosts, routes, edge)
    return Snapshot(publication.version, routes, clusters, edge, hosts)


def _compiled(front: Front | None, routes: RouteTable, edge: EdgePolicy) -> HostTable | None:
    if front is None or not isinstance(routes, Routes):
        return None
    return hosts_of(front, routes, edge)


def _cluster(old: Cluster, change: ClusterChange) -> Cluster:
    return Cluster(
        old.spec if isinstance(change.spec, Same) else change.spec,
        old.endpoints if isinstance(change.endpoints, Same) else change.endpoints,
        old.table if isinstance(change.table, Same) else change.table,
        change.removed,
        change.inadmissible,
    )


_NOTHING = Snapshot(0, Routes(()), {})
_NOBODY = Cluster(ClusterSpec("", "", UpstreamProtocol.H2C, ()), ())
