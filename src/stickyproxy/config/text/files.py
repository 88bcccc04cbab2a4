"""Files that people name, opened to be read."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

_NO_FILES = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def open_file(path: Path) -> BinaryIO:
    """Raises `OSError`, whose `strerror` is for people.

    A pipe would keep us until somebody writes into it, a device may never end, and neither gives the
    same again at a reload. What a path leads to is asked before it is opened.
    """
    kind = _NO_FILES.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise OSError(0, f"it is a {kind}, not a file")
    return path.open("rb")
