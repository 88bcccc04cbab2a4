"""Attempts of an exchange: at which endpoint, on which stream, and what comes back.

Once response headers are on their way no attempt follows. Until then `proxy.retries` says what becomes
of a request whose attempt failed, and `proxy.hedge` has a second one beside one that is in doubt.

These are functions on an `Exchange`, which owns all there is; what waits here is woken by its `abort`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, GrpcStatus, ProxyError, Side
from stickyproxy.events import (
    DataReceived,
    HeadReceived,
    TrailersReceived,
)
from stickyproxy.health.outcome import NEUTRAL, SUCCESS, Outcome, classify
from stickyproxy.proxy.hedge import hedge_for
from stickyproxy.proxy.lease import request_headers, tell, wait_for
from stickyproxy.proxy.retries import Declined, after_failure, look_at, pause
from stickyproxy.proxy.upload import pump_quietly
from stickyproxy.wire.stream import DOUBTED

if TYPE_CHECKING:
    from stickyproxy.model import Cluster, Endpoint
    from stickyproxy.proxy.context import Plan
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.proxy.response import Response
    from stickyproxy.upstream.pool import EndpointPool
    from stickyproxy.wire.stream import Received, Stream

GRPC_OK = GrpcStatus.OK.value
MAX_ENDPOINTS = 5
"""Endpoints tried for one request that none could be connected to: with half of them gone, 3 % of the
first requests fail before the breakers know."""


def begin(exchange: Exchange, plan: Plan, cluster: Cluster) -> Stream | None:
    """The first attempt, as far as it goes without waiting; what is left is for `attempt_each`.

    Its stream when the whole request is on it: nothing is to be done until something comes back.
    """
    context, upload = exchange.context, exchange.upload
    if not upload.ended or exchange.tunnel is not None or context.health.suspected:
        exchange.walk = _endpoints(exchange, cluster)
        return None
    endpoint = _home(exchange, cluster)
    if endpoint is None:
        walk = exchange.walk = _endpoints(exchange, cluster)
        endpoint = next(walk, None)
        if endpoint is None:
            return None
        exchange.walk = chain((endpoint,), walk)
    exchange.endpoint = endpoint
    pool, end = context.pools.pool(cluster, endpoint, exchange.client), exchange.head.end_stream
    headers = request_headers(exchange, plan, endpoint, exchange.started)
    upstream = pool.open_now(headers, end, once=not plan.hedged, body=upload.only)
    if upstream is None:
        return None
    exchange.attempts = 1
    exchange.begun, exchange.pool = upstream, pool
    _opened(exchange, plan, pool, upstream)
    if plan.retry is not None:
        exchange.limit_try(plan.retry)
    exchange.sent = upstream.local_done or upload.send_now(upstream)
    return upstream if exchange.sent else None


async def attempt_each(exchange: Exchange, plan: Plan, cluster: Cluster) -> None:
    """Endpoints in sticky order, until one takes the request or nothing more may be tried."""
    if exchange.error is not None and exchange.begun is None:
        raise exchange.error  # somebody gave up before this task's first turn
    walk = exchange.walk
    if exchange.at_home and exchange.endpoint is not None:  # `begin` went there without a walk
        walk = exchange.walk = chain(
            (exchange.endpoint,), _others(exchange, cluster, exchange.endpoint)
        )
    endpoint = next(walk, None)
    while endpoint is not None:
        following: Endpoint | None
        try:
            return await _attempt(exchange, plan, cluster, endpoint)
        except Declined as answer:
            following, delay = next(walk, None), answer.delay
        except ProxyError as error:
            following, delay = after_failure(exchange, plan, endpoint, walk, error)
        exchange.end_try_limit()
        if delay:
            await pause(exchange, delay)
        if following is None:  # all were tried
            walk = exchange.walk = _endpoints(exchange, cluster)
            following = next(walk, endpoint)
        endpoint = following
    detail = f"no endpoint in {cluster.name}"
    raise ProxyError(ErrorKind.NO_HEALTHY_ENDPOINT, Side.INTERNAL, detail)


def _home(exchange: Exchange, cluster: Cluster) -> Endpoint | None:
    """The table's own choice, where nothing is to be weighed against it: mostly."""
    context = exchange.context
    if context.health.suspected or context.pools.doubts:
        return None
    home = context.balancer.home(cluster, exchange.key.hash)
    exchange.at_home = home is not None
    return home


def _endpoints(exchange: Exchange, cluster: Cluster) -> Iterator[Endpoint]:
    """Admitted ones; when a breaker keeps all of them out, the preferred one all the same."""
    home = _home(exchange, cluster)
    if home is not None:
        yield home
    yield from _others(exchange, cluster, home)


def _others(exchange: Exchange, cluster: Cluster, home: Endpoint | None) -> Iterator[Endpoint]:
    """All but `home`, when that was tried."""
    context, hash_ = exchange.context, exchange.key.hash
    exchange.at_home = False
    admits = context.admission(cluster, exchange.started)
    pools = context.pools

    def active(endpoint: Endpoint) -> int:
        return pools.active(cluster, endpoint)

    share = context.newcomers.share(cluster.spec.name, exchange.started)
    first = home or context.balancer.pick(cluster, hash_, admits, active, share)
    if first is None:
        first = context.balancer.pick(cluster, hash_, lambda _: True, active, share)
    if first is None:
        return
    if home is None:
        yield first
    left = MAX_ENDPOINTS - 1
    for endpoint in context.balancer.candidates(cluster, hash_, admits, active):
        if endpoint.key != first.key and left:
            left -= 1
            yield endpoint


# --- one attempt ----------------------------------------------------------------------------------


