"""What changed between two looks, in words: the ticker of the live page. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from stickyproxy.control.live.sample import ClusterSample, EndpointSample, Sample

_WORDS = {
    "upstream_link_suspect_ping_total": "suspect: a PING is not answered",
    "upstream_link_suspect_timer_total": "suspect: its calls are late",
    "upstream_link_suspect_hole_total": "suspect: its network loses packets",
    "upstream_link_suspect_company_total": "suspect: as silent as the others there",
    "upstream_link_dead_total": "dead, and given up",
    "upstream_link_recovered_total": "well again",
}
"""By counter: what became of a connection. Others of their kind are for /metrics."""


def changes(before: Sample, now: Sample) -> list[str]:
    """One line each, the most general first."""
    return [*_of_process(before, now), *_of_workers(before, now), *_of_clusters(before, now)]


def _of_process(before: Sample, now: Sample) -> Iterator[str]:
    if now.state != before.state:
        yield f"{before.state} is {now.state} now"
    if now.reloads > before.reloads:
        yield "configuration loaded"
    if now.reload_failures > before.reload_failures:
        yield "a configuration was refused; the old one stays (the log says why)"
    for why, count in now.repins.items():
        more = count - before.repins.get(why, 0)
        if more > 0:
            yield f"{more} call{'s'[: more != 1]} away from home: {why.replace('_', ' ')}"


def _of_workers(before: Sample, now: Sample) -> Iterator[str]:
    known = {one["worker"]: one["restarts"] for one in before.workers}
    for one in now.workers:
        if one["restarts"] > known.get(one["worker"], 0):
            yield f"worker {one['worker']} was replaced: process {one['pid']} now"


def _of_clusters(before: Sample, now: Sample) -> Iterator[str]:
    known = {one.name: one for one in before.clusters}
    for cluster in now.clusters:
        old = known.pop(cluster.name, None)
        if old is None:
            yield f"{cluster.name}: new, with {len(cluster.endpoints)} endpoints"
        else:
            yield from _of_cluster(old, cluster)
    for name in known:
        yield f"{name}: gone"


def _of_cluster(before: ClusterSample, now: ClusterSample) -> Iterator[str]:
    if now.problem and now.problem != before.problem:
        yield f"{now.name}: {now.problem}"
    known = {one.key: one for one in before.endpoints}
    for endpoint in now.endpoints:
        old = known.pop(endpoint.key, None)
        if old is None:
            yield f"{now.name}: {_called(endpoint)} joined"
        else:
            yield from (f"{now.name}: {line}" for line in _of_endpoint(old, endpoint))
    for endpoint in known.values():
        yield f"{now.name}: {_called(endpoint)} left"
    for name, words in _WORDS.items():
        more = now.doubts.get(name, 0) - before.doubts.get(name, 0)
        if more > 0:
            yield f"{now.name}: {_connections(more)} {words}"


def _of_endpoint(before: EndpointSample, now: EndpointSample) -> Iterator[str]:
    name = _called(now)
    if now.reason != before.reason:
        yield f"{name} {now.reason}" if now.reason else f"{name} is back: {before.reason} before"
    if before.connections and not now.connections:
        yield f"{name} has no connection any more"
    elif now.connections and now.dialled > before.dialled > 0:
        yield f"{name} was connected to anew"


def _called(endpoint: EndpointSample) -> str:
    return f"{endpoint.pod} ({endpoint.key})" if endpoint.pod else endpoint.key


def _connections(count: int) -> str:
    return "a connection is" if count == 1 else f"{count} connections are"
