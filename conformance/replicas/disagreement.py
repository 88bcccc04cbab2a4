"""On how many keys two replicas disagree while they know different things. Pure: tables, no processes.

Three cases, for clusters of 3, 10 and 100 hosts of equal weight:

* out: one of them counts a host as inadmissible (a breaker, a readiness it heard of first), the
  other does not;
* gone: one has already walked past a host that left (its old table), the other has the new table;
* came: one has the table with a host that came, the other has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import mean

from stickyproxy.model import Cluster, ClusterSpec, Endpoint, LoadBalancer, UpstreamProtocol
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash

KEYS = 20_000
HOSTS = (3, 10, 100)


@dataclass
class Row:
    """Shares of keys; `out` has the mean, least and largest over the hosts counted out."""

    policy: str
    hosts: int
    out: tuple[float, float, float]
    others_moved: float
    gone: float
    came: float


def cluster(policy: str, hosts: int) -> Cluster:
    names = [f"10.244.{n // 250}.{n % 250 + 1}" for n in range(hosts)]
    endpoints = sorted((Endpoint(f"{ip}:50051", ((ip, 50051),)) for ip in names), key=_key)
    weighted = [(endpoint.key, 1.0) for endpoint in endpoints]
    table = MaglevTable.build(weighted) if policy == "maglev" else RingHash.build(weighted)
    balancer = LoadBalancer(policy)
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), load_balancer=balancer)
    return Cluster(spec, tuple(endpoints), table)


def picks(made: Cluster, hashes: list[int], out: frozenset[str] = frozenset()) -> list[str]:
    """The endpoint of each key, on a replica for which `out` are inadmissible."""
    balancer = Balancer(Random(1))

    def admits(endpoint: Endpoint) -> bool:
        return endpoint.key not in out

    chosen = (balancer.pick(made, hash_, admits, lambda _: 0) for hash_ in hashes)
    return [endpoint.key if endpoint else "" for endpoint in chosen]


def measure(policy: str, hosts: int) -> Row:
    rng = Random(20)
    hashes = [rng.getrandbits(64) for _ in range(KEYS)]
    made, larger = cluster(policy, hosts), cluster(policy, hosts + 1)
    agreed = picks(made, hashes)
    shares, moved = [], 0
    for endpoint in made.endpoints[:: max(1, hosts // 10)]:
        seen = picks(made, hashes, frozenset({endpoint.key}))
        differ = [mine for mine, theirs in zip(agreed, seen, strict=True) if mine != theirs]
        shares.append(len(differ) / KEYS)
        moved += sum(key != endpoint.key for key in differ)
    added = next(e.key for e in larger.endpoints if e not in made.endpoints)
    walked = picks(larger, hashes, frozenset({added}))
    with_it = picks(larger, hashes)
    return Row(
        policy,
        hosts,
        (mean(shares), min(shares), max(shares)),
        moved / KEYS,
        gone=_unequal(walked, agreed),
        came=_unequal(with_it, agreed),
    )


def table() -> str:
    lines = [
        (
            "| policy | hosts | 1/n | disagree: mean (least to most) | of these, keys of other hosts "
            "| one left, new table against old | one came |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for policy in ("maglev", "ring_hash"):
        for hosts in HOSTS:
            row = measure(policy, hosts)
            even, least, most = row.out
            lines.append(
                f"| {policy} | {hosts} | {1 / hosts:.2%} | {even:.2%} ({least:.2%} to {most:.2%}) "
                f"| {row.others_moved:.0%} | {row.gone:.2%} | {row.came:.2%} |"
            )
    return "\n".join(lines)


def _key(endpoint: Endpoint) -> str:
    return endpoint.key


def _unequal(ones: list[str], others: list[str]) -> float:
    return sum(one != other for one, other in zip(ones, others, strict=True)) / KEYS
