"""What several workers know of an endpoint, as one page shows it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from stickyproxy.control.workers import orders
from stickyproxy.control.workers.hand import Hand
from stickyproxy.control.workers.tally import Tally
from stickyproxy.health.changes import Seen

EJECTED = Seen("/failed_outlier_check", "ejected: consecutive_5xx")
BOTH = Seen("/failed_outlier_check/connect_failed", f"{EJECTED.reason}; cannot be connected to")
PLACE = ("c", "10.0.0.1:80")


def tally(*reports: orders.Report) -> Tally:
    hands = {n: cast("Hand", SimpleNamespace(report=report)) for n, report in enumerate(reports)}
    return Tally(hands, len(reports))


def test_what_all_say_is_said_once() -> None:
    told = orders.Report(1, {}, {PLACE: EJECTED})
    assert tally(told, told).seen(*PLACE) == EJECTED


def test_what_only_some_say_names_them() -> None:
    quiet = orders.Report(1, {}, {})
    found = tally(quiet, orders.Report(1, {}, {PLACE: EJECTED}), quiet).seen(*PLACE)
    assert found == Seen(EJECTED.flags, f"{EJECTED.reason} (worker 2 of 3)")


def test_different_reasons_stand_beside_each_other() -> None:
    one, two = orders.Report(1, {}, {PLACE: EJECTED}), orders.Report(1, {}, {PLACE: BOTH})
    assert tally(one, two).seen(*PLACE) == BOTH


def test_nothing_against_it_is_nothing() -> None:
    assert tally(orders.Report(1, {}, {PLACE: EJECTED})).seen("c", "other") is None


def test_one_worker_in_panic_is_enough_to_show_it() -> None:
    quiet = orders.Report(1, {}, {})
    assert tally(quiet, orders.Report(1, {}, {}, frozenset({"c"}))).panicking == {"c"}
