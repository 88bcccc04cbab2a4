"""How many links an endpoint should have, and when it looks bad as a whole."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stickyproxy.health.poolplan import (
    GRACE,
    MOST,
    MOST_PAUSE,
    PRESSED,
    PROBE,
    Census,
    PoolPlan,
    Wanted,
)

FINE = Census(well=2, suspect=0, dialling=0, busy=True, pressed=False, usual=0.001)
BAD = FINE._replace(well=0, suspect=2)
NOTHING = Wanted(dial=False, doubted=False)


def test_one_spare_for_an_endpoint_with_traffic() -> None:
    alone = FINE._replace(well=1)
    assert PoolPlan().look(0, alone) == Wanted(dial=True, doubted=False)
    assert PoolPlan().look(0, alone._replace(busy=False)) == NOTHING
    assert PoolPlan().look(0, alone._replace(dialling=1)) == NOTHING
    assert PoolPlan().look(0, alone._replace(spares=0)) == NOTHING
    assert PoolPlan().look(0, FINE) == NOTHING


def test_a_suspect_is_replaced_and_not_counted() -> None:
    assert PoolPlan().look(0, FINE._replace(well=1, suspect=1)).dial
    assert not PoolPlan().look(0, FINE._replace(well=1, suspect=1, young=1)).dial
    assert PoolPlan().look(0, FINE._replace(well=0, suspect=2, young=2)).dial


def test_more_links_only_while_there_is_no_room_for_a_while() -> None:
    plan, full = PoolPlan(), FINE._replace(pressed=True)
    assert [plan.look(0, full).dial for _ in range(PRESSED)] == [False] * (PRESSED - 1) + [True]
    plan.look(0, FINE)
    assert not plan.look(0, full).dial
    most = full._replace(well=MOST - 1, suspect=1)
    assert not any(PoolPlan().look(0, most).dial for _ in range(PRESSED))


def test_an_endpoint_looks_bad_once_a_new_link_is_overdue() -> None:
    plan = PoolPlan()
    assert plan.look(1, BAD) == Wanted(dial=True, doubted=False)
    waiting = BAD._replace(dialling=1)
    assert not plan.look(1 + GRACE * 0.9, waiting).doubted
    assert plan.look(1 + GRACE, waiting).doubted
    plan.dialled()
    assert plan.look(1.1, FINE._replace(suspect=2)) == NOTHING


def test_who_has_no_sessions_to_keep_waits_for_no_new_link() -> None:
    plan, free = PoolPlan(), BAD._replace(sessions=False)
    assert plan.look(1, free) == Wanted(dial=True, doubted=True)
    assert plan.look(1.002, free._replace(suspect=0)).doubted, "suspects that end prove nothing"
    assert not plan.look(1.005, FINE._replace(sessions=False)).doubted
    plan.lost(2.0)
    assert not plan.look(2.0, free._replace(suspect=0)).doubted, "it broke, and is dialled"


def test_a_distant_endpoint_is_given_two_of_its_usual_dials() -> None:
    plan, far = PoolPlan(), BAD._replace(usual=0.1)
    plan.look(1, far)
    assert not plan.look(1.19, far).doubted
    assert plan.look(1.21, far).doubted


def test_one_link_that_is_well_again_is_enough() -> None:
    plan = PoolPlan()
    plan.look(1, BAD)
    assert plan.look(2, BAD).doubted
    assert not plan.look(3, BAD._replace(well=1, suspect=1)).doubted
    assert not plan.look(4, BAD).doubted, "the time begins anew"


def test_a_bad_endpoint_is_dialled_about_once_a_second_and_after_a_minute_ever_less() -> None:
    plan, dials, now = PoolPlan(), [], 0.0
    while now < 600:
        if plan.look(now, BAD).dial:
            dials.append(now)
            plan.failed(now + 0.2, began=now)
        now += 0.01
    first = [at for at in dials if at <= 10]
    assert 10 <= len(first) <= 12
    gaps = [after - before for before, after in pairwise(dials)]
    assert max(gaps[:60]) <= PROBE + 0.02
    assert 25 < gaps[-1] <= 30.02


def test_a_spare_that_cannot_be_had_is_asked_for_ever_less() -> None:
    plan, dials, now = PoolPlan(), 0, 0.0
    while now < 60:
        if plan.look(now, FINE._replace(well=1)).dial:
            dials += 1
            plan.failed(now, began=now)
        now += 0.01
    assert dials < 10


@pytest.mark.parametrize("suspect", [0, 1])
def test_a_lost_last_link_counts_as_bad(suspect: int) -> None:
    plan = PoolPlan()
    plan.lost(1.0)
    assert plan.look(1.0, BAD._replace(suspect=suspect)).dial
    assert plan.look(1.0 + GRACE, BAD._replace(suspect=suspect)).doubted


def test_an_endpoint_that_is_gone_for_good_is_dialled_for_ever() -> None:
    """Each failed dial of a request counts, also thousands of them."""
    plan = PoolPlan()
    for now in range(10_000):
        plan.failed(float(now), began=float(now))
    assert plan.look(9_999.0 + MOST_PAUSE, BAD).dial
