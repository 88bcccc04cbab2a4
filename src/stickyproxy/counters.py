"""Declarations of counters: one line each holds its help text and how two processes' make one.

The classes are plain slots that the data path adds to; `metrics` keeps them, `exposition` renders
them by what is declared here.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


def _sum(text: str, *, gauge: bool = False) -> Any:
    return field(default=0, metadata={"help": text, "merge": sum, "gauge": gauge})


def _level(text: str, merge: Callable[[Iterable[float]], float] = max, default: float = 0) -> Any:
    return field(default=default, metadata={"help": text, "merge": merge, "gauge": True})


class _Merged:
    """What a dataclass of counters needs to travel: its non-zero values, and adding them in."""

    __slots__ = ()

    def as_dict(self) -> dict[str, float]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def counted(cls, values: Mapping[str, float]) -> dict[str, float]:
        """Of `as_dict` the counters, without the gauges."""
        gauges = {f.name for f in fields(cls) if f.metadata["gauge"]}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if name not in gauges}

    def add(self, values: Mapping[str, float]) -> None:
        """Take in another process's values; names this version does not know are left out."""
        for f in fields(self):  # type: ignore[arg-type]
            if f.name in values:
                mine = getattr(self, f.name)
                setattr(self, f.name, f.metadata["merge"]((mine, values[f.name])))


@dataclass(slots=True, eq=False)
class ProcessStats(_Merged):
    """What concerns a whole process; `stickyproxy_` goes before all names but `process_…`."""

    downstream_connections: int = _sum("Client connections open now.", gauge=True)
    downstream_connections_total: int = _sum("Client connections accepted.")
    downstream_connections_refused_total: int = _sum("Connections closed at once: over a limit.")
    downstream_connections_max_age_total: int = _sum("Connections sent away at their age.")
    downstream_connections_max_age_cut_total: int = _sum(
        "Connections closed at the end of the grace after it, with streams under way."
    )
    downstream_connections_levelled_total: int = _sum(
        "Connections sent away because a worker that came anew had fewer."
    )
    downstream_handshake_failures_total: int = _sum("TLS handshakes that failed or took too long.")
    downstream_protocol_errors_total: int = _sum("Client connections ended as beyond repair.")
    downstream_streams: int = _sum("Requests under way.", gauge=True)
    downstream_streams_total: int = _sum("Request heads delivered by a codec, refused ones too.")
    downstream_streams_refused_total: int = _sum(
        "Requests refused before any route was looked for."
    )
    downstream_websockets: int = _sum("WebSockets open now.", gauge=True)
    downstream_websockets_total: int = _sum("WebSockets accepted.")
    access_log_lines_total: int = _sum("Access log lines handed to the writer.")
    access_log_lines_lost_total: int = _sum("Access log lines lost: nobody read our output.")
    log_lines_lost_total: int = _sum("Operator log lines lost: nobody read our output.")
    dns_names_failed: int = _sum(
        "Host names of services that DNS does not answer for; their last addresses stay.",
        gauge=True,
    )
    dns_failures_total: int = _sum("Questions to DNS without an answer.")
    config_reloads_total: int = _sum("Configurations loaded, the first one included.")
    config_reload_failures_total: int = _sum("Configurations refused; the old one stayed.")
    config_last_reload_successful: int = _level("1 unless the last load was refused.", min, 1)
    config_last_reload_success_timestamp_seconds: float = _level("Unix time of the last good load.")
    config_snapshot_version: int = _level(
        "Version of the Snapshot in use (highest of all workers)."
    )
    config_snapshot_spread_seconds: float = _level(
        "Between the first and the last worker to put the newest Snapshot into effect."
    )
    drain_state: int = _level("0 serving, 1 draining.")
    tasks: int = _sum(
        "Tasks of all processes that serve: one a stream, three a connection.", gauge=True
    )
    process_cpu_seconds_total: float = _sum("CPU time, user and system, of all processes.")
    process_resident_memory_bytes: int = _sum("Resident memory of all processes.", gauge=True)
    process_open_fds: int = _sum("Open file descriptors of all processes.", gauge=True)

    def measure(self) -> None:
        """Fill in what the operating system counts for us; where /proc is missing it stays 0."""
        times = os.times()
        self.process_cpu_seconds_total = times.user + times.system
        with contextlib.suppress(OSError):
            pages = int(Path("/proc/self/statm").read_bytes().split()[1])
            self.process_resident_memory_bytes = pages * os.sysconf("SC_PAGE_SIZE")
            self.process_open_fds = sum(1 for _ in Path("/proc/self/fd").iterdir())

    def config_loaded(self, good: bool, now: float) -> None:
        """`now` is Unix time in seconds."""
        self.config_last_reload_successful = int(good)
        if good:
            self.config_reloads_total += 1
            self.config_last_reload_success_timestamp_seconds = now
        else:
            self.config_reload_failures_total += 1


