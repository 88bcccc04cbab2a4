"""An answer that is here whole when its exchange hears of it: relayed in one step, without a task.

That is the common unary call. It goes the way of `proxy.attempts` without what only a part of an answer
needs: a wait, a choice, a second look at what the client may be sent. What is not plain (informational
heads, translations, heads that are too large) goes the long way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stickyproxy.events import DataReceived, HeadReceived, TrailersReceived
from stickyproxy.health.outcome import NEUTRAL
from stickyproxy.proxy.attempts import leave, outcome_of

if TYPE_CHECKING:
    from stickyproxy.model import Cluster
    from stickyproxy.proxy.context import Plan
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.wire.stream import Stream


def relay_whole(exchange: Exchange, plan: Plan, cluster: Cluster, upstream: Stream) -> bool:
    """False where nothing was done: the answer is not plain, or the client has no room for all of it."""
    events, pool = upstream.lying, exchange.pool
    head = events[0]
    if pool is None or type(head) is not HeadReceived or head.fault is not None:
        return False
    parts = [event.data for event in events if type(event) is DataReceived]
    trailers = events[-1].headers if type(events[-1]) is TrailersReceived else None
    if len(events) != 1 + len(parts) + (trailers is not None):
        return False
    if parts and not exchange.downstream.has_room_for(sum(map(len, parts))):
        return False
    turned = plan.answers.of(head.headers)
    if turned.foreign and exchange.grpc:
        return False
    outcome, exchange.begun = NEUTRAL, None
    now, set_cookie = exchange.context.now(), exchange.key.set_cookie
    try:
        exchange.response.relay_whole(turned, parts, trailers, set_cookie, now)
        outcome = outcome_of(exchange)
    finally:
        leave(exchange, cluster, pool, upstream, outcome, now)
    return True
