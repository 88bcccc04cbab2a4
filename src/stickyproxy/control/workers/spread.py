"""Which worker gets which connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from stickyproxy.control.levelling import surplus
from stickyproxy.control.workers.handover import Given

AGAIN = 0.1
"""Seconds until a worker is tried again that could not be given a connection."""


class Carrier(Protocol):
    """A worker, as far as it matters here (`hand.Hand`)."""

    @property
    def takes(self) -> bool: ...

    @property
    def load(self) -> tuple[bool, int]:
        """Whether it is slow to take what it was given, and how many connections it has."""
        ...

    @property
    def give(self) -> Callable[[Given], bool]: ...

    @property
    def waits_for(self) -> Callable[[int], bool]: ...


class Spread:
    """To the one with the fewest; equals take turns. What nobody takes now is kept in order."""

    def __init__(self, carriers: Mapping[int, Carrier], count: int) -> None:
        self._carriers = carriers
        self._count = count
        self._turn = 0
        self._waiting: deque[Given] = deque()
        self._moved = trio.Event()

    def give(self, given: Given) -> None:
        self._waiting.append(given)
        self.pump()

    def again(self, given: list[Given]) -> None:
        """They were on the way to a worker that did not take them."""
        self._waiting.extendleft(reversed(given))
        self.pump()

    def heard(self, untaken: list[Given]) -> None:
        """A worker took some, or could not."""
        self.again(untaken)

    def pump(self) -> None:
        refused: set[int] = set()
        while self._waiting and (number := self.choose(refused)) is not None:
            if self._carriers[number].give(self._waiting[0]):
                self._waiting.popleft()
                self._turn = number + 1
            else:
                refused.add(number)
        self._moved.set()
        self._moved = trio.Event()

    def choose(self, but: set[int]) -> int | None:
        """The number of the worker whose turn it is, None if none takes anything."""
        best, least = None, (True, -1)
        for offset in range(self._count):
            number = (self._turn + offset) % self._count
            carrier = self._carriers.get(number)
            if carrier is None or number in but or not carrier.takes:
                continue
            load = carrier.load
            if best is None or load < least:
                best, least = number, load
        return best

    def surplus(self) -> dict[int, int]:
        """How many connections each worker has above an even share among those that take any."""
        return surplus({n: one.load[1] for n, one in self._carriers.items() if one.takes})

    async def wait_room(self) -> None:
        """Until nothing waits: what is not accepted is safer with the kernel."""
        while self._waiting:
            with trio.move_on_after(AGAIN):
                await self._moved.wait()
            if self._waiting:
                self.pump()

    async def wait_taken(self, door: int) -> None:
        """Until all that came in there has been taken by somebody."""
        while self._is_waiting(door):
            with trio.move_on_after(AGAIN):
                await self._moved.wait()
            if self._waiting:
                self.pump()

    def _is_waiting(self, door: int) -> bool:
        return any(given.door == door for given in self._waiting) or any(
            carrier.waits_for(door) for carrier in self._carriers.values()
        )
