"""Envoy's tables by the rules as they are written down, without any of our short cuts.

Nothing here comes from `stickyproxy`: what these say and what the proxy does can only agree by being
right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from xxhash import xxh64

Weighted = Sequence[tuple[str, float]]
"""Endpoint keys and weights."""

TABLE_SIZE = 65_537
RING_SIZE, LARGEST_RING = 1024, 8_388_608
"""Envoy's defaults."""


def plain_fill(endpoints: Weighted, size: int) -> list[str]:
    """The rules as they are written down, without any of our short cuts: the key of each slot."""
    total = sum(weight for _, weight in endpoints)
    hosts = sorted(endpoints, key=lambda endpoint: endpoint[0].encode())
    shares = [weight / total for _, weight in hosts]
    heaviest = max(shares)
    target = [0.0] * len(hosts)
    following = [0] * len(hosts)
    table: list[str | None] = [None] * size
    left = size
    iteration = 0
    while left:
        iteration += 1
        for host, (key, _) in enumerate(hosts):
            if iteration * shares[host] < target[host] or not left:
                continue
            target[host] += heaviest
            offset = xxh64(key.encode(), seed=0).intdigest() % size
            skip = xxh64(key.encode(), seed=1).intdigest() % (size - 1) + 1
            while table[(offset + skip * following[host]) % size] is not None:
                following[host] += 1
            table[(offset + skip * following[host]) % size] = key
            following[host] += 1
            left -= 1
    return [key for key in table if key is not None]


def plain_ring(endpoints: Weighted, minimum: int, maximum: int) -> list[tuple[int, int]]:
    """The rules as they are written down."""
    total = sum(weight for _, weight in endpoints)
    shares = [weight / total for _, weight in endpoints]
    scale = min(math.ceil(min(shares) * minimum) / min(shares), maximum)
    ring = []
    current, target = 0, 0.0
    for index, share in enumerate(shares):
        target += scale * share
        first = current
        while current < target:
            name = f"{endpoints[index][0]}_{current - first}"
            ring.append((xxh64(name.encode()).intdigest(), index))
            current += 1
    return sorted(ring)


def plain_lookup(ring: list[tuple[int, int]], hash_: int) -> int:
    return next((index for point, index in ring if point >= hash_), ring[0][1])


def hash_of(value: str) -> int:
    """What one value of a header, a cookie or a source address hashes to."""
    return xxh64(value.encode()).intdigest()


def endpoint_of(policy: str, endpoints: Weighted) -> Callable[[str], str]:
    """From a session's value to the key of its endpoint. `endpoints` sorted by key."""
    if policy == "maglev":
        slots = plain_fill(endpoints, TABLE_SIZE)
        return lambda value: slots[hash_of(value) % TABLE_SIZE]
    ring = plain_ring(endpoints, RING_SIZE, LARGEST_RING)
    return lambda value: endpoints[plain_lookup(ring, hash_of(value))][0]
