"""What the operating system says a process tree used: CPU time and memory, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
"""Units of /proc/PID/stat in a second. The kernel adds up in nanoseconds and rounds only here."""

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """One process: its parent, and CPU time in ticks, that of reaped children included."""

    pid: int
    parent: int
    ticks: int


def parse_stat(text: str) -> Usage:
    """One line of /proc/PID/stat (proc(5)). The name in it may hold spaces and parentheses."""
    pid, rest = text.split(" ", 1)
    fields = rest.rpartition(")")[2].split()
    return Usage(int(pid), int(fields[1]), sum(map(int, fields[11:15])))


def tree(root: int, usages: Iterable[Usage]) -> list[Usage]:
    """`root` and all below it."""
    by_parent: dict[int, list[Usage]] = {}
    found = []
    for usage in usages:
        by_parent.setdefault(usage.parent, []).append(usage)
        if usage.pid == root:
            found.append(usage)
    for usage in found:  # grows while it is walked
        found += by_parent.get(usage.pid, [])
    return found


def processes() -> list[Usage]:
    """All processes there are; those that end meanwhile are left out."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found.append(parse_stat((folder / "stat").read_text()))
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of a process, all below it, and all their reaped children."""
    return sum(usage.ticks for usage in tree(root, processes())) / TICKS


def parse_rollup(text: str) -> int:
    """Octets of proportional set size in /proc/PID/smaps_rollup: shared pages count once."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise ValueError("no Pss in smaps_rollup")


def memory(root: int) -> int:
    """Octets of memory of a process and all below it."""
    total = 0
    for usage in tree(root, processes()):
        with contextlib.suppress(OSError, ValueError):
            total += parse_rollup((PROC / str(usage.pid) / "smaps_rollup").read_text())
    return total


def totals(exposition: str) -> Mapping[str, float]:
    """Sums over all labels of each series in Prometheus' text format."""
    sums: dict[str, float] = {}
    for line in exposition.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums
