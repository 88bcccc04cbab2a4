"""When a link is suspect, well again or dead, by what is seen of it alone."""

from __future__ import annotations

from random import Random

import pytest

from stickyproxy.health.linkscore import (
    DEAD_AFTER,
    DEAD_IN_LOSS,
    HOST_PATIENCE,
    PING_PAUSE,
    PINGS,
    PUSH_AFTER,
    Act,
    Cause,
    Health,
    LinkScore,
    Sight,
    Terms,
)

TERMS = Terms(late=0.02, pong=0.01)
WELL = Sight(oldest=None, heard=0.0, proof=0.0)


def waiting(since: float, heard: float = 0.0) -> Sight:
    return Sight(oldest=since, heard=heard, proof=heard)


def suspect(terms: Terms = TERMS) -> LinkScore:
    """Since 1.1 s."""
    score = LinkScore(0.0)
    assert score.look(1.05, waiting(1.0), terms) is Act.PING
    assert score.look(1.1, waiting(1.0), terms) is Act.DOUBT
    return score


def test_a_late_stream_on_a_quiet_link_is_asked_after_before_it_is_suspect() -> None:
    score = LinkScore(0.0)
    assert score.look(1.019, waiting(1.0), TERMS) is Act.NOTHING
    assert score.look(1.021, waiting(1.0), TERMS) is Act.PING
    assert score.look(1.03, waiting(1.0), TERMS) is Act.NOTHING
    assert score.state is Health.ASKED
    assert score.look(1.032, waiting(1.0), TERMS) is Act.DOUBT
    assert (score.state, score.cause) == (Health.SUSPECT, Cause.PING)


def test_a_late_stream_on_a_link_that_talks_is_nobodys_business() -> None:
    score = LinkScore(0.0)
    for step in range(1000):
        now = 1 + step * 0.005
        assert score.look(now, waiting(1.0, heard=now - 0.015), TERMS) is Act.NOTHING


def test_a_link_with_nobody_waiting_is_not_quiet() -> None:
    assert LinkScore(0.0).look(3600, WELL, TERMS) is Act.NOTHING


def test_an_answer_in_time_is_no_change_at_all() -> None:
    score = LinkScore(0.0)
    score.look(1.05, waiting(1.0), TERMS)
    assert score.look(1.055, waiting(1.0, heard=1.052), TERMS) is Act.NOTHING
    assert score.state is Health.WELL


def test_anything_heard_makes_a_suspect_well_again() -> None:
    score = suspect()
    assert score.look(1.3, waiting(1.0, heard=1.29), TERMS) is Act.TRUST
    assert score.state is Health.WELL


def test_an_expired_timer_of_tcp_needs_no_ping() -> None:
    score = LinkScore(0.0)
    stream = Sight(oldest=None, heard=0.9, proof=0.9, expired=1, unacked=3)
    assert score.look(1.0, stream, TERMS) is Act.DOUBT
    assert score.cause is Cause.TIMER
    # What the peer still says is no sign that it hears us.
    assert score.look(1.1, stream._replace(heard=1.05), TERMS) is Act.NOTHING
    assert score.look(1.2, stream._replace(heard=1.05, expired=0), TERMS) is Act.TRUST


@pytest.mark.parametrize(
    ("terms", "unacked", "bound"),
    [
        (TERMS._replace(well=1.2), None, DEAD_AFTER),
        (TERMS._replace(well=1.2), 2, DEAD_AFTER),
        (TERMS._replace(well=1.2, lossy=True), 2, DEAD_IN_LOSS),
        (TERMS._replace(well=1.2, recovery=0.5), 2, 1.5),
        (TERMS._replace(well=1.2, recovery=60.0), 2, HOST_PATIENCE),
        (TERMS._replace(well=1.2), 0, HOST_PATIENCE),  # its kernel lives: a process that rests
        (TERMS._replace(well=1.0), 2, HOST_PATIENCE),  # nothing was heard since: the host
        (TERMS, 2, HOST_PATIENCE),
    ],
)
def test_a_suspect_is_dead_when_the_endpoint_is_well_or_after_long(
    terms: Terms, unacked: int | None, bound: float
) -> None:
    score, terms = suspect(), terms._replace(pings=False)
    silent = Sight(oldest=1.0, heard=0.0, proof=0.0, unacked=unacked)
    score.look(1.1, silent, terms)
    assert score.look(1.1 + bound - 0.01, silent, terms) is Act.NOTHING
    assert score.look(1.1 + bound + 0.01, silent, terms) is Act.END
    assert score.state is Health.DEAD
    assert score.look(99, silent._replace(heard=98), terms) is Act.NOTHING


def test_two_pings_without_data_then_none_for_five_minutes() -> None:
    """A backend that answers PING but no streams is slow, not dead."""
    score, heard, pings = LinkScore(0.0), 0.0, []
    now = 1.0
    while now < 2 * PING_PAUSE:
        act = score.look(now, Sight(oldest=1.0, heard=heard, proof=0.5), TERMS)
        assert act in (Act.NOTHING, Act.PING)
        if act is Act.PING:
            pings.append(now)
            heard = now + 0.001
        now += 0.005
    assert len(pings) == PINGS + 1
    assert pings[PINGS] - pings[PINGS - 1] >= PING_PAUSE


def test_a_suspect_is_asked_once_more_within_the_budget() -> None:
    """What is lost at the end is only missed when something follows."""
    score = suspect()
    assert score.look(1.1 + PUSH_AFTER - 0.001, waiting(1.0), TERMS) is Act.NOTHING
    assert score.look(1.1 + PUSH_AFTER + 0.001, waiting(1.0), TERMS) is Act.PUSH
    assert score.look(1.3, waiting(1.0), TERMS) is Act.NOTHING
    forbidden = TERMS._replace(pings=False)
    assert suspect().look(1.2, waiting(1.0), forbidden) is Act.NOTHING


