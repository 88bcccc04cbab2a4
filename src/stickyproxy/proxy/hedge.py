"""A second attempt beside a first one whose link is in doubt. The first answer wins.

Only for requests that may be processed twice and are here as a whole, one at a time, and within the
cluster's budget of retries and what was saved for hedges: who finds both used up has his turn when a
place is free. It goes to the
same endpoint over another link, so that sessions stay; elsewhere only if the endpoint itself is doubted
or cannot be reached.

Nothing of this is paid for by an exchange whose link is well: the doubt comes as an event, in the order
of what the stream received (`DOUBTED`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Retry, Side
from stickyproxy.health.outcome import Outcome, classify
from stickyproxy.proxy.lease import request_headers, tell, wait_for
from stickyproxy.proxy.retries import intact, overflown, tries_of
from stickyproxy.wire.stream import DOUBTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stickyproxy.model import Cluster, Endpoint
    from stickyproxy.proxy.context import Plan
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.upstream.pool import EndpointPool
    from stickyproxy.wire.stream import Stream

_LOST = ProxyError(
    ErrorKind.REFUSED, Side.INTERNAL, "another attempt was faster", code=H2Code.CANCEL
)


def hedge_for(exchange: Exchange, plan: Plan, cluster: Cluster, first: Stream) -> Hedge | None:
    """A hedge for the attempt on `first`, if there may be one; `race` it."""
    if exchange.hedge is not None or not (intact(exchange) and exchange.upload.ended):
        return None
    tries = tries_of(exchange)
    context = exchange.context
    placed = plan.budget.take(context.pools.under_way(cluster.name))
    if not placed and not plan.budget.spend(context.pools.begun(cluster.name)):
        if not tries.postponed:
            overflown(exchange, plan)
        tries.postponed = True
        plan.budget.wait(partial(_doubt_again, exchange, first))
        return None
    tries.hedges += 1
    tries.previous += 1
    context.metrics.retried("hedge")
    context.metrics.cluster(cluster.name).upstream_rq_hedge += 1
    exchange.hedge = hedge = Hedge(exchange, plan, cluster, first, placed=placed)
    return hedge


def _doubt_again(exchange: Exchange, stream: Stream) -> bool:
    """A hedge ended in time for one that found the budget used up: mostly they take milliseconds."""
    wanted = exchange.upstream is stream and exchange.hedge is None and intact(exchange)
    if wanted:
        stream.deliver(DOUBTED)
    return wanted


class Hedge:
    """Owns the second stream. `won`: its answer came first, and it is the exchange's stream now.

    An exchange has it while the race is on, and keeps one that won. `placed`: it has a place in the
    budget, and was not made of what was saved.
    """

    __slots__ = (
        "_cluster",
        "_endpoint",
        "_error",
        "_exchange",
        "_first",
        "_first_error",
        "_placed",
        "_plan",
        "_pool",
        "_stream",
        "_winner",
    )

    def __init__(
        self, exchange: Exchange, plan: Plan, cluster: Cluster, first: Stream, *, placed: bool
    ) -> None:
        self._exchange = exchange
        self._plan = plan
        self._placed = placed
        self._cluster = cluster
        self._first = first
        self._first_error: ProxyError | None = None
        self._endpoint: Endpoint | None = None
        self._pool: EndpointPool | None = None
        self._stream: Stream | None = None
        self._winner: Stream | None = None
        self._error: ProxyError | None = None

    @property
    def won(self) -> bool:
        return self._stream is not None and self._winner is self._stream

    async def race(self) -> Stream:
        """The stream whose answer is here first; the other is reset. Raises when neither has one."""
        exchange = self._exchange
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_second, nursery.cancel_scope)
                try:
                    await self._first.arrived()
                    self._winner = self._winner or self._first
                except ProxyError as error:
                    self._first_error = error
                if self._winner is not None or exchange.error is not None:
                    nursery.cancel_scope.cancel()
            if exchange.error is not None:
                self._winner = None
                raise exchange.error
            if self._winner is None:
                raise self._first_error or self._error or _LOST
            return self._winner
        finally:
            self._settle()

    def _settle(self) -> None:
        """Sync: the race is over. Who did not win is reset, and whoever still sends on it hears of it."""
        if self._placed:
            self._plan.budget.give_back()
        if not self.won:
            self._conclude(_outcome(self._error))
            return
        exchange, endpoint = self._exchange, self._endpoint
        context, loser = exchange.context, exchange.endpoint
        self._first.fail(_LOST)
        self._first.close(H2Code.CANCEL)
        if loser is not None and endpoint is not None:
            stats = context.pools.pool(self._cluster, loser).stats
            stats.rq_active -= 1
            tell(context, self._cluster, loser, _outcome(self._first_error), stats)
            exchange.at_home = exchange.at_home and endpoint.key == loser.key
            exchange.endpoint = endpoint
        exchange.upstream = self._stream
        context.metrics.cluster(self._cluster.name).upstream_rq_hedge_won += 1

    def interrupt(self, error: ProxyError) -> None:
        """From the exchange's `abort`; the first stream hears of it by itself."""
        if self._stream is not None:
            self._stream.interrupt(error)

    def finish(self, outcome: Outcome, code: int) -> None:
        """Sync, for one that won: the attempt is over, and came to `outcome`."""
        self._conclude(outcome, code)

    def _conclude(self, outcome: Outcome, code: int = H2Code.CANCEL) -> None:
        exchange, pool, stream = self._exchange, self._pool, self._stream
        exchange.hedge = None
        if stream is not None:
            stream.fail(_LOST)
            stream.close(code)
        if pool is not None and self._endpoint is not None:
            pool.stats.rq_active -= stream is not None
            stats = pool.stats if stream is not None else None
            tell(exchange.context, self._cluster, self._endpoint, outcome, stats)

    # --- the second attempt ---

    async def _run_second(self, race: trio.CancelScope) -> None:
        try:
            stream = await self._lease_somewhere()
            if not self._exchange.head.end_stream:
                await self._exchange.upload.replay(stream)
            await stream.arrived()
        except ProxyError as error:
            self._error = error
            return
        if self._winner is None:
            self._winner = stream
            race.cancel()

    async def _lease_somewhere(self) -> Stream:
        last = _LOST
        for endpoint in self._places():
            try:
                return await self._lease(endpoint)
            except ProxyError as error:
                last = error
                if error.retry is not Retry.NEXT_ENDPOINT or self._exchange.error is not None:
                    break
                self._conclude_place(error)
        raise last

    def _conclude_place(self, error: ProxyError) -> None:
        """It could not be connected to; another one may be."""
        if self._endpoint is not None:
            tell(self._exchange.context, self._cluster, self._endpoint, _outcome(error), None)
            self._endpoint = self._pool = None

    def _places(self) -> Iterator[Endpoint]:
        """The same endpoint, then (if that is doubted, or cannot be reached) one other."""
        exchange, cluster, own = self._exchange, self._cluster, self._exchange.endpoint
        context = exchange.context
        if own is None:
            return
        doubted = context.pools.doubted(cluster, own)
        if not doubted:
            yield own
        admits = context.admission(cluster, trio.current_time())
        for endpoint in context.balancer.candidates(
            cluster, exchange.key.hash, admits, lambda one: context.pools.active(cluster, one)
        ):
            if endpoint.key != own.key:
                yield endpoint
                return
        if doubted:
            yield own

    async def _lease(self, endpoint: Endpoint) -> Stream:
        exchange, plan, avoid = self._exchange, self._plan, self._first.link
        exchange.attempts += 1
        self._endpoint = endpoint
        context = exchange.context
        pool = self._pool = context.pools.pool(self._cluster, endpoint, exchange.client)
        if context.health.suspected:
            context.health.trying(self._cluster.name, endpoint, trio.current_time())
        head = request_headers(exchange, plan, endpoint, exchange.context.now())
        stream = pool.open_now(head, exchange.head.end_stream, avoid)
        while stream is None:
            stream = await wait_for(exchange, plan, endpoint, pool, avoid)
        self._stream = stream
        pool.stats.rq_active += 1
        pool.stats.rq_total += 1
        return stream


def _outcome(error: ProxyError | None) -> Outcome:
    """Of an attempt without an answer; without an error too, it was only slower."""
    return classify(None, None, error)
