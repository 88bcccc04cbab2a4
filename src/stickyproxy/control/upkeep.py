"""What follows from a change in what is known of an endpoint: one log line, and its counters."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from stickyproxy import logs
from stickyproxy.counters import ClusterStats
from stickyproxy.health.book import HealthBook
from stickyproxy.health.changes import Change, What
from stickyproxy.health.newcomers import Newcomers
from stickyproxy.metrics import Metrics

SWEEP = 1.0
"""Seconds between looks at the ejections: one is over at most that late."""

TELL_EVERY = 60.0
"""Seconds between two lines that say that connections are refused."""

BACK = frozenset((What.RETURNED, What.CHECK_PASSED, What.REACHABLE))
_DETECTIONS = frozenset((What.EJECTED, What.DETECTED, What.SPARED))


class Teller:
    """For `HealthBook.told`. Who is back begins with a part of its share; other workers hear `news`."""

    def __init__(
        self,
        metrics: Metrics,
        newcomers: Newcomers,
        news: Callable[[Change], None] | None = None,
    ) -> None:
        self._metrics = metrics
        self._news = news
        self._newcomers = newcomers

    def __call__(self, change: Change) -> None:
        if change.what in BACK:
            self._newcomers.begin(change.cluster, change.endpoint, trio.current_time())
        stats = self._metrics.cluster(change.cluster)
        if change.what in _DETECTIONS:
            _add(stats, f"detected_{change.cause}")
        if change.what is What.EJECTED:
            _add(stats, "enforced_total")
            _add(stats, f"enforced_{change.cause}")
        stats.outlier_detection_ejections_overflow += change.what is What.SPARED
        stats.lb_panics += change.what is What.PANIC
        _log(change)
        if self._news is not None:
            self._news(change)


def _add(stats: ClusterStats, name: str) -> None:
    name = f"outlier_detection_ejections_{name}"
    setattr(stats, name, getattr(stats, name) + 1)


def _log(change: Change) -> None:
    """Good news are no warnings."""
    cluster, endpoint, cause = change.cluster, change.endpoint, change.cause
    match change.what:
        case What.EJECTED:
            seconds = round(change.seconds, 1)
            logs.warning(
                "endpoint_ejected", cluster=cluster, endpoint=endpoint, reason=cause, for_s=seconds
            )
        case What.CHECK_FAILED:
            logs.warning("health_check_failed", cluster=cluster, endpoint=endpoint, reason=cause)
        case What.PANIC:
            hint = "all endpoints are admitted: those left would not carry the load"
            logs.warning("cluster_panics", cluster=cluster, reason=cause, hint=hint)
        case What.CALM:
            logs.info("cluster_calm", cluster=cluster, reason=cause)
        case What.RETURNED:
            logs.info("endpoint_returned", cluster=cluster, endpoint=endpoint)
        case What.REACHABLE:
            logs.info("endpoint_reachable", cluster=cluster, endpoint=endpoint)
        case What.CHECK_PASSED:
            logs.info("health_check_passed", cluster=cluster, endpoint=endpoint)
        case _:  # nothing has changed by it; the counters have it
            return


async def sweep(health: HealthBook, newcomers: Newcomers, metrics: Metrics) -> None:
    """Until cancelled."""

    def completed(cluster: str, key: str) -> int:
        stats = metrics.endpoints.get((cluster, key))
        return stats.rq_total - stats.rq_active if stats is not None else 0

    while True:
        await trio.sleep(SWEEP)
        now = trio.current_time()
        health.sweep(now, completed)
        newcomers.grown(now)


class Refusals:
    """Says at once, and then once a minute, that connections are refused, and by which setting."""

    def __init__(self) -> None:
        self._silent_until = -math.inf
        self._since = 0

    def told(self, setting: str) -> None:
        self._since += 1
        now = trio.current_time()
        if now >= self._silent_until:
            logs.warning("connections_refused", setting=setting, count=self._since)
            self._silent_until, self._since = now + TELL_EVERY, 0
