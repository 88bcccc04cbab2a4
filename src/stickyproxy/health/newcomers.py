"""Slow start: endpoints that joined or returned a moment ago, and how much of their share they have.

A share is a factor on the weight, under `round_robin` and `least_request`. Tables (`ring_hash`,
`maglev`) know none of it: which sessions an endpoint has is decided by its name, and a factor that
changes each second would move sessions to and fro, which is what those policies are chosen to avoid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from stickyproxy.model import Cluster, Endpoint
from stickyproxy.rules import SlowStart

Share = Callable[[Endpoint], float]

_LEAST = 1.0
"""Seconds that an age counts at the least, as in Envoy."""
_SHARING = frozenset({"round_robin", "least_request"})


class Newcomers:
    """`now` in seconds on one clock. Mostly there are none, and asking costs one truth test."""

    __slots__ = ("_begun", "_clusters", "_slow")

    def __init__(self, slow: SlowStart | None = None) -> None:
        """`slow` None: off."""
        self._slow = slow if slow is not None and slow.window > 0 else None
        self._begun: dict[str, dict[str, float]] = {}
        self._clusters: Mapping[str, Cluster] = {}

    def begin(self, cluster: str, key: str, now: float) -> None:
        """An endpoint is there again after it was left alone."""
        known = self._clusters.get(cluster)
        if self._slow is not None and known is not None and _shares(known):
            self._begun.setdefault(cluster, {})[key] = now

    def keep(self, clusters: Mapping[str, Cluster], now: float) -> None:
        """A new Snapshot. Who is new in a cluster that had others begins; of the first nobody does."""
        before, self._clusters = self._clusters, clusters
        for name, cluster in clusters.items():
            old = before.get(name)
            if old is not None and old is not cluster and _members(old):
                for key in _members(cluster) - _members(old):
                    self.begin(name, key, now)
        self._forget(name for name in list(self._begun) if name not in clusters)

    def grown(self, now: float) -> None:
        """About once a second: forget those that have their whole share."""
        if self._begun and self._slow is not None:
            over = now - self._slow.window
            for name, begun in self._begun.items():
                self._begun[name] = {key: at for key, at in begun.items() if at > over}
            self._forget(name for name, begun in list(self._begun.items()) if not begun)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            del self._begun[name]

    def share(self, cluster: str, now: float) -> Share | None:
        """What an endpoint's weight is multiplied by; None while all of the cluster have theirs."""
        if not self._begun:
            return None
        begun, slow = self._begun.get(cluster), self._slow
        if begun is None or slow is None:
            return None

        def share(endpoint: Endpoint) -> float:
            at = begun.get(endpoint.key)
            return 1.0 if at is None else _part(now - at, slow)

        return share


def _part(age: float, slow: SlowStart) -> float:
    part = min(1.0, max(age, _LEAST) / slow.window)
    return float(max(part ** (1 / slow.aggression), slow.min_weight_percent / 100))


def _shares(cluster: Cluster) -> bool:
    return cluster.spec.load_balancer.policy in _SHARING


def _members(cluster: Cluster) -> set[str]:
    gone = cluster.removed | cluster.inadmissible
    return {endpoint.key for endpoint in cluster.endpoints if endpoint.key not in gone}
