"""What the fast codec keeps of a connection and of its streams, and how either of them ends."""

from __future__ import annotations

from itertools import islice

from stickyproxy.codec import frames
from stickyproxy.codec import limits as guard
from stickyproxy.codec.api import MAX_STREAM_ID, CodecLimits, Outlet, Piece
from stickyproxy.codec.hpack_decode import Decoder
from stickyproxy.codec.hpack_encode import Encoder
from stickyproxy.codec.limits import CreditMark, Ledger
from stickyproxy.errors import H2Code
from stickyproxy.events import Event, StreamReset

LIST_SLACK = 2
"""Lists up to twice our limit are decoded and answered 431; more ends the connection."""
REMEMBERED = 1024
"""Resets of either side that are kept to judge late frames by, and gaps between a peer's ids. As many
as the streams that we allow: frames of all of them may be on their way when we reset them at once."""


GONE = -(2**31)
"""In place of the window of a stream that is over: nothing passes into it."""


class FatalError(Exception):
    """A connection error (§5.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamState:
    """What is kept of a stream until both sides are done. `window` may be negative (§6.9.2).

    `expected` are the body bytes still to come by content-length, None where nothing was promised.
    `taken` and `granted` count the credit while it is too little to be worth a WINDOW_UPDATE, which
    is all that a unary call ever needs; then a `ledger` takes over.
    """

    __slots__ = (
        "expected",
        "granted",
        "head_seen",
        "is_head",
        "ledger",
        "local_done",
        "remote_done",
        "stream_id",
        "taken",
        "window",
    )

    def __init__(self, stream_id: int, window: int) -> None:
        self.stream_id = stream_id
        self.window = window
        self.head_seen = False
        self.is_head = False
        self.local_done = False
        self.remote_done = False
        self.expected: int | None = None
        self.ledger: Ledger | None = None
        self.taken = 0
        self.granted = 0


class Connection:
    """State that frames in and frames out share. Events wait in `told`, bytes in `out`."""

    __slots__ = (
        "_decoder",
        "_half_credit",
        "_half_stream",
        "_highest",
        "_initial_window",
        "_link_owed",
        "_resets",
        "_skipped",
        "_unsure_below",
        "client",
        "closing",
        "cost",
        "encoder",
        "extended_connect",
        "failed",
        "goaway_seen",
        "last_taken",
        "limits",
        "mark",
        "max_frame",
        "max_streams",
        "next_id",
        "out",
        "passed",
        "refuse_above",
        "settings_seen",
        "stirred",
        "streams",
        "told",
        "updates_paid",
        "window_left",
    )

    def __init__(self, client: bool, limits: CodecLimits, mark: CreditMark) -> None:
        self.client = client
        self.limits = limits
        self.streams: dict[int, StreamState] = {}
        self.out: list[Piece] = []
        self.told: list[Event] = []
        self.encoder = Encoder()
        self.cost = 0
        self.failed = False
        self.closing = False
        self.settings_seen = False
        self.extended_connect = False
        self.goaway_seen = False
        self.refuse_above = MAX_STREAM_ID
        self.next_id = 1
        self.last_taken = 0
        self.window_left = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME_SIZE
        self.max_streams = MAX_STREAM_ID
        self.updates_paid = guard.WINDOW_UPDATES_PER_DATA
        self.mark = mark
        self.passed = 0
        self.stirred: list[Outlet] = []
        self._decoder = Decoder(hard_fields=LIST_SLACK * limits.max_header_list // 32)
        self._initial_window = frames.DEFAULT_WINDOW
        self._half_credit = (limits.link_credit + 1) // 2
        self._half_stream = (limits.stream_credit + 1) // 2
        self._link_owed = 0
        self._highest = 0
        self._skipped: list[tuple[int, int]] = []
        self._resets: dict[int, bool] = {}
        """Streams that were reset, oldest first: true where we did it."""
        self._unsure_below = 0
        """Of streams up to this one we do not remember how they ended."""

    # --- streams ---

    def forget(self, stream: StreamState) -> None:
        self.streams.pop(stream.stream_id, None)
        stream.window = GONE
        if stream.ledger is not None:
            stream.ledger.close()

    def reset_now(self, stream: StreamState, code: int) -> None:
        self.forget(stream)
        self._remember(stream.stream_id, by_us=True)
        self.out.append(frames.rst_stream(stream.stream_id, code))

    def _break(self, stream: StreamState, code: int, reason: str) -> None:
        """A stream error (§5.4.2): reset it, tell, and let the connection live."""
        self.cost += guard.COST_RESET
        self.reset_now(stream, code)
        self.told.append(StreamReset(stream.stream_id, code, reason, by_peer=False))

    def _remote_end(self, stream: StreamState) -> None:
        stream.remote_done = True
        if stream.local_done:
            del self.streams[stream.stream_id]
            if stream.ledger is not None:
                stream.ledger.close()

    def _local_end(self, stream: StreamState) -> None:
        stream.local_done = True
        if stream.remote_done:
            del self.streams[stream.stream_id]
            if stream.ledger is not None:
                stream.ledger.close()

    # --- streams that are gone ---

    def _remember(self, stream_id: int, *, by_us: bool) -> None:
        if len(self._resets) >= REMEMBERED:
            for oldest in list(islice(self._resets, REMEMBERED // 2)):
                del self._resets[oldest]
                self._unsure_below = max(self._unsure_below, oldest)
        self._resets[stream_id] = by_us

    def _skip_to(self, stream_id: int) -> None:
        """Ids that a peer jumped over are closed too (§5.1.1), and using one is worse than late."""
        if len(self._skipped) < REMEMBERED:
            self._skipped.append((self._highest, stream_id))

    def _was_skipped(self, stream_id: int) -> bool:
        return any(low < stream_id < high for low, high in self._skipped)

    def _is_idle(self, stream_id: int) -> bool:
        """Never opened (§5.1). We never push, so a server's own ids are idle for ever."""
        if not stream_id & 1:
            return True
        return stream_id >= self.next_id if self.client else stream_id > self._highest

    def _late(self, stream_id: int, what: str) -> None:
        """A frame on a stream that is gone (§5.1), which is not idle.

        After a reset of ours it was on its way: let go. After one of the peer's it is a stream
        error. After END_STREAM the peer is confused. Where we do not know any more, let go.
        """
        by_us = self._resets.get(stream_id)
        if by_us or (by_us is None and stream_id <= self._unsure_below):
            return
        if by_us is None:
            raise FatalError(H2Code.STREAM_CLOSED, f"{what} on a closed stream")
        self.cost += guard.COST_RESET
        self.out.append(frames.rst_stream(stream_id, H2Code.STREAM_CLOSED))
