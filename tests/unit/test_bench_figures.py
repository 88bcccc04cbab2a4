"""Statistics of the bench, and what it reads: h2load's words, /proc, Prometheus' text."""

from __future__ import annotations

import os
import time

import pytest

from bench import accounting, figures, h2load, limits, turns
from bench.load import LoadError


def test_a_spread_is_the_median_between_least_and_most() -> None:
    assert figures.spread([5.0, 1.0, 3.0]) == figures.Spread(3.0, 1.0, 5.0, 3)


def test_without_a_round_that_counts_there_is_no_spread() -> None:
    with pytest.raises(ValueError, match="no round"):
        figures.spread([])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51.0), (0.99, 100.0), (0.999, 100.0)])
def test_a_quantile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert figures.quantile([float(v) for v in range(1, 101)], share) == expected


def test_ratios_are_of_neighbours_in_time_and_skip_rounds_that_one_lacks() -> None:
    ours = {0: 10.0, 1: 40.0, 2: 30.0}
    theirs = {0: 20.0, 1: 20.0, 3: 1.0}

    assert figures.paired_ratio(ours, theirs) == figures.Spread(1.25, 0.5, 2.0, 2)
    assert figures.paired_ratio(ours, {5: 1.0}) is None


def test_a_block_is_as_large_as_its_budget_of_cpu() -> None:
    size = figures.block_size(
        cpu=50e-6, wall=60e-6, budget=1.0, patience=6.0, least=2000, most=60_000
    )
    assert size == 20_000


def test_a_block_never_outlasts_its_patience_but_for_its_least_size() -> None:
    size = figures.block_size(cpu=1e-6, wall=1e-3, budget=1.0, patience=6.0, least=2, most=60_000)
    assert size == 6000

    size = figures.block_size(cpu=1e-6, wall=1.0, budget=1.0, patience=6.0, least=50, most=60_000)
    assert size == 50


def test_a_warm_up_below_the_clock_s_resolution_gives_the_largest_block() -> None:
    assert figures.block_size(cpu=0, wall=0, budget=1, patience=6, least=1, most=70) == 70


# --- h2load ---------------------------------------------------------------------------------------

DONE = """\
progress: 100% done

finished in 417.22ms, 95872.68 req/s, 4.30MB/s
requests: 40000 total, 40000 started, 40000 done, 39990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 39980 2xx, 0 3xx, 0 4xx, 20 5xx
traffic: 1.79MB (1880592) total, 78.26KB (80136) headers (space savings 94.73%), 664.06KB data
"""


def test_calls_that_h2load_calls_successful_but_that_were_no_200_have_failed() -> None:
    load = h2load.parse(DONE)

    assert (load.calls, load.failed) == (40_000, 20)
    assert load.seconds == pytest.approx(0.41722)


@pytest.mark.parametrize(
    ("said", "seconds"), [("12.5us", 12.5e-6), ("2.00s", 2.0), ("1.50m", 90.0)]
)
def test_h2load_s_units_of_time(said: str, seconds: float) -> None:
    assert h2load.parse(DONE.replace("417.22ms", said)).seconds == pytest.approx(seconds)


def test_a_failing_h2load_is_quoted() -> None:
    with pytest.raises(LoadError, match="connection refused"):
        h2load.parse("connection refused")


def test_latencies_come_from_the_log_without_failed_requests() -> None:
    log = "1700000000000000\t200\t153\n1700000000000200\t-1\t9\n1700000000000300\t200\t42\n"
    assert h2load.parse_log(log) == [153.0, 42.0]


# --- /proc ----------------------------------------------------------------------------------------


def stat(pid: int, name: str, parent: int, *ticks: int) -> str:
    """A line of /proc/PID/stat: ticks are utime, stime, cutime, cstime."""
    before = ["0"] * 9  # pgrp .. cmajflt
    return " ".join([str(pid), f"({name})", "S", str(parent), *before, *map(str, ticks), "20 0"])


def test_cpu_time_counts_reaped_children_too() -> None:
    assert accounting.parse_stat(stat(7, "envoy", 3, 1, 2, 30, 40)) == accounting.Usage(7, 3, 73)


def test_a_process_may_be_named_to_confuse_readers_of_proc() -> None:
    assert accounting.parse_stat(stat(7, "a) R 1 (b", 3, 1, 2, 0, 0)).parent == 3


def test_a_tree_is_everything_below_its_root_and_nothing_else() -> None:
    parents = {1: 0, 2: 1, 3: 2, 4: 2, 5: 1, 6: 4}
    usages = [accounting.Usage(pid, parent, 1) for pid, parent in sorted(parents.items())]

    assert {u.pid for u in accounting.tree(2, reversed(usages))} == {2, 3, 4, 6}
    assert accounting.tree(99, usages) == []


def test_our_own_cpu_time_and_memory_are_found() -> None:
    while not time.process_time() > 2 / accounting.TICKS:
        sum(range(100_000))

    assert accounting.cpu_seconds(os.getpid()) > 0
    assert accounting.memory(os.getpid()) > 1 << 20


def test_memory_is_the_proportional_set_size() -> None:
    rollup = (
        "00400000-7ff ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss:  512 kB\nPss_Anon: 1 kB\n"
    )

    assert accounting.parse_rollup(rollup) == 512 * 1024
    with pytest.raises(ValueError, match="Pss"):
        accounting.parse_rollup("Rss: 1 kB")


def test_totals_add_up_over_labels() -> None:
    text = '# HELP a b\na_total{x="1 2"} 3\na_total{x="}"} 4.5\nb 1\n'
    assert accounting.totals(text) == {"a_total": 7.5, "b": 1.0}


# --- the rest -------------------------------------------------------------------------------------


def test_the_longest_turn_is_one_of_the_block_and_a_torn_line_is_none() -> None:
    lines = "1.000000 0.500000\n5.000000 0.020000\n6.000000 0.030000\n7.0"

    assert turns.longest(lines, since=4.0) == 0.03
    assert turns.longest(lines, since=6.5) == turns.LONG


def test_connections_are_scaled_down_to_what_files_allow() -> None:
    assert limits.affordable(10_000, 65_536) == 10_000
    assert limits.affordable(10_000, 4_500) == 2_000
