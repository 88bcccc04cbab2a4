"""`stickyproxy` with a watch on its loop: at the end it says how long the longest turn was.

Counted from when the API server is first asked, without what stands before: reading files.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import trio

from stickyproxy import cli


class Turns(trio.abc.Instrument):
    """A turn is what runs between two looks at the sockets, in CPU time of its thread: what others do

    on the machine meanwhile is not the loop's.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._began: float | None = None
        self._counting = False

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._counting = self._counting or "Reflector" in task.name

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 (as trio calls it)
        self._began = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        if self._began is not None and self._counting:
            self.longest = max(self.longest, time.thread_time() - self._began)


if __name__ == "__main__":
    turns = Turns()
    trio.run = partial(trio.run, instruments=[turns])  # type: ignore[assignment]
    try:
        code = cli.main(sys.argv[1:])
    finally:
        sys.stderr.write(f"longest turn {turns.longest * 1e3:.1f} ms\n")
    sys.exit(code)
