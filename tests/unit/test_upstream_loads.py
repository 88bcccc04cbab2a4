"""What workers know of each other's load."""

from __future__ import annotations

import mmap

import pytest

from stickyproxy.counters import EndpointStats
from stickyproxy.upstream.loads import Loads, RowBook, clear, size

ROWS = {"c": {"a": 0, "b": 1}}


@pytest.fixture
def memory() -> memoryview[int]:
    return memoryview(mmap.mmap(-1, size(2)))


def two(memory: memoryview[int]) -> tuple[Loads, Loads]:
    pair = Loads(memory, 2, 0), Loads(memory, 2, 1)
    for one in pair:
        one.place(ROWS, {})
    return pair


def test_what_one_has_under_way_the_other_sees(memory: memoryview[int]) -> None:
    one, other = two(memory)
    mine, theirs = one.stats("c", "a"), other.stats("c", "a")
    mine.rq_active += 2
    theirs.rq_active += 1
    assert (one.active("c", "a"), other.active("c", "a")) == (3, 3)
    assert (mine.rq_active, theirs.rq_active) == (2, 1)
    mine.rq_active -= 2
    assert other.active("c", "a") == 1
    assert other.active("c", "b") == 0


def test_an_endpoint_without_a_row_is_counted_by_its_worker_alone(memory: memoryview[int]) -> None:
    one, other = two(memory)
    stats = one.stats("c", "z")
    stats.rq_active += 1
    assert stats.rq_active == 1
    assert one.active("c", "z") is None
    assert other.active("nowhere", "z") is None


def test_shared_counters_travel_as_others_do(memory: memoryview[int]) -> None:
    stats = two(memory)[0].stats("c", "a")
    stats.rq_active += 1
    stats.rq_total += 1
    plain = EndpointStats()
    plain.add(stats.as_dict())
    assert (plain.rq_active, plain.rq_total) == (1, 1)


def test_load_moves_with_its_endpoint_to_another_row(memory: memoryview[int]) -> None:
    one, other = two(memory)
    stats = one.stats("c", "a")
    stats.rq_active += 1
    for loads in (one, other):
        loads.place({"c": {"b": 0, "a": 1}}, {("c", "a"): stats})
    assert (other.active("c", "a"), other.active("c", "b")) == (1, 0)
    for loads in (one, other):
        loads.place({"c": {"b": 0}}, {("c", "a"): stats})
    stats.rq_active += 1  # it has no row to write to any more
    for loads in (one, other):
        loads.place({"c": {"b": 0, "n": 1}}, {("c", "a"): stats})
    assert other.active("c", "n") == 0


def test_a_cluster_that_comes_under_least_request_brings_its_load(memory: memoryview[int]) -> None:
    one, other = Loads(memory, 2, 0), Loads(memory, 2, 1)
    stats = one.stats("c", "a")
    stats.rq_active += 1
    for loads in (one, other):
        loads.place(ROWS, {("c", "a"): stats})
    assert other.active("c", "a") == 1


def test_a_dead_workers_load_is_cleared_and_no_other(memory: memoryview[int]) -> None:
    one, other = two(memory)
    one.stats("c", "a").rq_active += 5
    other.stats("c", "a").rq_active += 1
    clear(memory, 2, 0)
    assert other.active("c", "a") == 1


def test_a_row_that_was_given_back_is_given_out_last() -> None:
    book = RowBook(rows=4)
    assert book.want("c", ["a", "b"])
    assert book.want("c", ["b"])
    assert book.want("c", ["b", "n"])
    assert book.rows("c") == {"b": 1, "n": 2}
    assert not book.want("c", ["n", "b"])


def test_more_endpoints_than_rows_leaves_the_last_without() -> None:
    book = RowBook(rows=2)
    assert book.want("c", ["a", "b", "c"])
    assert book.rows("c") == {"a": 0, "b": 1}
    assert not book.want("c", ["a", "b", "c"])
    assert book.want("c", ["b", "c"])
    assert book.rows("c") == {"b": 1, "c": 0}
