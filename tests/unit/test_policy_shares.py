"""Whose part of all sessions is how large."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from stickyproxy.model import Table
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.shares import owners, shares

WEIGHTED = [("10.0.0.1:80", 1.0), ("10.0.0.2:80", 1.0), ("10.0.0.3:80", 3.0)]


@pytest.mark.parametrize("table", [MaglevTable.build(WEIGHTED), RingHash.build(WEIGHTED)])
def test_shares_are_what_many_keys_get(table: Table) -> None:
    rng, keys = Random(7), 50_000
    got = Counter(table.lookup(rng.getrandbits(64)) for _ in range(keys))

    owned = shares(table, 3)

    assert sum(owned) == pytest.approx(1)
    for index, part in enumerate(owned):
        assert got[index] / keys == pytest.approx(part, abs=0.01)


def test_a_single_endpoint_owns_everything() -> None:
    assert shares(RingHash.build([("a:1", 1.0)]), 1) == [1.0]
    assert shares(MaglevTable.build([("a:1", 1.0)]), 1) == [1.0]


def test_no_table_has_no_shares() -> None:
    assert shares(None, 3) == []


def test_owners_are_the_tables_own_answers() -> None:
    ring = RingHash.build(WEIGHTED)
    assert owners(ring, 4) == [ring.lookup(n << 61) for n in (1, 3, 5, 7)]
