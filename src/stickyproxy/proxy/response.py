"""What the client is told: the backend's response on its way, or what went wrong in its stead."""

from __future__ import annotations

from stickyproxy.errors import ErrorKind, GrpcStatus, H2Code, ProxyError, Side
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.model import Headers
from stickyproxy.policy.answers import with_added
from stickyproxy.policy.grpc import (
    death_trailers,
    in_kind,
    local_answer,
    needs_translation,
    status_of,
    status_of_reset,
    translate_http_error,
)
from stickyproxy.policy.headers import HeaderPlan, clean_trailers
from stickyproxy.policy.messages import Counter, MessageCounter
from stickyproxy.policy.relayed import RelayedHead, end_of
from stickyproxy.wire.stream import Stream


class Response:
    """The downstream half of an exchange. `status` is 0 until a head went to the client.

    `first_byte` is when a backend's head did; None for an answer of ours. `grpc_status` is what a
    backend ended with, None until then. `messages` counts gRPC's (None for another protocol).
    """

    __slots__ = (
        "_added",
        "_amid_data",
        "_asked",
        "_downstream",
        "_grpc",
        "_parts",
        "_source",
        "first_byte",
        "grpc_status",
        "headers",
        "messages",
        "status",
        "trailers",
    )

    def __init__(
        self, downstream: Stream, *, grpc: bool, content_type: bytes | None = None
    ) -> None:
        """`content_type` is the request's."""
        self._downstream = downstream
        self._grpc = grpc
        self._asked = content_type
        self._amid_data = False
        self._added: Headers | None = None
        self.status = 0
        self.headers: Headers = []
        self.trailers: Headers = []
        self.messages: Counter | None = MessageCounter() if grpc else None
        self._parts = 0
        self._source: Stream | None = None
        self.first_byte: float | None = None
        self.grpc_status: int | None = None

    @property
    def bytes_out(self) -> int:
        """Bytes of body."""
        return self._parts + (self._source.straight if self._source is not None else 0)

    def plain(self, downstream: Stream) -> Response:
        """Another for the same client, which does not speak gRPC."""
        other = Response(downstream, grpc=False)
        other._added = self._added
        return other

    def add(self, fields: Headers) -> None:
        """Fields for the head of whatever the answer is, in place of the backend's."""
        self._added = fields if self._added is None else self._added + fields

    # --- what the backend says ---

    def relay_head(
        self, event: HeadReceived, plan: HeaderPlan, set_cookie: bytes | None, now: float
    ) -> bool:
        """True when it was translated: an answer that gRPC clients would not understand."""
        if event.fault is not None:
            detail = "response header fields are too large"
            raise ProxyError(ErrorKind.UPSTREAM_PROTOCOL, Side.UPSTREAM, detail)
        status = int(event.headers[0][1])
        translated = self._grpc and needs_translation(status, event.headers)
        headers = event.headers
        if translated:
            headers = in_kind(translate_http_error(status, headers), self._asked)
        headers = plan.response(headers, set_cookie)
        if self._added is not None:
            headers = with_added(headers, self._added)
        self._downstream.send_headers(headers, event.end_stream or translated)
        self.first_byte = now
        self.status = status
        self.headers = headers
        if self._grpc and (event.end_stream or translated):
            self.grpc_status = status_of(headers)
        return translated

    def relay_whole(
        self,
        head: RelayedHead,
        parts: list[bytes],
        trailers: Headers | None,
        set_cookie: bytes | None,
        now: float,
    ) -> None:
        """As `relay_head`, `relay_now` and `relay_trailers` of an answer that is neither theirs to

        translate nor without room: `head` is what its head comes to.
        """
        headers = head.headers
        if set_cookie is not None:
            headers = [*headers, (b"set-cookie", set_cookie)]
        if self._added is not None:
            headers = with_added(headers, self._added)
        end = None if trailers is None else end_of(trailers)
        self._downstream.send_whole(headers, parts, None if end is None else end.headers)
        self.first_byte = now
        self.status, self.headers = head.status, headers
        if end is not None:
            self.trailers = end.received
        if self._grpc and (end is not None or not parts):
            self.grpc_status = status_of(headers) if end is None else end.grpc_status
        for data in parts:
            self._relayed(data)

    def go_straight(self, upstream: Stream) -> None:
        """The head is on its way: DATA that follows need not come by here."""
        if self._source is None:
            self._source = upstream
            upstream.go_straight(self._downstream, self.messages)

    def relay_now(self, event: DataReceived) -> bool:
        """Hand it on if the client's window and room allow it at once."""
        data = event.data
        if not self._downstream.can_send(len(data)):
            return False
        self._downstream.send_data_nowait(data, event.end_stream)
        self._relayed(data)
        return True

    async def relay_data(self, event: DataReceived) -> None:
        """Returns when it was handed on within the client's window and room."""
        self._amid_data = True
        await self._downstream.send_data(event.data, event.end_stream)
        self._amid_data = False
        self._relayed(event.data)

    def _relayed(self, data: bytes) -> None:
        self._parts += len(data)
        if self.messages is not None:
            self.messages.feed(data)

    def relay_trailers(self, headers: Headers) -> None:
        self.trailers = headers
        if self._grpc:
            self.grpc_status = status_of(headers)
        self._downstream.send_headers(clean_trailers(headers), end_stream=True)

    # --- what we say ---

    def refuse(self, error: ProxyError, *, is_head: bool) -> None:
        """Say what went wrong in the way this client understands. Sync."""
        downstream = self._downstream
        if downstream.error is not None or downstream.local_done:
            return
        try:
            if self.status:
                self._break_off(error)
            elif error.relay and downstream.hears_resets:
                downstream.close(error.code)
            else:
                self._answer(error, is_head=is_head)
        except ProxyError:
            return

    def _answer(self, error: ProxyError, *, is_head: bool) -> None:
        headers, body = local_answer(
            error.kind, error.detail, grpc=self._grpc, head=is_head, status=_status_of(error)
        )
        if body and not self._downstream.can_send(len(body)):
            headers = [field for field in headers if field[0] != b"content-length"]
            body = b""
        self.answer(headers, body)

    def answer(self, headers: Headers, body: bytes) -> None:
        """Give a whole answer of ours, that the client has room for. Sync."""
        if self._grpc:
            headers = in_kind(headers, self._asked)
        if self._added is not None:
            headers = with_added(headers, self._added)
        self.status = int(headers[0][1])
        self.headers = headers
        self._downstream.send_headers(headers, end_stream=not body)
        if body:
            self._parts += len(body)
            self._downstream.send_data_nowait(body, end_stream=True)

    def _break_off(self, error: ProxyError) -> None:
        """Response headers are out: closing trailers where a client can read them, else a reset."""
        messages = self.messages
        at_boundary = messages is not None and messages.at_boundary and not self._amid_data
        if error.relay and (self._downstream.hears_resets or not at_boundary):
            self._downstream.close(error.code)
        elif at_boundary:
            self.trailers = death_trailers(error.kind, error.detail, _status_of(error))
            self._downstream.send_headers(self.trailers, end_stream=True)
        elif error.kind is ErrorKind.TIMEOUT:
            self._downstream.close(H2Code.CANCEL)  # clients turn it into DEADLINE_EXCEEDED
        else:
            self._downstream.close(H2Code.INTERNAL_ERROR)


def _status_of(error: ProxyError) -> GrpcStatus | None:
    """What a backend's reset means, to a client that hears no codes; None: the kind says it."""
    return status_of_reset(error.code) if error.relay else None
