"""What runs come to, whether that is enough, and how it is shown: on runs made up here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.pages import placed
from chaos import page, picture, report
from chaos.__main__ import joined, table_json
from chaos.goals import GOALS, Goal, verdict, verdicts
from chaos.job import CHAT
from chaos.load import Row
from chaos.peers import BASE, OURS, SAFE
from chaos.samples import Sample, save, saved
from chaos.scenarios import GROUPS
from chaos.summary import back_in_use, failover, moved, summaries, summarised

RUN = {
    "when": "2026-11-28T20:00:00Z",
    "machine": {"cores": 2, "kernel": "6.1", "python": "3.11"},
    "versions": {"envoy": "1.2", "sticky": "0.1"},
    "missing": ["haproxy"],
    "jobs": 2,
    "quick": False,
    "runs": 2,
}


def sample(peer: str = OURS, number: int = 0, scenario: str = "bh-conn") -> Sample:
    """300 calls a second for ten seconds, in turn to three backends, each answered in 11 ms."""
    rows: list[Row] = [(at / 0.3, 11.0, "200", f"b{at % 3 + 1}") for at in range(3000)]
    return Sample(
        scenario,
        peer,
        number,
        rows=rows,
        late_ms=0.5,
        requests=[1000, 1000, 1000],
        accepted=[2, 1, 1],
        connections=[2, 1, 1],
        undisturbed_ms=10.0,
        began_ms=4000.0,
    )


def changed(run: Sample, calls: slice, latency: float, status: str, backend: str = "") -> Sample:
    rows = list(run.rows)
    rows[calls] = [(due, latency, status, backend) for due, _, _, _ in rows[calls]]
    return replace(run, rows=rows)


def test_failed_calls_are_late_and_an_outage_however_soon_they_failed() -> None:
    found = summarised([changed(sample(), slice(0, 30), 2.0, "503")])

    assert (found.failed.found, found.outages.found, found.later[1000].found) == (30, 30, 30)
    assert found.endings == {"503": 30}


def test_late_counts_from_an_undisturbed_answer() -> None:
    found = summarised([changed(sample(), slice(0, 3), 60.0, "200", "b1")])

    assert {limit: one.found for limit, one in found.later.items()} == {40: 3, 250: 0, 1000: 0}
    assert found.outages.found == 0


def test_tails_are_pooled_and_runs_shown_apart() -> None:
    slow = changed(sample(number=1), slice(0, 300), 500.0, "200", "b1")
    found = summarised([sample(), slow])

    assert (found.runs, found.calls) == (2, 6000)
    assert found.p99 == 500
    assert found.p99s == [11, 500]


def test_what_the_first_backend_kept_is_of_its_equal_share() -> None:
    elsewhere = changed(sample(), slice(0, 3000, 6), 11.0, "200", "b2")  # every other one of b1's

    assert summarised([sample()]).stays == pytest.approx(1.0)
    assert summarised([elsewhere]).stays == pytest.approx(0.5)


def test_attempts_are_what_backends_got_for_each_call() -> None:
    assert summarised([replace(sample(), requests=[1060, 1000, 1000])]).attempts == 1.02


def test_a_void_run_does_not_count_and_is_told() -> None:
    void = Sample("bh-conn", OURS, 1, void="it did not listen")
    found = summaries([sample(), void, Sample("bh-conn", BASE, 0, void="nor did it")])

    assert (found["bh-conn", OURS].runs, found["bh-conn", OURS].void) == (1, ["it did not listen"])
    assert ("bh-conn", BASE) not in found


def healed(back_at: int) -> Sample:
    """The first backend, healed at 5 s, answers nothing from call 1200 to `back_at`."""
    run = replace(sample(scenario="bh-host"), healed_ms=5000.0)
    return changed(run, slice(1200, back_at, 3), 20.0, "200", "b2")


def test_back_in_use_is_when_half_the_share_is_answered_again() -> None:
    assert back_in_use(healed(1500)) == pytest.approx(0, abs=60)
    assert back_in_use(healed(2100)) == pytest.approx(2000, abs=60)
    assert back_in_use(healed(3000)) == float("inf")


def test_one_answer_is_not_yet_being_back() -> None:
    run = changed(healed(2100), slice(1560, 1561), 11.0, "200", "b1")

    assert back_in_use(run) == pytest.approx(2000, abs=60)


def sticky() -> Sample:
    """Three users, each at home on a backend of its own."""
    return replace(sample(scenario="hash.bh-host"), sticky=True, users=3, healed_ms=8000.0)


def test_failover_is_when_the_last_call_of_a_user_was_hurt() -> None:
    run = changed(sticky(), slice(1200, 1260, 3), 300.0, "200", "b2")

    assert failover(sticky()) == 0
    assert failover(run) == pytest.approx(190, abs=1)
    assert failover(sample()) is None


def test_others_who_move_are_counted() -> None:
    run = changed(sticky(), slice(1201, 1261, 3), 11.0, "200", "b3")

    assert moved(sticky()) == 0
    assert moved(run) == pytest.approx(20 / 2000)


def test_sticky_users_are_back_when_all_their_calls_are_at_home_again() -> None:
    away = changed(sticky(), slice(1200, 2550, 3), 11.0, "200", "b2")
    still = changed(sticky(), slice(1200, 3000, 3), 11.0, "200", "b2")

    assert back_in_use(sticky()) == 0
    assert back_in_use(away) == pytest.approx(490, abs=1)
    assert back_in_use(still) == float("inf")


def test_streams_have_to_be_told_in_time_that_they_are_over() -> None:
    run = replace(sample(scenario="chat.bh-conn"), kind=CHAT)
    for calls, latency, status in (
        (slice(0, 1), 900.0, "grpc:14"),
        (slice(1, 2), 1100.0, "grpc:14"),
        (slice(2, 3), 20.0, "rst:2"),
    ):
        run = changed(run, calls, latency, status)
    found = summarised([run])

    assert found.untold
    assert found.untold.found == 2
    assert summarised([sample()]).untold is None
    assert report.table({("chat.bh-conn", OURS): found}, "chat.bh-conn", [OURS])[0][-1].startswith(
        "not told"
    )


def test_a_goal_is_a_ratio_to_a_peer_of_the_same_runs() -> None:
    slow = changed(sample(BASE), slice(0, 300), 110.0, "200", "b1")
    found = summaries([sample(), slow])
    goal = Goal("bh-conn", OURS, "p99", 0.2, BASE)

    assert verdict(goal, found).reached == pytest.approx(0.1)
    assert verdict(goal, found).met
    assert not verdict(replace(goal, limit=0.05), found).met


def test_a_goal_may_be_a_ratio_to_our_own_in_another_scenario() -> None:
    tail = replace(sample(scenario="tail.none"), accepted=[2, 2, 1])
    found = summaries([sample(scenario="none"), tail])

    assert verdict(Goal("tail.none", OURS, "opened", 1.02, "none"), found).reached == 1.25


def test_outages_are_judged_a_run() -> None:
    runs = [changed(sample(number=n), slice(0, 4), 5.0, "503") for n in range(5)]

    assert verdict(Goal("bh-conn", OURS, "outages", 4), summaries(runs)).met
    assert not verdict(Goal("bh-conn", OURS, "outages", 3), summaries(runs)).met


def test_a_goal_without_its_peer_is_not_met_but_not_measured() -> None:
    found = verdict(Goal("bh-conn", OURS, "p99", 0.2, BASE), summaries([sample()]))

    assert (found.reached, found.met) == (None, False)
    assert report.goals([found])[1][-1] == "not measured"


def test_as_many_outages_as_none_is_no_worse() -> None:
    goal = Goal("bh-conn", OURS, "outages", 1.1, BASE)

    assert verdict(goal, summaries([sample(), sample(BASE)])).met
    one = changed(sample(), slice(0, 1), 5.0, "503")
    assert not verdict(goal, summaries([one, sample(BASE)])).met


def test_every_goal_is_of_a_scenario_in_the_catalogue() -> None:
    assert {goal.scenario for goal in GOALS} <= set(GROUPS["all"])
    assert len(set(GOALS)) == len(GOALS)
    assert {goal.ours for goal in GOALS} == {OURS, SAFE}


def everything() -> list[Sample]:
    """Envoy fails, we do not, in two runs each."""
    runs = [sample(number=n) for n in range(2)] + [sample(SAFE)]
    return runs + [
        changed(sample(BASE, n), slice(1200, 3000, 3), 15000.0, "504", "") for n in range(2)
    ]


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = everything()
    for run in runs:
        save(run, tmp_path)

    assert list(saved(tmp_path)) == sorted(runs, key=lambda run: run.path)


def test_tables_have_a_row_a_peer_in_the_order_asked_for() -> None:
    found = summaries(everything())
    rows = report.table(found, "bh-conn", [BASE, "nobody", OURS])

    assert [row[0] for row in rows] == ["", BASE, OURS]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert "600" in rows[1][rows[0].index("failed")] or "1200" in rows[1][rows[0].index("failed")]
    assert len(report.aligned(rows)) == 3


def test_the_page_s_section_is_placed_once_and_says_where_and_how_often() -> None:
    found = summaries(everything())
    once = placed(
        "# Resilience\n\nWords.\n", page.section(found, RUN, [BASE, OURS], picture=True), page.MARKS
    )
    twice = placed(once, page.section(found, RUN, [BASE, OURS], picture=True), page.MARKS)

    assert once.rstrip() == twice.rstrip()
    for words in ("2026-11-28", "envoy 1.2", "2 interleaved runs", "Missing: haproxy", "**met**"):
        assert words.strip("*") in once
    assert page.PICTURE in once


def test_peers_with_fewer_runs_are_owned_up_to() -> None:
    found = summaries([*everything(), sample("haproxy")])

    assert "1 to 2 interleaved runs" in page.section(found, RUN, [BASE, OURS], picture=False)


def test_runs_that_are_added_leave_what_is_known_of_the_others() -> None:
    before = {**RUN, "peers": [BASE], "missing": ["haproxy"]}
    later = {
        **RUN,
        "peers": ["haproxy"],
        "versions": {"haproxy": "2"},
        "missing": ["envoy", "nginx"],
    }
    both = joined(before, later)

    assert both["versions"] == {"envoy": "1.2", "sticky": "0.1", "haproxy": "2"}
    assert (both["peers"], both["missing"]) == ([BASE, "haproxy"], ["nginx"])
    assert joined({}, later) == later


def test_goals_that_were_not_reached_are_said_so() -> None:
    found = summaries([changed(sample(), slice(0, 9), 2000.0, "200", "b1"), sample(BASE)])
    said = [row[-1] for row in report.goals(verdicts(found))[1:]]

    assert "**not met**" in said
    assert "met" in said


def test_the_picture_has_a_panel_for_each_run_and_marks_what_failed() -> None:
    runs = picture.chosen(everything())
    drawn = ET.fromstring(picture.draw(runs))  # noqa: S314 - our own
    words = [node.text or "" for node in drawn.iter() if node.tag.endswith("text")]

    assert [run.peer for run in runs] == [BASE, OURS]
    assert any(f"{BASE}: 600 of 3,000" in text for text in words)
    assert any(f"{OURS}: 0 of 3,000" in text for text in words)
    dots = [node for node in drawn.iter() if node.tag.endswith("circle")]
    assert len(dots) == 60  # of Envoy's bins, those after the fault


def test_there_is_no_picture_without_both() -> None:
    assert picture.chosen([sample(), sample(BASE, number=1)]) == []


def test_a_backend_that_never_came_back_is_told_so_and_no_number_in_json() -> None:
    found = summaries([healed(3000)])

    assert "never" in report.table(found, "bh-host", [OURS])[1]
    told = json.loads(table_json(found, RUN), parse_constant=pytest.fail)
    assert told["cases"][0]["back"] is None
