"""What all runs of one proxy under one scenario say together."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chaos.job import CHAT
from chaos.load import Row
from chaos.samples import Sample
from chaos.tails import Count, count, quantiles

FIRST = "b1"
"""The backend that things happen to."""

LATER = (40, 250, 1000)
"""ms beyond an undisturbed answer."""

OUTAGE = 1000.0  # ms: a call that took longer counts with those that failed
TOLD = ("200", "grpc:14")
"""How a message on an open stream may end: answered, or UNAVAILABLE."""

NEXT = 30  # calls in which a backend's share is looked at; an equal one of three backends' is 10
WELL = 1000.0  # ms: an answer that took longer says nothing about being back in use


@dataclass(slots=True)
class Summary:
    """Latencies in ms, all runs together. `p99s`: of each run apart.

    `later`: by LATER, failed calls included. `outages`: failed, or above OUTAGE. `attempts`:
    requests at backends for each call. `untold`: messages on open streams that were neither answered
    nor had their stream ended by UNAVAILABLE within OUTAGE. `stays`: what the first backend answered
    of its equal share.
    `opened`: connections a run, from the proxy's start on: the median and the most. `back`: ms from
    the end of the fault until the first backend is in use again, at worst. `failover`: ms
    from the fault until the last user of the first backend is answered in good time, at worst.
    `moved`: the share of other users' calls that left their backend.
    """

    scenario: str
    peer: str
    runs: int
    calls: int
    p50: float
    p99: float
    p999: float
    longest: float
    p99s: list[float]
    p999s: list[float]
    failed: Count
    outages: Count
    later: dict[int, Count]
    attempts: float
    stays: float
    opened: float
    opened_most: int
    pings: float
    cpu: float
    back: float | None = None
    failover: float | None = None
    moved: float | None = None
    untold: Count | None = None
    endings: dict[str, int] = field(default_factory=dict)
    disturbed: int = 0
    void: list[str] = field(default_factory=list)


def summaries(samples: Iterable[Sample]) -> dict[tuple[str, str], Summary]:
    """By scenario and peer; those of which no run counts are left out."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.scenario, sample.peer), []).append(sample)
    found = {}
    for key, group in groups.items():
        if any(not sample.void for sample in group):
            found[key] = summarised(group)
    return found


def summarised(group: Sequence[Sample]) -> Summary:
    """Raises ValueError without a run that counts."""
    runs = [sample for sample in group if not sample.void]
    rows = [row for sample in runs for row in sample.rows]
    latencies = [row[1] for row in rows]
    failed = [row for row in rows if row[2] != "200"]
    backends = len(runs[0].requests)
    first = sum(1 for row in rows if row[3] == FIRST and row[2] == "200")
    return Summary(
        scenario=runs[0].scenario,
        peer=runs[0].peer,
        runs=len(runs),
        calls=len(rows),
        **quantiles(latencies),
        longest=max(latencies),
        p99s=[quantiles([row[1] for row in sample.rows])["p99"] for sample in runs],
        p999s=[quantiles([row[1] for row in sample.rows])["p999"] for sample in runs],
        failed=count(len(failed), len(rows)),
        outages=count(sum(1 for row in rows if outage(row)), len(rows)),
        later={limit: _later(runs, limit, len(rows)) for limit in LATER},
        attempts=sum(sum(sample.requests) for sample in runs) / len(rows),
        stays=first * backends / len(rows),
        opened=statistics.median(sum(sample.accepted) for sample in runs),
        opened_most=max(sum(sample.accepted) for sample in runs),
        pings=statistics.median(sample.pings for sample in runs),
        cpu=statistics.median(sample.cpu for sample in runs),
        back=_worst(back_in_use(sample) for sample in runs),
        failover=_worst(failover(sample) for sample in runs),
        moved=_worst(moved(sample) for sample in runs),
        untold=_untold(rows) if runs[0].kind == CHAT else None,
        endings=dict(Counter(row[2] for row in failed)),
        disturbed=sum(sample.disturbed for sample in runs),
        void=[sample.void for sample in group if sample.void],
    )


def outage(row: Row) -> bool:
    return row[2] != "200" or row[1] > OUTAGE


def _untold(rows: Sequence[Row]) -> Count:
    return count(sum(1 for row in rows if row[1] > OUTAGE or row[2] not in TOLD), len(rows))


def _later(runs: Sequence[Sample], limit: float, calls: int) -> Count:
    found = sum(
        1
        for sample in runs
        for row in sample.rows
        if row[2] != "200" or row[1] - sample.undisturbed_ms > limit
    )
    return count(found, calls)


def _worst(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return max(found) if found else None


def back_in_use(sample: Sample) -> float | None:
    """How many ms from healing until the first backend answers half of its share of the calls made
    then, or where users are sticky, all calls of its own.

    None without healing, in a lab of one backend, and for streams, which stay where they went.
    Infinite if never.
    """
    backends = len(sample.requests)
    if sample.healed_ms is None or backends < 2 or sample.kind == CHAT:
        return None
    if sample.sticky:
        return _returned(sample, sample.healed_ms)
    after = [row for row in sample.rows if row[0] >= sample.healed_ms]
    enough = NEXT // backends // 2
    good = [row[3] == FIRST and row[2] == "200" and row[1] < WELL for row in after]
    for at in range(len(after) - NEXT + 1):
        if good[at] and sum(good[at : at + NEXT]) >= enough:
            return after[at][0] - sample.healed_ms
    return float("inf")


def _returned(sample: Sample, healed: float) -> float:
    lived = homes(sample)
    own = [
        (row[0], row[3] == FIRST and row[2] == "200")
        for number, row in enumerate(sample.rows)
        if row[0] >= healed and lived.get(number % sample.users) == FIRST
    ]
    away = [due for due, well in own if not well]
    if not away:
        return 0.0
    return max(away) - healed if own[-1][1] else float("inf")


def homes(sample: Sample) -> dict[int, str]:
    """Where each sticky user was before anything went wrong."""
    found = {}
    for number, row in enumerate(sample.rows):
        if row[2] == "200" and (sample.began_ms is None or row[0] + row[1] < sample.began_ms):
            found[number % sample.users] = row[3]
    return found


def failover(sample: Sample) -> float | None:
    """How many ms from the fault until users of the first backend are answered well: when the last of their
    calls was due that failed or took 100 ms too long. None where users are not sticky.
    """
    if not sample.sticky or sample.began_ms is None:
        return None
    lived = homes(sample)
    hurt = [
        row[0] - sample.began_ms
        for number, row in enumerate(sample.rows)
        if lived.get(number % sample.users) == FIRST
        and sample.began_ms <= row[0] < (sample.healed_ms or float("inf"))
        and (row[2] != "200" or row[1] - sample.undisturbed_ms > 100)
    ]
    return max(hurt, default=0.0)


def moved(sample: Sample) -> float | None:
    """The share of calls of users of other backends that were answered elsewhere than at home."""
    if not sample.sticky:
        return None
    lived = homes(sample)
    others = [
        (lived[number % sample.users], row[3])
        for number, row in enumerate(sample.rows)
        if row[2] == "200" and lived.get(number % sample.users, FIRST) != FIRST
    ]
    return sum(1 for home, at in others if home != at) / len(others) if others else None
