"""The ticker: what goes on is one line that counts, and pushes nothing else out."""

from __future__ import annotations

from stickyproxy.control.live.ticker import KEPT, Ticker

AWAY = "sessions are elsewhere"


def lines(ticker: Ticker, now: float) -> list[str]:
    return [line for _, line in ticker.shown(now)]


def test_calls_that_go_elsewhere_for_an_hour_are_one_line() -> None:
    ticker = Ticker()
    ticker.add(0, ["a: ejected"], {})
    for second in range(1, 3601):
        ticker.add(second, [], {AWAY: 20})
    assert ticker.shown(3600) == ((1, f"{AWAY}: 72,000 calls so far"), (0, "a: ejected"))
    assert lines(ticker, 3700)[0] == f"{AWAY}: 72,000 calls in 1 h 0 min"


def test_what_begins_anew_is_a_new_line() -> None:
    ticker = Ticker()
    ticker.add(0, [], {AWAY: 1})
    ticker.add(60, [], {AWAY: 1})
    assert ticker.shown(60) == ((60, f"{AWAY}: 1 call so far"), (0, f"{AWAY}: 1 call in 1 s"))


def test_what_flaps_is_counted() -> None:
    ticker = Ticker()
    for second in range(9):
        ticker.add(second, ["a is out" if second % 2 else "a is back"], {})
    assert lines(ticker, 9) == ["a is out (4 times)", "a is back (5 times)"]


def test_the_newest_and_then_the_most_general_stand_first() -> None:
    ticker = Ticker()
    ticker.add(0, ["first"], {})
    ticker.add(1, ["the process", "a cluster"], {})
    assert lines(ticker, 1) == ["the process", "a cluster", "first"]


def test_no_more_is_kept_than_somebody_reads() -> None:
    ticker = Ticker()
    for second in range(3 * KEPT):
        ticker.add(second, [f"line {second}"], {})
    assert len(lines(ticker, 0)) == KEPT
