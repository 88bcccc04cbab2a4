"""Slow start: who joins or returns comes to its share by and by."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from stickyproxy.health.newcomers import Newcomers
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, LoadBalancer, UpstreamProtocol
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.rules import SlowStart

SLOW = SlowStart(window=10.0)
A, B, C = (Endpoint(name, ()) for name in "abc")


def cluster(*endpoints: Endpoint, policy: str = "round_robin", resting: str = "") -> Cluster:
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), load_balancer=LoadBalancer(policy))
    table = None
    if policy == "maglev":
        table = MaglevTable.build([(endpoint.key, 1.0) for endpoint in endpoints], 251)
    return Cluster(spec, endpoints, table, inadmissible=frozenset(resting))


def joined(slow: SlowStart | None = SLOW, policy: str = "round_robin") -> Newcomers:
    """`a` and `b` were there, `c` joins at 100."""
    found = Newcomers(slow)
    found.keep({"c": cluster(A, B, policy=policy)}, 0.0)
    found.keep({"c": cluster(A, B, C, policy=policy)}, 100.0)
    return found


def part(found: Newcomers, endpoint: Endpoint, now: float) -> float:
    share = found.share("c", now)
    return 1.0 if share is None else share(endpoint)


def picks(policy: str, found: Newcomers, now: float, number: int = 1000) -> Counter[str]:
    made, balancer = cluster(A, B, C, policy=policy), Balancer(Random(3))
    chosen = Counter[str]()
    for _ in range(number):
        picked = balancer.pick(made, None, lambda _: True, lambda _: 0, found.share("c", now))
        assert picked is not None
        chosen[picked.key] += 1
    return chosen


@pytest.mark.parametrize(
    ("age", "wanted"), [(0.0, 0.1), (0.5, 0.1), (2.0, 0.2), (5.0, 0.5), (9.9, 0.99), (20.0, 1.0)]
)
def test_its_part_grows_with_its_age(age: float, wanted: float) -> None:
    assert part(joined(), C, 100.0 + age) == pytest.approx(wanted)
    assert part(joined(), A, 100.0 + age) == 1.0


def test_aggression_and_least_part_are_envoys() -> None:
    quick = joined(SlowStart(10.0, aggression=2.0))
    assert part(quick, C, 102.5) == pytest.approx(0.5)
    half = joined(SlowStart(10.0, min_weight_percent=50.0))
    assert part(half, C, 101.0) == 0.5


@pytest.mark.parametrize("policy", ["round_robin", "least_request"])
def test_a_newcomer_gets_its_part_of_the_calls(policy: str) -> None:
    chosen = picks(policy, joined(policy=policy), 105.0)
    assert chosen["c"] == pytest.approx(200, abs=5)
    assert chosen["a"] == pytest.approx(400, abs=5)


@pytest.mark.parametrize("policy", ["round_robin", "least_request"])
def test_when_it_has_its_share_nobody_is_weighed_any_more(policy: str) -> None:
    found = joined(policy=policy)
    found.grown(109.0)
    assert found.share("c", 109.0) is not None
    found.grown(110.0)
    assert found.share("c", 110.0) is None
    assert picks(policy, found, 110.0)["c"] == pytest.approx(333, abs=60)


def test_tables_know_none_of_it() -> None:
    found = joined(policy="maglev")
    assert found.share("c", 100.0) is None
    found.begin("c", "a", 100.0)
    assert found.share("c", 100.0) is None


def test_the_first_endpoints_of_a_cluster_all_begin_with_a_whole_share() -> None:
    found = Newcomers(SLOW)
    found.keep({"c": cluster()}, 0.0)
    found.keep({"c": cluster(A, B, C)}, 1.0)
    assert found.share("c", 1.0) is None


def test_a_pod_that_is_ready_again_is_a_newcomer() -> None:
    found = Newcomers(SLOW)
    found.keep({"c": cluster(A, B, C, resting="c")}, 0.0)
    found.keep({"c": cluster(A, B, C)}, 50.0)
    assert part(found, C, 51.0) == pytest.approx(0.1)
    assert part(found, B, 51.0) == 1.0


def test_who_returns_begins_anew() -> None:
    found = joined()
    found.grown(200.0)
    found.begin("c", "a", 200.0)
    assert part(found, A, 205.0) == pytest.approx(0.5)
    assert part(found, C, 205.0) == 1.0


def test_a_cluster_that_goes_takes_its_newcomers_along() -> None:
    found = joined()
    found.keep({}, 101.0)
    assert found.share("c", 101.0) is None
    found.begin("c", "a", 102.0)
    assert found.share("c", 102.0) is None


def test_the_same_snapshot_again_makes_nobody_young() -> None:
    found = Newcomers(SLOW)
    one = cluster(A, B)
    found.keep({"c": one}, 0.0)
    found.keep({"c": replace(one)}, 50.0)
    assert found.share("c", 50.0) is None


@pytest.mark.parametrize("slow", [None, SlowStart(window=0.0)])
def test_it_can_be_switched_off(slow: SlowStart | None) -> None:
    assert joined(slow).share("c", 100.0) is None
