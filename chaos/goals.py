"""What the pool is to reach, and whether it did: ratios to peers of the same run, or plain bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chaos.peers import BASE, OURS, SAFE
from chaos.summary import Summary
from chaos.tails import Count

Summaries = Mapping[tuple[str, str], Summary]

H1, MAX = "envoy-h1", "envoy-max"
FULL = (OURS, SAFE)


@dataclass(frozen=True, slots=True)
class Goal:
    """`figure` of `ours` is at most `limit` (or, with `least`, at least), as a multiple of that of
    `against` where one is named: another peer, or another scenario of the same.
    """

    scenario: str
    ours: str
    figure: str
    limit: float
    against: str = ""
    least: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reached` is None where a proxy that it takes was not measured."""

    goal: Goal
    reached: float | None
    met: bool


TITLES = {
    "p50": "p50",
    "p99": "p99",
    "p999": "p99.9",
    "outages": "failed or > 1 s, a run",
    "attempts": "attempts a call",
    "stays": "calls that stay",
    "opened_most": "connections",
    "opened": "connections",
    "back": "back in use after, ms",
    "failover": "last user moved after, ms",
    "moved": "others' calls that move",
    "untold": "messages neither answered nor UNAVAILABLE in 1 s, a run",
}


def _bounds(scenario: str, limits: Mapping[str, tuple[float, float]], against: str) -> list[Goal]:
    """A figure's limit for OURS and for SAFE."""
    return [
        Goal(scenario, ours, figure, limit, against)
        for figure, pair in limits.items()
        for ours, limit in zip(FULL, pair, strict=True)
    ]


def _stays(scenario: str, share: float) -> list[Goal]:
    return [Goal(scenario, ours, "stays", share, least=True) for ours in FULL]


def _host(scenario: str) -> list[Goal]:
    return [
        *_bounds(scenario, {"outages": (0, 10), "opened_most": (10, 10), "back": (1000, 1000)}, ""),
        Goal(scenario, OURS, "p999", 0.5, MAX),
    ]


GOALS: tuple[Goal, ...] = (
    *_bounds("none", {"p50": (1.1, 1.1), "p99": (1.25, 1.25)}, BASE),
    *_bounds("loss1", {"p999": (0.25, 0.3)}, BASE),
    *_bounds("loss1", {"attempts": (1.01, 1.01)}, ""),
    *_bounds("loss5", {"p99": (0.2, 0.2), "p999": (0.12, 0.5)}, BASE),
    *_stays("loss5", 0.95),
    Goal("loss5", OURS, "p99", 1.0, MAX),
    Goal("loss5", OURS, "attempts", 1.02),
    *_bounds("loss10", {"p99": (0.15, 0.5)}, BASE),
    *_stays("loss10", 0.85),
    *_bounds("loss10", {"attempts": (1.05, 1.05)}, ""),
    *_bounds("bh-conn", {"outages": (0, 5)}, ""),
    *_stays("bh-conn", 0.99),
    Goal("bh-conn", OURS, "p999", 0.5, MAX),
    *_host("bh-host"),
    *_host("freeze"),
    Goal("rst", OURS, "outages", 0),
    Goal("rst", SAFE, "outages", 1.1, BASE),
    *_bounds("goaway", {"outages": (0, 0)}, ""),
    *_bounds("twilio.lossall3", {"p99": (0.05, 0.05)}, BASE),
    *_bounds("twilio.lossall3", {"p99": (0.5, 0.5), "p50": (1.1, 1.1), "opened": (0.25, 0.25)}, H1),
    *_bounds("twilio.lossall3", {"attempts": (1.01, 1.01)}, ""),
    Goal("twilio.lossall3", OURS, "p99", 1.0, MAX),
    *_bounds("chat.bh-conn", {"untold": (0, 0)}, ""),
    *_bounds("chat.freeze", {"untold": (0, 0)}, ""),
    *_bounds("h1.bh-host", {"outages": (0, 10), "back": (1000, 1000)}, ""),
    *_bounds("h1.freeze", {"outages": (0, 10), "back": (1000, 1000)}, ""),
    *_bounds("named.dns", {"outages": (0, 0)}, ""),
    *_bounds("tail.none", {"attempts": (1.01, 1.01)}, ""),
    *_bounds("tail.none", {"opened": (1.02, 1.02)}, "none"),
    *_bounds("hash.bh-host", {"failover": (100, 100), "moved": (0, 0)}, ""),
)


def value(summary: Summary, figure: str) -> float | None:
    """Counts are those of a run, since runs differ in number."""
    found: Count | float | None = getattr(summary, figure)
    return found.found / summary.runs if isinstance(found, Count) else found


def verdict(goal: Goal, found: Summaries) -> Verdict:
    ours = found.get((goal.scenario, goal.ours))
    reached = value(ours, goal.figure) if ours else None
    if reached is not None and goal.against:
        theirs = found.get((goal.scenario, goal.against)) or found.get((goal.against, goal.ours))
        beside = value(theirs, goal.figure) if theirs else None
        reached = _ratio(reached, beside)
    if reached is None:
        return Verdict(goal, None, met=False)
    met = reached >= goal.limit if goal.least else reached <= goal.limit
    return Verdict(goal, reached, met)


def _ratio(ours: float, theirs: float | None) -> float | None:
    """Nothing against nothing is as good; something against nothing is infinitely worse."""
    if theirs is None:
        return None
    if theirs == 0:
        return float("inf") if ours else 1.0
    return ours / theirs


def verdicts(found: Summaries) -> list[Verdict]:
    """Of the goals whose scenario was measured with ours."""
    measured = [goal for goal in GOALS if (goal.scenario, goal.ours) in found]
    return [verdict(goal, found) for goal in measured]
