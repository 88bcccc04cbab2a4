"""One request from downstream head to final trailers, over any number of attempts.

The path, top to bottom: match the route, find the session's key, take the deadline; then attempts
(`proxy.attempts`): ask for an endpoint, lease a stream, send the request, relay the response. At the
end, whatever happened, all is given back and told.

Who waits where: this task relays the response. Only a request body that is still on its way gets a
second task. Deadlines and a client that goes away come as `abort`, which wakes whatever waits.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator
from typing import Any

from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.events import HeadReceived
from stickyproxy.metrics import MethodStats
from stickyproxy.model import Cluster, Connection, Endpoint, Route
from stickyproxy.policy.balance import choose_target
from stickyproxy.policy.grpc import CONTENT_TYPE, is_grpc_type, parse_timeout
from stickyproxy.policy.hashing import NO_KEY, Key, hash_of
from stickyproxy.policy.headers import client_of
from stickyproxy.policy.paths import may_have_dots
from stickyproxy.policy.retry import RetryRules
from stickyproxy.proxy.alarm import Deadline
from stickyproxy.proxy.attempts import attempt_each, begin
from stickyproxy.proxy.context import Context, Plan
from stickyproxy.proxy.extras import forget_request_id, host_route, settle_path, stopped_at
from stickyproxy.proxy.grpcweb import WebStream, settle, web_stream
from stickyproxy.proxy.hedge import Hedge
from stickyproxy.proxy.response import Response
from stickyproxy.proxy.retries import Tries
from stickyproxy.proxy.slow_bodies import SlowBody
from stickyproxy.proxy.upload import Upload
from stickyproxy.proxy.websocket import Tunnel, tunnel_of
from stickyproxy.proxy.whole import relay_whole
from stickyproxy.upstream.pool import EndpointPool
from stickyproxy.upstream.waiter import Waiter
from stickyproxy.wire.stream import Stream

_NOWHERE: Iterator[Endpoint] = iter(())
_CANCEL = int(H2Code.CANCEL)
_NO_ERROR = int(H2Code.NO_ERROR)
_INTERNAL_ERROR = int(H2Code.INTERNAL_ERROR)


class Exchange:
    """Owns its streams, its place among the deadlines, and what will be said of it.

    `at_home`: its endpoint is the table's own choice. `request_id` is the one made for a request that
    brought none; b"" until an attempt was made. `walk` has the endpoints that are left to be tried;
    `begun` is the stream of an attempt that was begun without a task, `pool` where it is from and `sent`
    whether all of the request is on it. `tunnel`: it is a WebSocket, or asks to be one. `web`: it came as
    gRPC-Web. `tries` None: no attempt has failed.
    """

    __slots__ = (
        "_seen",
        "_still_since",
        "at_home",
        "attempts",
        "begun",
        "client",
        "cluster",
        "connection",
        "context",
        "deadline",
        "downstream",
        "endpoint",
        "error",
        "grpc",
        "head",
        "hedge",
        "key",
        "moved",
        "plan",
        "pool",
        "request_id",
        "reset_code",
        "response",
        "route",
        "sent",
        "slow_body",
        "started",
        "started_wall",
        "stats",
        "tries",
        "try_limit",
        "tunnel",
        "upload",
        "upstream",
        "waiter",
        "walk",
        "web",
    )

    def __init__(
        self, context: Context, downstream: Stream, head: HeadReceived, connection: Connection
    ) -> None:
        self.started = self._still_since = context.now()
        self.started_wall = time.time()
        content_type = head.fields.get(b"content-type")
        self.grpc = content_type == CONTENT_TYPE or is_grpc_type(content_type)
        self.web: WebStream | None = None
        if not self.grpc and content_type is not None:
            self.web = web_stream(downstream, head, content_type)
            if self.web is not None:
                downstream, self.grpc = self.web, True
        self.downstream = downstream
        self.head = head
        self.connection = connection
        self.client = connection.client
        self._seen = 0
        self.upload = Upload(downstream, ended=head.end_stream, grpc=self.grpc)
        self.stats: MethodStats | None = None
        self.route: Route | None = None
        self.plan: Plan | None = None
        self.cluster: Cluster | None = None
        self.endpoint: Endpoint | None = None
        self.key: Key = NO_KEY
        self.upstream: Stream | None = None
        self.walk = _NOWHERE
        self.begun: Stream | None = None
        self.pool: EndpointPool | None = None
        self.sent = False
        self.error: ProxyError | None = None
        self.attempts = 0
        self.at_home = False
        self.request_id = b""
        self.response = Response(downstream, grpc=self.grpc, content_type=content_type)
        self.context = context
        self.waiter: Waiter | None = None
        self.tunnel: Tunnel | None = None
        self.hedge: Hedge | None = None
        self.tries: Tries | None = None
        self.try_limit: Deadline | None = None
        self.deadline: Deadline | None = None
        self.moved = False
        self.slow_body: SlowBody | None = None
        self.reset_code = _CANCEL

    def serve(self) -> Coroutine[Any, Any, None] | None:
        """As far as it goes without waiting. What is returned is to be run as the stream's task.

        Mostly nothing is: the request came whole and is on its way. The stream gets its task when the
        backend answers or somebody gives up, or none at all where the answer comes whole too: that
        saves a call two turns of the loop and a fifth of its CPU. Never raises; whatever happens,
        `_finish` leaves nothing behind.
        """
        self.downstream.on_end = self.abort
        if self.downstream.error is not None:  # it came together with the head
            self.abort(self.downstream.error)
        try:
            plan = self._begin()
            if plan is not None and plan.cluster is not None:
                upstream = begin(self, plan, plan.cluster)
                if upstream is None:
                    return self._attempt(plan, plan.cluster)
                upstream.starter = self.downstream.starter = self._start
                return None
        except Exception as error:  # noqa: BLE001 - the boundary
            self._fail(error)
        self._finish()
        return None

    def _start(self) -> None:
        """There is something to do, or to give up. What need not wait is done at once, without a task."""
        plan, upstream = self.plan, self.upstream
        self.downstream.starter = None
        if upstream is None or plan is None or plan.cluster is None:
            return
        upstream.starter = None
        if self._has_all(plan, upstream) and self._relayed(plan, plan.cluster, upstream):
            self._finish()
        else:
            self.downstream.link.beginnings.start(self._attempt, plan, plan.cluster)

    def _has_all(self, plan: Plan, upstream: Stream) -> bool:
        """The whole answer is here, and it is to be the one."""
        if not upstream.remote_done or upstream.error is not None or self.error is not None:
            return False
        # else it may be declined, and asked for again
        return plan.retry is None and not plan.hedged and self.web is None

    def _relayed(self, plan: Plan, cluster: Cluster, upstream: Stream) -> bool:
        try:
            return relay_whole(self, plan, cluster, upstream)
        except Exception as error:  # noqa: BLE001 - the boundary
            self._fail(error)
            return True

    async def _attempt(self, plan: Plan, cluster: Cluster) -> None:
        """Never raises but when cancelled."""
        try:
            await attempt_each(self, plan, cluster)
            if self.web is not None:
                await self.web.flush()
        except Exception as error:  # noqa: BLE001 - the boundary
            self._fail(error)
            if self.web is not None:
                await self.web.flush_quietly()
        except BaseException:  # cancelled, in one task or in both
            detail = "the proxy is shutting down"
            if self.downstream.on_end is not None:  # else it was answered
                self._refuse(self.error or ProxyError(ErrorKind.OVERLOAD, Side.INTERNAL, detail))
            raise
        finally:
            self._finish()

    def _fail(self, error: Exception) -> None:
        """Our bug ends one stream."""
        if not isinstance(error, ProxyError):
            self.context.bug(error, "exchange")
            error = ProxyError(ErrorKind.INTERNAL, Side.INTERNAL, "a bug of the proxy")
        elif self.error is not None:
            error = self.error
        self._refuse(error)

    # --- which way ---

    def _begin(self) -> Plan | None:
        """Everything that is decided before a backend is asked; None when none is to be."""
        route = self.route = self._find_route()
        if route is None:
            if self.response.status:
                return None
            raise _refused(ErrorKind.NO_ROUTE, "no route matches this host, path and method")
        context = self.context
        plan = self.plan = self._choose(route)
        stats = self.stats = context.stats_of(plan, route, self.head.fields[b":path"], self.grpc)
        stats.requests += 1
        if self.tunnel is not None and not self.tunnel.admitted(plan):
            return None
        if plan.extras is not None and plan.extras.served(self, plan, context):
            return None
        if plan.cluster is None:
            raise _refused(ErrorKind.NO_CLUSTER, f"no cluster {plan.target.cluster}")
        if self.error is not None:
            raise self.error
        self.cluster = plan.cluster
        self.upload.take_ready()
        if plan.idle is not None:
            plan.idle.add(self)
        if not self.upload.ended:
            self.slow_body = context.bodies.watch(self)
        if self.grpc or plan.target.timeout is not None:
            self._take_deadline(plan, self.started)
        return plan

    def _find_route(self) -> Route | None:
        """None where there is none, or where the answer was given on the way to it."""
        context, head = self.context, self.head
        snapshot = context.snapshot
        hosts = snapshot.hosts
        if hosts is not None or context.behind_hop:
            edge = snapshot.edge if hosts is None else hosts.edge(self.connection.listener)
            self.client = client_of(head.headers, self.connection, edge)
        if b"x-request-id" in head.fields and not (
            context.preserves_ids or self.client.behind_trusted_hop
        ):
            forget_request_id(self)
        if head.fault is not None:
            raise _refused(ErrorKind.HEADERS_TOO_LARGE, "request header fields are too large")
        if b":protocol" in head.fields or head.fields.get(b":method") == b"CONNECT":
            self.tunnel = tunnel_of(self)
        if context.overloaded:
            self._turn_away()
        if may_have_dots(head.fields.get(b":path", b"")):
            settle_path(self)
        if context.gate is not None and stopped_at(context.gate, self):
            return None
        if hosts is not None:
            return host_route(hosts, self)
        return snapshot.routes.match(head.headers, head.fields)

    def _turn_away(self) -> None:
        """At once, but for a page: without its route's CORS it would not hear why."""
        self.error = _refused(ErrorKind.OVERLOAD, "too much memory is in use")
        if b"origin" not in self.head.fields or self.tunnel is not None:
            raise self.error

    def _choose(self, route: Route) -> Plan:
        """The session's key, and by it the target of a weighted group."""
        context, head = self.context, self.head
        plan = context.first_plan(route)
        if plan.hash is not None:
            self.key = hash_of(plan.hash, head.headers, self.client, context.entropy, head.fields)
        if len(route.targets) > 1:
            plan = context.plan(choose_target(route, self.key.hash, context.rng))
        if self.web is not None:
            settle(self, plan, self.web)
        return plan

    def speak_plainly(self) -> None:
        """What looked like gRPC-Web is for the backend to understand."""
        self.web, self.grpc = None, False
        self.upload = Upload(self.downstream, ended=self.head.end_stream, grpc=False)
        self.response = self.response.plain(self.downstream)

    # --- time ---

    def request_ended(self) -> None:
        """The client's last part was received, after attempts had begun."""
        if self.error is not None or self.plan is None:
            return
        self._take_deadline(self.plan, self.context.now())
        if self.plan.retry is not None and not self.response.status:
            self.limit_try(self.plan.retry)

    def _take_deadline(self, plan: Plan, now: float) -> None:
        """The smaller of `grpc-timeout` (from the head on) and the route's timeout (from the end

        of the request on, as Envoy counts it).
        """
        when = None
        timeout = plan.target.timeout
        if timeout is not None and self.upload.ended:
            when = now + timeout
        asked = self.head.fields.get(b"grpc-timeout") if self.grpc else None
        if asked is not None and (seconds := parse_timeout(asked)) is not None:
            own = self.started + seconds
            when = own if when is None else min(own, when)
        if when is None:
            return
        if self.deadline is None:
            self.deadline = Deadline(self.context.deadlines, when, self._time_is_up, now)
        else:
            self.deadline.set(when, now)

    def _time_is_up(self) -> None:
        self.abort(ProxyError(ErrorKind.TIMEOUT, Side.INTERNAL, "deadline exceeded"))

    def limit_try(self, rules: RetryRules) -> None:
        """An attempt has so long for its response head, from the request's end on, as Envoy counts it.

        The time that it waits for a connection counts too.
        """
        if rules.per_try_timeout is not None and self.upload.ended and self.try_limit is None:
            now = self.context.now()
            due = now + rules.per_try_timeout
            self.try_limit = Deadline(self.context.deadlines, due, self._try_is_up, now)

    def end_try_limit(self) -> None:
        """The attempt's head is here, or it is over."""
        if self.try_limit is not None:
            self.try_limit.clear()
            self.try_limit = None

    def _try_is_up(self) -> None:
        if self.cluster is not None:
            self.context.metrics.cluster(self.cluster.name).upstream_rq_per_try_timeout += 1
        detail = "no response within per_try_timeout"
        self._interrupt(ProxyError(ErrorKind.TIMEOUT, Side.UPSTREAM, detail))

    def look(self, now: float, limit: float) -> None:
        """From the idle group: abort what has stood still for `limit` seconds."""
        if self._bytes_moved() or self.moved or self.upload.moved:
            self.moved = self.upload.moved = False
            self._still_since = now
        elif now - self._still_since >= limit:
            detail = "no byte moved within the idle timeout"
            self.abort(ProxyError(ErrorKind.IDLE_TIMEOUT, Side.INTERNAL, detail))

    def _bytes_moved(self) -> bool:
        """Whether any went straight on since the last look, which nobody else noticed."""
        before, self._seen = self._seen, self.upload.received + self.response.bytes_out
        return self._seen != before

    # --- what is said of it ---

    @property
    def session(self) -> tuple[str, str]:
        """Where this route's session keys come from (header, cookie, source_ip, or "" for none), and

        what came of it. `hit`: the request had a key; `generated`: a cookie was made; `miss`: none.
        """
        policy = self.plan.hash if self.plan is not None else None
        if policy is None:
            return "", ""
        if self.key.set_cookie is not None:
            return policy.kind, "generated"
        return policy.kind, "miss" if self.key.hash is None else "hit"

    # --- the end ---

    def answered(self) -> None:
        """All of the answer went on: who leaves while the request's task is put away has missed nothing."""
        if self.web is None:  # whose last words are yet to be flushed
            self.downstream.on_end = None

    def abort(self, error: ProxyError) -> None:
        """Client gone, or out of time: wake whatever waits. Sync, from any task."""
        if self.error is not None:
            return
        self.error = error
        if error.side is Side.DOWNSTREAM:
            self.reset_code = error.code if error.relay else H2Code.CANCEL
        self.downstream.interrupt(error)
        self._interrupt(error)

    def _interrupt(self, error: ProxyError) -> None:
        """Whatever waits for a backend hears of it."""
        if self.upstream is not None:
            self.upstream.interrupt(error)
        if self.hedge is not None:
            self.hedge.interrupt(error)
        if self.waiter is not None:
            self.waiter.settle(error=error)

    def _refuse(self, error: ProxyError) -> None:
        well = self.tunnel is not None and self.tunnel.ended_well(error)
        self.error = None if well else error
        self.response.refuse(error, is_head=(b":method", b"HEAD") in self.head.headers)

    def _finish(self) -> None:
        """Sync: nothing of this exchange is left behind, and it is told to metrics and log."""
        if self.plan is not None and self.plan.idle is not None:
            self.plan.idle.discard(self)
        if self.deadline is not None:
            self.deadline.clear()
            self.deadline = None  # it knows us, and we it
        if self.slow_body is not None:
            self.slow_body.leave()
        if self.try_limit is not None:
            self.end_try_limit()
        if self.tries is not None:
            self.tries.give_back()
        if self.upload.mirror is not None:
            self.upload.mirror.leave()
        # An answer before the request's end is followed by NO_ERROR (RFC 9113 §8.1).
        self.walk = _NOWHERE  # it knows us too
        if self.begun is not None:
            self.begun.close(self.reset_code)
        done = self.downstream.local_done
        self.downstream.close(_NO_ERROR if done else _INTERNAL_ERROR)
        self.context.ended(self)


def _refused(kind: ErrorKind, detail: str) -> ProxyError:
    return ProxyError(kind, Side.INTERNAL, detail)