def test_a_gap_that_lasts_is_suspect_without_an_answer_and_then_asked() -> None:
    torn = waiting(1.0)._replace(holed=True, gap=1.012)
    assert LinkScore(0.0).look(1.021, torn._replace(gap=1.02), TERMS) is Act.PING
    assert LinkScore(0.0).look(1.019, torn._replace(gap=1.0), TERMS) is Act.NOTHING
    score = LinkScore(0.0)
    assert score.look(1.023, torn, TERMS) is Act.DOUBT
    assert score.cause is Cause.HOLE
    assert score.look(1.024, torn, TERMS) is Act.PUSH
    assert score.look(1.03, torn._replace(heard=1.029), TERMS) is Act.TRUST


def test_data_renews_the_budget() -> None:
    score, pings = LinkScore(0.0), 0
    for step in range(1, 100):
        act = score.look(step, waiting(step - 0.5, heard=step - 0.9), TERMS)
        pings += act is Act.PING
        score.look(step + 0.1, waiting(step - 0.5, heard=step + 0.05), TERMS)
    assert pings == 99


def test_where_pings_are_forbidden_a_known_hole_has_to_do() -> None:
    terms = TERMS._replace(pings=False)
    score = LinkScore(0.0)
    assert score.look(1.5, waiting(1.0), terms) is Act.NOTHING
    assert score.look(1.6, waiting(1.0)._replace(holed=True), terms) is Act.DOUBT
    assert score.cause is Cause.HOLE
    assert LinkScore(0.0).ask(1.5, waiting(1.0), terms) is Act.NOTHING


def test_a_spare_is_asked_only_if_it_was_not_heard_just_now() -> None:
    score = LinkScore(0.0)
    assert score.ask(1.0, WELL._replace(heard=0.99), TERMS) is Act.NOTHING
    assert score.ask(1.0, WELL, TERMS) is Act.PING
    assert score.ask(1.001, WELL, TERMS) is Act.NOTHING


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_budget_holds(seed: int) -> None:
    rng = Random(seed)
    score, now, heard, proof = LinkScore(0.0), 0.0, 0.0, 0.0
    since: list[float] = []
    for _ in range(3000):
        now += rng.expovariate(20)
        if rng.random() < 0.3:
            heard = now
            if rng.random() < 0.1:
                proof, since = now, []
        sight = Sight(rng.choice((None, now - rng.random())), heard, proof, rng.random() < 0.02, 1)
        before = score.state
        look = score.look if rng.random() < 0.8 else score.ask
        act = look(now, sight, TERMS._replace(well=rng.choice((None, now))))
        if act in (Act.PING, Act.PUSH):
            since.append(now)
            assert len(since) <= PINGS or now - since[-2] >= PING_PAUSE
        if before is Health.DEAD:
            score = LinkScore(now)
            since = []


def spent() -> LinkScore:
    """A link that may not be asked any more; the last answer came at 3 s."""
    score = LinkScore(0.0)
    for asked in (1.5, 3.0):
        assert score.look(asked, waiting(1.0)._replace(heard=asked - 1), TERMS) is Act.PING
        score.look(asked + 0.001, waiting(1.0)._replace(heard=asked), TERMS)
    return score


def test_what_may_not_be_asked_is_judged_by_its_company() -> None:
    quiet = Sight(oldest=1.0, heard=3.0, proof=0.5)
    assert spent().look(5.0, quiet, TERMS) is Act.NOTHING
    assert spent().look(5.0, quiet, TERMS._replace(silent=2.5)) is Act.NOTHING
    score = spent()
    assert score.look(5.0, quiet, TERMS._replace(silent=4.5)) is Act.DOUBT
    assert score.cause is Cause.COMPANY
    # A new connection is fine: so the endpoint lives, and nothing is left to say against this one.
    assert score.look(5.1, quiet, TERMS._replace(well=5.05)) is Act.TRUST


def test_only_what_is_quiet_for_long_and_may_not_be_asked_is_mute() -> None:
    quiet = Sight(oldest=1.0, heard=3.0, proof=0.5)
    assert not spent().mute(3.9, quiet, TERMS)
    assert spent().mute(4.1, quiet, TERMS)
    assert not spent().mute(4.1, quiet._replace(proof=3.5), TERMS)
    assert not spent().mute(4.1, quiet._replace(oldest=None), TERMS)


def test_a_spare_is_not_asked_for_others_until_nothing_is_left_for_itself() -> None:
    score, asked = LinkScore(0.0), 0
    for step in range(1, 10):
        asked += score.ask(step, WELL._replace(heard=step - 0.5), TERMS) is Act.PING
        score.look(step + 0.001, WELL._replace(heard=step), TERMS)
    assert asked == PINGS - 1


def test_the_time_to_come_back_begins_when_the_endpoint_is_back() -> None:
    score = suspect()
    silent, terms = Sight(oldest=1.0, heard=0.0, proof=0.0, unacked=2), TERMS._replace(pings=False)
    assert score.look(4.0, silent, terms) is Act.NOTHING
    back = terms._replace(well=4.1)
    assert score.look(4.1, silent, back) is Act.NOTHING
    assert score.look(4.1 + DEAD_AFTER - 0.01, silent, back) is Act.NOTHING
    assert score.look(4.1 + DEAD_AFTER + 0.01, silent, back) is Act.END
