"""Maglev: the facts of Envoy's table, its laws, and an independent fill to compare with."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.policy import maglev
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.tables import TableError, Weighted
from support.elsewhere import said_elsewhere
from support.plain_tables import plain_fill

SMALL = 251  # a prime that fills fast


def pods(count: int, weight: float = 1) -> list[tuple[str, float]]:
    return [(f"10.0.{n // 256}.{n % 256}:8080", weight) for n in range(count)]


def keys_of(table: MaglevTable, endpoints: Weighted) -> list[str]:
    return [endpoints[index][0] for index in table.slots]


def test_weights_one_to_two_own_the_documented_slots() -> None:
    table = MaglevTable.build([("10.0.0.1:80", 1), ("10.0.0.2:80", 2)])

    assert Counter(table.slots) == {0: 21846, 1: 43691}


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [5, 1, 20, 3, 1], [1, 3, 3, 7, 1000]])
@pytest.mark.parametrize("size", [2, 3, 5, 1009, 65537])
def test_the_fill_is_that_of_the_text(weights: list[int], size: int) -> None:
    endpoints = [(key, weight) for (key, _), weight in zip(pods(5), weights, strict=True)]

    assert keys_of(MaglevTable.build(endpoints, size), endpoints) == plain_fill(endpoints, size)


@given(st.lists(st.integers(1, 2**24), min_size=1, max_size=40))
def test_any_weights_fill_as_in_the_text(weights: list[int]) -> None:
    endpoints = [(key, w) for (key, _), w in zip(pods(len(weights)), weights, strict=True)]

    assert keys_of(MaglevTable.build(endpoints, SMALL), endpoints) == plain_fill(endpoints, SMALL)


@given(st.permutations([*pods(9), ("[2001:db8::1]:80", 4), ("é:80", 2)]))
def test_the_order_of_endpoints_changes_no_slot(shuffled: list[tuple[str, float]]) -> None:
    straight = sorted(shuffled)

    assert keys_of(MaglevTable.build(shuffled, SMALL), shuffled) == keys_of(
        MaglevTable.build(straight, SMALL), straight
    )


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_equal_endpoints_own_equal_shares(count: int) -> None:
    owned = Counter(MaglevTable.build(pods(count)).slots)

    assert len(owned) == count
    assert max(owned.values()) - min(owned.values()) <= 1


def test_the_lightest_endpoint_still_owns_a_slot() -> None:
    table = MaglevTable.build([("a", 2**31), ("b", 1), ("c", 1)], SMALL)

    assert Counter(table.slots) == {0: SMALL - 2, 1: 1, 2: 1}


def test_more_endpoints_than_slots_leave_the_last_in_key_order_out() -> None:
    table = MaglevTable.build(pods(10), 7)

    assert sorted(table.slots) == list(range(7))


def test_a_removed_endpoint_moves_few_other_keys() -> None:
    before, after = pods(10), pods(10)[:4] + pods(10)[5:]
    old = keys_of(MaglevTable.build(before), before)
    new = keys_of(MaglevTable.build(after), after)

    moved = sum(a != b for a, b in zip(old, new, strict=True) if a != before[4][0])
    assert moved < len(old) // 100  # 0.2 % is usual with 10 endpoints


def test_a_single_endpoint_owns_everything() -> None:
    table = MaglevTable.build(pods(1))

    assert len(table.slots) == 65537
    assert not any(table.slots)
    assert table.lookup(2**64 - 1, 3) == 0


def test_lookup_is_modulo_and_attempts_flip_bits() -> None:
    table = MaglevTable.build(pods(50))
    hash_ = 0x0123456789ABCDEF

    assert table.lookup(hash_) == table.slots[hash_ % 65537]
    assert table.lookup(hash_, 1) == table.slots[(hash_ ^ 0xFFFFFFFFFFFFFFFF) % 65537]
    assert table.lookup(hash_, 2) == table.slots[(hash_ ^ 0xFFFFFFFFFFFFFFFE) % 65537]
    assert table.slot(hash_) == hash_ % 65537


def test_other_processes_build_the_same_table() -> None:
    program = (
        "import hashlib; from stickyproxy.policy.maglev import MaglevTable;"
        "table = MaglevTable.build([(f'10.0.0.{n}:80', 1 + n % 3) for n in range(20)]);"
        "print(hashlib.sha256(table.slots.tobytes()).hexdigest())"
    )

    assert len(said_elsewhere(program)) == 1


@pytest.mark.parametrize("endpoints", [pods(1), pods(7), [("a", 1), ("b", 9)], pods(300)])
def test_steps_build_the_same_table_in_slices(endpoints: Weighted) -> None:
    steps = MaglevTable.build_steps(endpoints)
    slices = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            table = end.value
            break
        slices += 1

    assert table.slots == MaglevTable.build(endpoints).slots
    assert slices >= (65 if len(endpoints) > 1 else 0)  # at most 1,000 slots a slice


def test_no_slice_claims_or_searches_more_than_a_few_thousand_slots() -> None:
    size = 65537
    fill = maglev._Fill(list(range(10)), size)
    for _ in fill.permute([key for key, _ in pods(10)]):
        pass

    walk = fill.walk(maglev._turns([0.1] * 10), size // 1024)
    claimed = [0, *(sum(fill.taken) for _ in walk)]

    for before, after in pairwise(claimed):
        assert (after - before - 1) * size / (size - before) <= 1_000  # steps of the average slice
    assert claimed[-1] == size - size // 1024


@pytest.mark.parametrize(
    ("endpoints", "size", "says"),
    [
        ([], 65537, "no endpoints"),
        (pods(2), 65536, "not a prime: 65521 and 65537 are"),
        (pods(2), 0, "not a prime"),
        (pods(2), -7, "not a prime"),
        (pods(2), 1, "not a prime: 2 and 2 are"),
        (pods(2), 5_000_077, "at most 5000011"),
        ([("a", 0)], 65537, "weight 0 of a: a weight must be above 0"),
        ([("a", -1.5), ("b", 1)], 65537, "weight -1.5 of a"),
        ([("a", float("nan"))], 65537, "weight nan of a"),
        ([("a", 2**31), ("b", 2**31)], 65537, "sum to 4294967296: they must sum to at most"),
        ([("a", 1), ("b", 1), ("a", 1)], 65537, "endpoint a is there twice"),
    ],
)
def test_what_makes_no_table_is_told_with_what_would(
    endpoints: Weighted, size: int, says: str
) -> None:
    with pytest.raises(TableError, match=says):
        MaglevTable.build(endpoints, size)


def test_weights_may_sum_to_all_of_uint32() -> None:
    assert MaglevTable.build([("a", 2**31), ("b", 2**31 - 1)], SMALL).slots.count(0) == 126
