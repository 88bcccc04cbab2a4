"""h2's connection with the relay's rules put in, frame by frame (see `codec.reference`)."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.events import Event as H2Event
from h2.events import PingAckReceived, WindowUpdated
from h2.events import StreamReset as H2StreamReset
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    FrameTooLargeError,
    NoSuchStreamError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from h2.stream import H2Stream, StreamClosedBy, StreamInputs
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from stickyproxy.codec import limits as guard
from stickyproxy.codec import validate
from stickyproxy.codec.api import MAX_STREAM_ID, CodecLimits
from stickyproxy.codec.hpack_encode import MAX_TABLE
from stickyproxy.codec.limits import CreditMark, Ledger
from stickyproxy.codec.reference_frames import Frames, decode_block
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    CapacityChanged,
    DataReceived,
    Event,
    GoawayReceived,
    HeadReceived,
    InformationalReceived,
    PongReceived,
    RequestRejected,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from stickyproxy.model import Headers

_Dispatched = tuple[list[Frame], list[H2Event]]


class StreamNote:
    """What we keep of a stream beside h2's own state; gone when both sides are done."""

    __slots__ = (
        "expected",
        "head_seen",
        "is_head",
        "ledger",
        "local_done",
        "remote_done",
        "stream_id",
    )

    def __init__(self, stream_id: int, ledger: Ledger, *, is_head: bool) -> None:
        self.stream_id = stream_id
        self.ledger = ledger
        self.is_head = is_head
        self.head_seen = False
        self.local_done = False
        self.remote_done = False
        self.expected: int | None = None
        """Body bytes still to come by content-length; None where nothing was promised."""


class _RelayStream(H2Stream):
    """content-length is checked by us, as a stream error, and credit is kept by our ledger."""

    def _initialize_content_length(self, headers: object) -> None:
        pass

    def _track_content_length(self, length: int, end_stream: bool) -> None:
        pass


