"""From when on the head of a response is late."""

from __future__ import annotations

import math
from random import Random

import pytest

from stickyproxy.health.headtimes import FIRST_LATE, LEARNT, SLACK, HeadTimes


def after(times: HeadTimes, samples: list[float]) -> HeadTimes:
    for seconds in samples:
        times.note(seconds)
    return times


def test_nothing_is_late_early_while_little_is_known() -> None:
    times = after(HeadTimes(), [0.001] * (LEARNT - 1))
    assert times.late == FIRST_LATE
    assert after(times, [0.001]).late == pytest.approx(0.00125 + SLACK)


@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_is_the_third_quartile_of_a_heavy_tail(seed: int) -> None:
    """Lognormal with p99 = 20 x p50."""
    rng = Random(seed)
    sigma = math.log(20) / 2.326
    times = after(HeadTimes(), [0.01 * rng.lognormvariate(0, sigma) for _ in range(500)])
    found = []
    for _ in range(4000):
        times.note(0.01 * rng.lognormvariate(0, sigma))
        found.append(times.q75)
    assert sum(found) / len(found) == pytest.approx(0.01 * math.exp(0.6745 * sigma), rel=0.15)


def test_a_service_that_gets_ten_times_slower_is_learnt_in_40_calls() -> None:
    times = after(HeadTimes(), [0.01] * 100)
    assert after(times, [0.1] * 40).late > 0.1


def test_a_few_slow_calls_move_it_little() -> None:
    times = after(HeadTimes(), [0.01] * 200)
    before = times.late
    after(times, [5.0] * 3)
    assert times.late < before * 1.3


@pytest.mark.parametrize("first", [0.0, 1e-9])
def test_a_service_that_takes_no_time_does_not_freeze_the_estimate(first: float) -> None:
    times = after(HeadTimes(), [first] * 1000)
    assert 0 < times.q75 < 1e-3
    assert after(times, [0.01] * 100).q75 > 0.005
