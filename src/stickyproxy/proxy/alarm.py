"""When an exchange runs out of time: its deadline, and a limit on standing still.

A deadline rings when it is due, and only an exchange that has one pays for it. An idle limit is one of
a group: all exchanges under the same limit are looked at together, four times within its length, so
that it is kept to a quarter and costs a call two steps in a set and a byte nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from stickyproxy.policy.grpc import format_timeout
from stickyproxy.proxy.deadlines import Bucket, Deadlines

IDLE_CHECKS = 4


class Deadline:
    """One exchange's; `ring` is called once when it is due. May be moved with `set`."""

    __slots__ = ("_bucket", "_deadlines", "_ring", "when")

    def __init__(
        self, deadlines: Deadlines, when: float, ring: Callable[[], None], now: float
    ) -> None:
        self.when = when
        self._deadlines = deadlines
        self._ring = ring
        self._bucket: Bucket | None = deadlines.add(when, self, now)

    def set(self, when: float, now: float) -> None:
        """Times as `trio.current_time`."""
        if when != self.when:
            self.clear()
            self.when = when
            self._bucket = self._deadlines.add(when, self, now)

    def clear(self) -> None:
        if self._bucket is not None:
            self._bucket.discard(self)
            self._bucket = None

    def time_left(self, now: float) -> bytes:
        """As `grpc-timeout` says it."""
        return format_timeout(self.when - now)

    def due(self, _: float) -> None:
        """From the sweep, never early."""
        self._bucket = None
        self._ring()


class Watched(Protocol):
    """Who must not stand still."""

    def look(self, now: float, limit: float) -> None:
        """Compare with what was there at the last look."""
        ...


class IdleGroup:
    """Everybody under one idle limit, in seconds."""

    __slots__ = ("_deadlines", "_limit", "_wound", "members")

    def __init__(self, deadlines: Deadlines, limit: float) -> None:
        self.members: set[Watched] = set()
        self._deadlines = deadlines
        self._limit = limit
        self._wound = False

    def add(self, who: Watched) -> None:
        self.members.add(who)
        if not self._wound:
            self._wind(trio.current_time())

    def discard(self, who: Watched) -> None:
        self.members.discard(who)

    def _wind(self, now: float) -> None:
        self._wound = True
        self._deadlines.add(now + self._limit / IDLE_CHECKS, self, now)

    def due(self, now: float) -> None:
        """From the sweep: look at everybody, and come again while anybody is left."""
        self._wound = False
        for who in list(self.members):
            who.look(now, self._limit)
        if self.members:
            self._wind(now)