class Engine(H2Connection):
    """Appends what happened to `told`, in our words."""

    def __init__(self, config: H2Configuration, limits: CodecLimits, mark: CreditMark) -> None:
        super().__init__(config)
        self.incoming_buffer: Frames = Frames(server=not config.client_side)
        self.told: list[Event] = []
        self.notes: dict[int, StreamNote] = {}
        self.cost = 0
        self.settings_seen = False
        self.goaway_seen = False
        self.refuse_above = MAX_STREAM_ID
        self.last_taken = 0
        self._limits = limits
        self._mark = mark
        self._updates_paid = guard.WINDOW_UPDATES_PER_DATA
        self._informed: set[int] = set()

    # --- our own bookkeeping ---

    def begin(self, stream_id: int, *, is_head: bool = False) -> StreamNote:
        ledger = Ledger(self._limits.stream_credit, self._mark)
        note = self.notes[stream_id] = StreamNote(stream_id, ledger, is_head=is_head)
        return note

    def settle(self, note: StreamNote) -> None:
        if note.local_done and note.remote_done:
            self.forget(note)

    def forget(self, note: StreamNote) -> None:
        """Both sides are done; h2 keeps only how it ended, to judge late frames by."""
        note.ledger.close()
        self.notes.pop(note.stream_id, None)
        stream = self.streams.pop(note.stream_id, None)
        if stream is not None:
            self._closed_streams[note.stream_id] = stream.closed_by

    def data_frame_sent(self) -> None:
        self._updates_paid += guard.WINDOW_UPDATES_PER_DATA

    def grant_stream(self, note: StreamNote, credit: int) -> None:
        update = note.ledger.grant(credit)
        if update:
            self._queue_window_update(note.stream_id, update)

    def reset_now(self, stream_id: int, code: int) -> None:
        """RST_STREAM in any state of a stream that is still noted."""
        self.streams[stream_id].state_machine.process_input(StreamInputs.SEND_RST_STREAM)
        self.forget(self.notes[stream_id])
        self._queue_reset(stream_id, code)

    def write_goaway(self, last_id: int, code: int) -> None:
        frame = GoAwayFrame(0, last_stream_id=last_id, error_code=code)
        self._prepare_for_sending([frame])

    def _queue_reset(self, stream_id: int, code: int) -> None:
        self._prepare_for_sending([RstStreamFrame(stream_id, error_code=code)])

    def _queue_window_update(self, stream_id: int, increment: int) -> None:
        self._prepare_for_sending([WindowUpdateFrame(stream_id, window_increment=increment)])

    def _break(self, note: StreamNote, code: int, reason: str) -> None:
        """The peer broke the rules on one stream: reset it, tell, and let the link live."""
        self.cost += guard.COST_RESET
        self.reset_now(note.stream_id, code)
        self.told.append(StreamReset(note.stream_id, code, reason, by_peer=False))

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _RelayStream
        return stream

    # --- frames in ---

    def _receive_frame(self, frame: Frame) -> list[H2Event]:
        first = isinstance(frame, SettingsFrame) and "ACK" not in frame.flags
        if not self.settings_seen and not first:
            message = "the first frame is not SETTINGS"  # RFC 9113 §3.4
            raise ProtocolError(message)
        return super()._receive_frame(frame)

    def _receive_headers_frame(self, frame: HeadersFrame) -> _Dispatched:
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

    def _receive_data_frame(self, frame: DataFrame) -> _Dispatched:
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

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> _Dispatched:
        note = self.notes.get(frame.stream_id)
        if note is None and self._is_idle(frame.stream_id):
            message = "RST_STREAM on an idle stream"  # RFC 9113 §6.4; h2 lets it pass
            raise ProtocolError(message)
        frames, _ = super()._receive_rst_stream_frame(frame)
        if note is not None:
            if not (note.local_done or self.config.client_side):
                self.cost += guard.COST_RESET
            self.forget(note)
            unprocessed = frame.error_code == H2Code.REFUSED_STREAM
            self.told.append(
                StreamReset(frame.stream_id, frame.error_code, unprocessed=unprocessed)
            )
        else:
            self.cost += guard.COST_SMALL_FRAME
        return frames, []

    def _is_idle(self, stream_id: int) -> bool:
        outbound = self._stream_id_is_outbound(stream_id)
        highest = self.highest_outbound_stream_id if outbound else self.highest_inbound_stream_id
        return stream_id > highest

    def refuse_overlong_frame(self) -> None:
        """Judge a frame by its header. h2 waits for the whole: 16 MB that a peer makes us hold, or

        for ever when an HTTP/1.x answer is read as a frame.
        """
        waiting = self.incoming_buffer._data  # noqa: SLF001 - there is no other way to look
        if len(waiting) >= 3 and int.from_bytes(waiting[:3], "big") > self.max_inbound_frame_size:
            self._terminate_connection(FrameTooLargeError.error_code)
            message = "a frame longer than SETTINGS_MAX_FRAME_SIZE"
            raise FrameTooLargeError(message)

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> _Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        self.goaway_seen = True
        debug = frame.additional_data or b""
        last_id = frame.last_stream_id & MAX_STREAM_ID  # RFC 9113 §6.8: a reserved bit, ignored
        self.told.append(GoawayReceived(last_id, frame.error_code, debug))
        if not self.config.client_side:
            return [], []
        for note in [n for n in self.notes.values() if n.stream_id > last_id]:
            # Nothing is sent, the peer never saw it; but what it sends on it is to be let go.
            self.streams[note.stream_id].state_machine.process_input(StreamInputs.SEND_RST_STREAM)
            self.forget(note)
            told = StreamReset(
                note.stream_id, H2Code.REFUSED_STREAM, "above GOAWAY's last id", unprocessed=True
            )
            self.told.append(told)
        return [], []

    def _receive_window_update_frame(self, frame: WindowUpdateFrame) -> _Dispatched:
        if self._updates_paid > 0:
            self._updates_paid -= 1
        else:
            self.cost += guard.COST_SMALL_FRAME
        frames, events = super()._receive_window_update_frame(frame)
        for event in events:
            self._window_told(event)
        return frames, []

    def _window_told(self, event: H2Event) -> None:
        if isinstance(event, WindowUpdated):
            self.told.append(WindowOpened(event.stream_id or 0))
        elif isinstance(event, H2StreamReset):
            note = self.notes.get(event.stream_id or 0)
            if note is not None:
                self.cost += guard.COST_RESET
                self.forget(note)
            code = H2Code.FLOW_CONTROL_ERROR
            reason = "window above 2^31-1"
            self.told.append(StreamReset(event.stream_id or 0, code, reason, by_peer=False))

    def _receive_settings_frame(self, frame: SettingsFrame) -> _Dispatched:
        if frame.body_len > guard.MAX_SETTINGS * 6:
            message = "SETTINGS without end"
            raise DenialOfServiceError(message)
        frames, _ = super()._receive_settings_frame(frame)
        if "ACK" in frame.flags:
            self.cost += guard.COST_SMALL_FRAME
        else:
            if self.settings_seen:
                self.cost += guard.COST_SETTINGS + len(self.notes) // guard.STREAMS_MOVED
            self.settings_seen = True
            self._refuse_overgrown_windows()
            self._settle_table_size()
            self.told.append(CapacityChanged())
            self.told.append(WindowOpened(0))
        return frames, []

    def _settle_table_size(self) -> None:
        """RFC 7541 §4.2: the smallest size since the last block, then the last; no more than 4 KiB.

        hpack would tell every size in between, those above the peer's limit too, none at all where
        the last SETTINGS repeat a size, and keep as large a table as the peer offers.
        """
        encoder = self.encoder
        encoder.header_table_size = min(encoder.header_table_size, MAX_TABLE)
        changes = encoder.table_size_changes
        if len(changes) > 1:
            encoder.table_size_changes = [min(changes), changes[-1]]
        encoder.header_table.resized = bool(changes)

    def _refuse_overgrown_windows(self) -> None:
        """RFC 9113 §6.9.2: a window that SETTINGS pushes over 2^31-1 is a connection error."""
        for stream in self.streams.values():
            if stream.outbound_flow_control_window > MAX_STREAM_ID:
                message = "SETTINGS_INITIAL_WINDOW_SIZE pushes a window above 2^31-1"
                raise FlowControlError(message)

    def _receive_ping_frame(self, frame: PingFrame) -> _Dispatched:
        frames, events = super()._receive_ping_frame(frame)
        if self._updates_paid > 0:
            self._updates_paid -= 1
        else:
            self.cost += guard.COST_PING
        self.told.extend(
            PongReceived(event.ping_data or b"")
            for event in events
            if isinstance(event, PingAckReceived)
        )
        return frames, []

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> _Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        frames, _ = super()._receive_priority_frame(frame)
        return frames, []

    def _receive_naked_continuation(self, _: Frame) -> None:
        message = "CONTINUATION without HEADERS"  # RFC 9113 §6.10, in whatever state the stream is
        raise ProtocolError(message)

    def _receive_alt_svc_frame(self, _: Frame) -> _Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        return [], []

    def _receive_unknown_frame(self, _: Frame) -> _Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        return [], []
