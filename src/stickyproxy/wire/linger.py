"""Whether the hub waits for what comes next by itself, or goes back to trio for that.

A turn of trio's loop, with the hub's descriptor armed anew, is 12 us of a call that is alone, twice a call:
an eighth of it. Who answers at once is heard sooner and for less where the hub stays with its own sockets
for a moment. It does so only while trio has nothing else to do: no task to run, no deadline near, no link
that trio reads. Where that was in vain, as with backends that take their time, it is mostly left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

LINGER = 0.001
"""Seconds: the least that epoll can be asked for."""
HOLD = 0.001
"""Seconds after which trio has a turn whatever comes: a new connection waits no longer than both."""
MOST_VAIN = 64
"""Turns without it after many that were in vain, each some 5 us."""


class Linger:
    """Of one run. `apart`: links which trio reads, and which would wait."""

    __slots__ = ("_now", "_skip", "_until", "_vain", "apart")

    def __init__(self) -> None:
        self.apart = 0
        self._now = trio.lowlevel.current_clock().current_time
        self._until = 0.0
        self._skip = 0
        self._vain = 0

    def begin(self) -> None:
        """Trio had its turn."""
        self._until = self._now() + HOLD

    def allowed(self) -> bool:
        """Whether to wait now, for up to `LINGER`."""
        if self.apart:
            return False
        if self._skip:
            self._skip -= 1
            return False
        trios = trio.lowlevel.current_statistics()
        if trios.tasks_runnable or trios.seconds_to_next_deadline < LINGER:
            return False
        return self._now() < self._until

    def note(self, *, vain: bool) -> None:
        """What it came to."""
        self._vain = min(2 * self._vain + 1, MOST_VAIN) if vain else 0
        self._skip = self._vain


_LINGER: trio.lowlevel.RunVar[Linger] = trio.lowlevel.RunVar("_LINGER")


def linger_of_run() -> Linger:
    """The one of this run."""
    try:
        return _LINGER.get()
    except LookupError:
        linger = Linger()
        _LINGER.set(linger)
        return linger


@contextmanager
def read_apart() -> Iterator[None]:
    """While trio reads a link by itself: what comes there must not wait for a hub that lingers."""
    linger = linger_of_run()
    linger.apart += 1
    try:
        yield
    finally:
        linger.apart -= 1
