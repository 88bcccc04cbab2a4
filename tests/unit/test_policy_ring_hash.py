"""Ring hash: the facts of Envoy's ring, its laws, and an independent ring to compare with."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64

from stickyproxy.policy.murmur import murmur2
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.tables import TableError, Weighted
from support.elsewhere import said_elsewhere
from support.plain_tables import plain_lookup, plain_ring

HASHES = st.integers(0, 2**64 - 1)


def pods(count: int, weight: float = 1) -> list[tuple[str, float]]:
    return [(f"10.0.{n // 256}.{n % 256}:8080", weight) for n in range(count)]


@pytest.mark.parametrize("size", [6, 75, 77, 1024, 5000])
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3, 94], [7], [3, 1]])
def test_the_ring_is_that_of_the_text(size: int, weights: list[int]) -> None:
    endpoints = [(key, w) for (key, _), w in zip(pods(len(weights)), weights, strict=True)]

    ring = RingHash.build(endpoints, size)

    assert ring.entries == plain_ring(endpoints, size, 8_388_608)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 200))
def test_any_weights_make_the_ring_of_the_text(weights: list[int], minimum: int) -> None:
    endpoints = [(key, w) for (key, _), w in zip(pods(len(weights)), weights, strict=True)]

    assert RingHash.build(endpoints, minimum, 4000).entries == plain_ring(endpoints, minimum, 4000)


@pytest.mark.parametrize("size", [75, 77])
@given(hash_=HASHES)
def test_each_hash_belongs_to_the_entry_the_text_says(size: int, hash_: int) -> None:
    endpoints = pods(4)
    ring = RINGS[size]

    assert ring.lookup(hash_) == plain_lookup(plain_ring(endpoints, size, 8_388_608), hash_)


RINGS = {size: RingHash.build(pods(4), size) for size in (75, 77)}


def test_fractions_carry_over_from_endpoint_to_endpoint() -> None:
    ring = RingHash.build(pods(4), 1, 6)
    scaled = RingHash.build(pods(4), 6, 6)

    assert [Counter(ring.indices)[index] for index in range(4)] == [1, 1, 1, 1]
    assert [Counter(scaled.indices)[index] for index in range(4)] == [2, 1, 2, 1]


def test_a_small_maximum_leaves_some_endpoints_without_entries() -> None:
    ring = RingHash.build(pods(100), 1, 10)

    assert len(ring.entries) == 10
    assert len(set(ring.indices)) == 10


def test_the_lightest_endpoint_sets_the_scale() -> None:
    ring = RingHash.build([("a", 1), ("b", 9)], 15)

    assert Counter(ring.indices) == {0: 2, 1: 18}


def test_entries_hash_key_underscore_number() -> None:
    ring = RingHash.build([("10.0.0.1:80", 1)], 3)

    names = ("10.0.0.1:80_0", "10.0.0.1:80_1", "10.0.0.1:80_2")
    assert ring.entries == sorted((xxh64(name.encode()).intdigest(), 0) for name in names)


def test_murmur_hashes_the_same_names() -> None:
    ring = RingHash.build([("10.0.0.1:80", 1)], 2, hash_function="murmur_hash2")

    assert ring.entries == sorted([(murmur2(b"10.0.0.1:80_0"), 0), (murmur2(b"10.0.0.1:80_1"), 0)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", 6142509188972423790),
        (b"foo", 9631199822919835226),
        (b"bar", 11474628671133349555),
        (b"foo\nbar", 16306510975912980159),
        (b"lyft", 12847078931730529320),
    ],
)
def test_murmur2_has_envoys_known_values(text: bytes, expected: int) -> None:
    assert murmur2(text) == expected


def test_both_ends_of_the_hash_space_belong_to_the_first_entry() -> None:
    ring = RingHash.build(pods(5))
    first, last = ring.entries[0], ring.entries[-1]

    assert ring.lookup(0) == ring.lookup(2**64 - 1) == ring.lookup(first[0]) == first[1]
    assert ring.lookup(last[0]) == last[1]
    assert ring.slot(last[0]) == len(ring.entries) - 1
    assert ring.slot(last[0] + 1) == 0


@given(HASHES, st.integers(0, 5000))
def test_attempts_go_on_clockwise(hash_: int, attempt: int) -> None:
    ring = RINGS[75]
    start = ring.slot(hash_)

    assert ring.lookup(hash_, attempt) == ring.entries[(start + attempt) % len(ring.entries)][1]


def test_the_order_given_is_kept_for_the_rounding() -> None:
    straight, turned = pods(4), pods(4)[::-1]
    by_key = [
        Counter(endpoints[index][0] for index in RingHash.build(endpoints, 6, 6).indices)
        for endpoints in (straight, turned)
    ]

    assert by_key[0] != by_key[1]


def test_equal_endpoints_take_roughly_equal_shares() -> None:
    ring = RingHash.build(pods(5), 100_000)
    step = 2**64 // 50_000

    shares = Counter(ring.lookup(hash_) for hash_ in range(0, 2**64, step))

    assert all(9_500 < share < 10_500 for share in shares.values())


def test_more_entries_of_the_others_are_all_that_moves_keys() -> None:
    """With as many entries for each as before, only the removed endpoint's keys move."""
    before, after = pods(10), pods(9)
    old, new = RingHash.build(before, 1000), RingHash.build(after, 900)
    hashes = range(0, 2**64, 2**64 // 10_000)

    assert all(new.lookup(h) == old.lookup(h) for h in hashes if old.lookup(h) != 9)


def test_other_processes_build_the_same_ring() -> None:
    program = (
        "import hashlib; from stickyproxy.policy.ring_hash import RingHash;"
        "ring = RingHash.build([(f'10.0.0.{n}:80', 1 + n % 3) for n in range(20)]);"
        "print(hashlib.sha256(repr(ring.entries).encode()).hexdigest())"
    )

    assert len(said_elsewhere(program)) == 1


def test_steps_build_the_same_ring_in_slices() -> None:
    steps = RingHash.build_steps(pods(7), 20_000)
    slices = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            ring = end.value
            break
        slices += 1

    assert ring.entries == RingHash.build(pods(7), 20_000).entries
    assert slices > 20_000 // 250


@pytest.mark.parametrize(
    ("endpoints", "sizes", "says"),
    [
        ([], (1024, 2048), "no endpoints"),
        (pods(2), (20, 10), "minimum ring size 20 is over maximum ring size 10"),
        (pods(2), (0, 10), "minimum ring size 0: it must be 1 to 8388608"),
        (pods(2), (10, 8_388_609), "maximum ring size 8388609: it must be 1 to 8388608"),
        ([("a", 0)], (1, 10), "weight 0 of a: a weight must be above 0"),
        ([("a", 2**32)], (1, 10), "sum to 4294967296"),
        ([("a", 1), ("a", 2)], (1, 10), "endpoint a is there twice"),
    ],
)
def test_what_makes_no_ring_is_told_with_what_would(
    endpoints: Weighted, sizes: tuple[int, int], says: str
) -> None:
    with pytest.raises(TableError, match=says):
        RingHash.build(endpoints, *sizes)


def test_an_unknown_hash_function_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'md5': it must be xxhash64 or murmur_hash2"):
        RingHash.build(pods(1), hash_function="md5")
