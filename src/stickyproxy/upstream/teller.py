"""What follows from a change of a link's or an endpoint's health: a line in the log, and counters."""

from __future__ import annotations

from stickyproxy import logs
from stickyproxy.health.linkscore import Cause, Health, LinkScore
from stickyproxy.metrics import Metrics
from stickyproxy.model import ClusterSpec, Endpoint
from stickyproxy.upstream.asking import AGAIN


class Teller:
    """Of one endpoint."""

    def __init__(self, spec: ClusterSpec, endpoint: Endpoint, metrics: Metrics) -> None:
        self._cluster = spec.name
        self._endpoint = endpoint.key
        self._metrics = metrics
        self._stats = metrics.cluster(spec.name)

    def __call__(self, score: LinkScore, after: float) -> None:
        """A link changed its state after so many seconds in the one before."""
        stats = self._stats
        where = {"cluster": self._cluster, "endpoint": self._endpoint}
        if score.state is Health.SUSPECT:
            stats.upstream_link_suspect_ping_total += score.cause is Cause.PING
            stats.upstream_link_suspect_timer_total += score.cause is Cause.TIMER
            stats.upstream_link_suspect_hole_total += score.cause is Cause.HOLE
            stats.upstream_link_suspect_company_total += score.cause is Cause.COMPANY
            logs.info("link_suspect", **where, reason=score.reason)
        elif score.state is Health.DEAD:
            stats.upstream_link_dead_total += 1
            self._metrics.endpoint(self._cluster, self._endpoint).cx_dead += 1
            logs.warning("link_dead", **where, reason=score.reason)
        else:
            stats.upstream_link_recovered_total += 1
            logs.info("link_recovered", **where, after_ms=round(after * 1000))

    def pinged(self) -> None:
        self._stats.upstream_link_pings_total += 1

    def no_pings(self) -> None:
        """The endpoint counts PINGs against us."""
        logs.warning(
            "pings_forbidden",
            cluster=self._cluster,
            endpoint=self._endpoint,
            hint="its connections are judged without them from now on",
        )

    def asked_in_vain(self) -> None:
        """It serves, and keeps silent to `OPTIONS *`."""
        logs.warning(
            "options_unanswered",
            cluster=self._cluster,
            endpoint=self._endpoint,
            hint=f"TCP alone tells of its connections; it is asked again in {AGAIN:g} s",
        )

    def doubted(self, doubted: bool) -> None:
        """Whether the endpoint itself looks bad now."""
        where = {"cluster": self._cluster, "endpoint": self._endpoint}
        if doubted:
            self._stats.upstream_endpoint_doubted_total += 1
            logs.warning("endpoint_silent", **where, hint="its requests go elsewhere meanwhile")
        else:
            logs.info("endpoint_back", **where)
