"""h2's connection with the relay's rules put in, frame by frame (see `codec.reference`)."""

from __future__ import annotations

from h2.events import Event as H2Event
from h2.events import PingAckReceived, WindowUpdated
from h2.events import StreamReset as H2StreamReset
from h2.exceptions import DenialOfServiceError, FlowControlError, FrameTooLargeError, ProtocolError
from h2.stream import StreamInputs
from hyperframe.frame import (
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
from stickyproxy.codec.api import MAX_STREAM_ID
from stickyproxy.codec.hpack_encode import MAX_TABLE
from stickyproxy.codec.reference_messages import Messages
from stickyproxy.codec.reference_streams import Dispatched
from stickyproxy.errors import H2Code
from stickyproxy.events import (
    CapacityChanged,
    GoawayReceived,
    PongReceived,
    StreamReset,
    WindowOpened,
)


class Engine(Messages):
    """The whole; here are the frames that carry no message."""

    def _receive_frame(self, frame: Frame) -> list[H2Event]:
        first = isinstance(frame, SettingsFrame) and "ACK" not in frame.flags
        if not self.settings_seen and not first:
            message = "the first frame is not SETTINGS"  # RFC 9113 §3.4
            raise ProtocolError(message)
        return super()._receive_frame(frame)

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> Dispatched:
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

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> Dispatched:
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

    def _receive_window_update_frame(self, frame: WindowUpdateFrame) -> Dispatched:
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

    def _receive_settings_frame(self, frame: SettingsFrame) -> Dispatched:
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

    def _receive_ping_frame(self, frame: PingFrame) -> Dispatched:
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

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        frames, _ = super()._receive_priority_frame(frame)
        return frames, []

    def _receive_naked_continuation(self, _: Frame) -> None:
        message = "CONTINUATION without HEADERS"  # RFC 9113 §6.10, in whatever state the stream is
        raise ProtocolError(message)

    def _receive_alt_svc_frame(self, _: Frame) -> Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        return [], []

    def _receive_unknown_frame(self, _: Frame) -> Dispatched:
        self.cost += guard.COST_SMALL_FRAME
        return [], []
