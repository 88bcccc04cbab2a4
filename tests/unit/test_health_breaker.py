"""The gate before an endpoint: the clock stands still unless a test moves it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.health.breaker import MAX_DELAY, PATIENCE, Breaker, Gate


def probing(now: float = 1.0) -> Breaker:
    breaker = Breaker()
    breaker.failed(now - 1.0)
    breaker.trying(now)
    return breaker


def test_a_new_gate_is_open_and_trying_leaves_it_so() -> None:
    breaker = Breaker()
    breaker.trying(0.0)
    assert breaker.state is Gate.OPEN
    assert breaker.admits(0.0)


def test_one_failed_connect_shuts_it_for_a_second() -> None:
    breaker = Breaker()
    assert breaker.failed(10.0) == 1.0
    assert breaker.state is Gate.SHUT
    assert not breaker.admits(10.999)
    assert breaker.admits(11.0)


def test_asking_does_not_take_the_place_of_the_probe() -> None:
    breaker = Breaker()
    breaker.failed(0.0)
    assert [breaker.admits(1.0), breaker.admits(1.0)] == [True, True]


def test_while_a_probe_is_under_way_nobody_else_goes() -> None:
    breaker = probing(1.0)
    assert breaker.state is Gate.PROBING
    assert not breaker.admits(1.0)
    breaker.trying(5.0)
    assert not breaker.admits(1.0 + PATIENCE - 0.001)


def test_a_probe_that_is_never_heard_of_gives_its_place_to_the_next() -> None:
    breaker = probing(1.0)
    assert breaker.admits(1.0 + PATIENCE)
    breaker.trying(1.0 + PATIENCE)
    assert not breaker.admits(1.0 + PATIENCE)


@pytest.mark.parametrize("announced", [True, False])
def test_failures_after_the_wait_make_it_longer_up_to_the_cap(*, announced: bool) -> None:
    breaker = Breaker()
    now, waits = 0.0, []
    for _ in range(10):
        wait = breaker.failed(now)
        waits.append(round(wait, 3))
        now += wait
        if announced:
            breaker.trying(now)
    assert waits[:4] == [1.0, 1.6, 2.56, 4.096]
    assert waits[-2:] == [MAX_DELAY, MAX_DELAY]


def test_failures_before_the_wait_is_over_are_one_piece_of_news() -> None:
    breaker = Breaker()
    breaker.failed(0.0)
    breaker.trying(0.25)
    assert breaker.failed(0.5, jitter=1.0) == 0.5
    assert breaker.state is Gate.SHUT
    assert breaker.admits(1.0)


def test_success_opens_a_shut_gate_and_the_next_failure_starts_over() -> None:
    shut = Breaker()
    shut.failed(0.0)
    for breaker in (Breaker(), shut, probing()):
        breaker.connected()
        assert breaker.state is Gate.OPEN
        assert breaker.admits(0.0)
        assert breaker.failed(1.0) == 1.0


def test_jitter_moves_the_wait_by_a_fifth_at_most() -> None:
    assert Breaker().failed(0.0, jitter=-1.0) == 0.8
    assert Breaker().failed(0.0, jitter=1.0) == 1.2


@given(st.lists(st.tuples(st.sampled_from("tfc"), st.floats(0, 20), st.floats(-1, 1)), max_size=60))
def test_no_history_keeps_an_endpoint_out_for_ever(
    history: list[tuple[str, float, float]],
) -> None:
    breaker = Breaker()
    now = 0.0
    for what, step, jitter in history:
        now += step
        if what == "t":
            breaker.trying(now)
        elif what == "f":
            assert 0.0 < breaker.failed(now, jitter) <= MAX_DELAY * 1.2 + 1e-9
        else:
            breaker.connected()
    assert breaker.admits(now + MAX_DELAY * 1.2 + 0.001)
