"""What the two consistent-hash tables share: input checks, weights, the order of candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

from stickyproxy.model import Table

Weighted = Sequence[tuple[str, float]]
"""(key, weight) of each endpoint; the key is what is hashed, see `model.Endpoint`."""

MAX_WEIGHT_SUM = 2**32 - 1  # Envoy keeps weight sums in uint32 and refuses what does not fit

ATTEMPTS = 32  # with 90 % of the endpoints gone, 3 % of the keys are left to index order

_T = TypeVar("_T")


class TableError(ValueError):
    """A table cannot be built of this; the message says what would be right."""


class HashTable(ABC):
    """A consistent-hash table; every answer is an index into the endpoints it was built of.

    `count` is the number of those endpoints.
    """

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    @abstractmethod
    def slot(self, hash_: int) -> int:
        """Where in the table a 64-bit hash falls, for people (`explain`)."""

    @abstractmethod
    def lookup(self, hash_: int, attempt: int = 0) -> int:
        """The endpoint of a 64-bit hash. `attempt` n is Envoy's n-th further try; it may repeat."""

    def candidates(self, hash_: int) -> Iterator[int]:
        """Every endpoint once, in order of preference."""
        return candidates(self, hash_, self.count)


def candidates(table: Table, hash_: int, count: int) -> Iterator[int]:
    """Yield 0..count-1, each once: what attempts 0, 1, 2, … answer first, then index order.

    The attempts spread the keys of an absent endpoint over all others. They repeat themselves, so
    only `ATTEMPTS` of them are made.
    """
    seen = set()
    for attempt in range(ATTEMPTS):
        index = table.lookup(hash_, attempt)
        if index not in seen:
            seen.add(index)
            yield index
            if len(seen) == count:
                return
    yield from (index for index in range(count) if index not in seen)


def normalised(endpoints: Weighted) -> list[float]:
    """Weights as shares of 1.0, in input order. Raises `TableError` for what no table can hold."""
    if not endpoints:
        raise TableError("no endpoints: a table needs at least one (an empty cluster has no table)")
    _refuse_duplicates(endpoints)
    for key, weight in endpoints:
        if not weight > 0:
            raise TableError(f"weight {weight} of {key}: a weight must be above 0")
    total = sum(weight for _, weight in endpoints)
    if total > MAX_WEIGHT_SUM:
        raise TableError(f"the weights sum to {total}: they must sum to at most {MAX_WEIGHT_SUM}")
    return [weight / total for _, weight in endpoints]


def _refuse_duplicates(endpoints: Weighted) -> None:
    seen = set()
    for key, _ in endpoints:
        if key in seen:
            raise TableError(f"endpoint {key} is there twice: keys must differ")
        seen.add(key)


def index_array(count: int, length: int = 0) -> array[int]:
    """Zeros that hold indices below `count` in as few bytes as that takes."""
    return array("H" if count <= 1 << 16 else "I", [0]) * length


def exhaust(steps: Generator[None, None, _T]) -> _T:
    """Run a sliced build to its end in one go."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
