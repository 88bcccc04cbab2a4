"""gRPC-Web: a client's stream that speaks gRPC to the exchange and gRPC-Web to the browser.

It takes the place of the link's stream at the very beginning, so that the exchange, its deadlines, its
answers and its counts know nothing of it; only a reset, which no page can see, is told as a status. A
route that does not translate has it speak plainly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.events import DataReceived
from stickyproxy.policy import grpcweb
from stickyproxy.policy.grpc import status_of
from stickyproxy.wire.stream import Stream

if TYPE_CHECKING:
    from stickyproxy.events import HeadReceived
    from stickyproxy.model import Headers
    from stickyproxy.policy.grpcweb import Form
    from stickyproxy.proxy.context import Plan
    from stickyproxy.proxy.exchange import Exchange
    from stickyproxy.wire.stream import Received


_CONTINUE = [(b":status", b"100")]


def web_stream(stream: Stream, head: HeadReceived, content_type: bytes) -> WebStream | None:
    """In the place of `stream` from now on; None for a request that is no gRPC-Web."""
    form = grpcweb.form_of(content_type)
    if form is None or head.fields.get(b":method") != b"POST":
        return None
    return WebStream(stream, form, grpcweb.wanted_form(head.fields.get(b"accept"), form))


def settle(exchange: Exchange, plan: Plan, web: WebStream) -> None:
    """The route is known: translate the head, or speak plainly."""
    head = exchange.head
    if plan.grpc_web:
        if head.fields.get(b"expect", b"").lower() == b"100-continue" and not head.end_stream:
            web.send_headers(_CONTINUE, end_stream=False)  # no server of gRPC says it
        head.headers = grpcweb.request_head(head.headers, web.asked)
        head.fields = dict(head.headers)
    else:
        web.speak_plainly()
        exchange.speak_plainly()


class WebStream(Stream):
    """`asked` is the form of the request's body. Of what is sent here DATA has gRPC's messages whole."""

    __slots__ = (
        "_decoder",
        "_due",
        "_encoder",
        "_ended",
        "_form",
        "_headed",
        "_plain",
        "_theirs",
        "asked",
    )

    def __init__(self, stream: Stream, asked: Form, form: Form) -> None:
        super().__init__(stream.link, stream.stream_id)
        self.take_over(stream)
        self.asked = asked
        self._form = form
        self._decoder = grpcweb.TextDecoder() if asked.text else None
        self._encoder = grpcweb.TextEncoder() if form.text else None
        self._headed = False
        self._ended = False
        self._plain = False
        self._due = b""
        self._theirs: frozenset[bytes] = frozenset()

    def speak_plainly(self) -> None:
        """Nothing was received or sent yet, and nothing will be translated."""
        self._plain = True
        self._decoder = self._encoder = None

    @property
    def hears_resets(self) -> bool:
        return self._plain and super().hears_resets

    # --- receiving ---

    def receive_nowait(self) -> Received | None:
        """Raises `ProxyError` too for text that is no base64."""
        while True:
            event = super().receive_nowait()
            if self._decoder is None or not isinstance(event, DataReceived):
                return event
            data = self._decode(event)
            if data or event.end_stream:
                return DataReceived(event.stream_id, data, event.credit, event.end_stream)
            self.grant(event.credit)  # a part of a group of four: nothing to hand on

    def _decode(self, event: DataReceived) -> bytes:
        if self._decoder is None:
            return event.data
        try:
            data = self._decoder.decode(event.data)
            return data + self._decoder.end() if event.end_stream else data
        except ValueError as error:
            detail = f"the request's body: {error}"
            bad = ProxyError(ErrorKind.BAD_REQUEST, Side.INTERNAL, detail)
            if self.on_end is not None:
                self.on_end(bad)  # who reads here may not be who answers
            raise bad from error

    # --- sending ---

    def heard(self, head: HeadReceived) -> None:
        """The backend's, which comes next."""
        if head.end_stream:
            self._theirs = frozenset(name for name, _ in head.headers)

    def send_headers(self, headers: Headers, end_stream: bool) -> None:
        if self._plain or (not self._headed and headers[0][1][:1] == b"1"):
            super().send_headers(headers, end_stream)
        elif self._headed:
            self._end(grpcweb.trailers_frame(headers))
        else:
            self._headed = True
            self._send_head(grpcweb.response_head(headers, self._form), end_stream=end_stream)

    def _send_head(self, headers: Headers, *, end_stream: bool) -> None:
        if not grpcweb.is_answer(headers):  # HTTP's, for pages to read as such
            self._plain, self._encoder = True, None
        if self._plain or not end_stream:
            super().send_headers(headers, end_stream)
        else:
            self._send_all(headers, *grpcweb.without_status(headers, self._theirs))

    def _send_all(self, headers: Headers, head: Headers, trailers: Headers) -> None:
        """A trailers-only head becomes a body of trailers, which every page may read (Envoy leaves it

        a head, of which a page sees what CORS exposes). Without a window for it, it stays one.
        """
        if status_of(trailers) is None:
            super().send_headers(headers, end_stream=False)
            return
        self._ended = True
        frame = self._framed(grpcweb.trailers_frame(trailers))
        if self._fits(frame):
            super().send_headers(head, end_stream=False)
            super().send_data_nowait(frame, end_stream=True)
        else:
            super().send_headers(headers, end_stream=True)

    def _framed(self, frame: bytes) -> bytes:
        return frame if self._encoder is None else self._encoder.end(frame)

    def _fits(self, frame: bytes) -> bool:
        """A window is the client's; room on the link is not asked for, as it is not for HTTP's trailers."""
        return self.link.codec.window(self.stream_id) >= len(frame)

    def _end(self, frame: bytes) -> None:
        """At once if there is a window for it; else it is due, and goes with `flush`."""
        self._check()
        if self._ended:
            return
        self._ended = True
        frame = self._framed(frame)
        if self._fits(frame):
            super().send_data_nowait(frame, end_stream=True)
        else:
            self._due = frame

    def can_send(self, amount: int) -> bool:
        return super().can_send(amount if self._encoder is None else self._encoder.bound(amount))

    def send_data_nowait(self, data: bytes, end_stream: bool) -> None:
        """Of what is translated only the trailers' frame is the end."""
        if self._encoder is not None:
            data = self._encoder.encode(data)
        super().send_data_nowait(data, end_stream and self._plain)

    async def send_data(self, data: bytes, end_stream: bool) -> None:
        encoder, self._encoder = self._encoder, None  # what the base class sends is encoded already
        try:
            data = data if encoder is None else encoder.encode(data)
            await super().send_data(data, end_stream)
        finally:
            self._encoder = encoder

    async def flush(self) -> None:
        """Trailers for which there was no window, once there is. Raises `ProxyError` if there are none:

        a client of gRPC would know that the status is missing, one of gRPC-Web may take it for OK.
        """
        if not self._ended and not self._plain:
            detail = "the backend's answer ended without a status"
            raise ProxyError(ErrorKind.UPSTREAM_PROTOCOL, Side.UPSTREAM, detail)
        due, self._due = self._due, b""
        self._plain, self._encoder = True, None  # it is as it is to be
        if due:
            await super().send_data(due, end_stream=True)

    async def flush_quietly(self) -> None:
        """As `flush`, of what is said of a failure."""
        try:
            await self.flush()
        except ProxyError:
            return
