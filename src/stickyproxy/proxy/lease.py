"""A stream to an endpoint for an exchange, the head that is said on it, and what is said of it after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stickyproxy.health.outcome import NEUTRAL, SUCCESS, Outcome
from stickyproxy.policy.headers import join_cookies
from stickyproxy.policy.retry import with_previous
from stickyproxy.policy.routes import rewrite_path

if TYPE_CHECKING:
    from stickyproxy.counters import EndpointStats
    from stickyproxy.model import Cluster, Endpoint, Headers
    from stickyproxy.proxy.context import Context, Plan
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.upstream.pool import EndpointPool
    from stickyproxy.wire.link import Link
    from stickyproxy.wire.stream import Stream


def request_headers(exchange: Exchange, plan: Plan, endpoint: Endpoint, now: float) -> Headers:
    """The head for `endpoint`, made for each attempt: less of the deadline is left."""
    route, fields, tries = exchange.route, exchange.head.fields, exchange.tries
    path = fields[b":path"]
    if plan.rewrites and route is not None:
        path = rewrite_path(plan.target, route.match, path)
    if not exchange.request_id and b"x-request-id" not in fields:
        exchange.request_id = b"%032x" % exchange.context.rng.getrandbits(128)
    deadline, left = exchange.deadline if exchange.grpc else None, None
    if deadline is not None:
        # Made in the step in which it began, as mostly, it has all of the route's time.
        fresh = now + (plan.target.timeout or 0.0) == deadline.when
        left = plan.timeout_said if fresh else deadline.time_left(now)
    headers = plan.headers.request(
        exchange.head.headers,
        exchange.client,
        path=path,
        authority=endpoint.host.encode() or None if plan.auto_host else None,
        grpc_timeout=left,
        request_id=exchange.request_id,
        fields=fields,
    )
    if exchange.tunnel is not None:
        headers = exchange.tunnel.asking(headers, plan)
    if tries is not None and tries.previous and exchange.grpc:
        headers = with_previous(headers, tries.previous)
    return headers if plan.multiplexed else join_cookies(headers)


async def wait_for(
    exchange: Exchange,
    plan: Plan,
    endpoint: Endpoint,
    pool: EndpointPool,
    avoid: Link | None = None,
) -> Stream | None:
    """None when the link closed before its turn came: ask again. `abort` wakes this."""
    waiter = exchange.waiter = pool.wait(avoid)
    try:
        await waiter.wait()
        if waiter.error is not None:
            raise waiter.error
        if exchange.tunnel is not None:
            exchange.tunnel.check(waiter.link)
        headers = request_headers(exchange, plan, endpoint, exchange.context.now())
        return pool.open_reserved(waiter, headers, exchange.head.end_stream)
    finally:
        exchange.waiter = None
        pool.leave(waiter)


def tell(  # noqa: PLR0917 - by position: keywords cost on this path
    context: Context,
    cluster: Cluster,
    endpoint: Endpoint,
    outcome: Outcome,
    stats: EndpointStats | None,
    now: float | None = None,
) -> None:
    """What an attempt said about its endpoint, once for each. `stats` None: it had no stream."""
    context.health.outcome(
        cluster.spec.name, endpoint, outcome, context.now() if now is None else now
    )
    if stats is None:
        return
    if outcome is SUCCESS:
        stats.rq_success += 1
    elif outcome is not NEUTRAL:
        stats.rq_error += 1
