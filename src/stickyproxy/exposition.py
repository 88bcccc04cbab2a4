"""Counters as Prometheus text. `prometheus_client` does the writing; here is decided what.

Names are the ones people's panels already ask for: gRPC's (`grpc_server_*`), Linkerd's
(`request_total`, `response_*`) and Envoy's (`upstream_*`, label `cluster`); the rest begins with
`stickyproxy_`. Envoy's counters without `_total` in the name are exposed as untyped, because the
format ties the type counter to that suffix; rate() does not mind.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator
from dataclasses import Field, fields
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from stickyproxy import __version__
from stickyproxy.counters import (
    ClusterStats,
    EndpointStats,
    Histogram,
    ProcessStats,
    WatchStats,
    WorkerStats,
)
from stickyproxy.errors import GrpcStatus, H2Code
from stickyproxy.metrics import CODE_NAMES, MethodStats, Metrics, RouteStats

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SERVER_FAULTS = frozenset((2, 4, 12, 13, 14, 15))
"""gRPC statuses that count as failure: OpenTelemetry's list for the server side of gRPC."""


class Family(NamedTuple):
    """One metric: what the documentation's table and the HELP line say."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


_METHOD = ("grpc_type", "grpc_service", "grpc_method")
_FAMILIES = [
    Family("grpc_server_started_total", "counter", _METHOD, "Calls begun."),
    Family("grpc_server_handled_total", "counter", (*_METHOD, "grpc_code"), "Calls ended."),
    Family("grpc_server_msg_received_total", "counter", _METHOD, "Messages received."),
    Family("grpc_server_msg_sent_total", "counter", _METHOD, "Messages sent."),
    Family("grpc_server_handling_seconds", "histogram", _METHOD, "Time from head to end."),
    Family("request_total", "counter", ("route",), "Requests begun."),
    Family(
        "response_total",
        "counter",
        ("route", "classification", "status_code", "grpc_status"),
        "Requests ended. classification is success or failure: a server's fault by grpc-status, "
        "or without one HTTP 5xx or no response at all (status_code 0).",
    ),
    Family(
        "response_latency_ms", "histogram", ("route",), "Time to the first byte of the response."
    ),
    Family(
        "stickyproxy_session_lookups_total",
        "counter",
        ("route", "source", "result"),
        "Session keys asked for: hit (it was there), generated (a cookie was made), miss (none).",
    ),
    Family(
        "stickyproxy_sessions_pinned_total",
        "counter",
        ("route", "source"),
        "Requests whose backend a session key chose: hit and generated.",
    ),
    Family(
        "stickyproxy_session_repins_total",
        "counter",
        ("reason",),
        "Requests that could not go to their session's own endpoint.",
    ),
    Family("stickyproxy_retries_total", "counter", ("reason",), "Attempts beyond the first."),
    Family(
        "stickyproxy_websocket_closes_total",
        "counter",
        ("code",),
        "WebSockets that ended, by the code of their Close frame; `none` without one.",
    ),
    Family("stickyproxy_goaway_total", "counter", ("dir", "code"), "GOAWAY frames."),
    Family("stickyproxy_rst_stream_total", "counter", ("dir", "code"), "RST_STREAM frames."),
    Family(
        "stickyproxy_endpoints",
        "gauge",
        ("cluster", "state"),
        "Endpoints that may be chosen (healthy), and known ones that may not (unhealthy).",
    ),
    Family(
        "stickyproxy_config_objects",
        "gauge",
        ("kind", "state"),
        "Documents of the cluster that are for us: running, inactive (another one has its place) or "
        "error.",
    ),
    Family("stickyproxy_upstream_connections", "gauge", (), "Connections to backends open now."),
    Family("stickyproxy_upstream_streams", "gauge", (), "Attempts under way."),
    Family("stickyproxy_build_info", "gauge", ("version", "python"), "Always 1."),
]
_BY_NAME = {family.name: family for family in _FAMILIES}


def _declared(
    declared: Field[float], prefix: str, labels: tuple[str, ...], suffix: str = ""
) -> Family:
    """A declared counter as a family; `suffix` where the name is ours to choose."""
    name = prefix + declared.name
    if declared.metadata["gauge"]:
        return Family(name, "gauge", labels, declared.metadata["help"])
    name = name.removesuffix(suffix) + suffix
    kind = "counter" if name.endswith("_total") else "untyped"
    return Family(name, kind, labels, declared.metadata["help"])


_PROCESS = {
    f.name: _declared(f, "" if f.name.startswith("process_") else "stickyproxy_", ())
    for f in fields(ProcessStats)
}
_CLUSTER = {f.name: _declared(f, "", ("cluster",)) for f in fields(ClusterStats)}
_ENDPOINT = {
    f.name: _declared(f, "stickyproxy_endpoint_", ("cluster", "endpoint"), "_total")
    for f in fields(EndpointStats)
    if f.name in {"rq_total", "rq_error", "rq_active"}  # the rest is in /clusters: 1,000 endpoints
}

_WATCH = {
    f.name: _declared(f, "stickyproxy_kube_", ("resource", "namespace")) for f in fields(WatchStats)
}
_WORKER = {f.name: _declared(f, "stickyproxy_worker_", ("worker",)) for f in fields(WorkerStats)}


def render(metrics: Metrics) -> bytes:
    """Everything in the text format 0.0.4 (`CONTENT_TYPE`)."""
    metrics.refresh()
    return generate_latest(_Once(metrics))


def reference() -> list[Family]:
    """Every metric there is, by the name that is exposed (`docs/metrics.md`)."""
    declared = (_PROCESS, _CLUSTER, _ENDPOINT, _WATCH, _WORKER)
    return sorted([*_FAMILIES, *(family for some in declared for family in some.values())])


class _Once(Collector):
    """What `generate_latest` asks of a registry."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        yield from _grpc(self._metrics)
        yield from _routes(self._metrics.routes.values())
        yield from _events(self._metrics)
        yield from _process(self._metrics)
        yield from _clusters(self._metrics)
        yield from _endpoints(self._metrics)
        yield from _watches(self._metrics)
        yield from _workers(self._metrics)
        yield _count("stickyproxy_config_objects", self._metrics.objects.items())


