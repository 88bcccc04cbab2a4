"""stickyproxy with its tasks counted: `python -m chaos.counted FILE run ...`.

FILE has, at most half a second old, how many tasks of trio there are. While there is FILE.collect, which it
takes away, Python is to free what only cycles hold: it does so by itself when that is some 20 MB.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from functools import partial
from pathlib import Path

import trio

EVERY = 0.5  # seconds


class TaskCount(trio.abc.Instrument):
    """How many tasks have begun and not ended."""

    def __init__(self) -> None:
        self.tasks = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        del task
        self.tasks += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        del task
        self.tasks -= 1


def tell(count: TaskCount, path: Path) -> None:
    """For ever; a file is replaced whole, so that no reader finds it empty."""
    while True:
        fresh = path.with_suffix(".new")
        fresh.write_text(str(count.tasks))
        fresh.replace(path)
        collect_if_wanted(path)
        time.sleep(EVERY)


def collect_if_wanted(path: Path) -> None:
    wanted = collecting(path)
    if wanted.exists():
        gc.collect()
        wanted.unlink()


def collecting(path: Path) -> Path:
    return path.with_suffix(".collect")


def main() -> int:
    from stickyproxy import cli  # noqa: PLC0415 (only the watched process needs the proxy)

    count = TaskCount()
    threading.Thread(target=tell, args=(count, Path(sys.argv[1])), daemon=True).start()
    watched = partial(trio.run, instruments=[count])
    trio.run = watched  # type: ignore[assignment]  # as run, but with fewer arguments to give
    return int(cli.main(sys.argv[2:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
