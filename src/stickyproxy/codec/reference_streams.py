"""What we keep of streams beside h2, and what we send about them (see `codec.reference`)."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.events import Event as H2Event
from h2.stream import H2Stream, StreamInputs
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame, WindowUpdateFrame

from stickyproxy.codec import limits as guard
from stickyproxy.codec.api import MAX_STREAM_ID, CodecLimits
from stickyproxy.codec.limits import CreditMark, Ledger
from stickyproxy.codec.reference_frames import Frames
from stickyproxy.events import Event, StreamReset

Dispatched = tuple[list[Frame], list[H2Event]]
"""What h2's handlers of frames give back: frames to send, and events, of which we make our own."""


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


class Streams(H2Connection):
    """Appends what happened to `told`, in our words. What is kept of streams, and how they end."""

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

    @property
    def has_output(self) -> bool:
        return bool(self._data_to_send)

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
