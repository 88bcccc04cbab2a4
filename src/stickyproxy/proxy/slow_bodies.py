"""Requests whose bodies come too slowly: a client that holds a backend by a byte now and then.

Only those that are not whole with their head are looked at, four times within the limit, and only until
the answer begins: who answers before the request's end speaks of a stream, which may rest for as long as
both sides like (the idle limit holds it). So may those of gRPC and Connect from the first, and tunnels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.proxy.alarm import IdleGroup
from stickyproxy.proxy.deadlines import Deadlines

if TYPE_CHECKING:
    from stickyproxy.proxy.exchange import Exchange

BODY_TIMEOUT = 60.0
"""Seconds (nginx's client_body_timeout)."""

_STREAMS = b"application/connect+"


class SlowBodies:
    """`limit` in seconds between two parts of a body that we wait for; 0 for none."""

    def __init__(self, deadlines: Deadlines, limit: float = BODY_TIMEOUT) -> None:
        self._group = IdleGroup(deadlines, limit) if limit else None

    def watch(self, exchange: Exchange) -> SlowBody | None:
        if self._group is None or exchange.grpc or exchange.tunnel is not None:
            return None
        if exchange.head.fields.get(b"content-type", b"").startswith(_STREAMS):
            return None
        body = SlowBody(self._group, exchange)
        self._group.add(body)
        return body


class SlowBody:
    """The body of one request, until `leave`."""

    __slots__ = ("_exchange", "_group", "_received", "_since")

    def __init__(self, group: IdleGroup, exchange: Exchange) -> None:
        self._group = group
        self._exchange = exchange
        self._received = -1
        self._since = 0.0

    def leave(self) -> None:
        self._group.discard(self)

    def look(self, now: float, limit: float) -> None:
        """A client that we do not let send (no room at the backend, no connection) is not to blame."""
        upload = self._exchange.upload
        if upload.ended or self._exchange.response.status:
            self.leave()
        elif upload.received != self._received or not self._exchange.downstream.awaited:
            self._received, self._since = upload.received, now
        elif now - self._since >= limit:
            detail = "the body of the request does not go on"
            self._exchange.abort(ProxyError(ErrorKind.IDLE_TIMEOUT, Side.INTERNAL, detail))
