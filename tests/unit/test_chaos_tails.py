"""Counts with intervals."""

from __future__ import annotations

import pytest

from chaos.tails import count, quantiles


def test_an_interval_is_wilson_s() -> None:
    found = count(10, 100)

    assert found.least == pytest.approx(0.0552, abs=1e-4)  # Wilson (1927), by R's prop.test
    assert found.most == pytest.approx(0.1744, abs=1e-4)


def test_none_found_is_not_none_at_all() -> None:
    found = count(0, 6000)

    assert found.least == 0
    assert 0 < found.most < 1 / 1000


def test_all_found_may_be_fewer() -> None:
    found = count(50, 50)

    assert found.most == 1
    assert 0.9 < found.least < 1


def test_more_runs_narrow_an_interval() -> None:
    one, five = count(6, 6000), count(30, 30_000)

    assert five.most - five.least < one.most - one.least


def test_no_calls_have_no_share() -> None:
    with pytest.raises(ValueError, match="no calls"):
        count(0, 0)


def test_quantiles_are_of_all_runs_together() -> None:
    found = quantiles([*range(1, 1001)][::-1])

    assert found == {"p50": 501, "p99": 991, "p999": 1000}
