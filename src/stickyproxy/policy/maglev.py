"""Maglev, slot for slot as Envoy fills it (Eisenbud et al., NSDI 2016, §3.4, with weights).

Each endpoint owns a permutation of all slots, made of two hashes of its key. Endpoints take turns;
at its turn an endpoint claims the first slot of its permutation that is still free. The heaviest
endpoint has a turn in every round, one of a third of its weight in every third.

The fill is done in two parts. While slots are plenty, a permutation is walked step by step. For the
last few slots such walks grow long (the very last one takes half a table on average), so the
free slots are sorted into the order in which the permutation would meet them: the same answer.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from itertools import count, cycle, islice

from xxhash import xxh64_intdigest

from stickyproxy.policy.tables import (
    HashTable,
    TableError,
    Weighted,
    exhaust,
    index_array,
    normalised,
)

DEFAULT_SIZE = 65537  # Envoy's default; off by less than 1 % of a share with 100 endpoints
MAX_SIZE = 5_000_011  # Envoy's limit, itself a prime

_TWO_64 = 1 << 64

_SLICE = 1_000  # slots claimed between two yields of an empty table: 0.2 to 0.6 ms
_KEYS = 500  # keys hashed between two yields: about 0.5 ms

_TAIL_SHARE = 1_024  # sorting pays once fewer than one slot in this many is free
_TAIL_MAX = 2_048  # and must itself fit into a slice


class MaglevTable(HashTable):
    """`slots[i]` is the index, in the order given to `build`, of the endpoint that owns slot i."""

    __slots__ = ("size", "slots")

    def __init__(self, slots: array[int], count: int) -> None:
        super().__init__(count)
        self.slots = slots
        self.size = len(slots)

    @classmethod
    def build(cls, endpoints: Weighted, size: int = DEFAULT_SIZE) -> MaglevTable:
        """Build the table in one go. `size` is a prime of at most 5,000,011.

        The order of `endpoints` does not matter: Envoy sorts by key before it fills. Raises
        `TableError` for no endpoints, a bad size, weights that are not positive or sum past
        uint32, and keys that occur twice.
        """
        return exhaust(cls.build_steps(endpoints, size))

    @classmethod
    def build_steps(
        cls, endpoints: Weighted, size: int = DEFAULT_SIZE
    ) -> Generator[None, None, MaglevTable]:
        """`build`, yielding about every 0.5 ms; the table is the generator's return value."""
        _check_size(size)
        return cls._steps(endpoints, normalised(endpoints), size)

    @classmethod
    def _steps(
        cls, endpoints: Weighted, weights: list[float], size: int
    ) -> Generator[None, None, MaglevTable]:
        if len(endpoints) == 1:
            return cls(index_array(1, size), 1)
        # Code point order of str is byte order of UTF-8, which is Envoy's.
        order = sorted(range(len(endpoints)), key=lambda index: endpoints[index][0])
        fill = _Fill(order, size)
        yield from fill.permute([endpoints[index][0] for index in order])
        turns = _turns([weights[index] for index in order])
        tail = min(size // _TAIL_SHARE, _TAIL_MAX)
        yield from fill.walk(turns, tail)
        yield from fill.sort(turns, tail)
        return cls(fill.slots, len(endpoints))

    def slot(self, hash_: int) -> int:
        """The slot of a 64-bit hash."""
        return hash_ % self.size

    def lookup(self, hash_: int, attempt: int = 0) -> int:
        """The endpoint of a 64-bit hash; attempt n looks at `hash ^ (2**64 - n)`, as Envoy does."""
        if attempt:
            hash_ ^= _TWO_64 - attempt
        return self.slots[hash_ % self.size]


class _Fill:
    """The table under construction. Hosts are numbered in sorted order."""

    def __init__(self, order: list[int], size: int) -> None:
        self.order = order
        self.size = size
        self.slots = index_array(len(order), size)
        self.taken = bytearray(size)
        self.position: list[int] = []
        self.skip: list[int] = []

    def permute(self, keys: Sequence[str]) -> Iterator[None]:
        for start in range(0, len(keys), _KEYS):
            for key in keys[start : start + _KEYS]:
                data = key.encode()
                self.position.append(xxh64_intdigest(data) % self.size)
                self.skip.append(xxh64_intdigest(data, 1) % (self.size - 1) + 1)
            yield

    def walk(self, turns: Iterator[int], leave: int) -> Iterator[None]:
        """Claim slots step by step until only `leave` are free."""
        size, order, slots, taken = self.size, self.order, self.slots, self.taken
        position, skips = self.position, self.skip
        free = size
        while free > leave:
            # One claim takes size/free steps on average, so a slice is fewer claims later on.
            batch = min(free - leave, 1 + _SLICE * free // size)
            for host in islice(turns, batch):
                at, skip = position[host], skips[host]
                while taken[at]:
                    at += skip
                    if at >= size:
                        at -= size
                taken[at] = 1
                slots[at] = order[host]
                position[host] = at
            free -= batch
            yield

    def sort(self, turns: Iterator[int], left: int) -> Iterator[None]:
        """Claim the `left` last slots, each host meeting them sorted by its permutation."""
        free = list(self._free())
        walks: dict[int, list[int]] = {}
        for host in islice(turns, left):
            if host not in walks:
                walks[host] = self._met(host, free)
                yield
            at = walks[host].pop()
            while self.taken[at]:
                at = walks[host].pop()
            self.taken[at] = 1
            self.slots[at] = self.order[host]

    def _free(self) -> Iterator[int]:
        at = self.taken.find(0)
        while at >= 0:
            yield at
            at = self.taken.find(0, at + 1)

    def _met(self, host: int, free: list[int]) -> list[int]:
        """The free slots as the host's permutation meets them, the first one last (for `pop`)."""
        at, size = self.position[host], self.size
        steps = pow(self.skip[host], -1, size)  # the size is prime, so every skip has an inverse
        return sorted(free, key=lambda slot: (slot - at) * steps % size, reverse=True)


def _turns(weights: list[float]) -> Iterator[int]:
    if min(weights) == max(weights):
        return cycle(range(len(weights)))
    return _weighted_turns(weights)


def _weighted_turns(weights: list[float]) -> Iterator[int]:
    """Take turns by weight.

    Envoy's rule: in iteration i a host sits out while `i * weight < target`; a turn adds the
    heaviest weight to its target. Here each host waits in the list of its next iteration, so that
    light hosts cost nothing meanwhile. The sums and products are Envoy's, so is their rounding.
    """
    heaviest = max(weights)
    targets = [0.0] * len(weights)
    due: defaultdict[int, list[int]] = defaultdict(list)
    due[1] = list(range(len(weights)))
    for iteration in count(1):
        for host in sorted(due.pop(iteration)):  # never empty: the heaviest has every turn
            yield host
            weight = weights[host]
            targets[host] = target = targets[host] + heaviest
            turn = int(target / weight) - 1
            if turn <= iteration:
                turn = iteration + 1
            while turn * weight < target:
                turn += 1
            due[turn].append(host)


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise TableError(f"table size {size}: it must be a prime of at most {MAX_SIZE}")
    if not _is_prime(size):
        below = next(n for n in range(max(size, 3) - 1, 1, -1) if _is_prime(n))
        above = next(n for n in count(max(size, 1) + 1) if _is_prime(n))
        raise TableError(f"table size {size} is not a prime: {below} and {above} are")


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