async def _attempt(exchange: Exchange, plan: Plan, cluster: Cluster, endpoint: Endpoint) -> None:
    upstream, exchange.begun = exchange.begun, None
    sent, exchange.sent = exchange.sent, False
    context = exchange.context
    pool = context.pools.pool(cluster, endpoint, exchange.client)
    outcome = NEUTRAL
    try:
        if upstream is None:
            upstream = await _open(exchange, plan, cluster, endpoint, pool)
        if sent or exchange.head.end_stream or exchange.upload.send_now(upstream):
            await _download(exchange, plan, cluster, upstream)
        else:
            await _both_ways(exchange, plan, cluster, upstream)
        outcome = outcome_of(exchange)
    except Declined as answer:
        outcome = answer.outcome()
        raise
    except ProxyError as failure:
        outcome = classify(None, None, failure)
        pool.stats.rq_timeout += upstream is not None and failure.kind is ErrorKind.TIMEOUT
        raise
    finally:
        leave(exchange, cluster, pool, upstream, outcome)


async def _open(
    exchange: Exchange, plan: Plan, cluster: Cluster, endpoint: Endpoint, pool: EndpointPool
) -> Stream:
    exchange.attempts += 1
    exchange.endpoint = endpoint
    context, upstream = exchange.context, None
    if context.health.suspected:
        context.health.trying(cluster.spec.name, endpoint, context.now())
    if plan.retry is not None:
        exchange.limit_try(plan.retry)
    if exchange.tunnel is None:
        headers = request_headers(exchange, plan, endpoint, context.now())
        upstream = pool.open_now(headers, exchange.head.end_stream, once=not plan.hedged)
    while upstream is None:
        upstream = await wait_for(exchange, plan, endpoint, pool)
    _opened(exchange, plan, pool, upstream)
    return upstream


def _opened(exchange: Exchange, plan: Plan, pool: EndpointPool, upstream: Stream) -> None:
    exchange.upstream = upstream
    pool.stats.rq_active += 1
    pool.stats.rq_total += 1
    if plan.hedged:
        upstream.on_doubt = partial(upstream.tell, DOUBTED)


def leave(  # noqa: PLR0917 - by position: keywords cost on this path
    exchange: Exchange,
    cluster: Cluster,
    pool: EndpointPool,
    upstream: Stream | None,
    outcome: Outcome,
    now: float | None = None,
) -> None:
    """The end of an attempt: its stream is given back, and its endpoint hears what it came to."""
    if exchange.hedge is not None:  # it won, and told of the first
        exchange.hedge.finish(outcome, exchange.reset_code)
        return
    stats = None
    if upstream is not None:
        stats = pool.stats
        stats.rq_active -= 1
        if exchange.tunnel is not None:
            exchange.tunnel.leave(upstream)
        upstream.close(exchange.reset_code)
    tell(exchange.context, cluster, pool.endpoint, outcome, stats, now)


def outcome_of(exchange: Exchange) -> Outcome:
    """Of an answer that was relayed to its end."""
    response = exchange.response
    grpc_status = response.grpc_status
    if grpc_status == GRPC_OK:
        return SUCCESS
    if grpc_status is None and exchange.grpc:
        grpc_status = GrpcStatus.UNKNOWN  # an answer without one, as clients take it
    return classify(response.status, grpc_status, None)


# --- what goes and what comes ---------------------------------------------------------------------


async def _both_ways(exchange: Exchange, plan: Plan, cluster: Cluster, upstream: Stream) -> None:
    """The request is still on its way: a task for it, while this one relays the response."""
    failure: ProxyError | Declined | None = None
    exchange.upload.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump_quietly, exchange.upload, upstream, exchange.request_ended)
        try:
            await _download(exchange, plan, cluster, upstream)
            exchange.answered()
        except (ProxyError, Declined) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _download(exchange: Exchange, plan: Plan, cluster: Cluster, upstream: Stream) -> None:
    """Relay the response: receive, send on within window and room, then give the credit back."""
    response = exchange.response
    while True:
        event = upstream.receive_nowait() or await _more(response, upstream)
        exchange.moved = True
        if isinstance(event, DataReceived):
            if not response.relay_now(event):
                await response.relay_data(event)
            upstream.grant(event.credit)
            if event.end_stream:
                return
        elif isinstance(event, HeadReceived):
            translated = _relay_head(exchange, plan, event)
            if translated or event.end_stream:
                return
        elif isinstance(event, TrailersReceived):
            response.relay_trailers(event.headers)
            return
        elif event is DOUBTED:
            upstream = await _faster_of(exchange, plan, cluster, upstream)
        else:
            exchange.downstream.send_headers(event.headers, end_stream=False)


def _relay_head(exchange: Exchange, plan: Plan, event: HeadReceived) -> bool:
    """As `Response.relay_head`. Raises `Declined` where another attempt is to follow."""
    if plan.retry is not None:
        look_at(exchange, plan, plan.retry, event)
    exchange.upload.commit()
    if exchange.web is not None:
        exchange.web.heard(event)
    now, set_cookie = exchange.context.now(), exchange.key.set_cookie
    return exchange.response.relay_head(event, plan.headers, set_cookie, now)


async def _more(response: Response, upstream: Stream) -> Received:
    if response.status:
        response.go_straight(upstream)
    return await upstream.receive()


async def _faster_of(exchange: Exchange, plan: Plan, cluster: Cluster, upstream: Stream) -> Stream:
    """The stream to go on with: this one, or that of a second attempt."""
    hedge = hedge_for(exchange, plan, cluster, upstream)
    return upstream if hedge is None else await hedge.race()
