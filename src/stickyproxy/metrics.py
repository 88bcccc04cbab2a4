"""Counters as plain integers: cheap to count, and they add up across workers.

The data path holds on to slot objects (`MethodStats`, `ClusterStats`, `EndpointStats`) and adds to
their attributes; `exposition` renders them, `as_dict` and `add` carry them between processes.

Nothing here is locked: all counting is done by the thread of the event loop.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from typing import Any

from stickyproxy.counters import (
    ClusterStats,
    EndpointStats,
    Histogram,
    ProcessStats,
    WatchStats,
    WorkerStats,
)
from stickyproxy.errors import GrpcStatus

OTHER = "_OTHER"
"""Label of everything beyond the cap, and of paths that are no gRPC method's."""
NO_ROUTE = "-"
"""The route of requests that matched none; no label is ever taken from their paths."""

METHOD_CAP = 200  # one scrape stays near 1 MB with every series of 200 methods there
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of `grpc_server_handling_seconds`: the gRPC libraries' own and two below them."""
MILLISECONDS = tuple(n * scale for scale in (1.0, 10.0, 100.0, 1e3, 1e4) for n in (1, 2, 3, 4, 5))
"""Upper bounds of `response_latency_ms`, as Linkerd's dashboards expect them (1 ms to 50 s)."""

CODE_NAMES = {status.value: status.name.title().replace("_", "") for status in GrpcStatus}
"""grpc-status to the name that the gRPC libraries' metrics use (Go's codes.Code.String)."""
CODE_NAMES |= {GrpcStatus.OK: "OK", GrpcStatus.CANCELLED: "Canceled"}

# The lengths bound what a hostile path can make us keep and print; real names are far below them.
CLOSE_CODES = range(1000, 1016)  # RFC 6455 §11.7: those that are registered
_GRPC_PATH = re.compile(rb"/([\w.\-/]{1,160})/([\w.\-]{1,80})")


