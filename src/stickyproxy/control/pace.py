"""Work on the loop in slices, so that no stream waits for it."""

from __future__ import annotations

import time

import trio

SLICE = 0.002
"""Seconds that the loop may be held. A thread would be no help: it holds the interpreter for 5 to 12
ms at a time."""

TURNS = 4
"""Turns of the loop between two slices. A call takes about ten turns from its head to its end; with
one turn a slice it would take 20 ms while a table is built."""


class Pace:
    """`turn` lets the others run whenever a slice is over; cheap enough for each step of the work."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE

    async def turn(self) -> None:
        if time.perf_counter() >= self._until:
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()
            self._until = time.perf_counter() + SLICE
