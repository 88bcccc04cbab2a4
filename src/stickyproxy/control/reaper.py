"""In a container we are process 1, and inherit whoever is left there without a parent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import trio

EVERY = 10.0
"""Seconds between two looks. A child of our own is waited for at once; what is dead in two looks is
nobody's, and would keep its place in the table of processes for ever."""

_PROC = Path("/proc")


async def reap_orphans() -> None:
    """Until cancelled."""
    before: set[int] = set()
    while True:
        await trio.sleep(EVERY)
        dead = zombies()
        for pid in dead & before:
            _reap(pid)
        before = dead - before


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def zombies() -> set[int]:
    """Children of ours that have ended and that nobody has waited for; none where /proc is missing."""
    found = set()
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):  # it is gone meanwhile
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if state == "Z" and int(parent) == os.getpid():
                found.add(int(folder.name))
    return found
