"""WebSockets: an exchange whose bodies are the protocol's, from the handshake to the last Close.

All of the exchange holds for them: the choice of a backend, attempts until one answers, the two pumps,
credit, idle limits, resets code for code. Different are the handshake, which is another on each HTTP;
the request's body, which waits until the backend has accepted; and the end, for which a WebSocket has
words of its own: for what we end, and where frames are whole, we say Close; amid one nothing but a reset
is honest. What the backend ended, and how, is not ours to put into words: a client hears what it would
hear without us (1006, which nobody sends).

A client that said Close and left has ended it well; a backend that ends without one has died.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.policy import websocket as words
from stickyproxy.proxy.alarm import Deadline
from stickyproxy.proxy.response import Response
from stickyproxy.proxy.upload import Part, Upload

if TYPE_CHECKING:
    from collections.abc import Callable

    from stickyproxy.model import Headers
    from stickyproxy.policy.headers import HeaderPlan
    from stickyproxy.proxy.context import Plan
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.wire.link import Link
    from stickyproxy.wire.stream import Stream

CLOSE_GRACE = 10.0
"""Seconds for a backend to answer the Close of a client that has ended its side (websockets' default)."""

_ITS_OWN = frozenset({ErrorKind.UPSTREAM_CLOSED, ErrorKind.UPSTREAM_RESET})
"""The backend's ways to end without a word."""
_OURS = frozenset({ErrorKind.IDLE_TIMEOUT, ErrorKind.OVERLOAD})
"""Endings that are nobody's failure: the client may come again, or will have to."""


def tunnel_of(exchange: Exchange) -> Tunnel:
    """For a request with `:protocol`; its head becomes that of a GET, by which routes are found.

    Raises `ProxyError` for another protocol, and for CONNECT without one.
    """
    head = exchange.head
    protocol = head.fields.get(b":protocol")
    if protocol is None:
        raise _refused(ErrorKind.BAD_REQUEST, "CONNECT is not served on this route")
    if protocol.lower() != words.NAME:
        raise _refused(ErrorKind.UNSUPPORTED, "the only protocol served by CONNECT is websocket")
    multiplexed = head.fields[b":method"] == b"CONNECT"
    head.headers = [field for field in head.headers if field[0] != b":protocol"]
    if multiplexed:
        head.headers[:] = [
            (b":method", b"GET") if field[0] == b":method" else field for field in head.headers
        ]
    head.fields = dict(head.headers)
    return Tunnel(exchange, multiplexed=multiplexed)


class Tunnel:
    """What is known of one WebSocket. `accepted` is set once the client was told that it is one.

    `from_client` and `from_backend` have looked at what came from each.
    """

    __slots__ = (
        "_client_key",
        "_exchange",
        "_key",
        "accepted",
        "bare",
        "from_backend",
        "from_client",
        "multiplexed",
    )

    def __init__(self, exchange: Exchange, *, multiplexed: bool) -> None:
        self.multiplexed = multiplexed
        """The client speaks HTTP/2."""
        self.accepted = trio.Event()
        self.bare = False
        """The backend ended in good order, and said no Close."""
        self.from_client = words.FrameScanner()
        self.from_backend = words.FrameScanner()
        self._exchange = exchange
        self._client_key = b""
        self._key = b""

    @property
    def close_code(self) -> int | None:
        """Of the Close frame that was said first, as far as one can tell; None for none."""
        code = self.from_backend.close_code
        return self.from_client.close_code if code is None else code

    # --- the handshake ---

    def admitted(self, plan: Plan) -> bool:
        """Whether the exchange goes on; False when it was answered here.

        Where a route does not take WebSockets an Upgrade is ignored, as any server may; what is left
        is a GET. Extended CONNECT is nothing else, and is refused.
        """
        exchange = self._exchange
        if not plan.websocket:
            if self.multiplexed and plan.target.redirect is None:
                raise _refused(ErrorKind.FORBIDDEN, "this route does not take WebSockets")
            self._ignore()
            return True
        if exchange.head.end_stream:
            raise _refused(ErrorKind.BAD_REQUEST, "a WebSocket does not end with its head")
        refusal = words.refusal_of(exchange.head.headers, keyed=not self.multiplexed)
        if refusal is not None:
            exchange.plan = None  # no backend was chosen, so nothing is said of a session
            exchange.response.answer(*refusal)
            return False
        if not self.multiplexed:
            self._client_key = exchange.head.fields[b"sec-websocket-key"]
        exchange.upload = SocketUpload(exchange.downstream, self)
        exchange.response = SocketResponse(exchange.response, exchange.downstream, self)
        return True

    def _ignore(self) -> None:
        exchange = self._exchange
        exchange.tunnel = None
        exchange.head.end_stream = True
        exchange.upload = Upload(exchange.downstream, ended=True, grpc=False)

    def asking(self, headers: Headers, plan: Plan) -> Headers:
        """The head for a backend, from the same as a GET."""
        if not plan.multiplexed and not self._key:
            self._key = words.key_of(self._exchange.context.rng.getrandbits(128))
        return words.asking(headers, self._key)

    def check(self, link: Link | None) -> None:
        """Raises `ProxyError` for a link on which none can be asked for."""
        if link is not None and not link.codec.extended_connect:
            raise _unfit("the backend's HTTP/2 takes no WebSockets (RFC 8441 is not announced)")

    def answered(self, headers: Headers) -> Headers | None:
        """What the client is told of a backend that accepted; None for one that did not.

        Raises `ProxyError` for an answer that would be taken for another.
        """
        if not words.is_accepted(headers, self._key):
            if self.multiplexed and headers[0][1][:1] == b"2":
                status = headers[0][1].decode()
                raise _unfit(f"the backend answered {status} to an Upgrade, not 101")
            return None
        if self._key and not words.is_proven(headers, self._key):
            raise _wrong("the backend's Sec-WebSocket-Accept does not answer our key")
        return words.accepting(headers, self._client_key)

    def begins(self) -> None:
        """The client was told."""
        exchange = self._exchange
        exchange.downstream.on_end = self._client_left
        stats = exchange.context.metrics.process
        stats.downstream_websockets += 1
        stats.downstream_websockets_total += 1
        self.accepted.set()

    # --- the end ---

    def _client_left(self, error: ProxyError) -> None:
        """With its connection all tasks of it fall: what it said before it closed is passed on now."""
        exchange = self._exchange
        downstream, upstream, upload = exchange.downstream, exchange.upstream, exchange.upload
        closed = downstream.remote_done and not downstream.local_done  # a reset sets both
        if closed and upstream is not None and isinstance(upload, SocketUpload):
            upload.pass_last_words(upstream)
        exchange.abort(error)
        if self.from_client.close_code is not None and not error.relay:
            exchange.reset_code = H2Code.NO_ERROR

    def ended_well(self, error: ProxyError) -> bool:
        """A client that is gone after its Close has said goodbye to everybody."""
        return error.kind is ErrorKind.CLIENT_GONE and self.from_client.close_code is not None

    def client_ended(self) -> None:
        """All that it said went on to the backend. Without a Close it is merely gone."""
        exchange = self._exchange
        if self.close_code is None:
            detail = "the client left without a Close frame"
            gone = ProxyError(ErrorKind.CLIENT_GONE, Side.DOWNSTREAM, detail, code=H2Code.CANCEL)
            exchange.abort(gone)
        elif exchange.deadline is None:
            now = exchange.context.now()
            exchange.deadline = Deadline(
                exchange.context.deadlines, now + CLOSE_GRACE, self._grace_is_over, now
            )

    def _grace_is_over(self) -> None:
        detail = "the backend did not answer a Close frame"
        self._exchange.abort(ProxyError(ErrorKind.IDLE_TIMEOUT, Side.INTERNAL, detail))

    def backend_ended(self) -> None:
        """Raises `ProxyError` if nobody had said Close. Many servers end so, and are well: an echo."""
        if self.close_code is None:
            self.bare = True
            detail = "the backend left without a Close frame"
            raise ProxyError(ErrorKind.UPSTREAM_CLOSED, Side.UPSTREAM, detail, echo=True)

    def leave(self, upstream: Stream) -> None:
        """The backend's stream is given up: say so, where there is a word for it. Sync."""
        error, upload = self._exchange.error, self._exchange.upload
        if not self.accepted.is_set() or upstream.error is not None or upstream.local_done:
            return
        if upstream.remote_done:
            upstream.send_data_nowait(b"", end_stream=True)
        elif (error is None or error.side is Side.INTERNAL) and isinstance(upload, SocketUpload):
            mask = self._exchange.context.rng.randbytes(4)
            frame = words.close_frame(words.GOING_AWAY, "", mask)
            said = self.from_client.close_code is not None
            if upload.at_boundary and not said and upstream.can_send(len(frame)):
                upstream.send_data_nowait(frame, end_stream=True)


class SocketUpload(Upload):
    """What the client says, held until the backend has accepted."""

    __slots__ = ("_amid", "_tunnel")

    def __init__(self, downstream: Stream, tunnel: Tunnel) -> None:
        super().__init__(downstream, ended=False, grpc=False)
        self.messages = tunnel.from_client
        self._tunnel = tunnel
        self._amid = False

    @property
    def at_boundary(self) -> bool:
        """Whether what went to the backend ends with a whole frame."""
        return self._tunnel.from_client.at_boundary and not self._amid

    async def pump(self, upstream: Stream, on_end: Callable[[], None]) -> None:  # noqa: ARG002
        """As `Upload`; `on_end` is not told, for a WebSocket's time does not begin with its end."""
        await self._tunnel.accepted.wait()
        await super().pump(upstream, lambda: None)
        self._tunnel.client_ended()

    def pass_last_words(self, upstream: Stream) -> None:
        """What has arrived and the backend has room for. Sync."""
        while not (self._amid or self.ended or upstream.error is not None):
            part = self._downstream.receive_nowait()
            if not isinstance(part, DataReceived) or not upstream.can_send(len(part.data)):
                return
            self._keep(part)
            upstream.send_data_nowait(part.data, part.end_stream)

    async def _pass_on(self, part: Part, upstream: Stream) -> None:
        self._amid = True
        await super()._pass_on(part, upstream)
        self._amid = False


class SocketResponse(Response):
    """What the client is told: as any answer until the backend accepts."""

    __slots__ = ("_tunnel",)

    def __init__(self, before: Response, downstream: Stream, tunnel: Tunnel) -> None:
        super().__init__(downstream, grpc=False)
        self._added = before._added  # noqa: SLF001 - it takes the other's place
        self._tunnel = tunnel

    def relay_head(
        self, event: HeadReceived, plan: HeaderPlan, set_cookie: bytes | None, now: float
    ) -> bool:
        accepted = self._tunnel.answered(event.headers) if event.fault is None else None
        if accepted is None:
            return super().relay_head(event, plan, set_cookie, now)
        if event.end_stream:
            raise _unfit("the backend accepted and ended at once")
        told = HeadReceived(event.stream_id, accepted, end_stream=False)
        super().relay_head(told, plan, set_cookie, now)
        self.messages = self._tunnel.from_backend
        self._tunnel.begins()
        return False

    def relay_now(self, event: DataReceived) -> bool:
        if self.messages is None:
            return super().relay_now(event)
        return not event.end_stream and super().relay_now(event)

    async def relay_data(self, event: DataReceived) -> None:
        if self.messages is None:
            await super().relay_data(event)
            return
        if event.data:
            part = DataReceived(event.stream_id, event.data, event.credit, end_stream=False)
            await super().relay_data(part)
        if event.end_stream:
            self._end()

    def relay_trailers(self, headers: Headers) -> None:
        if self.messages is None:
            super().relay_trailers(headers)
        else:
            self._end()

    def _end(self) -> None:
        self._tunnel.backend_ended()
        self._downstream.send_data_nowait(b"", end_stream=True)

    def _break_off(self, error: ProxyError) -> None:
        """A Close frame between two frames, once; amid one a reset. A backend's own end as it was (RFC 8441

        §5: END_STREAM for one in good order, else a reset).
        """
        if self.messages is None or (error.relay and self._tunnel.multiplexed):
            super()._break_off(error)
            return
        code = words.GOING_AWAY if error.kind in _OURS else words.FAILED
        frame = words.close_frame(code, f"stickyproxy: {error.detail}")
        if self._tunnel.from_backend.close_code is not None or error.kind is ErrorKind.CLIENT_GONE:
            frame = b""
        whole = self.messages.at_boundary and not self._amid_data
        if error.kind in _ITS_OWN:
            frame, whole = b"", whole and self._tunnel.bare
        if whole and self._downstream.can_send(len(frame)):
            self._downstream.send_data_nowait(frame, end_stream=True)
            self._relayed(frame)
        else:
            self._downstream.close(H2Code.INTERNAL_ERROR)


def _unfit(detail: str) -> ProxyError:
    """The endpoint is well, and there is no WebSocket to be had: anybody may ask for one anywhere."""
    return ProxyError(ErrorKind.UPSTREAM_PROTOCOL, Side.INTERNAL, detail)


def _wrong(detail: str) -> ProxyError:
    return ProxyError(ErrorKind.UPSTREAM_PROTOCOL, Side.UPSTREAM, detail)


def _refused(kind: ErrorKind, detail: str) -> ProxyError:
    return ProxyError(kind, Side.INTERNAL, detail)
