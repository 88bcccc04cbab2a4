"""What all workers together have under way at each endpoint, in memory that they share.

A row for each endpoint, in it a cell for each worker: nobody writes into another's cell, so nothing is
locked, and a sum is as old as a store takes to reach another core. Who has which row is the
supervisor's to say. A dead worker's cells are cleared by whoever replaces it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from zlib import crc32

from stickyproxy.counters import EndpointStats

ROWS = 16_384
"""Endpoints of clusters under least_request; with 4 workers 256 KiB. One beyond them is judged by what
a worker has under way itself."""
CELL = 4  # bytes; a worker has less than 2**31 streams

Rows = Mapping[str, Mapping[str, int]]
"""Row by cluster and endpoint key."""


def size(workers: int) -> int:
    """Of the memory, in bytes."""
    return ROWS * workers * CELL


class SharedStats(EndpointStats):
    """Its `rq_active` is told to the other workers too."""

    __slots__ = ("_at", "_cells", "_own")

    def __init__(self, cells: memoryview[int], at: int) -> None:
        """`at` -1: it has no cell."""
        self._cells = cells
        self._at = at
        self._own = 0
        super().__init__()

    @property
    def rq_active(self) -> int:
        return self._own

    @rq_active.setter
    def rq_active(self, value: int) -> None:
        self._own = value
        if self._at >= 0:
            self._cells[self._at] = value

    def move(self, at: int) -> None:
        """To another cell, or to none."""
        if at != self._at:
            if self._at >= 0:
                self._cells[self._at] = 0
            self._at = at
            self.rq_active = self._own


class Loads:
    """One worker's view. `memory` is `size(workers)` bytes; `mine` counts from 0."""

    def __init__(self, memory: memoryview[int], workers: int, mine: int) -> None:
        self._cells = memory.cast("B").cast("i")
        self.workers = workers
        self._mine = mine
        self._rows: dict[str, Mapping[str, int]] = {}

    def mine(self, cluster: str, key: str) -> bool:
        """Whether, of what only one worker does for an endpoint, this worker is the one."""
        return crc32(f"{cluster} {key}".encode()) % self.workers == self._mine

    def stats(self, cluster: str, key: str) -> EndpointStats:
        return SharedStats(self._cells, self._cell(cluster, key))

    def active(self, cluster: str, key: str) -> int | None:
        """Of all workers; None if that is not known."""
        try:
            first = self._rows[cluster][key] * self.workers
        except KeyError:
            return None
        return sum(self._cells[first : first + self.workers])

    def place(self, rows: Rows, stats: Mapping[tuple[str, str], EndpointStats]) -> None:
        """From now on these clusters have these rows; `stats` is all that there is."""
        self._rows.update(rows)
        for (cluster, key), one in stats.items():
            if cluster in rows and isinstance(one, SharedStats):
                one.move(self._cell(cluster, key))

    def _cell(self, cluster: str, key: str) -> int:
        row = self._rows.get(cluster, {}).get(key)
        return -1 if row is None else row * self.workers + self._mine


def clear(memory: memoryview[int], workers: int, number: int) -> None:
    """A worker is gone, and all that it had under way."""
    memory.cast("B").cast("i")[number::workers] = memoryview(bytes(ROWS * CELL)).cast("i")


class RowBook:
    """Who has which row. Rows given back are given out again as late as possible."""

    def __init__(self, rows: int = ROWS) -> None:
        self._free = deque(range(rows))
        self._rows: dict[str, dict[str, int]] = {}

    def rows(self, cluster: str) -> Mapping[str, int]:
        return self._rows.get(cluster, {})

    def want(self, cluster: str, keys: Iterable[str]) -> bool:
        """These endpoints and no others; whether that changed anything."""
        known, wanted = self._rows.get(cluster, {}), set(keys)
        if known.keys() == wanted:
            return False
        for key in known.keys() - wanted:
            self._free.append(known[key])
        kept = {key: row for key, row in known.items() if key in wanted}
        for key in sorted(wanted - known.keys()):
            if self._free:
                kept[key] = self._free.popleft()
        changed = kept != known
        self._rows[cluster] = kept
        return changed
