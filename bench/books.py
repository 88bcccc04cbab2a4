"""Do our own books agree with the load? Log lines and metric totals must equal calls, each block.

What is measured is a proxy that does all its work: one that lost its log lines would be cheap.
"""

from __future__ import annotations

import contextlib
import time
import urllib.request

from bench.accounting import totals
from bench.job import Job

PATIENCE = 10.0  # seconds; lines and counts trail the last answer by a flush
COUNTERS = ("request_total", "response_total")


class Books:
    """Counts of one proxy since the last look."""

    def __init__(self, job: Job, patience: float = PATIENCE) -> None:
        self._job = job
        self._patience = patience
        self._lines = 0
        self._totals = dict.fromkeys(COUNTERS, 0.0)
        self._read = 0
        self.settle()

    def settle(self) -> None:
        """Begin anew from here."""
        self._look()
        self._lines = 0
        self._base = dict(self._totals)

    def complaint(self, calls: int) -> str:
        """What does not add up to `calls` since `settle`; empty if all does."""
        until = time.monotonic() + self._patience
        while (wrong := self._wrong(calls)) and time.monotonic() < until:
            time.sleep(0.05)
        return wrong

    def _wrong(self, calls: int) -> str:
        self._look()
        lines = calls if self._job.log else 0
        wrong = [f"{self._lines} log lines"] if self._lines != lines else []
        for name in COUNTERS:
            counted = round(self._totals[name] - self._base[name])
            wrong += [f"{name} {counted}"] if counted != calls else []
        return f"{calls} calls, but {', '.join(wrong)}" if wrong else ""

    def _look(self) -> None:
        with self._job.access_log.open("rb") as log:
            log.seek(self._read)
            while data := log.read(1 << 20):
                self._read += len(data)
                self._lines += data.count(b"\n")
        url = f"http://127.0.0.1:{self._job.admin}/metrics"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            sums = totals(answer.read().decode())
            self._totals = {name: sums.get(name, 0.0) for name in COUNTERS}