class RouteStats:
    """What is counted per route: time to first byte, and where sessions' keys came from."""

    __slots__ = ("latency", "lookups", "methods", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.latency = Histogram(MILLISECONDS)
        self.lookups: dict[tuple[str, str], int] = {}
        self.methods: dict[bytes, MethodStats] = {}

    def looked_up(self, session: tuple[str, str]) -> None:
        """A hash policy was asked for a key: its source, and the result.

        `source` is header, cookie or source_ip; `result` is hit (the request had it), generated
        (a cookie was made) or miss (none: balanced without stickiness).
        """
        self.lookups[session] = self.lookups.get(session, 0) + 1


class MethodStats:
    """One gRPC method of one route, or (`service` empty) all that is not gRPC on that route.

    `answers` counts by `http_status << 8 | grpc_status + 1`, 0 standing for no grpc-status.
    `client_streams` and `server_streams` tell that more than one message was ever seen that way: a
    proxy without descriptors learns a method's type from what it carries (see `grpc_type`).
    """

    __slots__ = (
        "answers",
        "client_streams",
        "method",
        "msgs_received",
        "msgs_sent",
        "requests",
        "route",
        "seconds",
        "server_streams",
        "service",
    )

    def __init__(self, route: RouteStats, service: str, method: str) -> None:
        self.route = route
        self.service = service
        self.method = method
        self.requests = 0
        self.answers: dict[int, int] = {}
        self.msgs_received = 0
        self.msgs_sent = 0
        self.client_streams = False
        self.server_streams = False
        self.seconds = Histogram(SECONDS)

    @property
    def grpc_type(self) -> str:
        """`unary`, `client_stream`, `server_stream` or `bidi_stream`: the widest seen so far."""
        if self.client_streams:
            return "bidi_stream" if self.server_streams else "client_stream"
        return "server_stream" if self.server_streams else "unary"

    def started(self) -> None:
        self.requests += 1

    def finished(  # noqa: PLR0917 - by position: keywords cost on this path
        self,
        grpc_status: int | None,
        http_status: int,
        seconds: float,
        msgs_in: int = 0,
        msgs_out: int = 0,
        first_byte: float | None = None,
    ) -> int:
        """The exchange is over, once for each `started`. Returns its place among `MILLISECONDS`.

        `grpc_status` None: none was told. `http_status` 0: no response head. `first_byte` is when
        the first data byte came, in seconds from the start; without one the whole time counts, as
        with Linkerd. Statuses that no table knows count as UNKNOWN (gRPC) and 0 (HTTP).
        """
        key = 0
        if grpc_status is not None:
            key = grpc_status + 1 if 0 <= grpc_status <= 16 else 3
        if 0 <= http_status <= 999:
            key |= http_status << 8
        answers = self.answers
        answers[key] = answers.get(key, 0) + 1
        if msgs_in:
            self.msgs_received += msgs_in
            if msgs_in > 1:
                self.client_streams = True
        if msgs_out:
            self.msgs_sent += msgs_out
            if msgs_out > 1:
                self.server_streams = True
        if self.service:
            histogram = self.seconds
            histogram.counts[bisect_left(SECONDS, seconds)] += 1
            histogram.total += seconds
        millis = (seconds if first_byte is None else first_byte) * 1000.0
        histogram = self.route.latency
        place = bisect_left(MILLISECONDS, millis)
        histogram.counts[place] += 1
        histogram.total += millis
        return place

    def as_list(self) -> list[Any]:
        kinds = (self.client_streams, self.server_streams)
        numbers = [self.requests, self.msgs_received, self.msgs_sent, *kinds]
        return [numbers, list(self.answers.items()), self.seconds.as_list()]

    def add(self, counts: list[Any]) -> None:
        """Take in `as_list` of another process's slot, or of another route's."""
        numbers, answers, seconds = counts
        self.requests += numbers[0]
        self.msgs_received += numbers[1]
        self.msgs_sent += numbers[2]
        self.client_streams |= bool(numbers[3])
        self.server_streams |= bool(numbers[4])
        for key, n in answers:
            self.answers[key] = self.answers.get(key, 0) + n
        self.seconds.add(seconds)


class Metrics:
    """All counters of one process, or of several added up."""

    def __init__(self) -> None:
        self.process = ProcessStats()
        self.clusters: dict[str, ClusterStats] = {}
        self.endpoints: dict[tuple[str, str], EndpointStats] = {}
        self.first_bytes: dict[tuple[str, str], Histogram] = {}
        """Milliseconds to the first byte, by cluster and the endpoint that answered."""
        self.routes: dict[str, RouteStats] = {}
        self.goaways: dict[tuple[str, int], int] = {}
        self.resets: dict[tuple[str, int], int] = {}
        self.retries: dict[str, int] = {}
        self.repins: dict[str, int] = {}
        self.websocket_closes: dict[str, int] = {}
        self.watches: dict[tuple[str, str], WatchStats] = {}
        """By resource (the plural) and namespace ("" for all)."""
        self.objects: dict[tuple[str, str], int] = {}
        """Documents of the cluster, by kind and state. Every process knows the same ones."""
        self.links: dict[tuple[str, str], list[str]] = {}
        """Of each endpoint its connections' states, in words. Refreshed before values leave."""
        self.before_reading: list[Callable[[], None]] = []
        """Called before values leave: for what is measured rather than counted (lines lost)."""
        self.workers: dict[str, WorkerStats] = {}
        """By number; only the supervisor of several has them."""
        self.new_endpoint: Callable[[str, str], EndpointStats] = lambda *_: EndpointStats()
        self._named = 0

    # --- slots for the data path --------------------------------------------------------------

    def route(self, name: str) -> RouteStats:
        found = self.routes.get(name)
        if found is None:
            found = self.routes[name] = RouteStats(name)
        return found

    def method(self, route_name: str, path: bytes, grpc: bool) -> MethodStats:
        """The slot of a request. At most `METHOD_CAP` methods in all, then `_OTHER` per route."""
        route = self.route(route_name)
        found = route.methods.get(path if grpc else b"")
        return found or self._new_method(route, path if grpc else b"")

    def _new_method(self, route: RouteStats, path: bytes) -> MethodStats:
        if not path:
            slot = route.methods[b""] = MethodStats(route, "", "")
            return slot
        named = _GRPC_PATH.fullmatch(path)
        if named is None or route.name == NO_ROUTE or self._named >= METHOD_CAP:
            return _other(route)
        self._named += 1
        slot = route.methods[path] = MethodStats(route, named[1].decode(), named[2].decode())
        return slot

    def cluster(self, name: str) -> ClusterStats:
        found = self.clusters.get(name)
        if found is None:
            found = self.clusters[name] = ClusterStats()
        return found

    def endpoint(self, cluster: str, key: str) -> EndpointStats:
        """To be held on to by whoever counts; `prune` never drops one that is in use."""
        found = self.endpoints.get((cluster, key))
        if found is None:
            found = self.endpoints[cluster, key] = self.new_endpoint(cluster, key)
        return found

    def answers_of(self, cluster: str, key: str) -> Histogram:
        """How long an endpoint takes until its answers begin, by `MILLISECONDS`."""
        return self.first_bytes.setdefault((cluster, key), Histogram(MILLISECONDS))

    def prune(
        self, members: Mapping[str, Collection[str]], clusters: Collection[str] | None = None
    ) -> None:
        """Forget endpoints that are no longer members (cluster name -> keys) and carry nothing.

        `clusters` are those that are looked at; None is all.
        """
        for (cluster, key), stats in list(self.endpoints.items()):
            looked_at = clusters is None or cluster in clusters
            gone = looked_at and key not in members.get(cluster, ())
            if gone and not stats.rq_active and not stats.cx_active:
                del self.endpoints[cluster, key]
                self.first_bytes.pop((cluster, key), None)

    # --- rare events ---------------------------------------------------------------------------

    def goaway(self, direction: str, code: int) -> None:
        """`direction` is `downstream_rx`, `downstream_tx`, `upstream_rx` or `upstream_tx`."""
        key = (direction, code if 0 <= code <= 13 else -1)
        self.goaways[key] = self.goaways.get(key, 0) + 1

    def rst_stream(self, direction: str, code: int) -> None:
        """As `goaway`. A code that RFC 9113 §7 does not name is counted as one of them all."""
        key = (direction, code if 0 <= code <= 13 else -1)
        self.resets[key] = self.resets.get(key, 0) + 1

    def retried(self, reason: str) -> None:
        """`reason`: the `ErrorKind` or the condition of a policy that made us try again, or `hedge`."""
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def repinned(self, reason: str) -> None:
        """A session's own endpoint was walked past; `reason` is a word of ours, not the peer's."""
        self.repins[reason] = self.repins.get(reason, 0) + 1

    def websocket_closed(self, code: int | None) -> None:
        """`code` of its Close frame; None: it ended without one. Clients choose them: so few labels."""
        self.process.downstream_websockets -= 1
        label = "none" if code is None else str(code) if code in CLOSE_CODES else "other"
        self.websocket_closes[label] = self.websocket_closes.get(label, 0) + 1

    # --- between processes ---------------------------------------------------------------------

    def refresh(self) -> None:
        for measure in self.before_reading:
            measure()
        self._add_up()

    def _add_up(self) -> None:
        """What is under way in a cluster is the sum of its endpoints: the call path counts once."""
        for stats in self.clusters.values():
            stats.upstream_rq_active = stats.upstream_cx_active = 0
        for (name, _), endpoint in self.endpoints.items():
            cluster = self.cluster(name)
            cluster.upstream_rq_active += endpoint.rq_active
            cluster.upstream_cx_active += endpoint.cx_active

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values; `add` takes them in."""
        self.refresh()
        return {
            "process": self.process.as_dict(),
            "clusters": {name: stats.as_dict() for name, stats in self.clusters.items()},
            "endpoints": [[*key, stats.as_dict()] for key, stats in self.endpoints.items()],
            "links": [[*key, words] for key, words in self.links.items()],
            "first_bytes": [[*key, one.as_list()] for key, one in self.first_bytes.items()],
            "routes": {name: _route_dict(stats) for name, stats in self.routes.items()},
            "goaways": [[*key, n] for key, n in self.goaways.items()],
            "resets": [[*key, n] for key, n in self.resets.items()],
            "retries": dict(self.retries),
            "repins": dict(self.repins),
            "websocket_closes": dict(self.websocket_closes),
            "watches": [[*key, stats.as_dict()] for key, stats in self.watches.items()],
            "objects": [[*key, n] for key, n in self.objects.items()],
        }

    def add(self, data: Mapping[str, Any]) -> None:
        """Add another process's values. The cap on methods holds for the sum as well."""
        self.process.add(data["process"])
        for name, values in data["clusters"].items():
            self.cluster(name).add(values)
        for cluster, key, values in data["endpoints"]:
            self.endpoint(cluster, key).add(values)
        for cluster, key, words in data["links"]:
            self.links.setdefault((cluster, key), []).extend(words)
        for cluster, key, counts in data["first_bytes"]:
            self.first_bytes.setdefault((cluster, key), Histogram(MILLISECONDS)).add(counts)
        for name, values in data["routes"].items():
            self._add_route(self.route(name), values)
        for mine, theirs in ((self.goaways, data["goaways"]), (self.resets, data["resets"])):
            for direction, code, n in theirs:
                mine[direction, code] = mine.get((direction, code), 0) + n
        for named, more in (
            (self.retries, data["retries"]),
            (self.repins, data["repins"]),
            (self.websocket_closes, data["websocket_closes"]),
        ):
            for reason, n in more.items():
                named[reason] = named.get(reason, 0) + n
        self._add_kubernetes(data)

    def _add_kubernetes(self, data: Mapping[str, Any]) -> None:
        for resource, namespace, values in data["watches"]:
            place = (resource, namespace)
            if place in self.watches:
                self.watches[place].add(values)
            else:
                self.watches[place] = WatchStats(**values)
        for kind, state, n in data["objects"]:
            self.objects[kind, state] = max(self.objects.get((kind, state), 0), n)

    @staticmethod
    def counted(data: Mapping[str, Any]) -> dict[str, Any]:
        """Of `as_dict` what stays true when its process is gone: nothing is under way there."""
        return {
            **data,
            "process": ProcessStats.counted(data["process"]),
            "clusters": {k: ClusterStats.counted(v) for k, v in data["clusters"].items()},
            "endpoints": [[*key, EndpointStats.counted(v)] for *key, v in data["endpoints"]],
            "links": [],
        }

    @classmethod
    def from_dicts(cls, *parts: Mapping[str, Any]) -> Metrics:
        """The sum of what several processes said; their own counters stay untouched."""
        whole = cls()
        for part in parts:
            whole.add(part)
        return whole

    def _add_route(self, route: RouteStats, values: Mapping[str, Any]) -> None:
        route.latency.add(values["latency"])
        for source, result, n in values["lookups"]:
            route.lookups[source, result] = route.lookups.get((source, result), 0) + n
        for service, method, *counts in values["methods"]:
            path = f"/{service}/{method}".encode() if service else b""
            other = service == OTHER
            slot = _other(route) if other else self.method(route.name, path, bool(service))
            slot.add(counts)


def _other(route: RouteStats) -> MethodStats:
    """Under a key that is no path, so that a million unknown paths make one entry."""
    slot = route.methods.get(b"*")
    if slot is None:
        slot = route.methods[b"*"] = MethodStats(route, OTHER, OTHER)
    return slot


def _route_dict(stats: RouteStats) -> dict[str, Any]:
    return {
        "latency": stats.latency.as_list(),
        "lookups": [[*key, n] for key, n in stats.lookups.items()],
        "methods": [
            [slot.service, slot.method, *slot.as_list()] for slot in stats.methods.values()
        ],
    }
