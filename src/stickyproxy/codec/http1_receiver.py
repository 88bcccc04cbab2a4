"""The receiving half of HTTP/1.1: what a peer sends, one exchange after the other.

Input waits in `_inbox` and is read in pieces: a head when it is whole, a body only as far as credit was
granted. So nothing is parsed that nobody can take. A head that says nothing unusual is read at once
(`http1_plain`); every other passes our checks first, so that what h11 is lenient about never reaches
it, and then goes to an `h11.Connection` of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import h11

from stickyproxy.codec.api import Codec, CodecLimits, Counter, Outlet
from stickyproxy.codec.http1_bodies import (
    Body,
    BodyError,
    ByH11,
    Chunks,
    Counted,
    Endless,
    amid_chunks,
    parser,
)
from stickyproxy.codec.http1_checks import (
    HeadError,
    HeadSplitter,
    glimpse,
    is_oversize,
    rejection,
)
from stickyproxy.codec.http1_heads import request_head, response_head, switched_head
from stickyproxy.codec.http1_lines import CHUNKED, UNTIL_CLOSE
from stickyproxy.codec.http1_plain import PlainHead, plain_request, plain_response
from stickyproxy.codec.http1_tunnel import SWITCHED, asked_for
from stickyproxy.codec.limits import COST_INFORMATIONAL
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    CodecFailed,
    DataReceived,
    Event,
    HeadReceived,
    InformationalReceived,
    RequestRejected,
    StreamReset,
    TrailersReceived,
)
from stickyproxy.model import Section

_PIECE = 1 << 16  # the largest body part of one event: a reader's receive size
_PSEUDO_FIELDS = 4  # of a request
_PIPELINED = 1 << 14  # input behind a request under way that is read before reading stops


class Phase(enum.Enum):
    """What the peer is about to send."""

    HEAD = enum.auto()
    BODY = enum.auto()
    DONE = enum.auto()
    """Its message is whole; what follows waits for the next exchange."""


class Receiver:
    """What both halves of a connection know of it, and the reading half's work."""

    passed = 0

    def __init__(self, client: bool, limits: CodecLimits, *, scheme: str = "http") -> None:
        """`client` is true towards a backend; `scheme` is what `:scheme` says of requests read."""
        self.client = client
        self.protocol = "HTTP/1.1"
        self._limits = limits
        self._scheme = scheme.encode()
        self._h11: h11.Connection | None = None
        self._heads = HeadSplitter(limits.max_header_list, limits.max_header_count)
        self._body = Body()
        self._inbox = bytearray()
        self._starved = True
        self._eof = False
        self._output: list[bytes] = []
        self._told: list[Event] = []
        self._phase = Phase.DONE if client else Phase.HEAD
        self._stream = 0
        self._latest = -1
        self._held = 0
        self._last = False
        self._closing = False
        self._over = False
        self._last_response = False
        self._method = b""
        self._head_sent = False
        self._chunks = False
        self._sent = False
        self._left = 0
        """Of the body that is sent: bytes to go, CHUNKED or UNTIL_CLOSE."""
        self.cost = 0
        """Little is in vain: one request at a time, and each that is refused ends the link. But a backend

        may send informational heads without end, each of which a client is told.
        """
        self._informed = False
        self._upgrade = b""
        """The protocol that the request under way asks for; b"" for none, or once it is spoken."""

    # --- in ---

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take received bytes; `b""` is the end of input, which ends an open stream (see `api`)."""
        self._starved = False
        if not data:
            self._eof = True
        elif not self._over and not (self._closing and self._phase is Phase.DONE):
            self._inbox += data
        return self._advance()

    def straight(
        self, stream_id: int, into: Codec, into_id: int, *, link: Outlet, counter: Counter | None
    ) -> None:
        """None: nothing goes straight on."""
        del stream_id, into, into_id, link, counter

    def take_stirred(self) -> Sequence[Outlet]:
        """Nobody: nothing goes straight on."""
        return ()

    def resume(self) -> Sequence[Event]:
        """Go on with what is held inside."""
        return self._advance()

    @property
    def buffered(self) -> bool:
        """True while `resume` has something to say."""
        return bool(self._told) or (not self._starved and self._may_read())

    @property
    def paused(self) -> bool:
        """True at the stream's credit, and with a pipelined request waiting (server role)."""
        if self._over:
            return False
        if self._phase is Phase.DONE:
            return len(self._inbox) >= _PIPELINED
        return self._held >= self._limits.stream_credit

    def _may_read(self) -> bool:
        if self._over:
            return False
        if self._phase is Phase.BODY:
            return self._held < self._limits.stream_credit
        return self._phase is Phase.HEAD and bool(self._inbox or self._eof)

    def _advance(self) -> list[Event]:
        events, self._told = self._told, []
        while not self._starved and self._may_read():
            if self._phase is Phase.HEAD:
                self._read_head(events)
            else:
                self._read_body(events)
        if self.client and self._inbox and not self._stream and not self._over:
            self._end()
            events.append(CodecFailed(H2Code.PROTOCOL_ERROR, "response without a request"))
        if self._eof and not self._over:
            self._read_eof(events)
        return events

    # --- heads in ---

    def _read_head(self, events: list[Event]) -> None:
        plain = self._take_plain()
        if plain is not None:
            self._plain_head(plain, events)
            return
        try:
            head = self._heads.take(self._inbox, request=not self.client)
            if head is None:
                self._starved = True
            elif self.client:
                self._response(head, events)
            else:
                self._request(head, events)
        except HeadError as fault:
            self._refuse(fault, events)

    def _take_plain(self) -> PlainHead | None:
        """Take a head off the inbox if it is whole and plain; leave everything as it is if not."""
        inbox = self._inbox
        end = -1 if self._heads.begun else inbox.find(b"\r\n\r\n", 0, self._limits.max_header_list)
        if end < 0:
            return None
        head = bytes(inbox[:end])
        if self.client:
            plain = plain_response(head, self._method, self._limits)
        else:
            plain = plain_request(head, self._scheme, self._limits)
        if plain is not None:
            del inbox[: end + 4]
        return plain

    def _plain_head(self, plain: PlainHead, events: list[Event]) -> None:
        if self.client:
            self._phase = Phase.BODY
        else:
            self._begin(plain.method, Phase.BODY)
            self._chunks = True
            self._closing = self._closing or plain.last
        self.protocol = "HTTP/1.1"
        self._h11 = None
        self._last = plain.last
        fields = plain.headers.fields if type(plain.headers) is Section else None
        events.append(HeadReceived(self._stream, plain.headers, not plain.length, fields=fields))
        if not plain.length:
            self._message_done()
        else:
            self._body = Chunks() if plain.length == CHUNKED else Counted(plain.length)

    def _parse(self, head: bytes) -> h11.Request | h11.Response | h11.InformationalResponse:
        parse = self._h11 = parser(
            client=self.client, method=self._method, limits=self._limits, upgrade=self._upgrade
        )
        parse.receive_data(head)
        try:
            event = parse.next_event()
        except h11.RemoteProtocolError as error:
            raise HeadError(error.error_status_hint, str(error)) from error
        if isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
            if is_oversize(event.headers, self._limits):
                raise HeadError(431, "headers_too_large")
            chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
            self._body = ByH11(parse, self._limits, chunked=chunked)
            return event
        raise HeadError(400, "malformed head")

    def _request(self, head: bytes, events: list[Event]) -> None:
        request = self._parse(head)
        if not isinstance(request, h11.Request):
            raise HeadError(400, "malformed request")
        headers = request_head(request.method, request.target, list(request.headers), self._scheme)
        self.protocol = "HTTP/" + request.http_version.decode()
        self._chunks = request.http_version == b"1.1"
        self._begin(request.method, Phase.BODY)
        ends = self._body_is_empty()
        if ends and self._chunks and (upgrade := asked_for(request.headers)):
            self._upgrade = upgrade
            headers.insert(_PSEUDO_FIELDS, (b":protocol", upgrade))
            ends = False
        events.append(HeadReceived(self._stream, headers, ends))
        self._closing = self._closing or _asks_to_close(request)

    def _response(self, head: bytes, events: list[Event]) -> None:
        response = self._parse(head)
        if not isinstance(response, h11.Response | h11.InformationalResponse):
            raise HeadError(502, "malformed response")
        switched = response.status_code == SWITCHED and self._upgrade
        if switched and asked_for(response.headers) == self._upgrade:
            self._switch()
            headers = switched_head(response.headers)
            events.append(HeadReceived(self._stream, headers, end_stream=False))
            return
        headers = response_head(response.status_code, response.headers)
        if isinstance(response, h11.InformationalResponse):
            self.cost += COST_INFORMATIONAL * self._informed
            self._informed = True
            events.append(InformationalReceived(self._stream, headers))
            return
        self.protocol = "HTTP/" + response.http_version.decode()
        self._phase = Phase.BODY
        stream = self._stream
        events.append(HeadReceived(stream, headers, self._body_is_empty()))

    def _switch(self) -> None:
        """From here on bytes are bytes, both ways."""
        self._upgrade = b""
        self._h11 = None
        self._body = Endless()
        self._phase = Phase.BODY
        self._left = UNTIL_CLOSE
        self._starved = False

    def _body_is_empty(self) -> bool:
        if self._h11 is None or type(self._h11.next_event()) is not h11.EndOfMessage:
            return False
        self._message_done()
        return True

    def _refuse(self, fault: HeadError, events: list[Event]) -> None:
        """End the connection for a head that cannot be taken; the client is told why."""
        if self.client:
            events.append(self._give_up(H2Code.PROTOCOL_ERROR, fault.reason, by_peer=False))
            return
        self._latest += 2
        self._output.append(rejection(fault.status))
        rejected = RequestRejected(
            self._latest,
            glimpse(self._heads.line),
            H2Code.PROTOCOL_ERROR,
            fault.status,
            fault.reason,
        )
        events.append(rejected)
        self._end()

    def refuse_head(self) -> Sequence[Event]:
        """408, as nginx and Envoy say it; nothing where no head has begun (RFC 9110 §15.5.9)."""
        events: list[Event] = []
        if self._phase is Phase.HEAD and self._inbox and not (self.client or self._over):
            self._refuse(HeadError(408, "the head of a request does not end"), events)
        return events

    # --- bodies in ---

    def _read_body(self, events: list[Event]) -> None:
        """Take one piece within credit and pass it on."""
        body = self._body
        room = min(_PIECE, self._limits.stream_credit - self._held)
        try:
            data = body.take(self._inbox, room)
        except BodyError as error:
            events.append(self._give_up(H2Code.PROTOCOL_ERROR, str(error), by_peer=False))
            return
        self._pass_on(body, data, events)
        if body.done:
            return
        if isinstance(body, Chunks) and not body.plain:
            self._body = amid_chunks(client=self.client, method=self._method, limits=self._limits)
        else:
            self._starved = not (data and self._inbox)

    def _pass_on(self, body: Body, data: bytes, events: list[Event]) -> None:
        ends = body.done and not body.trailers
        if data or ends:
            self._held += len(data)
            events.append(DataReceived(self._stream, data, len(data), end_stream=ends))
        if body.trailers:
            events.append(TrailersReceived(self._stream, body.trailers))
        if body.done:
            self._message_done()

    def _read_eof(self, events: list[Event]) -> None:
        """Make of the end of input what it means for the open stream."""
        if not self._stream:
            self._end()
        elif not (self.client or isinstance(self._body, Endless)):
            events.append(self._give_up(H2Code.CANCEL, "client closed", by_peer=True))
        elif self._phase is Phase.HEAD:
            reason = "backend closed before its response"
            events.append(self._give_up(H2Code.INTERNAL_ERROR, reason, by_peer=True))
        elif self._starved or not self._inbox:
            self._end_body(events)

    def _end_body(self, events: list[Event]) -> None:
        self._closing = True
        try:
            data = self._body.end()
        except BodyError as error:
            events.append(self._give_up(H2Code.INTERNAL_ERROR, str(error), by_peer=True))
        else:
            self._pass_on(self._body, data, events)
            self._end()

    # --- one exchange after the other ---

    def _begin(self, method: bytes, phase: Phase) -> None:
        self._latest += 2
        self._stream = self._latest
        self._phase = phase
        self._method = method
        self._held = 0
        self._last = False
        self._head_sent = self._sent = self._informed = False
        self._upgrade = b""

    def _message_done(self) -> None:
        """Note that the peer's message is whole; a response ends the exchange with it."""
        self._phase = Phase.DONE
        if self.client:
            parse = self._h11
            self._closing |= self._last or (parse is not None and parse.their_state is not h11.DONE)
            self._finish()

    def _finish(self) -> None:
        """End the exchange; the next may follow if both messages are whole and nobody closes."""
        self._stream = 0
        self._held = 0
        if self._closing or not self._sent or self._phase is not Phase.DONE:
            self._end()
        elif not self.client:
            self._phase = Phase.HEAD

    def _give_up(self, code: int, reason: str, *, by_peer: bool) -> StreamReset:
        if not (self.client or by_peer or self._head_sent):
            self._output.append(rejection(400))
        reset = StreamReset(self._stream, code, reason, by_peer=by_peer)
        self._end()
        return reset

    def _end(self) -> None:
        self._over = self._closing = True
        self._stream = 0
        self._inbox.clear()


def _asks_to_close(request: h11.Request) -> bool:
    if request.http_version != b"1.1":
        return True  # no keep-alive for HTTP/1.0: RFC 9112 §9.3 forbids it to proxies
    return any(
        b"close" in (option.strip(b" \t") for option in value.lower().split(b","))
        for name, value in request.headers
        if name == b"connection"
    )
