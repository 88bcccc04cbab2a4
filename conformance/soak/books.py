"""What came of it: every call against what happened while it ran, and against the log."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from conformance.soak.faults import Events
from conformance.soak.load import Call

SLACK = 0.3
"""Seconds around a kill: the client's clock is read before and after the proxy does something."""
LOST_LINES = 1.0
"""Seconds before a worker's death whose lines may have died with it, unwritten."""


class Log:
    """The access log, read as it is written: how often each request is in it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.counts: Counter[str] = Counter()
        self.lines = 0
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.lines += 1
            self.counts[json.loads(line)["request_id"] or ""] += 1

    def close(self) -> None:
        self._thread.join(30)


@dataclass
class Verdict:
    """`failed` have no fault of their own and nothing to excuse them."""

    calls: int
    good: int
    own_fault: int
    excused: int
    again: int
    failed: list[str]
    stuck: list[str]
    missing: list[str]
    doubled: list[str]

    @property
    def complaints(self) -> list[str]:
        found = []
        for title, names in (
            ("failed without a fault", self.failed),
            ("never ended", self.stuck),
            ("answered, and not in the log", self.missing),
            ("in the log more than once", self.doubled),
        ):
            if names:
                found.append(f"{len(names)} {title}: {', '.join(names[:5])}")
        return found


def judge(calls: Sequence[Call], slow: Iterable[str], events: Events, log: Log) -> Verdict:
    failed, stuck, missing = [], [], []
    good = own = excused = again = 0
    for call in calls:
        if call.outcome.startswith("nothing within") or not call.outcome:
            stuck.append(f"{call.name} ({call.outcome})")
        elif call.outcome == "again":
            again += 1
        elif call.outcome == "200":
            good += 1
        elif call.own_fault:
            own += 1
        elif _excused(call, [*events.abrupt["backend"], *events.abrupt["worker"]]):
            excused += 1
        else:
            failed.append(f"{call.name} ({call.outcome}{_near(call, events)})")
        unwritten = call.outcome == "200" and not log.counts[call.name]
        if unwritten and not _lines_lost(call, events.abrupt["worker"]):
            missing.append(call.name)
    names = [*(call.name for call in calls), *slow]
    doubled = [name for name in names if log.counts[name] > 1]
    return Verdict(len(calls), good, own, excused, again, failed, stuck, missing, doubled)


def _excused(call: Call, kills: Sequence[float]) -> bool:
    """Whether somebody that it may have run through was killed while it ran."""
    return any(call.began - SLACK <= kill <= call.ended + SLACK for kill in kills)


def _near(call: Call, events: Events) -> str:
    """What went wrong last before it ended, for those who look for why."""
    before = [(at, what) for at, what in events.happened if at <= call.ended]
    if not before:
        return ""
    at, what = before[-1]
    took = call.ended - call.began
    return f"; {took:.2f} s long, {call.ended - at:.2f} s after: {what}"


def _lines_lost(call: Call, kills: Sequence[float]) -> bool:
    return any(call.ended - SLACK <= kill <= call.ended + LOST_LINES for kill in kills)
