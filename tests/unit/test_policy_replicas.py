"""Replicas ask nobody: from equal endpoints they choose alike, and a dispute stays its own size."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from stickyproxy.model import Cluster, ClusterSpec, Endpoint, LoadBalancer, UpstreamProtocol
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash

KEYS = 20_000
POLICIES = ("maglev", "ring_hash")
NOBODY: frozenset[str] = frozenset()


def cluster_of(policy: str, count: int) -> Cluster:
    ips = [f"10.244.0.{number}" for number in range(1, count + 1)]
    endpoints = tuple(sorted((Endpoint(f"{ip}:80", ((ip, 80),)) for ip in ips), key=_key))
    weighted = [(endpoint.key, 1.0) for endpoint in endpoints]
    table = MaglevTable.build(weighted) if policy == "maglev" else RingHash.build(weighted)
    balancer = LoadBalancer(policy)
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), load_balancer=balancer)
    return Cluster(spec, endpoints, table)


def hashes() -> list[int]:
    rng = Random(20)
    return [rng.getrandbits(64) for _ in range(KEYS)]


def choices(cluster: Cluster, out: frozenset[str], seed: int) -> list[str]:
    """Whom each key goes to, on a replica that counts `out` as inadmissible."""
    balancer = Balancer(Random(seed))

    def admits(endpoint: Endpoint) -> bool:
        return endpoint.key not in out

    chosen = [balancer.pick(cluster, hash_, admits, lambda _: 0) for hash_ in hashes()]
    return [endpoint.key for endpoint in chosen if endpoint is not None]


@pytest.mark.parametrize("count", [3, 10, 100])
@pytest.mark.parametrize("policy", POLICIES)
def test_replicas_that_know_the_same_agree_on_every_key(policy: str, count: int) -> None:
    one = choices(cluster_of(policy, count), NOBODY, seed=1)
    other = choices(cluster_of(policy, count), NOBODY, seed=2)
    assert len(one) == KEYS
    assert one == other


@pytest.mark.parametrize("count", [3, 10, 100])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_host_in_dispute_splits_replicas_on_its_own_keys_and_no_others(
    policy: str, count: int
) -> None:
    """So the share of keys is the host's share of the table, 1/n: walking past moves nobody else."""
    cluster = cluster_of(policy, count)
    agreed = choices(cluster, NOBODY, seed=1)
    shares = Counter(agreed)
    for disputed in cluster.endpoints[:: max(1, count // 5)]:
        seen = choices(cluster, frozenset({disputed.key}), seed=2)
        differing = [key for key, theirs in zip(agreed, seen, strict=True) if key != theirs]
        assert set(differing) == {disputed.key}
        assert len(differing) == shares[disputed.key]
    assert sum(shares.values()) == KEYS
    # Maglev is even to a percent, a ring of 1,024 entries to three times its share with 100 hosts.
    assert max(shares.values()) <= KEYS / count * (1.3 if policy == "maglev" else 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_several_hosts_in_dispute_split_replicas_on_their_own_keys_together(policy: str) -> None:
    cluster = cluster_of(policy, 10)
    keys = [endpoint.key for endpoint in cluster.endpoints]
    mine, theirs = frozenset(keys[:2]), frozenset(keys[1:4])  # one that both count out
    agreed = choices(cluster, NOBODY, seed=1)
    one, other = choices(cluster, mine, seed=1), choices(cluster, theirs, seed=2)
    differing = {
        owner for owner, a, b in zip(agreed, one, other, strict=True) if a != b
    }  # fmt: skip
    assert differing <= mine | theirs
    assert differing >= mine ^ theirs


def _key(endpoint: Endpoint) -> str:
    return endpoint.key
