"""What the live page and `top` show: one look at all counters, and what it makes of the one before.

Pure: a `Sample` is a value, and so is the account that two of them give. Rates and quantiles are those
of the time between the two, so nothing is measured for this page but what is counted anyway.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from stickyproxy.control.view import AdminView, state
from stickyproxy.metrics import MILLISECONDS, Metrics
from stickyproxy.model import Cluster

MOST_ENDPOINTS = 200
"""Rows of one cluster: more are not looked at, and a page of them takes 10 ms to write."""


@dataclass(frozen=True, slots=True)
class EndpointSample:
    """`counts` are those of the time to the first byte, by `MILLISECONDS`. `reason` "" is well.

    `links` has a line for each connection: its state, its streams, and why.
    """

    key: str
    pod: str
    flags: str
    reason: str
    streams: int
    connections: int
    suspect: int
    dead: int
    dialled: int
    calls: int
    errors: int
    counts: tuple[int, ...]
    links: tuple[str, ...]
    place: int
    share: float | None


@dataclass(frozen=True, slots=True)
class ClusterSample:
    """`about` is the policy and what a session is. `doubts` counts changes of connections' health."""

    name: str
    about: str
    problem: str
    picture: str
    doubts: Mapping[str, int]
    endpoints: tuple[EndpointSample, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """`at` in seconds on the process's clock, `wall` in Unix time."""

    at: float
    wall: float
    state: str
    version: int
    uptime: float
    connections: int
    streams: int
    requests: int
    cpu: float
    memory: int
    reloads: int
    reload_failures: int
    repins: Mapping[str, int]
    workers: Sequence[Mapping[str, Any]]
    clusters: tuple[ClusterSample, ...]


class Owned(NamedTuple):
    """A table: the part of all sessions of each endpoint, and where there is a picture of it."""

    parts: Sequence[float] = ()
    picture: str = ""


Tables = Mapping[str, Owned]
"""By cluster."""


def take(view: AdminView, tables: Tables, at: float, wall: float) -> Sample:
    """One look. `at` is on the process's clock, `wall` Unix time, both in seconds."""
    metrics, snapshot = view.metrics(), view.snapshot()
    process = metrics.process
    clusters = snapshot.clusters.values() if snapshot is not None else ()
    return Sample(
        at=at,
        wall=wall,
        state=state(view),
        version=snapshot.version if snapshot is not None else 0,
        uptime=view.uptime(),
        connections=process.downstream_connections,
        streams=process.downstream_streams,
        requests=process.downstream_streams_total,
        cpu=process.process_cpu_seconds_total,
        memory=process.process_resident_memory_bytes,
        reloads=process.config_reloads_total,
        reload_failures=process.config_reload_failures_total,
        repins=dict(metrics.repins),
        workers=tuple(view.workers()),
        clusters=tuple(
            _cluster(view, metrics, one, tables.get(one.name, Owned())) for one in clusters
        ),
    )


def _cluster(view: AdminView, metrics: Metrics, cluster: Cluster, owned: Owned) -> ClusterSample:
    balancer = cluster.spec.load_balancer
    about = balancer.policy
    if balancer.hash is not None:
        about += f" by {balancer.hash.kind.replace('_', ' ')} {balancer.hash.name}".rstrip()
    counted = metrics.cluster(cluster.name).as_dict()
    members = (
        _endpoint(view, metrics, cluster, n, owned.parts[n] if n < len(owned.parts) else None)
        for n, endpoint in enumerate(cluster.endpoints)
        if endpoint.key not in cluster.removed
    )
    doubts = {name: int(n) for name, n in counted.items() if name.startswith(_DOUBTS)}
    return ClusterSample(
        cluster.name,
        about,
        view.problem(cluster.name),
        owned.picture,
        doubts,
        tuple(members),
    )


_DOUBTS = ("upstream_link_", "upstream_endpoint_doubted")


def _endpoint(
    view: AdminView, metrics: Metrics, cluster: Cluster, place: int, share: float | None
) -> EndpointSample:
    endpoint = cluster.endpoints[place]
    seen = view.endpoint_health(cluster.name, endpoint.key)
    stats = metrics.endpoint(cluster.name, endpoint.key)
    first_byte = metrics.first_bytes.get((cluster.name, endpoint.key))
    return EndpointSample(
        key=endpoint.key,
        pod=endpoint.pod or "",
        flags=seen.flags,
        reason=seen.reason,
        streams=stats.rq_active,
        connections=stats.cx_active,
        suspect=stats.cx_suspect,
        dead=stats.cx_dead,
        dialled=stats.cx_total,
        calls=stats.rq_total,
        errors=stats.rq_error,
        counts=tuple(first_byte.counts) if first_byte is not None else (),
        links=tuple(metrics.links.get((cluster.name, endpoint.key), ())),
        place=place,
        share=share,
    )


# --- two samples ----------------------------------------------------------------------------------


def account(before: Sample, now: Sample) -> dict[str, Any]:
    """As JSON-able values: what is, and what came to pass per second between the two."""
    seconds = max(now.at - before.at, 1e-3)
    known = {one.name: one for one in before.clusters}
    return {
        "at": now.wall,
        "state": now.state,
        "snapshot": now.version,
        "uptime": now.uptime,
        "connections": now.connections,
        "streams": now.streams,
        "rate": max(now.requests - before.requests, 0) / seconds,
        "cpu": max(now.cpu - before.cpu, 0.0) / seconds,
        "memory": now.memory,
        "workers": list(now.workers),
        "clusters": [_cluster_row(known.get(one.name), one, seconds) for one in now.clusters],
    }


def _cluster_row(
    before: ClusterSample | None, now: ClusterSample, seconds: float
) -> dict[str, Any]:
    known = {one.key: one for one in before.endpoints} if before is not None else {}
    counts = [_grown(known.get(one.key), one) for one in now.endpoints]
    rows = [
        _endpoint_row(known.get(one.key), one, grown, seconds)
        for one, grown in zip(now.endpoints, counts, strict=True)
    ]
    rows.sort(key=_well)
    whole = [sum(column) for column in zip(*(c for c in counts if c), strict=True)]
    return {
        "name": now.name,
        "about": now.about,
        "problem": now.problem,
        "picture": now.picture,
        "share": None,
        "rate": sum(row["rate"] for row in rows),
        "errors": sum(row["errors"] for row in rows),
        "streams": sum(row["streams"] for row in rows),
        "connections": sum(row["connections"] for row in rows),
        "p50": quantile(whole, 0.5),
        "p99": quantile(whole, 0.99),
        "count": len(rows),
        "unwell": sum(not _well(row) for row in rows),
        "endpoints": rows[:MOST_ENDPOINTS],
        "more": len(rows[MOST_ENDPOINTS:]),
    }


def _well(row: Mapping[str, Any]) -> bool:
    """Who is not well stands first; the others stay in their order."""
    return not (row["reason"] or row["doubts"])


def troubled(links: Sequence[str]) -> list[str]:
    """What is said of connections that are not to be trusted; one that was asked may well answer."""
    bad = [line for line in links if line.startswith(("suspect", "dead"))]
    alike = Counter((line.partition(",")[0], line.partition(": ")[2]) for line in bad)
    said = [
        f"{count} connection{'s' * (count != 1)} {state}{f': {why}' * bool(why)}"
        for (state, why), count in alike.items()
    ]
    return said + [line for line in dict.fromkeys(links) if line.startswith("all silent")]


def _endpoint_row(
    before: EndpointSample | None, now: EndpointSample, grown: Sequence[int], seconds: float
) -> dict[str, Any]:
    calls, errors = (before.calls, before.errors) if before is not None else (now.calls, now.errors)
    return {
        "key": now.key,
        "pod": now.pod,
        "flags": now.flags,
        "reason": now.reason,
        "streams": now.streams,
        "connections": now.connections,
        "links": list(now.links),
        "doubts": troubled(now.links),
        "rate": max(now.calls - calls, 0) / seconds,
        "errors": max(now.errors - errors, 0) / seconds,
        "p50": quantile(grown, 0.5),
        "p99": quantile(grown, 0.99),
        "place": now.place,
        "share": now.share,
    }


def _grown(before: EndpointSample | None, now: EndpointSample) -> list[int]:
    """What was counted in between; a worker that is gone takes nothing back."""
    if before is None or not before.counts:
        return list(now.counts) if before is not None else []
    return [max(b - a, 0) for a, b in zip(before.counts, now.counts, strict=True)]


def quantile(counts: Sequence[int], q: float) -> float | None:
    """In milliseconds, as if a bucket's calls lay evenly in it; None without calls.

    Above the last bound there is no more to say than that bound.
    """
    sums = list(accumulate(counts))
    if not sums or not sums[-1]:
        return None
    wanted = q * sums[-1]
    at = bisect_left(sums, wanted)
    if at >= len(MILLISECONDS):
        return MILLISECONDS[-1]
    low = MILLISECONDS[at - 1] if at else 0.0
    below = sums[at - 1] if at else 0
    return low + (MILLISECONDS[at] - low) * (wanted - below) / (sums[at] - below)
