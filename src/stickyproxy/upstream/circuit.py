"""Circuit breakers of a cluster: how much of it may be under way at once (Envoy's thresholds).

Only clusters that were given some have a `Circuit`; the others have the bounds of each pool, and pay
nothing. Beyond a limit overload is told at once: 503 or UNAVAILABLE with the flag UO. A request that
finds no connection and may open none waits, as one of `max_pending_requests`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stickyproxy.upstream.crowd import taken

if TYPE_CHECKING:
    from collections.abc import Collection

    from stickyproxy.counters import ClusterStats
    from stickyproxy.rules import Upkeep
    from stickyproxy.upstream.pool import EndpointPool

DEFAULT = 1024
"""Envoy's for connections, waiting requests and requests where a threshold is given without it."""


class Limits(NamedTuple):
    """Of one worker; those of retries are `policy.retry`'s."""

    connections: int
    pending: int
    requests: int


def limits_of(upkeep: Upkeep, workers: int = 1) -> Limits | None:
    """Of the priority `default`, the only one that requests have; None where none are given.

    One of several workers has its part of each, at least one.
    """
    for one in upkeep.circuit_breakers:
        if one.priority == "default":
            wanted = (one.max_connections, one.max_pending_requests, one.max_requests)
            given = [DEFAULT if limit is None else limit for limit in wanted]
            return Limits(*(limit and max(1, limit // workers) for limit in given))
    return None


class Circuit:
    """Of one cluster, over all its `pools`."""

    __slots__ = ("_pools", "_stats", "limits")

    def __init__(
        self, limits: Limits, pools: Collection[EndpointPool], stats: ClusterStats
    ) -> None:
        self.limits = limits
        self._pools = pools
        self._stats = stats

    def full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return sum(pool.stats.rq_active for pool in self._pools) >= self.limits.requests

    def crowded(self) -> bool:
        """Whether as many wait as may."""
        return self._stats.upstream_rq_pending_active >= self.limits.pending

    def room(self) -> int:
        """How many more connections may be opened."""
        return self.limits.connections - sum(taken(pool) for pool in self._pools)

    def refusal(self) -> str:
        """Why nobody more may wait, "" if somebody may."""
        if self.full():
            return f"{self.limits.requests} requests are under way (max_requests)"
        if self.crowded():
            return f"{self.limits.pending} requests already wait (max_pending_requests)"
        return ""

    def measure(self) -> None:
        """Envoy's gauges: 1 while a limit is reached."""
        self._stats.circuit_breakers_default_cx_open = int(self.room() <= 0)
        self._stats.circuit_breakers_default_rq_open = int(self.full())
        self._stats.circuit_breakers_default_rq_pending_open = int(self.crowded())
