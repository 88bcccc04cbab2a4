"""One look a second for all who watch, and none while nobody does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

import trio

from stickyproxy.control.live.changes import changes, moved
from stickyproxy.control.live.sample import Owned, Sample, account, take
from stickyproxy.control.live.ticker import Ticker
from stickyproxy.control.view import AdminView
from stickyproxy.model import Cluster, Table
from stickyproxy.policy.shares import shares

EVERY = 1.0
"""Seconds between two looks."""
WINDOW = 5
"""Looks back from which rates and quantiles are reckoned: of one second a p99 is a few calls."""
FIRST = 0.5
"""Seconds between the first two looks, of which nobody hears: one alone has no rates."""


class Told(NamedTuple):
    """`changes` are (Unix time, line), the newest first."""

    serial: int
    account: dict[str, Any]
    changes: tuple[tuple[float, str], ...]


class LiveFeed:
    """Owned by the admin port, whose nursery runs it. `prepare` fetches what workers have counted."""

    def __init__(
        self, view: AdminView, prepare: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._view = view
        self._prepare = prepare
        self.watchers = 0
        """Who has it open now."""
        self._wanted = trio.Event()
        self._news = trio.Event()
        self._samples: deque[Sample] = deque(maxlen=WINDOW + 1)
        self._ticker = Ticker()
        self._tables: dict[str, tuple[Table, Owned]] = {}
        self._drawn = 0
        self._serial = 0
        self._now = Told(0, {}, ())

    async def run(self) -> None:
        while True:
            if not self.watchers:
                self._samples.clear()
                self._wanted = trio.Event()
                await self._wanted.wait()
            if not self._samples:
                await self._look()
                await trio.sleep(FIRST)
            await self._look()
            self._tell()
            await trio.sleep(EVERY)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it is open there are looks."""
        self.watchers += 1
        self._wanted.set()
        try:
            yield
        finally:
            self.watchers -= 1

    async def after(self, serial: int) -> Told:
        """What was seen last, once that is newer; who is slow misses looks, but no line of changes."""
        while self._now.serial <= serial:
            await self._news.wait()
        return self._now

    async def once(self) -> Told:
        """For who looks once: what was seen last if somebody watches, else what is seen in `FIRST`."""
        if len(self._samples) > 1:
            return self._now
        with self.watching():
            return await self.after(self._now.serial)

    async def _look(self) -> None:
        if self._prepare is not None:
            await self._prepare()
        await self._measure_tables()
        tables = {name: owned for name, (_, owned) in self._tables.items()}
        sample = take(self._view, tables, trio.current_time(), time.time())
        if self._samples:
            last = self._samples[-1]
            self._ticker.add(sample.wall, changes(last, sample), moved(last, sample))
        self._samples.append(sample)

    def _tell(self) -> None:
        now = self._samples[-1]
        self._serial += 1
        self._now = Told(self._serial, account(self._samples[0], now), self._ticker.shown(now.wall))
        self._news.set()
        self._news = trio.Event()

    async def _measure_tables(self) -> None:
        """Once for each table, a millisecond or three; with a turn for everybody else in between."""
        snapshot = self._view.snapshot()
        clusters = snapshot.clusters if snapshot is not None else {}
        for name in self._tables.keys() - clusters.keys():
            del self._tables[name]
        for name, cluster in clusters.items():
            known = self._tables.get(name)
            if cluster.table is None:
                self._tables.pop(name, None)
            elif known is None or known[0] is not cluster.table:
                self._tables[name] = (cluster.table, self._owned(cluster, cluster.table))
                await trio.lowlevel.checkpoint()

    def _owned(self, cluster: Cluster, table: Table) -> Owned:
        """Each table has an address of its own, so that a browser asks for each picture once."""
        self._drawn += 1
        asked = urlencode({"cluster": cluster.name, "n": self._drawn})
        return Owned(shares(table, len(cluster.endpoints)), f"shares.svg?{asked}")
