"""Files and folders that people change while we run.

Asked once a second instead of told by the kernel: a ConfigMap is swapped by renaming a symbolic link
(`..data`), network file systems tell nothing, and a stat costs a microsecond.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from stickyproxy.config.text.documents import find_files

EVERY = 1.0
"""Seconds between two looks."""

Mark = tuple[int, int, int, int, int] | None


def mark_of(path: Path) -> Mark:
    """What differs when the content may: device, inode, times and size of what a link leads to.

    The change time tells an edit whose time was set back (`cp -p`). None: not there.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116 - a Path would cost as much again
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


def _marks(paths: Iterable[Path]) -> dict[Path, Mark]:
    """Of these, and of every file that the folders among them hold by now.

    A new file that was refused belongs to no configuration yet; to mend it must be noticed all the
    same, and mending it in place does not touch its folder.
    """
    named = list(paths)
    inside, _ = find_files(path for path in named if path.is_dir())
    return {path: mark_of(path) for path in (*named, *inside)}


class FileWatch:
    """Calls `changed` when any of `paths()` looks different than a second ago.

    `paths` is asked each time, for a new configuration may name other files. The first look is
    taken here and not in `run`, so that a change during a slow start is not missed.
    """

    def __init__(self, paths: Callable[[], Iterable[Path]], changed: Callable[[], None]) -> None:
        self._paths = paths
        self._changed = changed
        self._seen = _marks(paths())

    def look(self) -> bool:
        """Does anything look different than before? For whoever is about to read it all anyway:

        what is there by now is no news to `run` any more.
        """
        seen, self._seen = self._seen, _marks(self._paths())
        return any(seen.get(path, mark) != mark for path, mark in self._seen.items())

    async def run(self) -> None:
        while True:
            await trio.sleep(EVERY)
            if self.look():
                self._changed()
