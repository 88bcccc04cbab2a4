"""The case `tables`: ring hash against Maglev, in memory.

What a table costs is timed. How even it is and which keys move is counted, not sampled: over all
slots of a Maglev table, over all arcs of a ring. Each round has hosts of other names, so the
spread of a figure says how much is luck.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import mean

from bench.cases import Case, Figure, Plan, Sample
from bench.timing import per_item, timed
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, LoadBalancer, UpstreamProtocol
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash

POLICIES = ("maglev", "ring_hash")
HOSTS = (3, 10, 100, 1000)
LEAVERS = 5  # hosts that leave or join in turn; more would only take longer
LOOKUPS = 20_000
WALKS = 4_000  # keys asked one by one, where no table can be counted

WHOLE = 1 << 64

HashTable = MaglevTable | RingHash

Share = tuple[float, int, int]
"""A share of all keys, and its owners in two tables."""


def names(count: int, seed: int) -> list[str]:
    """Keys of that many endpoints, as of pods; others for each seed."""
    return sorted(_drawn(count, seed)[:count])


def _drawn(count: int, seed: int) -> list[str]:
    """Those keys, and `LEAVERS` more."""
    some = Random(f"hosts {count} {seed}").sample(range(1 << 16), count + LEAVERS)
    return [f"10.244.{number >> 8}.{number & 255}:50051" for number in some]


def build(policy: str, keys: Sequence[str]) -> HashTable:
    weighted = [(key, 1.0) for key in keys]
    return MaglevTable.build(weighted) if policy == "maglev" else RingHash.build(weighted)


def cluster(policy: str, keys: Sequence[str]) -> Cluster:
    endpoints = tuple(Endpoint(key, ((key.partition(":")[0], 50051),)) for key in keys)
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), load_balancer=LoadBalancer(policy))
    return Cluster(spec, endpoints, build(policy, keys))


# --- counted --------------------------------------------------------------------------------------


def owners(one: HashTable, two: HashTable) -> Iterator[Share]:
    """All keys, in parts whose owner is one and the same in each of two tables of one policy."""
    if isinstance(one, MaglevTable) and isinstance(two, MaglevTable):
        for mine, yours in zip(one.slots, two.slots, strict=True):
            yield 1 / one.size, mine, yours
    else:
        yield from _arcs(one, two)


def _arcs(one: HashTable, two: HashTable) -> Iterator[Share]:
    if not (isinstance(one, RingHash) and isinstance(two, RingHash)):
        raise TypeError("tables of two policies have no parts in common")
    ends = sorted({*one.hashes, *two.hashes})
    # A key belongs to the first entry at or after it, so the first arc begins after the last entry.
    for begin, end in zip([ends[-1] - WHOLE, *ends], ends, strict=False):
        yield (end - begin) / WHOLE, one.lookup(end), two.lookup(end)


def shares(table: HashTable) -> list[float]:
    """Of each endpoint, in their order."""
    found = [0.0] * table.count
    for share, owner, _ in owners(table, table):
        found[owner] += share
    return found


def moved(larger: HashTable, smaller: HashTable, extra: int) -> float:
    """The share of keys that change hosts, of those that have nothing to do with the extra one.

    `extra` is the number of the one that only the larger table has. Who reads from the larger to the
    smaller sees it leave, and the keys that were its own do not count; the other way round it
    joins, and the keys that it gets do not count. Both are the same keys.
    """
    staying = changed = 0.0
    for share, before, after in owners(larger, smaller):
        if before != extra:
            staying += share
            changed += share * (before != after + (after >= extra))
    return changed / staying


def walked(chosen: Cluster, out: int) -> float:
    """The share of other hosts' keys that move when one host may not be used for now.

    The table stays and that host is walked past, so nothing but asking can tell.
    """
    without = replace(chosen, inadmissible=frozenset({chosen.endpoints[out].key}))
    balancer, chance = Balancer(Random(1)), Random(out)
    others = changed = 0
    for _ in range(WALKS):
        hash_ = chance.getrandbits(64)
        home = balancer.home(chosen, hash_)
        if home is not chosen.endpoints[out]:
            others += 1
            changed += balancer.pick(without, hash_, lambda _: True, lambda _: 0) is not home
    return changed / others


# --- the case -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    policy: str
    hosts: int

    @property
    def title(self) -> str:
        return f"{self.policy}, {self.hosts:,}"


SETTINGS = tuple(Setting(policy, hosts) for hosts in HOSTS for policy in POLICIES)


def figures(setting: Setting, seed: int) -> dict[str, float]:
    keys = names(setting.hosts, seed)
    table, seconds = timed(lambda: build(setting.policy, keys))
    own = shares(table)
    leavers = range(0, len(keys), math.ceil(len(keys) / LEAVERS))
    rebuilt = [_without(setting.policy, keys, table, leaver) for leaver in leavers]
    fresh = _drawn(len(keys), seed)[len(keys) :]
    joined = [_with(setting.policy, keys, table, joiner) for joiner in fresh]
    chosen = cluster(setting.policy, keys)
    return {
        "build_ms": seconds * 1e3,
        "kib": _size(table) / 1024,
        "lookup_us": _lookup(table),
        "most": max(own) * len(own),
        "least": min(own) * len(own),
        "left": mean(rebuilt) * 100,
        "joined": mean(joined) * 100,
        "walked": mean(walked(chosen, leaver) for leaver in leavers) * 100,
    }


def _without(policy: str, keys: list[str], table: HashTable, leaver: int) -> float:
    return moved(table, build(policy, keys[:leaver] + keys[leaver + 1 :]), leaver)


def _with(policy: str, keys: list[str], table: HashTable, joiner: str) -> float:
    more = sorted([*keys, joiner])
    return moved(build(policy, more), table, bisect_left(more, joiner))


def _size(table: HashTable) -> int:
    parts = (table.slots,) if isinstance(table, MaglevTable) else (table.hashes, table.indices)
    return sum(len(part) * part.itemsize for part in parts)


def _lookup(table: HashTable) -> float:
    chance = Random(LOOKUPS)
    hashes = [chance.getrandbits(64) for _ in range(LOOKUPS)]

    def look_up_all() -> None:
        lookup = table.lookup
        for hash_ in hashes:
            lookup(hash_)

    return per_item(look_up_all, LOOKUPS)


def rounds(plan: Plan) -> list[Sample]:
    samples = []
    for number in range(plan.pace.rounds):
        for setting in SETTINGS:
            plan.say(f"round {number + 1}, {setting.title} hosts")
            found = figures(setting, number)
            samples.append(
                Sample(TABLES.name, setting.title, log=True, round=number, figures=found)
            )
    return samples


TABLES = Case(
    "tables",
    "ring hash against Maglev; other names of hosts in each round",
    (
        Figure("build_ms", "build ms"),
        Figure("kib", "KiB", 0),
        Figure("lookup_us", "lookup us", 2),
        Figure("most", "most/mean share", 3),
        Figure("least", "least/mean share", 3),
        Figure("left", "% of others' keys moved, one left", 2),
        Figure("joined", "one joined", 2),
        Figure("walked", "one walked past", 2),
    ),
    pure=rounds,
)
