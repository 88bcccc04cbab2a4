"""What a peer may make us hold, and what it may make us do; the same behind every codec.

Two laws. *Credit is conserved*: what a peer may still send on a stream, plus what we hold of it, plus
what we passed on and have not granted yet, equals the window we opened. *Work is paid for*: whatever
a peer makes us do without asking for anything useful is charged in microseconds of our CPU to one
bucket per connection; an empty bucket ends the connection with ENHANCE_YOUR_CALM.

Nothing here closes anything: both return a verdict.
"""

from __future__ import annotations

STREAM_CREDIT_CEILING = 1 << 20
"""A stream's window grows to 1 MiB where its receiver keeps draining it: 64 KiB at 25 ms round trip
are 2.6 MB/s, 1 MiB are 42 MB/s."""

# Microseconds of CPU for one event that brings nothing, measured with h2 4.4.1 on CPython 3.11.
COST_PING = 10
COST_SETTINGS = 10
COST_EMPTY_DATA = 7
COST_SMALL_FRAME = (
    5  # WINDOW_UPDATE, PRIORITY, CONTINUATION, GOAWAY, acknowledgements, unknown types
)
COST_RESET = 67  # a head decoded, a stream begun, a reset: nothing served
COST_FIELD = 1  # of a list that is longer than we serve: decoded, looked through, refused
COST_INFORMATIONAL = (
    67  # of a stream that had one: a head decoded, and relayed as often as it comes
)

STREAMS_MOVED = 2
"""Streams whose windows SETTINGS move, and whose senders wake, for one microsecond more."""

MAX_SETTINGS = 32
"""Values in one SETTINGS frame, of which seven are known: nghttp2's number. A frame holds 2,730."""

WINDOW_UPDATES_PER_DATA = 10
"""WINDOW_UPDATE and PING frames that one DATA frame of ours pays for (Envoy's ratio). PING, because
gRPC's libraries measure a path by one each round trip, as long as data comes."""

INFORMED = 1024
"""Streams with an informational head that are remembered: as many as may be open."""


WHOLE_MARK = 256 << 20
"""Bytes: 256 streams at the ceiling, or four thousand at twice the initial window."""


class CreditMark:
    """Bytes of window above the initial one that all streams of a worker may share."""

    __slots__ = ("left",)

    def __init__(self, limit: int = WHOLE_MARK) -> None:
        self.left = limit

    def take(self, amount: int) -> bool:
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def give_back(self, amount: int) -> None:
        self.left += amount


class Ledger:
    """The credit of one stream, in bytes of flow control.

    `received` is called with what came, `grant` with what was passed on; `grant` returns what
    WINDOW_UPDATE is worth sending now (0: nothing yet). Half a window is the point where an update
    costs little and the sender does not stall.
    """

    __slots__ = ("_extra", "_mark", "_since_growth", "available", "held", "owed", "window")

    def __init__(self, window: int, mark: CreditMark) -> None:
        self.window = window
        self.available = window
        """What the peer may still send. Negative only after it broke flow control."""
        self.held = 0
        """Received and not yet passed on."""
        self.owed = 0
        """Passed on and not yet granted on the wire."""
        self._mark = mark
        self._extra = 0
        self._since_growth = 0

    def received(self, amount: int) -> bool:
        """False when the peer sent more than it was allowed to (RFC 9113 §6.9.1)."""
        self.available -= amount
        self.held += amount
        return self.available >= 0

    def grant(self, amount: int) -> int:
        amount = min(amount, self.held)
        self.held -= amount
        self.owed += amount
        self._since_growth += amount
        if self.owed * 2 < self.window:
            return 0
        update = self.owed + self._growth()
        self.owed = 0
        self.available += update
        return update

    def _growth(self) -> int:
        """Double the window of a sender that fills it while its receiver leaves nothing lying."""
        if self.held or self._since_growth < self.window or self.window >= STREAM_CREDIT_CEILING:
            return 0
        extra = min(self.window, STREAM_CREDIT_CEILING - self.window)
        if not self._mark.take(extra):
            return 0
        self._extra += extra
        self.window += extra
        self._since_growth = 0
        return extra

    def close(self) -> None:
        """Return what was borrowed from the worker's mark."""
        self._mark.give_back(self._extra)
        self._extra = 0


class FloodGuard:
    """A bucket of CPU microseconds for what a peer makes us do in vain.

    `capacity` in one go, refilled by `refill` a second; `math.inf` is no limit.
    """

    __slots__ = ("_capacity", "_last", "_level", "_refill")

    def __init__(self, capacity: float, refill: float) -> None:
        self._capacity = capacity
        self._refill = refill
        self._level = capacity
        self._last: float | None = None

    def charge(self, cost: float, now: float) -> bool:
        """False when the peer has used up what it may cost. `now` in seconds, any origin."""
        if self._last is not None:
            refilled = self._level + (now - self._last) * self._refill
            self._level = min(self._capacity, refilled)
        self._last = now
        self._level -= cost
        return self._level >= 0
