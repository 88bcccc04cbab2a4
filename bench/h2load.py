"""h2load of nghttp2: its command line, and what it says when it is done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.load import Load, LoadError

_FINISHED = re.compile(r"^finished in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_REQUESTS = re.compile(
    r"^requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored",
    re.MULTILINE,
)
_CODES = re.compile(r"^status codes: (\d+) 2xx", re.MULTILINE)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def command(
    url: str,
    *,
    calls: int,
    connections: int,
    streams: int,
    fields: Sequence[tuple[str, str]],
    body: Path | None = None,
    h1: bool = False,
    log: Path | None = None,
) -> list[str]:
    """Arguments; `log` gets a line for each request."""
    argv = ["h2load", f"-n{calls}", f"-c{connections}", f"-m{streams}", "-t1"]
    argv += ["--h1"] if h1 else []
    for name, value in fields:
        argv += ["-H", f"{name}: {value}"]
    argv += ["-d", str(body)] if body else []
    argv += [f"--log-file={log}"] if log else []
    return [*argv, url]


def parse(output: str) -> Load:
    """Raises LoadError if it is not h2load's."""
    finished, requests, codes = (p.search(output) for p in (_FINISHED, _REQUESTS, _CODES))
    if not finished or not requests or not codes:
        raise LoadError(f"h2load said: {output[-300:]!r}")
    total, succeeded, *_ = (int(number) for number in requests.groups())
    answered = min(succeeded, int(codes[1]))
    return Load(
        calls=total,
        failed=total - answered,
        seconds=float(finished[1]) * _SECONDS[finished[2]],
    )


def parse_log(text: str) -> list[float]:
    """Latencies of answered requests in microseconds, in the order of their ends."""
    rows = (line.split("\t") for line in text.splitlines())
    return [float(row[2]) for row in rows if len(row) >= 3 and row[1] != "-1"]
