"""Header blocks in: HEADERS and CONTINUATION to heads and trailers (RFC 9113 §4.3, §6.2, §6.10, §8)."""

from __future__ import annotations

from stickyproxy.codec import frames, validate
from stickyproxy.codec import limits as guard
from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.fast_state import LIST_SLACK, Connection, FatalError, StreamState
from stickyproxy.codec.frames import END_HEADERS, END_STREAM, PADDED, PRIORITY_FLAG
from stickyproxy.codec.hpack_decode import HpackError, TooManyFieldsError, list_size
from stickyproxy.codec.limits import CreditMark
from stickyproxy.codec.sections import Sections
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    HeadReceived,
    InformationalReceived,
    RequestRejected,
    TrailersReceived,
)
from stickyproxy.model import Headers, Section

MAX_CONTINUATIONS = 64
"""Frames, not bytes: an empty CONTINUATION costs a peer nothing (CVE-2026-33871). h2's number."""

_BODILESS = (b"204", b"304")  # RFC 9110 §8.6


class Heads(Connection):
    """The header blocks of a connection."""

    __slots__ = (
        "_block",
        "_block_ends",
        "_block_size",
        "_block_stream",
        "_heads",
        "_informed",
        "_trailers",
    )

    def __init__(self, client: bool, limits: CodecLimits, mark: CreditMark) -> None:
        super().__init__(client, limits, mark)
        self._block: list[bytes] | None = None
        self._block_stream = 0
        self._block_size = 0
        self._block_ends = False
        self._informed: set[int] = set()
        self._heads = Sections(self._decoder)
        self._trailers = Sections(self._decoder)

    # --- blocks ---

    def on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise FatalError(H2Code.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (PADDED | PRIORITY_FLAG):
            payload = self._bare_block(flags, stream_id, payload)
        if flags & END_HEADERS:
            self._on_block(stream_id, payload, bool(flags & END_STREAM))
            return
        self._block = [payload]
        self._block_stream = stream_id
        self._block_size = len(payload)
        self._block_ends = bool(flags & END_STREAM)

    def _bare_block(self, flags: int, stream_id: int, payload: bytes) -> bytes:
        if flags & PADDED:
            payload = without_padding(payload)
        if flags & PRIORITY_FLAG:
            check_priority(stream_id, payload[:5])
            payload = payload[5:]
        return payload

    def on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise FatalError(H2Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block.append(payload)
        self._block_size += len(payload)
        too_long = self._block_size > LIST_SLACK * self.limits.max_header_list
        if too_long or len(self._block) > MAX_CONTINUATIONS:
            raise FatalError(H2Code.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self.cost += guard.COST_SMALL_FRAME * (len(self._block) - 1)
            block, self._block = b"".join(self._block), None
            self._on_block(stream_id, block, self._block_ends)

    def _on_block(self, stream_id: int, block: bytes, end: bool) -> None:
        stream = self.streams.get(stream_id)
        closing = stream is not None and stream.head_seen
        sections = self._trailers if closing else self._heads
        headers: Headers | None = sections.find(block)
        fault = None
        if headers is None:
            headers, fault = self._decode(block)
        if stream is None:
            if self.client or stream_id <= self._highest:
                self._late_head(stream_id, headers)
            else:
                self._request(stream_id, headers, end, fault)
        elif stream.remote_done:
            self._break(stream, H2Code.STREAM_CLOSED, "HEADERS after END_STREAM")  # §5.1
        elif closing:
            self._end_with_trailers(stream, headers, end, fault)
        else:
            self._response(stream, headers, end, fault)

    def _decode(self, block: bytes) -> tuple[Headers, str | None]:
        """The fields, and whether they are more than we serve."""
        decoder = self._decoder
        try:
            headers = decoder.decode(block)
        except HpackError as error:
            raise FatalError(H2Code.COMPRESSION_ERROR, str(error)) from None
        except TooManyFieldsError:
            raise FatalError(H2Code.ENHANCE_YOUR_CALM, "a header list without end") from None
        limits = self.limits
        # Huffman makes at most 8/5 of what it reads: an upper bound that is cheap to have. What a
        # literal adds by its name's index or its overhead is no more than an entry's size.
        bound = 2 * len(block) + len(headers) * decoder.largest
        if bound <= limits.max_header_list and len(headers) <= limits.max_header_count:
            return headers, None
        size = list_size(headers)
        if size > LIST_SLACK * limits.max_header_list:
            raise FatalError(H2Code.ENHANCE_YOUR_CALM, "a header list without end")
        if len(headers) <= limits.max_header_count and size <= limits.max_header_list:
            return headers, None
        self.cost += guard.COST_FIELD * len(headers)
        return headers, "headers_too_large"

    # --- requests ---

    def _request(self, stream_id: int, headers: Headers, end: bool, fault: str | None) -> None:
        if not stream_id & 1:
            raise FatalError(H2Code.PROTOCOL_ERROR, "a client's stream has an odd id")  # §5.1.1
        if stream_id > self._highest + 2:
            self._skip_to(stream_id)
        self._highest = stream_id
        fields = headers.fields if type(headers) is Section else dict(headers)
        refusal = self._refusal(stream_id, headers, fields, end)
        if refusal is not None:
            self.cost += guard.COST_RESET
            self._remember(stream_id, by_us=True)
            self.out.append(frames.rst_stream(stream_id, refusal[0]))
            self.told.append(RequestRejected(stream_id, headers, *refusal))
            return
        self.last_taken = stream_id
        stream = self.streams[stream_id] = StreamState(stream_id, self._initial_window)
        stream.head_seen = True
        if end:
            stream.remote_done = True
        else:
            length = fields.get(b"content-length")
            stream.expected = None if length is None else int(length)
        self.told.append(HeadReceived(stream_id, headers, end, fault, fields))
        if fault is None and type(headers) is not Section:
            self._heads.keep(headers)

    def _refusal(
        self, stream_id: int, headers: Headers, fields: dict[bytes, bytes], end: bool
    ) -> tuple[int, int, str] | None:
        """(HTTP/2 code, HTTP status for the log, reason), or None for a stream that is taken."""
        if stream_id > self.refuse_above:
            return H2Code.REFUSED_STREAM, 503, "the connection is draining"
        if len(self.streams) >= self.limits.max_concurrent_streams:  # §5.1.2
            return H2Code.REFUSED_STREAM, 503, "more streams than SETTINGS_MAX_CONCURRENT_STREAMS"
        fault = None if type(headers) is Section else validate.request_fault(headers)
        if fault is None and end and validate.length_of(fields):
            fault = "content-length promises a body, END_STREAM denies it"
        return None if fault is None else (H2Code.PROTOCOL_ERROR, 400, fault)

    # --- responses and trailers ---

    def _late_head(self, stream_id: int, headers: Headers) -> None:
        self.cost += guard.COST_SMALL_FRAME + guard.COST_FIELD * len(headers)
        if self._is_idle(stream_id) or self._was_skipped(stream_id):
            raise FatalError(H2Code.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}, never opened")
        self._late(stream_id, "HEADERS")

    def _response(
        self, stream: StreamState, headers: Headers, end: bool, fault: str | None
    ) -> None:
        wrong = None if type(headers) is Section else validate.response_fault(headers)
        status = headers[0][1] if headers else b""
        if wrong is None and status[:1] == b"1":
            self._informational(stream, headers, end)
            return
        fields = headers.fields if type(headers) is Section else dict(headers)
        if wrong is None:
            # §8.1.1: where there can be no content, content-length may promise it all the same.
            bodiless = stream.is_head or status in _BODILESS
            stream.expected = 0 if bodiless else validate.length_of(fields)
            if end and stream.expected:
                wrong = "content-length promises a body, none came"
        if wrong is not None:
            self._break(stream, H2Code.PROTOCOL_ERROR, wrong)  # §8.1.1
            return
        stream.head_seen = True
        self.told.append(HeadReceived(stream.stream_id, headers, end, fault, fields))
        if fault is None and type(headers) is not Section:
            self._heads.keep(headers)
        if end:
            self._remote_end(stream)

    def _informational(self, stream: StreamState, headers: Headers, end: bool) -> None:
        if end:
            self._break(stream, H2Code.PROTOCOL_ERROR, "END_STREAM on an informational response")
            return
        self._charge_again(stream.stream_id)
        self.told.append(InformationalReceived(stream.stream_id, headers))

    def _charge_again(self, stream_id: int) -> None:
        """One informational head is a service; who sends many makes us send as many."""
        informed = self._informed
        if stream_id in informed:
            self.cost += guard.COST_INFORMATIONAL
            return
        if len(informed) >= guard.INFORMED:
            informed.clear()
        informed.add(stream_id)

    def _end_with_trailers(
        self, stream: StreamState, headers: Headers, end: bool, fault: str | None
    ) -> None:
        wrong = fault
        if type(headers) is not Section:
            wrong = validate.trailers_fault(headers) or fault
            if wrong is None:
                self._trailers.keep(headers)
        if not end:
            wrong = "a second head without END_STREAM"  # §8.1
        elif wrong is None and stream.expected:
            wrong = f"body ended {stream.expected} bytes short of content-length"
        if wrong is not None:
            self._break(stream, H2Code.PROTOCOL_ERROR, wrong)
            return
        self.told.append(TrailersReceived(stream.stream_id, headers))
        self._remote_end(stream)


def without_padding(payload: bytes) -> bytes:
    """§6.1: the pad length must be there and leave room for itself."""
    if not payload:
        raise FatalError(H2Code.FRAME_SIZE_ERROR, "a padded frame without its pad length")  # §4.2
    if payload[0] >= len(payload):
        raise FatalError(H2Code.PROTOCOL_ERROR, "padding as long as its frame")
    return payload[1 : len(payload) - payload[0]]


def check_priority(stream_id: int, payload: bytes) -> None:
    """Priorities are ignored (§5.3); a broken one is still an error."""
    if len(payload) < 5:
        raise FatalError(H2Code.FRAME_SIZE_ERROR, "too short for a priority")
    if frames.read_u31(payload) == stream_id:
        raise FatalError(H2Code.PROTOCOL_ERROR, "a stream that depends on itself")