@dataclass(slots=True, eq=False)
class ClusterStats(_Merged):
    """One cluster, in Envoy's names (its "Cluster manager statistics"), label `cluster`."""

    upstream_rq_total: int = _sum("Attempts sent to the cluster.")
    upstream_rq_active: int = _sum("Attempts under way.", gauge=True)
    upstream_rq_pending_total: int = _sum("Attempts that waited for a connection.")
    upstream_rq_pending_active: int = _sum("Attempts waiting for a connection.", gauge=True)
    upstream_rq_pending_overflow: int = _sum(
        "Attempts refused: too many waited already, or were under way."
    )
    upstream_rq_pending_failure_eject: int = _sum("Attempts whose awaited connection failed.")
    upstream_rq_cancelled: int = _sum("Attempts given up before they had a connection.")
    upstream_rq_timeout: int = _sum("Attempts that ran into the deadline.")
    upstream_rq_rx_reset: int = _sum("Attempts that the backend reset.")
    upstream_rq_tx_reset: int = _sum("Attempts that we reset.")
    upstream_rq_retry: int = _sum("Attempts beyond the first, hedges left out.")
    upstream_rq_retry_success: int = _sum("Retries that brought a response.")
    upstream_rq_retry_overflow: int = _sum("Retries not made: the retry budget was used up.")
    upstream_rq_retry_limit_exceeded: int = _sum(
        "Retries not made: the route allows no more of them for one request."
    )
    upstream_rq_per_try_timeout: int = _sum("Attempts that ran into per_try_timeout.")
    upstream_rq_hedge: int = _sum("Second attempts beside one whose connection was in doubt.")
    upstream_rq_hedge_won: int = _sum("Of these, those whose response came first.")
    upstream_rq_shadow_total: int = _sum("Copies of requests meant for it as a shadow.")
    upstream_rq_shadow_dropped: int = _sum("Copies that it did not take, or not whole.")
    upstream_rq_1xx: int = _sum("Informational responses.")
    upstream_rq_2xx: int = _sum("Responses with a 2xx status.")
    upstream_rq_3xx: int = _sum("Responses with a 3xx status.")
    upstream_rq_4xx: int = _sum("Responses with a 4xx status.")
    upstream_rq_5xx: int = _sum("Responses with a 5xx status.")
    upstream_cx_total: int = _sum("Connections established.")
    upstream_cx_active: int = _sum("Connections open now.", gauge=True)
    upstream_cx_http1_total: int = _sum("Connections that speak HTTP/1.1.")
    upstream_cx_http2_total: int = _sum("Connections that speak HTTP/2.")
    upstream_cx_connect_fail: int = _sum("Connections that could not be established.")
    upstream_cx_connect_timeout: int = _sum("Connections that took too long to establish.")
    upstream_cx_protocol_error: int = _sum("Connections ended because the backend broke HTTP.")
    upstream_cx_overflow: int = _sum("Times that one was wanted while max_connections were open.")
    upstream_cx_none_healthy: int = _sum("Requests that found no admissible endpoint.")
    upstream_link_pings_total: int = _sum("PINGs that asked whether a connection lives.")
    upstream_link_suspect_ping_total: int = _sum("Connections suspect: a PING was not answered.")
    upstream_link_suspect_timer_total: int = _sum(
        "Connections suspect: nothing was acknowledged until TCP's timer ran out."
    )
    upstream_link_suspect_hole_total: int = _sum(
        "Connections suspect: segments were lost, and nothing came since."
    )
    upstream_link_suspect_company_total: int = _sum(
        "Connections suspect: quiet, not to be asked, and nothing else of the endpoint answers."
    )
    upstream_link_recovered_total: int = _sum("Suspect connections that were well again.")
    upstream_link_dead_total: int = _sum("Suspect connections that were ended as dead.")
    upstream_endpoint_doubted_total: int = _sum(
        "Times that all connections to an endpoint were suspect and no new one got ready."
    )
    outlier_detection_ejections_enforced_total: int = _sum(
        "Endpoints taken out: ejected for their calls, or not to be connected to."
    )
    outlier_detection_ejections_active: int = _level("Endpoints out for one of these now.")
    outlier_detection_ejections_overflow: int = _sum("Ejections not made: too few would be left.")
    outlier_detection_ejections_detected_consecutive_5xx: int = _sum("Found by 5xx in a row.")
    outlier_detection_ejections_enforced_consecutive_5xx: int = _sum("Ejected for that.")
    outlier_detection_ejections_detected_consecutive_gateway_failure: int = _sum(
        "Found by 502, 503, 504 in a row."
    )
    outlier_detection_ejections_enforced_consecutive_gateway_failure: int = _sum(
        "Ejected for that."
    )
    outlier_detection_ejections_detected_consecutive_local_origin_failure: int = _sum(
        "Found by resets, timeouts and broken connections in a row."
    )
    outlier_detection_ejections_enforced_consecutive_local_origin_failure: int = _sum(
        "Ejected for that."
    )
    outlier_detection_ejections_detected_success_rate: int = _sum(
        "Found by the rate of good answers, compared with the others'."
    )
    outlier_detection_ejections_enforced_success_rate: int = _sum("Ejected for that.")
    outlier_detection_ejections_detected_local_origin_success_rate: int = _sum(
        "Found by the rate of calls without reset, timeout or broken connection."
    )
    outlier_detection_ejections_enforced_local_origin_success_rate: int = _sum("Ejected for that.")
    health_check_attempt: int = _sum("Active checks made.")
    health_check_success: int = _sum("Those that passed, or told nothing.")
    health_check_failure: int = _sum("Those that failed, for whatever reason.")
    health_check_network_failure: int = _sum("Those without an answer.")
    circuit_breakers_default_cx_open: int = _level("1 while max_connections are open.")
    circuit_breakers_default_rq_pending_open: int = _level("1 while max_pending_requests wait.")
    circuit_breakers_default_rq_open: int = _level("1 while max_requests are under way.")
    lb_panics: int = _sum("Times that too few endpoints were left, so that all were admitted.")
    membership_total: int = _level("Endpoints known.")
    membership_healthy: int = _level("Endpoints that may be chosen.")

    def responded(self, status: int) -> None:
        """A response head came from the backend, with this HTTP status."""
        if status < 300:
            if status < 200:
                self.upstream_rq_1xx += 1
            else:
                self.upstream_rq_2xx += 1
        elif status < 400:
            self.upstream_rq_3xx += 1
        elif status < 500:
            self.upstream_rq_4xx += 1
        else:
            self.upstream_rq_5xx += 1


