"""One task a worker that looks at the links which have something to wait for. No timer a stream.

It sleeps for good while there is nothing to look at, and takes it slowly while all that runs are
streams that wait for nothing. It measures what it asks of the loop: a loop that is late itself blames
nobody.
"""

from __future__ import annotations

import enum
import math
from typing import Protocol

import trio

PACE = 0.005
"""Seconds between looks. A late head is noticed a quarter later at most where services take 20 ms."""
PACE_EACH = 0.0004
"""Seconds, of each endpoint that is looked at: a look at two links takes 8 µs, so this is 2 % of a core
however many there are. From 12 on it is slower than PACE."""
CALM_PACE = 0.05
"""Seconds, where no stream began of late: nothing gets late there that was not before."""


class Pace(enum.Enum):
    """How soon to look again: in a moment, by and by, when roused."""

    HOT = enum.auto()
    CALM = enum.auto()
    REST = enum.auto()


class Vigilant(Protocol):
    """Who is looked after: an endpoint's pool."""

    def tend(self, now: float, excuse: float) -> Pace:
        """Look, and act. Whoever does not answer HOT has to `rouse` for its next stream.

        `excuse` in seconds: how late the loop itself is.
        """
        ...


class Sweep:
    """`run` belongs into the worker's root nursery."""

    def __init__(self) -> None:
        self._due: dict[Vigilant, float] = {}
        self._roused = trio.Event()

    def rouse(self, who: Vigilant) -> None:
        """There is something to look at, from now on. Sync."""
        self._due[who] = 0.0
        self._roused.set()

    def leave(self, who: Vigilant) -> None:
        """It is not to be looked after any more."""
        self._due.pop(who, None)

    async def run(self) -> None:
        """Until cancelled."""
        excuse = 0.0
        while True:
            now = trio.current_time()
            pace = max(PACE, PACE_EACH * len(self._due))
            due = max(min(self._due.values(), default=math.inf), now + pace)
            if due > now + pace:
                await self._doze(due)
            else:
                await trio.sleep(pace)
            now = trio.current_time()
            excuse = max(now - due, excuse / 2, 0.0)
            self._look(now, excuse)

    async def _doze(self, due: float) -> None:
        self._roused = trio.Event()
        with trio.move_on_at(due):
            await self._roused.wait()

    def _look(self, now: float, excuse: float) -> None:
        for who in [who for who, due in self._due.items() if due <= now]:
            pace = who.tend(now, excuse)
            if pace is Pace.REST:
                self._due.pop(who, None)
            else:
                self._due[who] = now + CALM_PACE if pace is Pace.CALM else now
