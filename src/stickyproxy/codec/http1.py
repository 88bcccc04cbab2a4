"""HTTP/1.1: a Link with one Stream at a time, behind the seam of HTTP/2.

The sending half and the state; `http1_receiver` has the other half. Streams are numbered 1, 3, 5 …
in the order of their requests. What is written needs no parser: every field line is checked before
it goes out, a body is held to what was announced, and h11 reads it all back in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from stickyproxy.codec.api import Piece, send_in_turn
from stickyproxy.codec.http1_checks import REASONS
from stickyproxy.codec.http1_heads import trailer_fields, wire_request, wire_response
from stickyproxy.codec.http1_lines import CHUNKED, UNTIL_CLOSE, write_fields, write_head
from stickyproxy.codec.http1_receiver import Phase, Receiver
from stickyproxy.codec.http1_tunnel import SWITCHED, UPGRADE_FIELDS, UPGRADE_REQUIRED
from stickyproxy.errors import H2Code
from stickyproxy.events import StreamReset
from stickyproxy.model import Headers

_WINDOW = 1 << 18  # HTTP/1.1 has no window; how much may wait is the business of the link's room


class Http1Codec(Receiver):
    """One HTTP/1.1 connection in either role, at most one stream open."""

    extended_connect = True
    bite = 65_536

    def take_output(self) -> bytes:
        """All bytes that are to be sent, once."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def take_pieces(self) -> list[Piece]:
        """As `take_output`, not put together."""
        output: list[Piece] = list(self._output)
        self._output.clear()
        return output

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would bring anything."""
        return bool(self._output)

    def open_stream(self, headers: Headers, end_stream: bool) -> int:
        """Send a request head. A length that is not known is sent in chunks.

        With `:protocol` (and GET) it asks for an upgrade: nothing may be sent before the 101. Raises
        ValueError for CONNECT, which has no form here.
        """
        if (b":method", b"CONNECT") in headers:
            message = "CONNECT needs a tunnel"
            raise ValueError(message)
        said = dict(headers)
        self._begin(said[b":method"], Phase.HEAD)
        self._upgrade = said.get(b":protocol", b"")
        stream = self._stream
        try:
            start, (fields, self._left) = wire_request(headers, end_stream=end_stream)
            self._output.append(write_head(start, fields))
        except ValueError as error:
            self._unsayable(error)
        if end_stream:
            self._end_message([])
        return stream

    def send_headers(self, stream_id: int, headers: Headers, end_stream: bool) -> None:
        """Send a 1xx or final response head, or trailers where they can be sent.

        101 answers a request with `:protocol`: from then on bytes go as they are, both ways.
        """
        if stream_id != self._stream or self._sent:
            return
        if self.client or self._head_sent:
            self._end_message(trailer_fields(headers))
            return
        status = int(headers[0][1])
        if status >= 200:
            self._send_response(status, headers, end_stream=end_stream)
        elif status == SWITCHED:
            self._send_switch(headers)
        elif self._chunks:  # RFC 9110 §15.2: none to an HTTP/1.0 client
            self._send_head(status, headers, end_stream=False)

    def _send_response(self, status: int, headers: Headers, *, end_stream: bool) -> None:
        self._head_sent = True
        # Who answers before the request's end closes unless that comes meanwhile: the client should know,
        # or it sends its next request here and meets the end (RFC 9112 §9.6).
        self._closing |= self._last_response or (self._starved and self._phase is Phase.BODY)
        self._send_head(status, headers, end_stream=end_stream)
        if end_stream:
            self._end_message([])

    def _send_switch(self, headers: Headers) -> None:
        if not self._upgrade:
            self._unsayable("101 where nothing was asked for")
            return
        self._head_sent = True
        self._send_head(SWITCHED, headers, end_stream=False)
        if not self._over:
            self._switch()

    def _send_head(self, status: int, headers: Headers, *, end_stream: bool) -> None:
        if self._over:
            return
        try:
            fields, self._left = wire_response(
                headers, method=self._method, chunks=self._chunks, end_stream=end_stream
            )
            if status == SWITCHED or (status == UPGRADE_REQUIRED and self._upgrade):
                fields = fields + UPGRADE_FIELDS  # RFC 9110 §15.5.22 for 426
            elif self._closing and self._head_sent:
                fields.append((b"Connection", b"close"))
            start = b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b""))
            self._output.append(write_head(start, fields))
        except ValueError as error:
            self._unsayable(error)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Send body bytes; what goes against a declared length ends the connection."""
        if stream_id != self._stream or self._sent:
            return
        if data and not self._over:
            self._write(data)
        if end_stream:
            self._end_message([])

    def send_whole(
        self, stream_id: int, headers: Headers, parts: Sequence[bytes], trailers: Headers | None
    ) -> None:
        """Send a head, all of its body, and the end."""
        send_in_turn(self, stream_id, headers, parts, trailers)

    def _write(self, data: bytes) -> None:
        if self._left == CHUNKED:
            self._output += (b"%x\r\n" % len(data), data, b"\r\n")
        elif self._left == UNTIL_CLOSE:
            self._output.append(data)
        elif len(data) <= self._left:
            self._left -= len(data)
            self._output.append(data)
        else:
            self._unsayable("more body than its content-length")

    def _end_message(self, trailers: Headers) -> None:
        if not self._over:
            self._write_end(trailers)
        self._sent = True
        if self._stream and not self.client:
            self._response_done()

    def _write_end(self, trailers: Headers) -> None:
        if self._left > 0:
            self._unsayable("less body than its content-length")
        elif self._left == CHUNKED:
            try:
                self._output.append(b"0\r\n" + write_fields(trailers))
            except ValueError as error:
                self._unsayable(error)

    def _response_done(self) -> None:
        """End the exchange; a request that is not whole even in the inbox ends the connection."""
        while self._phase is Phase.BODY and self._inbox and not self._starved:
            self._held = 0
            self._read_body([])
        if not self._over:
            self._finish()

    def _unsayable(self, reason: object) -> None:
        """Break off: what is to be sent has no form, or is not what was announced."""
        detail = f"cannot be said in HTTP/1.1: {reason}"
        code = H2Code.INTERNAL_ERROR
        self._told.append(StreamReset(self._stream, code, detail, by_peer=False))
        self._end()

    def reset(self, stream_id: int, code: int) -> None:  # noqa: ARG002
        """End the connection; what is not sent by now stays unsaid, so the peer sees it cut off."""
        if stream_id == self._stream:
            self._end()

    def ping(self, payload: bytes) -> None:
        """HTTP/1.1 has none: nothing is sent and nothing follows."""

    def goaway(self, last_id: int, code: int) -> None:  # noqa: ARG002
        """Close with the next response (server role), or after the one under way (client role)."""
        if self.client:
            self._closing = True
        else:
            self._last_response = True

    # --- state ---

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent now: always enough, while the sending side of stream or link is open."""
        if not stream_id:
            return 0 if self._over else _WINDOW
        return _WINDOW if stream_id == self._stream and not self._sent else 0

    def grant(self, stream_id: int, credit: int) -> None:
        """Let `credit` more body bytes through."""
        if stream_id == self._stream:
            self._held = max(0, self._held - credit)

    def capacity(self) -> int:
        """1 towards a backend between two requests, else 0."""
        return int(self.client and not (self._stream or self._closing or self._eof))

    @property
    def last_peer_stream(self) -> int:
        """The number of the latest request taken; 0 before the first."""
        return 0 if self.client else max(self._latest, 0)

    @property
    def amid_head(self) -> bool:
        """Server role: a request's head has begun and is not whole."""
        return self._phase is Phase.HEAD and bool(self._inbox)

    @property
    def closing(self) -> bool:
        """True once no further request can follow on this connection."""
        return self._closing
