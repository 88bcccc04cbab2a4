"""stickyproxy with a clock on its event loop: `python -m bench.turns FILE run ...`.

A turn is what the loop does between two waits for I/O. Every turn that took long is a line in FILE:
when it ended (monotonic seconds), and its CPU time on the loop's own thread in seconds.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import IO

import trio

LONG = 0.001  # seconds; shorter turns are everyday life


class TurnClock(trio.abc.Instrument):
    """Writes down long turns."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._began = time.thread_time()

    def after_io_wait(self, timeout: float) -> None:
        del timeout
        self._began = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        took = time.thread_time() - self._began
        if took > LONG:
            self._out.write(f"{time.monotonic():.6f} {took:.6f}\n")
            self._out.flush()


def longest(text: str, since: float) -> float:
    """The longest turn that ended after `since`, in seconds; LONG if none was longer."""
    rows = [line.split() for line in text.splitlines()]
    turns = [float(row[1]) for row in rows if len(row) == 2 and float(row[0]) >= since]
    return max([LONG, *turns])


def main() -> int:
    from stickyproxy import cli  # noqa: PLC0415 (only the measured process needs the proxy)

    with Path(sys.argv[1]).open("w", encoding="ascii") as out:
        timed = partial(trio.run, instruments=[TurnClock(out)])
        trio.run = timed  # type: ignore[assignment]  # as run, but with fewer arguments to give
        return int(cli.main(sys.argv[2:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
