"""DATA that goes straight on: out of the frames of one connection into those of another.

A stream whose receiver waits, and whose other side has window and room, needs no event, no inbox and
no task for what comes: `Receiver.receive` puts it into the other connection's output. Whatever is not
plainly so (an end, padding, no window, no room) closes the passage and goes the ordinary way, and so
does all that follows, until the receiver waits again: that keeps the order.
"""

from __future__ import annotations

from stickyproxy.codec import frames
from stickyproxy.codec.api import Counter, Outlet
from stickyproxy.codec.fast_state import Connection, StreamState
from stickyproxy.codec.limits import Ledger

_LEAST_WINDOW = 2 * frames.DEFAULT_FRAME_SIZE
"""With half of it free, whatever frame comes is within the window."""


class Passage:
    """From `stream` of `source` to `out` of `into`, whose link is `link`. `opened`: those of the source.

    While it is open the source's books stand still: `left` is what may pass until they are due, and
    `_begun` what it was when they were right.
    """

    __slots__ = (
        "_begun",
        "_opened",
        "_settled",
        "counter",
        "head",
        "into",
        "left",
        "length",
        "link",
        "out",
        "source",
        "stream",
    )

    def __init__(
        self,
        source: Connection,
        stream: StreamState,
        into: Connection,
        out: StreamState,
        *,
        opened: dict[int, Passage],
        link: Outlet,
        counter: Counter | None,
    ) -> None:
        self.source = source
        self._opened = opened
        self.stream = stream
        self.into = into
        self.out = out
        self.link = link
        self.counter = counter
        self.length = 0
        self.head = b""
        """The frame header of the last frame, which had `length`."""
        self.left = self._begun = self._settled = 0

    @property
    def passed(self) -> int:
        """Bytes of body, ever."""
        return self._settled + self._begun - self.left

    def open(self) -> None:
        """The receiver waits, and all that it received was granted."""
        stream, source = self.stream, self.source
        if stream.stream_id in self._opened:
            return
        if stream.ledger is None:
            stream.ledger = Ledger(source.limits.stream_credit, source.mark)
            stream.ledger.received(stream.taken)
            stream.ledger.grant(stream.granted)
        if (
            not stream.ledger.held
            and not stream.remote_done
            and stream.ledger.window >= _LEAST_WINDOW
        ):
            self._budget(stream.ledger)

    def _budget(self, ledger: Ledger) -> None:
        left = (ledger.window + 1) // 2 - ledger.owed
        if self.stream.expected is not None:  # its last frames are for the ordinary way to judge
            left = min(left, self.stream.expected - frames.DEFAULT_FRAME_SIZE)
        if left > 0:
            self.left = self._begun = left
            self._opened[self.stream.stream_id] = self

    def rewrite(self, length: int) -> None:
        """Frames of another length come now."""
        self.length = length
        self.head = frames.head(length << 8, 0, self.out.stream_id)

    def settle(self) -> None:
        """Bring the source's books up to date; the credit of what passed goes back."""
        used = self._begun - self.left
        self._settled += used
        self._begun = self.left
        stream = self.stream
        if stream.expected is not None:
            stream.expected -= used
        if used and stream.ledger is not None:
            stream.ledger.received(used)
            update = stream.ledger.grant(used)
            if update:
                self.source.out.append(frames.window_update(stream.stream_id, update))

    def renew(self) -> None:
        """Nothing is left: settle, and go on if that may be."""
        self.close()
        self.open()

    def close(self) -> None:
        """What comes next goes the ordinary way."""
        if self._opened.pop(self.stream.stream_id, None) is not None:
            self.settle()
