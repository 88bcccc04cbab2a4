"""What a process used while something happened to it, as Linux counts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")


class Gauge(NamedTuple):
    """CPU in seconds, user and system; memory in bytes, and its peak since `forget_peak`."""

    cpu: float
    memory: int
    peak: int

    @classmethod
    def of(cls, pid: int) -> Gauge:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
        sizes = {
            name: int(rest.split()[0]) * 1024
            for name, _, rest in (line.partition(":") for line in status.splitlines())
            if name in ("VmRSS", "VmHWM")
        }
        return cls((int(fields[11]) + int(fields[12])) / _TICK, sizes["VmRSS"], sizes["VmHWM"])


def forget_peak(pid: int) -> None:
    """proc(5): 5 sets VmHWM to what is used now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