def _metric(family: Family) -> Metric:
    counter = family.kind == "counter"
    return Metric(family.name.removesuffix("_total" if counter else ""), family.help, family.kind)


def _rows(family: Family, rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    metric = _metric(family)
    for values, value in rows:
        metric.add_sample(family.name, dict(zip(family.labels, values, strict=True)), value)
    return metric


def _count(name: str, rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    return _rows(_BY_NAME[name], rows)


def _histograms(name: str, rows: Iterable[tuple[tuple[str, ...], Histogram]]) -> Metric:
    metric = _metric(_BY_NAME[name])
    for values, histogram in rows:
        labels = dict(zip(_BY_NAME[name].labels, values, strict=True))
        below = 0
        bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
        for bound, n in zip(bounds, histogram.counts, strict=True):
            below += n
            metric.add_sample(name + "_bucket", {**labels, "le": bound}, below)
        metric.add_sample(name + "_count", labels, below)
        metric.add_sample(name + "_sum", labels, histogram.total)
    return metric


def _methods(metrics: Metrics) -> dict[tuple[str, ...], MethodStats]:
    """All gRPC methods, over all routes: the libraries' metrics know no routes."""
    nowhere = RouteStats("")
    whole: dict[tuple[str, str], MethodStats] = {}
    for route in metrics.routes.values():
        for slot in route.methods.values():
            if slot.service:
                name = (slot.service, slot.method)
                whole.setdefault(name, MethodStats(nowhere, *name)).add(slot.as_list())
    return {(slot.grpc_type, *name): slot for name, slot in whole.items()}


def _grpc(metrics: Metrics) -> Iterator[Metric]:
    slots = _methods(metrics)
    yield _count("grpc_server_started_total", ((key, s.requests) for key, s in slots.items()))
    handled: dict[tuple[str, ...], int] = {}
    for key, slot in slots.items():
        for answer, n in slot.answers.items():
            code = CODE_NAMES[(answer & 0xFF) - 1 if answer & 0xFF else GrpcStatus.UNKNOWN]
            handled[*key, code] = handled.get((*key, code), 0) + n
    yield _count("grpc_server_handled_total", handled.items())
    yield _count(
        "grpc_server_msg_received_total", ((key, s.msgs_received) for key, s in slots.items())
    )
    yield _count("grpc_server_msg_sent_total", ((key, s.msgs_sent) for key, s in slots.items()))
    yield _histograms(
        "grpc_server_handling_seconds", ((key, s.seconds) for key, s in slots.items())
    )


def classification(http_status: int, grpc_status: int | None) -> str:
    """`success` or `failure`, as `response_total` counts it."""
    if grpc_status is not None:
        return "failure" if grpc_status in SERVER_FAULTS else "success"
    return "failure" if http_status >= 500 or not http_status else "success"


def _answer_labels(key: int) -> tuple[str, str, str]:
    http, grpc = key >> 8, (key & 0xFF) - 1 if key & 0xFF else None
    return classification(http, grpc), str(http), "" if grpc is None else str(grpc)


def _routes(routes: Collection[RouteStats]) -> Iterator[Metric]:
    asked: list[tuple[tuple[str, ...], float]] = []
    told: dict[tuple[str, ...], int] = {}
    looked: list[tuple[tuple[str, ...], float]] = []
    pinned: dict[tuple[str, ...], int] = {}
    for route in routes:
        asked.append(((route.name,), sum(slot.requests for slot in route.methods.values())))
        for slot in route.methods.values():
            for key, n in slot.answers.items():
                labels = (route.name, *_answer_labels(key))
                told[labels] = told.get(labels, 0) + n
        for (source, result), n in route.lookups.items():
            looked.append(((route.name, source, result), n))
            if result != "miss":
                pinned[route.name, source] = pinned.get((route.name, source), 0) + n
    yield _count("request_total", asked)
    yield _count("response_total", told.items())
    yield _histograms("response_latency_ms", (((r.name,), r.latency) for r in routes))
    yield _count("stickyproxy_session_lookups_total", looked)
    yield _count("stickyproxy_sessions_pinned_total", pinned.items())


def _code(code: int) -> str:
    return H2Code(code).name if 0 <= code <= 13 else "OTHER"


def _events(metrics: Metrics) -> Iterator[Metric]:
    yield _count("stickyproxy_session_repins_total", (((k,), n) for k, n in metrics.repins.items()))
    yield _count("stickyproxy_retries_total", (((k,), n) for k, n in metrics.retries.items()))
    closes = metrics.websocket_closes.items()
    yield _count("stickyproxy_websocket_closes_total", (((k,), n) for k, n in closes))
    for name, counted in (("goaway", metrics.goaways), ("rst_stream", metrics.resets)):
        yield _count(
            f"stickyproxy_{name}_total", (((d, _code(c)), n) for (d, c), n in counted.items())
        )
    yield _count("stickyproxy_build_info", [((__version__, platform.python_version()), 1)])


def _process(metrics: Metrics) -> Iterator[Metric]:
    for name, family in _PROCESS.items():
        yield _rows(family, [((), getattr(metrics.process, name))])


def _clusters(metrics: Metrics) -> Iterator[Metric]:
    clusters = metrics.clusters.items()
    for name, family in _CLUSTER.items():
        yield _rows(family, (((cluster,), getattr(s, name)) for cluster, s in clusters))
    states: list[tuple[tuple[str, ...], float]] = []
    for cluster, stats in clusters:
        healthy = stats.membership_healthy
        states.append(((cluster, "healthy"), healthy))
        states.append(((cluster, "unhealthy"), stats.membership_total - healthy))
    yield _count("stickyproxy_endpoints", states)
    open_now = sum(stats.upstream_cx_active for _, stats in clusters)
    yield _count("stickyproxy_upstream_connections", [((), open_now)])
    under_way = sum(stats.upstream_rq_active for _, stats in clusters)
    yield _count("stickyproxy_upstream_streams", [((), under_way)])


def _endpoints(metrics: Metrics) -> Iterator[Metric]:
    for name, family in _ENDPOINT.items():
        yield _rows(family, ((key, getattr(s, name)) for key, s in metrics.endpoints.items()))


def _watches(metrics: Metrics) -> Iterator[Metric]:
    for name, family in _WATCH.items():
        yield _rows(family, ((key, getattr(s, name)) for key, s in metrics.watches.items()))


def _workers(metrics: Metrics) -> Iterator[Metric]:
    for name, family in _WORKER.items():
        yield _rows(family, (((n,), getattr(s, name)) for n, s in metrics.workers.items()))
