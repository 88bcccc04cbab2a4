"""Ring hash (ketama), entry for entry as Envoy makes the ring.

Every endpoint stands on a ring of 2**64 points as often as its weight asks, at the hashes of
`key_0`, `key_1`, …; a request belongs to the first entry at or after its own hash.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from itertools import islice

from xxhash import xxh64_intdigest

from stickyproxy.policy.murmur import murmur2
from stickyproxy.policy.tables import (
    HashTable,
    TableError,
    Weighted,
    exhaust,
    index_array,
    normalised,
)

DEFAULT_MINIMUM = 1024  # Envoy's default
LIMIT = 8_388_608  # Envoy's default maximum and highest allowed value, for both sizes

HASH_FUNCTIONS: dict[str, Callable[[bytes], int]] = {
    "xxhash64": xxh64_intdigest,
    "murmur_hash2": murmur2,
}

_SLICE = 250  # entries hashed between two yields: at most 0.5 ms, Murmur being the dear one
_BUCKET = 512  # entries sorted between two yields


class RingHash(HashTable):
    """`hashes` ascends; `indices[i]` is the endpoint, in the order given to `build`, at entry i."""

    __slots__ = ("hashes", "indices")

    def __init__(self, hashes: array[int], indices: array[int], count: int) -> None:
        super().__init__(count)
        self.hashes = hashes
        self.indices = indices

    @classmethod
    def build(
        cls,
        endpoints: Weighted,
        minimum: int = DEFAULT_MINIMUM,
        maximum: int = LIMIT,
        hash_function: str = "xxhash64",
    ) -> RingHash:
        """Build the ring in one go. Sizes count entries, 1 to 8,388,608.

        The lightest endpoint gets its share of `minimum` entries, rounded up, and the others in
        proportion; more than `maximum` in all are scaled down, and then some endpoints may get
        none. Fractions carry over from one endpoint to the next, so the order given matters by
        one entry. Raises `TableError` for no endpoints, `minimum` over `maximum`, sizes out of
        range, an unknown hash function, weights that are not positive or sum past uint32, and keys
        that occur twice.
        """
        return exhaust(cls.build_steps(endpoints, minimum, maximum, hash_function))

    @classmethod
    def build_steps(
        cls,
        endpoints: Weighted,
        minimum: int = DEFAULT_MINIMUM,
        maximum: int = LIMIT,
        hash_function: str = "xxhash64",
    ) -> Generator[None, None, RingHash]:
        """`build`, yielding about every 0.5 ms; the ring is the generator's return value."""
        _check_sizes(minimum, maximum)
        if hash_function not in HASH_FUNCTIONS:
            known = " or ".join(HASH_FUNCTIONS)
            raise TableError(f"hash function {hash_function!r}: it must be {known}")
        shares = normalised(endpoints)
        lightest = min(shares)
        scale = min(math.ceil(lightest * minimum) / lightest, float(maximum))
        entries = _entries(endpoints, [scale * share for share in shares])
        return cls._steps(entries, HASH_FUNCTIONS[hash_function], math.ceil(scale), len(endpoints))

    @classmethod
    def _steps(
        cls,
        entries: Iterator[tuple[bytes, int]],
        digest: Callable[[bytes], int],
        size: int,
        count: int,
    ) -> Generator[None, None, RingHash]:
        # Hashes are even, so sorting by the leading bits makes buckets that sort in one slice each.
        bits = (size // _BUCKET).bit_length()
        shift = 64 - bits
        buckets = [(array("Q"), index_array(count)) for _ in range(1 << bits)]
        while batch := list(islice(entries, _SLICE)):
            for name, index in batch:
                hash_ = digest(name)
                hashes, indices = buckets[hash_ >> shift]
                hashes.append(hash_)
                indices.append(index)
            yield
        ring = cls(array("Q"), index_array(count), count)
        for hashes, indices in buckets:
            for hash_, index in sorted(zip(hashes, indices, strict=True)):
                ring.hashes.append(hash_)
                ring.indices.append(index)
            yield
        return ring

    @property
    def entries(self) -> list[tuple[int, int]]:
        """(hash, index of the endpoint) of every entry, ascending; made anew at each call."""
        return list(zip(self.hashes, self.indices, strict=True))

    def slot(self, hash_: int) -> int:
        """The number of the entry that a 64-bit hash belongs to."""
        return bisect_left(self.hashes, hash_) % len(self.hashes)

    def lookup(self, hash_: int, attempt: int = 0) -> int:
        """The endpoint of a 64-bit hash; attempt n is n entries further round."""
        return self.indices[(bisect_left(self.hashes, hash_) + attempt) % len(self.hashes)]


def _entries(endpoints: Weighted, wanted: list[float]) -> Iterator[tuple[bytes, int]]:
    """What is hashed, and for whom. The sums run on over the endpoints and round as Envoy's do."""
    made = target = 0.0
    for index, (key, _) in enumerate(endpoints):
        target += wanted[index]
        number = 0
        while made < target:
            yield f"{key}_{number}".encode(), index
            number += 1
            made += 1.0


def _check_sizes(minimum: int, maximum: int) -> None:
    for name, size in (("minimum", minimum), ("maximum", maximum)):
        if not 1 <= size <= LIMIT:
            raise TableError(f"{name} ring size {size}: it must be 1 to {LIMIT}")
    if minimum > maximum:
        raise TableError(f"minimum ring size {minimum} is over maximum ring size {maximum}")