@dataclass(slots=True, eq=False)
class EndpointStats(_Merged):
    """One endpoint, in the names of Envoy's `/clusters`; least_request reads `rq_active`."""

    rq_active: int = _sum("Streams under way.", gauge=True)
    rq_total: int = _sum("Streams sent.")
    rq_success: int = _sum("Streams that ended well.")
    rq_error: int = _sum("Streams that ended as the endpoint's failure.")
    rq_timeout: int = _sum("Streams that ran into the deadline.")
    cx_active: int = _sum("Connections open now.", gauge=True)
    cx_suspect: int = _sum("Connections open now that get no new streams.", gauge=True)
    cx_dead: int = _sum("Connections given up because they were silent.")
    cx_total: int = _sum("Connections established.")
    cx_connect_fail: int = _sum("Connections that could not be established.")


@dataclass(slots=True, eq=False)
class WatchStats(_Merged):
    """One collection of the API server; `stickyproxy_kube_` goes before all names."""

    synced: int = _level("1 once it was listed (or is not installed).", min)
    watch_last_event_age_seconds: float = _level("Since anything was heard of it; 0 before that.")
    watch_events_total: int = _sum("Events that its watches brought, bookmarks too.")
    watch_errors_total: int = _sum("Lists and watches that failed or were refused.")
    relists_total: int = _sum("Lists beyond the first.")


@dataclass(slots=True, eq=False)
class WorkerStats(_Merged):
    """One worker of several, label `worker`; `stickyproxy_worker_` goes before all names."""

    connections: int = _sum("Client connections that it has now.", gauge=True)
    requests_total: int = _sum("Request heads delivered there.")
    restarts_total: int = _sum("Times that it was replaced.")
    snapshot_version: int = _level("Version of the Snapshot that it last put into effect.")


class Histogram:
    """Counts per bucket; `counts` has one more entry than `bounds`, for what is above all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def as_list(self) -> list[float]:
        return [self.total, *self.counts]

    def add(self, values: list[float]) -> None:
        self.total += values[0]
        self.counts = [a + int(b) for a, b in zip(self.counts, values[1:], strict=True)]
