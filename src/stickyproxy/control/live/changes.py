"""What changed between two looks, in words: the ticker of the live page. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from stickyproxy.control.live.sample import ClusterSample, EndpointSample, Sample, troubled

_RECOVERED = "upstream_link_recovered_total"
_WORDS = {
    "upstream_link_suspect_ping_total": "suspect: a PING is not answered",
    "upstream_link_suspect_timer_total": "suspect: its calls are late",
    "upstream_link_suspect_hole_total": "suspect: its network loses packets",
    "upstream_link_suspect_company_total": "suspect: as silent as the others there",
    _RECOVERED: "well again",
}
"""By counter of a cluster: what became of a connection. Others of their kind are for /metrics."""
_AWAY = {
    "removed": "sessions move, for their endpoint left",
    "not_ready": "sessions are elsewhere while their endpoint is not ready",
    "unreachable": "sessions are elsewhere while their endpoint cannot be used",
}
"""By why a call did not go to its session's own endpoint."""


def changes(before: Sample, now: Sample) -> list[str]:
    """One line each, the most general first."""
    return [*_of_process(before, now), *_of_workers(before, now), *_of_clusters(before, now)]


def _of_process(before: Sample, now: Sample) -> Iterator[str]:
    if now.state != before.state:
        yield f"{before.state} is {now.state} now"
    if now.reloads > before.reloads:
        yield "the configuration was loaded anew"
    if now.reload_failures > before.reload_failures:
        yield "a configuration was refused; the old one stays (the log says why)"


def moved(before: Sample, now: Sample) -> dict[str, int]:
    """Calls that went elsewhere than their session belongs, by why."""
    more = {why: count - before.repins.get(why, 0) for why, count in now.repins.items()}
    return {_AWAY[why]: count for why, count in more.items() if count > 0}


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
            count = len(cluster.endpoints)
            yield f"{cluster.name}: new, with {count} endpoint{'s' * (count != 1)}"
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
    yield from _of_connections(before, now)


def _of_connections(before: ClusterSample, now: ClusterSample) -> Iterator[str]:
    grown = {name: now.doubts.get(name, 0) - before.doubts.get(name, 0) for name in _WORDS}
    well, whose = grown[_RECOVERED], _whose(before, now)
    if 0 < sum(grown.values()) - well <= well:  # a breath of a busy machine
        yield f"{now.name}: connections{whose} were in doubt for a moment"
        return
    for name, words in _WORDS.items():
        if (more := grown[name]) > 0:
            yield f"{now.name}: {_connections(more)}{whose} {_are(more)} {words}"


def _whose(before: ClusterSample, now: ClusterSample) -> str:
    """The counters are the cluster's: to whom, if one endpoint only has doubtful connections."""
    looked_at = (*before.endpoints, *now.endpoints)
    found = {one.key: one for one in looked_at if troubled(one.links) or one.suspect}
    return f" to {_called(*found.values())}" if len(found) == 1 else ""


def _of_endpoint(before: EndpointSample, now: EndpointSample) -> Iterator[str]:
    name = _called(now)
    if now.reason != before.reason:
        yield f"{name} {now.reason}" if now.reason else f"{name} is back: {before.reason} before"
    if gone := max(now.dead - before.dead, 0):
        yield f"{name}: {_connections(gone)} {_are(gone)} dead, and given up"
    if before.connections and not now.connections:
        yield f"{name} has no connection any more"
    elif now.dialled > before.dialled > 0 and now.connections:
        yield from _connected_anew(name, before, now)


def _connected_anew(name: str, before: EndpointSample, now: EndpointSample) -> Iterator[str]:
    """One more for more calls is no news."""
    if not before.connections:
        yield f"{name} is connected to again"
    elif now.connections <= before.connections:
        yield f"{name} has a new connection in the place of an old one"


def _called(endpoint: EndpointSample) -> str:
    return f"{endpoint.pod} ({endpoint.key})" if endpoint.pod else endpoint.key


def _connections(count: int) -> str:
    return "a connection" if count == 1 else f"{count} connections"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
