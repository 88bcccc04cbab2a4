"""How many processes can run at once here: `--workers auto`."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_V2 = Path("/sys/fs/cgroup/cpu.max")
_V1 = Path("/sys/fs/cgroup/cpu")


def cores(v2: Path = _V2, v1: Path = _V1) -> int:
    """Cores we may use, or fewer if a cgroup (a container's CPU limit) gives us less time; at least 1.

    On a node with 64 cores, a pod with a limit of 2 CPUs that ran 64 workers would be held up by
    the kernel most of the time.
    """
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = _limit(v2, v1)
    return max(1, min(known or 1, math.ceil(limit) if limit is not None else known or 1))


def _limit(v2: Path, v1: Path) -> float | None:
    """CPU seconds a second; None without a limit."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = v2.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (
            (v1 / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        return int(quota) / int(period) if int(quota) > 0 else None
    return None
