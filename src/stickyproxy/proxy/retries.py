"""What becomes of a request whose attempt failed: where it goes now, when, or that it goes no more.

Three reasons to go on, each with its bound:

* It was never processed. Then it goes again at once, whatever it is: to the same endpoint when the
  link was at fault, to the next one when the endpoint could not be reached.
* Its route says that it may be processed twice (`idempotent`), and its link died or its stream was
  reset. The first time that a link died costs nothing of the budget: no more is under way than before.
* The route's `retry_policy` says so.

All of that only while the whole request is still here and nothing of a response was forwarded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, ProxyError, Retry
from stickyproxy.health.outcome import Outcome, classify
from stickyproxy.policy.grpc import status_of
from stickyproxy.policy.retry import DO_NOT, Budget, RetryRules, backoff, pushback
from stickyproxy.upstream.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stickyproxy.events import HeadReceived
    from stickyproxy.model import Endpoint
    from stickyproxy.proxy.context import Plan
    from stickyproxy.proxy.exchange import Exchange

MAX_SAME_ENDPOINT = 3
"""Attempts that one endpoint may leave unprocessed (REFUSED_STREAM, GOAWAY) before it is told."""
MAX_RESENT = 2
"""Times that an idempotent request is sent again without a policy: to its own endpoint, and when that
did not help to another one. What kills a third backend in a row is the request."""

EXHAUSTED = "URX"
OVERFLOWN = "UO"
"""Envoy's flags: the limit of retries was reached; the budget was used up."""


class Declined(Exception):  # noqa: N818 - no error: an answer that is not taken
    """A response head that is not forwarded: the request goes again in `delay` seconds."""

    def __init__(self, head: HeadReceived, delay: float) -> None:
        super().__init__()
        self.delay = delay
        self._head = head

    def outcome(self) -> Outcome:
        headers = self._head.headers
        return classify(int(headers[0][1]), status_of(headers), None)


class Tries:
    """What an exchange remembers of the attempts that failed; made when the first one does.

    `previous` counts those that a backend may have processed. `postponed`: a hedge found the budget used
    up. `flag` is why it goes no further, in Envoy's letters, "" while that is not the reason.
    """

    __slots__ = (
        "_taken",
        "by_policy",
        "flag",
        "hedges",
        "postponed",
        "previous",
        "refused",
        "resent",
    )

    def __init__(self) -> None:
        self.by_policy = self.hedges = self.previous = self.refused = self.resent = 0
        self.flag = ""
        self.postponed = False
        self._taken: Budget | None = None

    def take(self, budget: Budget, under_way: int) -> bool:
        """A place in the budget, kept until the next one is asked for or all is over."""
        self.give_back()
        if budget.take(under_way):
            self._taken = budget
            return True
        return False

    def give_back(self) -> None:
        if self._taken is not None:
            self._taken.give_back()
            self._taken = None


def tries_of(exchange: Exchange) -> Tries:
    if exchange.tries is None:
        exchange.tries = Tries()
    return exchange.tries


def intact(exchange: Exchange) -> bool:
    """Nothing was committed, and somebody still waits for it."""
    return exchange.upload.whole and not exchange.response.status and exchange.error is None


# --- after an answer ------------------------------------------------------------------------------


def look_at(exchange: Exchange, plan: Plan, rules: RetryRules, head: HeadReceived) -> None:
    """Raise `Declined` for a head that is not to be forwarded, because the request goes again."""
    condition = rules.of_answer(head.headers) if head.fault is None else ""
    if condition and intact(exchange):
        asked = pushback(head.headers)
        delay = None if asked == DO_NOT else _by_policy(exchange, plan, rules, condition, asked)
        if delay is not None:
            raise Declined(head, delay)
    exchange.end_try_limit()


# --- after a failure ------------------------------------------------------------------------------


def after_failure(
    exchange: Exchange,
    plan: Plan,
    endpoint: Endpoint,
    walk: Iterator[Endpoint],
    error: ProxyError,
) -> tuple[Endpoint | None, float]:
    """Where the request goes, and after how many seconds; None: the walk begins anew.

    Raises `error` when it goes nowhere.
    """
    if not intact(exchange):
        raise error
    tries = tries_of(exchange)
    if error.retry is Retry.SAME_ENDPOINT and tries.refused < MAX_SAME_ENDPOINT - 1:
        tries.refused += 1
        exchange.context.metrics.retried(error.kind.value)
        return endpoint, 0.0
    if error.retry is Retry.NEXT_ENDPOINT and (following := next(walk, None)) is not None:
        tries.refused = 0
        exchange.context.metrics.retried(error.kind.value)
        return following, 0.0
    rules = plan.retry
    if rules is None:
        raise error
    if rules.may_resend(error) and _resent(exchange, plan, tries, error):
        stays, delay = tries.resent == 1, 0.0
    else:
        condition = rules.of_failure(error)
        wait = _by_policy(exchange, plan, rules, condition, None) if condition else None
        if wait is None:
            raise error
        stays, delay = error.kind is ErrorKind.UPSTREAM_CLOSED and tries.by_policy == 1, wait
    tries.refused = 0
    if stays and not _is_doubted(exchange, endpoint):
        return endpoint, delay
    return next(walk, None), delay


def _resent(exchange: Exchange, plan: Plan, tries: Tries, error: ProxyError) -> bool:
    if tries.resent >= MAX_RESENT:
        return False
    free = error.kind is ErrorKind.UPSTREAM_CLOSED and not tries.resent
    if not free and not _granted(exchange, plan, tries):
        return False
    tries.resent += 1
    tries.previous += 1
    exchange.context.metrics.retried(error.kind.value)
    return True


def _is_doubted(exchange: Exchange, endpoint: Endpoint) -> bool:
    cluster = exchange.cluster
    return cluster is not None and exchange.context.pools.doubted(cluster, endpoint)


# --- by policy ------------------------------------------------------------------------------------


def _by_policy(
    exchange: Exchange, plan: Plan, rules: RetryRules, condition: str, asked: float | None
) -> float | None:
    """Seconds to wait before it goes again; None when it does not. `asked` is the server's wish."""
    tries, context = tries_of(exchange), exchange.context
    if tries.by_policy >= rules.most:
        context.metrics.cluster(plan.target.cluster).upstream_rq_retry_limit_exceeded += 1
        tries.flag = EXHAUSTED
        return None
    delay = backoff(tries.by_policy + 1, context.rng.random()) if asked is None else asked
    deadline = exchange.deadline
    if deadline is not None and trio.current_time() + delay >= deadline.when:
        return None
    if not _granted(exchange, plan, tries):
        return None
    tries.by_policy += 1
    tries.previous += 1
    context.metrics.retried(condition)
    return delay


def _granted(exchange: Exchange, plan: Plan, tries: Tries) -> bool:
    if tries.take(plan.budget, exchange.context.pools.under_way(plan.target.cluster)):
        return True
    overflown(exchange, plan)
    tries.flag = OVERFLOWN
    return False


def overflown(exchange: Exchange, plan: Plan) -> None:
    """Count a second try that the budget did not allow."""
    exchange.context.metrics.cluster(plan.target.cluster).upstream_rq_retry_overflow += 1


async def pause(exchange: Exchange, seconds: float) -> None:
    """Wait before the next attempt; `abort` ends it, with its error."""
    waiter = exchange.waiter = Waiter()
    try:
        with trio.move_on_after(seconds):
            await waiter.wait()
    finally:
        exchange.waiter = None
    if waiter.error is not None:
        raise waiter.error
