"""Requests, responses and trailers in h2's connection: HEADERS and DATA as the relay reads them."""

from __future__ import annotations

from h2.connection import AllowedStreamIDs, ConnectionInputs
from h2.exceptions import NoSuchStreamError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.stream import StreamClosedBy, StreamInputs
from hyperframe.frame import DataFrame, HeadersFrame

from stickyproxy.codec import limits as guard
from stickyproxy.codec import validate
from stickyproxy.codec.reference_frames import decode_block
from stickyproxy.codec.reference_streams import Dispatched, StreamNote, Streams
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    DataReceived,
    HeadReceived,
    InformationalReceived,
    RequestRejected,
    TrailersReceived,
)
from stickyproxy.model import Headers


class Messages(Streams):
    """Heads are judged by `codec.validate`; what is wrong with a message ends its stream only."""

    def _receive_headers_frame(self, frame: HeadersFrame) -> Dispatched:
        if "PRIORITY" in frame.flags and frame.depends_on == frame.stream_id:
            message = "a stream that depends on itself"  # RFC 7540 §5.3.1
            raise ProtocolError(message)
        headers = decode_block(self.decoder, frame.data)
        self.cost += guard.COST_SMALL_FRAME * self.incoming_buffer.continuations
        self.incoming_buffer.continuations = 0
        if self._oversize(headers):
            self.cost += guard.COST_FIELD * len(headers)
        end = "END_STREAM" in frame.flags
        note = self.notes.get(frame.stream_id)
        if note is None and not self.config.client_side:
            self._request(frame.stream_id, headers, end)
        elif note is None:
            self._late_head(frame.stream_id, self.highest_outbound_stream_id, headers)
        else:
            self._further_head(note, headers, end)
        return [], []

    def _request(self, stream_id: int, headers: Headers, end: bool) -> None:
        if stream_id <= self.highest_inbound_stream_id:
            self._late_head(stream_id, self.highest_inbound_stream_id, headers)
            return
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
        verdict = self._refusal(stream_id, headers, end)
        if verdict is not None:
            self._reject(stream_id, headers, *verdict)
            return
        self.last_taken = stream_id
        stream.receive_headers(headers, end, None)
        note = self.begin(stream_id)
        note.head_seen = True
        note.expected = validate.content_length(headers)
        self.told.append(HeadReceived(stream_id, headers, end, self._oversize(headers)))
        self._remote_end(note, end)

    def _refusal(self, stream_id: int, headers: Headers, end: bool) -> tuple[int, int, str] | None:
        """(HTTP/2 code, HTTP status for the log, reason), or None for a stream that is taken."""
        if stream_id > self.refuse_above:
            return H2Code.REFUSED_STREAM, 503, "the connection is draining"
        if len(self.notes) >= self._limits.max_concurrent_streams:
            return H2Code.REFUSED_STREAM, 503, "more streams than SETTINGS_MAX_CONCURRENT_STREAMS"
        fault = validate.request_fault(headers)
        if fault is None and end and (validate.content_length(headers) or 0) > 0:
            fault = "content-length promises a body, END_STREAM denies it"
        return None if fault is None else (H2Code.PROTOCOL_ERROR, 400, fault)

    def _reject(self, stream_id: int, headers: Headers, code: int, status: int, why: str) -> None:
        self.cost += guard.COST_RESET
        del self.streams[stream_id]
        self._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
        self._queue_reset(stream_id, code)
        self.told.append(RequestRejected(stream_id, headers, code, status, why))

    def _late_head(self, stream_id: int, highest: int, headers: Headers) -> None:
        """RFC 9113 §5.1, closed: let go after a reset of ours, else h2 judges by how it ended."""
        self.cost += guard.COST_SMALL_FRAME + guard.COST_FIELD * len(headers)
        if stream_id > highest:
            raise NoSuchStreamError(stream_id)
        if not self._let_go(stream_id):
            raise StreamIDTooLowError(stream_id, highest)

    def _let_go(self, stream_id: int) -> bool:
        """Was it on its way when we reset its stream? After a reset of the peer's, h2 answers."""
        closed_by = self._stream_closed_by(stream_id)
        if closed_by is StreamClosedBy.RECV_RST_STREAM:
            self.cost += guard.COST_RESET
        return closed_by is StreamClosedBy.SEND_RST_STREAM

    def _further_head(self, note: StreamNote, headers: Headers, end: bool) -> None:
        """A response head (client role), an informational one, or trailers."""
        if note.remote_done:
            self._break(note, H2Code.STREAM_CLOSED, "HEADERS after END_STREAM")  # RFC 9113 §5.1
            return
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        if note.head_seen:
            self._trailers(note, headers, end)
            return
        fault = validate.response_fault(headers)
        informational = headers[:1] != [] and headers[0][1][:1] == b"1"
        if fault is None and informational and end:
            fault = "END_STREAM on an informational response"
        if fault is not None:
            self._break(note, H2Code.PROTOCOL_ERROR, fault)
            return
        if not informational:
            self._response(note, headers, end)
            return
        self.streams[note.stream_id].receive_headers(headers, end, None)
        self._charge_again(note.stream_id)
        self.told.append(InformationalReceived(note.stream_id, headers))

    def _charge_again(self, stream_id: int) -> None:
        """One informational head is a service; who sends many makes us send as many."""
        if stream_id in self._informed:
            self.cost += guard.COST_INFORMATIONAL
            return
        if len(self._informed) >= guard.INFORMED:
            self._informed.clear()
        self._informed.add(stream_id)

    def _response(self, note: StreamNote, headers: Headers, end: bool) -> None:
        note.head_seen = True
        bodiless = note.is_head or headers[0][1] in (b"204", b"304")  # RFC 9110 §8.6
        note.expected = 0 if bodiless else validate.content_length(headers)
        if end and note.expected:
            self._break(note, H2Code.PROTOCOL_ERROR, "content-length promises a body, none came")
            return
        self.streams[note.stream_id].receive_headers(headers, end, None)
        self.told.append(HeadReceived(note.stream_id, headers, end, self._oversize(headers)))
        self._remote_end(note, end)

    def _trailers(self, note: StreamNote, headers: Headers, end: bool) -> None:
        fault = validate.trailers_fault(headers) or self._oversize(headers)
        if not end:
            fault = "a second head without END_STREAM"  # RFC 9113 §8.1
        elif fault is None and note.expected:
            fault = f"body ended {note.expected} bytes short of content-length"
        if fault is not None:
            self._break(note, H2Code.PROTOCOL_ERROR, fault)
            return
        self.streams[note.stream_id].receive_headers(headers, end, None)
        self.told.append(TrailersReceived(note.stream_id, headers))
        self._remote_end(note, end)

    def _oversize(self, headers: Headers) -> str | None:
        if len(headers) > self._limits.max_header_count:
            return "headers_too_large"
        size = sum(len(name) + len(value) + 32 for name, value in headers)  # RFC 9113 §6.5.2
        return "headers_too_large" if size > self._limits.max_header_list else None

    def _remote_end(self, note: StreamNote, end: bool) -> None:
        if end:
            note.remote_done = True
            self.settle(note)

    def _receive_data_frame(self, frame: DataFrame) -> Dispatched:
        length = frame.flow_controlled_length
        self._inbound_flow_control_window_manager.window_consumed(length)
        increment = self._inbound_flow_control_window_manager.process_bytes(length)
        if increment:
            self._queue_window_update(0, increment)
        note = self.notes.get(frame.stream_id)
        if note is None:
            self.cost += guard.COST_EMPTY_DATA
            self._late_data(frame.stream_id)
        else:
            self._data(note, frame, length)
        return [], []

    def _late_data(self, stream_id: int) -> None:
        """The link's credit is back already. After a reset of ours it was on its way: let go."""
        if not self._let_go(stream_id):
            self._get_stream_by_id(stream_id)
            raise StreamClosedError(stream_id)

    def _data(self, note: StreamNote, frame: DataFrame, length: int) -> None:
        end = "END_STREAM" in frame.flags
        if note.remote_done:
            self._break(note, H2Code.STREAM_CLOSED, "DATA after END_STREAM")  # RFC 9113 §5.1
            return
        if not note.head_seen:
            self._break(note, H2Code.PROTOCOL_ERROR, "DATA before a response head")
            return
        if not note.ledger.received(length):
            self._break(note, H2Code.FLOW_CONTROL_ERROR, "more DATA than the stream's window")
            return
        if not self._counts(note, len(frame.data), end):
            self._break(note, H2Code.PROTOCOL_ERROR, "body does not match content-length")
            return
        if not frame.data and not end:
            self.cost += guard.COST_EMPTY_DATA
        self.streams[note.stream_id].state_machine.process_input(StreamInputs.RECV_DATA)
        if end:
            self.streams[note.stream_id].state_machine.process_input(StreamInputs.RECV_END_STREAM)
        self.told.append(DataReceived(note.stream_id, frame.data, length, end))
        self._remote_end(note, end)

    def _counts(self, note: StreamNote, length: int, end: bool) -> bool:
        if note.expected is None:
            return True
        note.expected -= length
        return note.expected == 0 if end else note.expected >= 0
