"""What two looks at the counters say: rates, quantiles, and what changed in between."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.control.live.changes import changes, moved
from stickyproxy.control.live.sample import Owned, Sample, account, quantile, take, troubled
from stickyproxy.metrics import MILLISECONDS
from stickyproxy.model import Snapshot
from support.adminview import CLUSTER, ROUTE, Routes, View

FIRST, REMOVED, EJECTED = (endpoint.key for endpoint in CLUSTER.endpoints)


def look(view: View, at: float = 0.0) -> Sample:
    return take(view, {"greeters": Owned((0.2, 0.2, 0.6), "shares.svg?n=1")}, at, 1e9 + at)


def rows(before: Sample, now: Sample) -> dict[str, Any]:
    [cluster] = account(before, now)["clusters"]
    return {row["key"]: row for row in cluster["endpoints"]}


def calls(view: View, key: str, count: int, millis: float = 4.5) -> None:
    stats = view.counted.endpoint("greeters", key)
    stats.rq_total += count
    place = next(n for n, bound in enumerate(MILLISECONDS) if millis <= bound)
    for _ in range(count):
        view.counted.answers_of("greeters", key).counts[place] += 1


def test_rates_are_of_the_time_between_two_looks() -> None:
    view = View()
    calls(view, FIRST, 100)
    before = look(view)
    calls(view, FIRST, 30)
    view.counted.endpoint("greeters", FIRST).rq_error += 6

    row = rows(before, look(view, at=2.0))[FIRST]

    assert (row["rate"], row["errors"]) == (15, 3)


def test_quantiles_are_of_the_calls_in_between_only() -> None:
    view = View()
    calls(view, FIRST, 1000, millis=9000)
    before = look(view)
    calls(view, FIRST, 99, millis=4.5)
    calls(view, FIRST, 1, millis=450)

    row = rows(before, look(view, at=1.0))[FIRST]

    assert 4 <= row["p50"] <= 5
    assert row["p99"] <= 5


def test_whoever_is_not_well_stands_first_and_who_left_is_not_shown() -> None:
    sample = look(View())
    assert list(rows(sample, sample)) == [EJECTED, FIRST]
    assert rows(sample, sample)[EJECTED]["reason"]


def test_an_endpoint_that_joined_has_no_rate_out_of_nothing() -> None:
    view = View()
    calls(view, FIRST, 5000)
    now = look(view, at=1.0)
    [cluster] = now.clusters
    before = replace(now, at=0.0, clusters=(replace(cluster, endpoints=cluster.endpoints[1:]),))
    assert rows(before, now)[FIRST]["rate"] == 0


def test_the_account_is_plain_json() -> None:
    sample = look(View())
    assert json.loads(json.dumps(account(sample, sample)))["state"] == "LIVE"


@pytest.mark.parametrize("counts", [[], [0] * (len(MILLISECONDS) + 1)])
def test_no_calls_have_no_quantile(counts: list[int]) -> None:
    assert quantile(counts, 0.5) is None


def test_above_the_last_bound_the_bound_is_said() -> None:
    assert quantile([0] * len(MILLISECONDS) + [3], 0.5) == MILLISECONDS[-1]


@given(
    st.lists(st.integers(0, 50), min_size=len(MILLISECONDS), max_size=len(MILLISECONDS)).filter(
        any
    ),
    st.floats(0.01, 1.0),
)
def test_a_quantile_lies_in_a_bucket_that_has_calls(counts: list[int], q: float) -> None:
    found = quantile([*counts, 0], q)
    assert found is not None
    lows = (0.0, *MILLISECONDS)
    inside = [n for n, high in enumerate(MILLISECONDS) if lows[n] <= found <= high]
    assert any(counts[n] for n in inside)


# --- what changed ---------------------------------------------------------------------------------


def test_nothing_changed_says_nothing() -> None:
    sample = look(View())
    assert changes(sample, sample) == []


def test_a_state_that_changed_is_told_both_ways() -> None:
    now = look(View())
    [cluster] = now.clusters
    well = replace(cluster.endpoints[1], flags="healthy", reason="")
    before = replace(now, clusters=(replace(cluster, endpoints=(cluster.endpoints[0], well)),))

    [went] = changes(before, now)
    [came] = changes(now, before)

    assert EJECTED in went
    assert cluster.endpoints[1].reason in went
    assert came.startswith(f"greeters: {EJECTED} is back")


def test_endpoints_and_clusters_come_and_go() -> None:
    view = View()
    now = look(view)
    view.current = Snapshot(8, Routes([ROUTE]), {})
    empty = look(view)
    [cluster] = now.clusters
    fewer = replace(now, clusters=(replace(cluster, endpoints=cluster.endpoints[1:]),))

    assert changes(now, empty) == ["greeters: gone"]
    assert changes(empty, now) == ["greeters: new, with 2 endpoints"]
    assert changes(fewer, now) == [f"greeters: greeter-0 ({FIRST}) joined"]
    assert changes(now, fewer) == [f"greeters: greeter-0 ({FIRST}) left"]


def test_reloads_drains_workers_and_moved_calls_are_told() -> None:
    view = View()
    view.crew = [{"worker": 1, "restarts": 0, "pid": 10, "state": "LIVE"}]
    before = look(view)
    view.crew = [{"worker": 1, "restarts": 1, "pid": 11, "state": "LIVE"}]
    view.is_draining = True
    view.counted.process.config_reloads_total += 1
    view.counted.process.config_reload_failures_total += 1
    for _ in range(3):
        view.counted.repinned("not_ready")

    after = look(view)
    lines = changes(before, after)

    assert lines[0] == "LIVE is DRAINING now"
    assert any("configuration was loaded anew" in line for line in lines)
    assert any("refused" in line for line in lines)
    assert moved(before, after) == {"sessions are elsewhere while their endpoint is not ready": 3}
    assert "worker 1 was replaced: process 11 now" in lines


def test_a_connection_that_was_lost_and_found_is_told() -> None:
    view = View()
    stats = view.counted.endpoint("greeters", FIRST)
    stats.cx_active = stats.cx_total = 1
    one = look(view)
    stats.cx_active = 0
    none = look(view)
    stats.cx_active, stats.cx_total = 1, 2
    again = look(view)

    assert [line.rpartition(") ")[2] for line in changes(one, none)] == [
        "has no connection any more"
    ]
    assert [line.rpartition(") ")[2] for line in changes(none, again)] == ["is connected to again"]


def test_connections_that_are_more_for_more_calls_are_no_news() -> None:
    view = View()
    stats = view.counted.endpoint("greeters", FIRST)
    stats.cx_active = stats.cx_total = 1
    one = look(view)
    stats.cx_active = stats.cx_total = 2
    two = look(view)
    stats.cx_total = 3
    three = look(view)
    assert changes(one, two) == []
    assert "a new connection in the place of an old one" in changes(two, three)[0]


def test_a_connection_that_died_is_told_with_its_endpoint() -> None:
    view = View()
    before = look(view)
    view.counted.endpoint("greeters", FIRST).cx_dead += 1
    [line] = changes(before, look(view))
    assert f"({FIRST}): a connection is dead, and given up" in line


def test_doubts_that_passed_within_one_look_are_a_short_line() -> None:
    view = View()
    counted = view.counted.cluster("greeters")
    before = look(view)
    counted.upstream_link_suspect_ping_total += 2
    suspect = look(view)
    counted.upstream_link_recovered_total += 2
    well = look(view)
    assert changes(before, suspect) == [
        "greeters: 2 connections are suspect: a PING is not answered"
    ]
    assert changes(suspect, well) == ["greeters: 2 connections are well again"]
    assert changes(before, well) == ["greeters: connections were in doubt for a moment"]


def test_whose_connections_are_suspect_is_said_if_it_is_one_endpoint() -> None:
    view = View()
    before = look(view)
    view.counted.cluster("greeters").upstream_link_suspect_timer_total += 1
    view.counted.endpoint("greeters", FIRST).cx_suspect = 1
    [line] = changes(before, look(view))
    assert f"to greeter-0 ({FIRST}) is suspect" in line


@pytest.mark.parametrize(
    ("links", "said"),
    [
        (["well, 3 streams", "asked, 1 stream", "full, 100 streams"], []),
        (
            [
                "suspect, 1 stream, for 0.2 s: late",
                "suspect, 4 streams, for 0.3 s: late",
                "dead, 0 streams",
            ],
            ["2 connections suspect: late", "1 connection dead"],
        ),
        (["all silent: its requests go elsewhere"] * 2, ["all silent: its requests go elsewhere"]),
    ],
)
def test_what_is_not_well_with_connections_is_said_once(links: list[str], said: list[str]) -> None:
    assert troubled(links) == said
