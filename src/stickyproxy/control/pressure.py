"""The memory mark of a worker: above it no new request, then GOAWAY, then the worst connection closes.

What is looked at is resident memory, once a second. Memory that no connection holds cannot be had back
from clients: then nobody is refused, and one line says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

import trio

from stickyproxy import logs
from stickyproxy.proxy.context import Context
from stickyproxy.wire.link import Link

SHARE = 0.8
"""Of what a container (or the machine) has, if nothing is said: the rest is for what others need."""
SEND_AWAY, CLOSE = 1.1, 1.2
"""Times the mark: clients' connections are told to go; the worst is closed, one a second."""
OWN_SHARE = 0.25
"""Of the mark: held by connections less than this, they are not what memory is used for."""
EVERY = 1.0
STREAM_COST = 16_384
"""Bytes that a request under way costs beside its body: task, heads, HPACK entries."""

_V2 = Path("/sys/fs/cgroup/memory.max")
_V1 = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_mark(workers: int, v2: Path = _V2, v1: Path = _V1) -> int:
    """Bytes for each of so many processes; 0 where nothing is known."""
    whole = [limit for file in (v2, v1) if (limit := _number(file))]
    with contextlib.suppress(ValueError, OSError):
        whole.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(min(whole, default=0) * SHARE / workers)


def _number(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return 0


def resident() -> int:
    """Bytes; 0 where /proc is missing."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def held_by(link: Link) -> int:
    """Bytes, about: what waits to be sent, what waits to be read, and what streams cost anyway."""
    streams = list(link.streams.values())
    return link.unsent() + sum(stream.held for stream in streams) + STREAM_COST * len(streams)


class Pressure:
    """`links` are all of the worker's, those to backends included; `memory` says what is used."""

    def __init__(
        self,
        mark: int,
        context: Context,
        links: Collection[Link],
        memory: Callable[[], int] = resident,
    ) -> None:
        self._mark = mark
        self._context = context
        self._links = links
        self._memory = memory
        self._told = ""

    async def run(self) -> None:
        while self._mark:
            await trio.sleep(EVERY)
            self.look()

    def look(self) -> None:
        used = self._memory()
        if used > self._mark:
            give_back()
            used = self._memory()
        if used <= self._mark:
            self._context.overloaded = False
            self._tell("", used)
            return
        held = {link: held_by(link) for link in self._links}
        if sum(held.values()) < OWN_SHARE * self._mark:
            self._context.overloaded = False
            self._tell("memory_above_mark", used)
            return
        self._context.overloaded = True
        self._tell("memory_pressure", used)
        self._relieve(used, {link: size for link, size in held.items() if not link.codec.client})

    def _relieve(self, used: int, held: dict[Link, int]) -> None:
        """The worst are those with most; a client that reads nothing is among them."""
        worst = sorted(held, key=held.__getitem__, reverse=True)
        if used > self._mark * SEND_AWAY:
            for link in worst[: 1 + len(worst) // 10]:
                link.drain()
        if used > self._mark * CLOSE and worst:
            worst[0].give_up("too much memory is in use, and most of it here")

    def _tell(self, event: str, used: int) -> None:
        if event == self._told:
            return
        if event:
            logs.warning(event, resident_bytes=used, mark_bytes=self._mark)
        else:
            logs.info("memory_below_mark", resident_bytes=used, mark_bytes=self._mark)
        self._told = event


@cache
def _trim() -> Callable[[int], int] | None:
    with contextlib.suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None


def give_back() -> None:
    """What is free inside goes back to the system (glibc keeps it), so that it is not taken for used."""
    trim = _trim()
    if trim is not None:
        trim(0)
