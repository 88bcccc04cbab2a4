"""How many files a process may open here: raised as far as it goes, and told."""

from __future__ import annotations

import contextlib
import resource

WANTED = 65_536  # 10,000 idle connections on a proxy that reckons two files for each, and room


def raise_files() -> int:
    """The limit of open files from now on, ours and that of all we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= WANTED
    limit = WANTED if enough else hard
    with contextlib.suppress(ValueError, OSError):
        if not enough:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, WANTED))
            limit = hard = WANTED
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def open_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def affordable(connections: int, files: int) -> int:
    """How many of `connections` a proxy can hold: HAProxy reckons two files each, all need a few."""
    return min(connections, (files - 500) // 2)
