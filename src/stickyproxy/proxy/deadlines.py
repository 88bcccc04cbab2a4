"""When exchanges run out of time: one task a worker, no cancel scope a request (7.5 µs each).

Times fall into buckets, so that adding and taking back are O(1) whatever lies in between. A bucket is
10 ms wide for what is due within ten seconds and 1 s beyond: deadlines are kept to 10 ms, idle
limits of minutes to a second, and never fire early.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol

import trio

FINE = 0.01
COARSE = 1.0
COARSE_BEYOND = 10.0


class Due(Protocol):
    """Who wants to be told."""

    def due(self, now: float) -> None:
        """Called once, synchronously; may add itself again."""
        ...


class Bucket(set[Due]):
    """Who is due at `end`, or a little before it. Who is not any more, discards itself."""

    __slots__ = ("end",)

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end


class Deadlines:
    """`run` belongs in the worker's upstream nursery."""

    def __init__(self) -> None:
        self._buckets: dict[float, Bucket] = {}
        self._order: list[float] = []
        self._sleep: trio.CancelScope | None = None

    def add(self, when: float, who: Due, now: float) -> Bucket:
        """Times as `trio.current_time`."""
        width = FINE if when - now < COARSE_BEYOND else COARSE
        end = math.ceil(when / width) * width
        if end < when:  # the product may be rounded to just before it
            end += width
        bucket = self._buckets.get(end)
        if bucket is None:
            bucket = self._buckets[end] = Bucket(end)
            heapq.heappush(self._order, end)
            if self._sleep is not None and end < self._sleep.deadline:
                self._sleep.deadline = end
        bucket.add(who)
        return bucket

    async def run(self) -> None:
        while True:
            until = self._order[0] if self._order else math.inf
            with trio.CancelScope(deadline=until) as self._sleep:
                await trio.sleep_forever()
            self._fire(trio.current_time())

    def _fire(self, now: float) -> None:
        while self._order and self._order[0] <= now:
            for who in list(self._buckets.pop(heapq.heappop(self._order))):
                who.due(now)
