"""How much of a table belongs to whom."""

from __future__ import annotations

from collections import Counter

from stickyproxy.model import Table
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash

_HASHES = 1 << 64


def shares(table: Table | None, count: int) -> list[float]:
    """Of all hashes, the part of each endpoint by index; nothing for what is no table of ours."""
    if isinstance(table, MaglevTable):
        owned = Counter(table.slots)
        return [owned[index] / table.size for index in range(count)]
    if isinstance(table, RingHash):
        return [n / _HASHES for n in _arcs(table, count)]
    return []


def _arcs(ring: RingHash, count: int) -> list[int]:
    """An entry has the hashes from the one before it up to itself; the first has both ends."""
    owned = [0] * count
    before = ring.hashes[-1] - _HASHES
    for hash_, index in zip(ring.hashes, ring.indices, strict=True):
        owned[index] += hash_ - before
        before = hash_
    return owned


def owners(table: Table, parts: int) -> list[int]:
    """Whose the middle of each of `parts` equal parts of all hashes is, by index."""
    return [table.lookup((2 * part + 1) * _HASHES // (2 * parts)) for part in range(parts)]
