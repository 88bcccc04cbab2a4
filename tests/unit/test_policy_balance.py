"""Picking endpoints: sticky walks, turns by weight, two choices, weighted groups, explanations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    LoadBalancer,
    Route,
    RouteMatch,
    Target,
    UpstreamProtocol,
)
from stickyproxy.policy.balance import Balancer, choose_target, explain
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.policy.tables import HashTable, candidates

POLICIES = ("ring_hash", "maglev", "round_robin", "least_request")
HASHES = st.integers(0, 2**64 - 1)
SESSIONS = [xxh64_intdigest(f"user-{number}".encode()) for number in range(4000)]


def pods(*weights: int) -> tuple[Endpoint, ...]:
    names = [f"10.0.0.{number}" for number in range(1, len(weights) + 1)]
    return tuple(
        Endpoint(f"{name}:80", ((name, 80),), weight)
        for name, weight in zip(names, weights, strict=True)
    )


def cluster_of(policy: str, *weights: int) -> Cluster:
    endpoints = pods(*weights)
    keys = [(endpoint.key, endpoint.weight) for endpoint in endpoints]
    table: HashTable | None = None
    if endpoints and policy == "maglev":
        table = MaglevTable.build(keys, 1009)
    elif endpoints and policy == "ring_hash":
        table = RingHash.build(keys)
    balancer = LoadBalancer(policy)
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), load_balancer=balancer)
    return Cluster(spec, endpoints, table)


def _without(cluster: Cluster, by: str, lost: Endpoint) -> Cluster:
    keys = frozenset([lost.key])
    if by == "removed":
        return replace(cluster, removed=keys)
    return replace(cluster, inadmissible=keys)


def balancer(seed: int = 1) -> Balancer:
    return Balancer(Random(seed))


def all_admitted(_: Endpoint) -> bool:
    return True


def idle(_: Endpoint) -> int:
    return 0


def shares(cluster: Cluster, picks: int, *without: Endpoint) -> list[int]:
    """How often each endpoint is picked without a hash."""
    chooser = balancer()
    picked = Counter(
        chooser.pick(cluster, None, lambda endpoint: endpoint not in without, idle)
        for _ in range(picks)
    )
    assert picked[None] == 0
    return [picked[endpoint] for endpoint in cluster.endpoints]


# --- every policy -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@given(
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    hash_=st.one_of(st.none(), HASHES),
    out=st.sets(st.integers(0, 11)),
    removed=st.sets(st.integers(0, 11)),
)
def test_every_admitted_member_is_a_candidate_once(
    policy: str,
    weights: list[int],
    hash_: int | None,
    out: set[int],
    removed: set[int],
) -> None:
    cluster = cluster_of(policy, *weights)
    keys = [endpoint.key for endpoint in cluster.endpoints]
    gone = frozenset(key for number, key in enumerate(keys) if number in removed)
    bad = {key for number, key in enumerate(keys) if number in out}
    cluster = replace(cluster, removed=gone)

    found = list(balancer().candidates(cluster, hash_, lambda e: e.key not in bad, idle))

    assert sorted(endpoint.key for endpoint in found) == sorted(set(keys) - gone - bad)


@pytest.mark.parametrize("policy", POLICIES)
@given(hash_=st.one_of(st.none(), HASHES), out=st.integers(0, 31), seed=st.integers(0, 99))
def test_the_pick_is_the_first_candidate(
    policy: str, hash_: int | None, out: int, seed: int
) -> None:
    cluster = cluster_of(policy, 3, 1, 2, 1, 1)

    def admits(endpoint: Endpoint) -> bool:
        return not out >> cluster.endpoints.index(endpoint) & 1

    picked = balancer(seed).pick(cluster, hash_, admits, idle)

    assert picked == next(balancer(seed).candidates(cluster, hash_, admits, idle), None)
    assert (picked is None) == (out == 31)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_cluster_has_no_candidates(policy: str) -> None:
    cluster = cluster_of(policy)

    assert balancer().pick(cluster, 7, all_admitted, idle) is None
    assert list(balancer().candidates(cluster, 7, all_admitted, idle)) == []


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_a_session_has_the_endpoint_that_the_table_says(policy: str) -> None:
    cluster = cluster_of(policy, 1, 1, 2, 5)
    assert cluster.table is not None
    chooser = balancer()

    for hash_ in SESSIONS:
        expected = cluster.endpoints[cluster.table.lookup(hash_)]
        assert chooser.pick(cluster, hash_, all_admitted, idle) is expected


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
@pytest.mark.parametrize("by", ["admission", "removed", "inadmissible"])
def test_walking_past_an_endpoint_moves_no_other_key(policy: str, by: str) -> None:
    whole = cluster_of(policy, *[1] * 8)
    lost = whole.endpoints[3]
    less = whole if by == "admission" else _without(whole, by, lost)
    chooser = balancer()
    heirs = Counter[str]()

    for hash_ in SESSIONS:
        before = chooser.pick(whole, hash_, all_admitted, idle)
        after = chooser.pick(less, hash_, lambda e: by != "admission" or e is not lost, idle)
        assert after is not None
        assert after is not lost
        assert after is before or before is lost
        if before is lost:
            heirs[after.key] += 1

    assert len(heirs) == 7
    assert max(heirs.values()) < 4 * min(heirs.values())


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_candidates_are_the_attempts_and_then_index_order(policy: str) -> None:
    cluster = cluster_of(policy, *[1] * 100)
    table = cluster.table
    assert isinstance(table, HashTable)

    for hash_ in SESSIONS[:50]:
        found = list(table.candidates(hash_))
        attempts = list(dict.fromkeys(table.lookup(hash_, n) for n in range(32)))
        assert found[: len(attempts)] == attempts
        assert found[len(attempts) :] == sorted(set(range(100)) - set(attempts))
        assert found == list(candidates(table, hash_, 100))


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_streams_without_a_key_spread_by_weight(policy: str) -> None:
    low, high = shares(cluster_of(policy, 1, 3), 4000)

    assert 700 < low < 1300
    assert low + high == 4000


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_before_there_is_a_table_picks_are_random_by_weight(policy: str) -> None:
    cluster = replace(cluster_of(policy, 1, 3, 4), table=None)
    chooser = balancer()
    picked = Counter(
        chooser.pick(cluster, 7, lambda e: e is not cluster.endpoints[2], idle) for _ in range(4000)
    )

    assert 800 < picked[cluster.endpoints[0]] < 1200
    assert picked[cluster.endpoints[2]] == 0


# --- round robin ------------------------------------------------------------------------------


def test_equal_endpoints_take_turns_in_order() -> None:
    cluster = cluster_of("round_robin", 1, 1, 1)
    chooser = balancer()

    picks = [chooser.pick(cluster, None, all_admitted, idle) for _ in range(9)]

    assert picks[:3] == picks[3:6] == picks[6:]
    start = cluster.endpoints.index(picks[0]) if picks[0] else 0
    assert picks[:3] == [cluster.endpoints[(start + n) % 3] for n in range(3)]


def test_workers_start_at_different_turns() -> None:
    cluster = cluster_of("round_robin", 1, 1, 1)

    assert len({balancer(n).pick(cluster, None, all_admitted, idle) for n in range(20)}) == 3


def test_turns_are_by_weight_and_spread_out() -> None:
    cluster = cluster_of("round_robin", 1, 2, 5)
    chooser = balancer()
    picks = [chooser.pick(cluster, None, all_admitted, idle) for _ in range(800)]

    assert [picks.count(endpoint) for endpoint in cluster.endpoints] == [100, 200, 500]
    for start in range(792):  # a heavy endpoint comes often, not in one block
        window = picks[start : start + 8]
        assert 4 <= window.count(cluster.endpoints[2]) <= 6


@pytest.mark.parametrize(
    ("weights", "expected"), [((1, 1, 1, 1), [100, 0, 100, 100]), ((1, 7, 2, 3), [50, 0, 100, 150])]
)
def test_an_absent_endpoint_leaves_the_others_their_proportions(
    weights: tuple[int, ...], expected: list[int]
) -> None:
    cluster = cluster_of("round_robin", *weights)

    found = shares(cluster, 300, cluster.endpoints[1])

    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_member_that_rests_gets_nothing_from_any_policy(policy: str) -> None:
    cluster = cluster_of(policy, 1, 1, 1)
    resting = _without(cluster, "inadmissible", cluster.endpoints[1])
    chooser = balancer()

    picks = {chooser.pick(resting, hash_, all_admitted, idle) for hash_ in SESSIONS[:100]}
    walks = {e for h in SESSIONS[:20] for e in chooser.candidates(resting, h, all_admitted, idle)}

    assert picks == walks == {cluster.endpoints[0], cluster.endpoints[2]}


def test_turns_go_on_when_a_member_rests_and_is_back() -> None:
    cluster = cluster_of("round_robin", 1, 1, 1)
    resting = _without(cluster, "inadmissible", cluster.endpoints[1])
    chooser = balancer()
    order = [chooser.pick(cluster, None, all_admitted, idle) for _ in range(3)]

    without = [chooser.pick(resting, None, all_admitted, idle) for _ in range(4)]
    again = [chooser.pick(cluster, None, all_admitted, idle) for _ in range(6)]

    assert without == [e for e in order * 2 if e is not cluster.endpoints[1]]
    assert {again.count(endpoint) for endpoint in cluster.endpoints} == {2}


def test_an_endpoint_that_returns_is_owed_nothing() -> None:
    cluster = cluster_of("round_robin", 1, 1, 1)
    lost = cluster.endpoints[1]
    chooser = balancer()
    for _ in range(100):
        chooser.pick(cluster, None, lambda endpoint: endpoint is not lost, idle)

    picks = [chooser.pick(cluster, None, all_admitted, idle) for _ in range(6)]

    assert picks.count(lost) == 2


def test_further_candidates_follow_in_turn_and_take_no_turn() -> None:
    cluster = cluster_of("round_robin", 1, 1, 1, 1)
    chooser = balancer()

    walked = list(chooser.candidates(cluster, None, all_admitted, idle))
    then = [chooser.pick(cluster, None, all_admitted, idle) for _ in range(3)]

    assert then == walked[1:]


def test_a_new_snapshot_with_the_same_members_goes_on_with_the_turns() -> None:
    chooser = balancer()
    picks = [
        chooser.pick(cluster_of("round_robin", 1, 1, 1), None, all_admitted, idle) for _ in range(9)
    ]

    assert picks[:3] == picks[3:6] == picks[6:]
    assert len(set(picks)) == 3


def test_clusters_take_turns_apart() -> None:
    one = cluster_of("round_robin", 1, 1)
    two = replace(one, spec=replace(one.spec, name="d"))
    chooser = balancer()
    picks = [
        (chooser.pick(one, None, all_admitted, idle), chooser.pick(two, None, all_admitted, idle))
        for _ in range(4)
    ]

    assert len({first for first, _ in picks}) == len({second for _, second in picks}) == 2


def test_turns_of_clusters_that_are_gone_are_forgotten() -> None:
    chooser = balancer()
    chooser.pick(cluster_of("round_robin", 1, 1), None, all_admitted, idle)

    chooser.keep({"other"})

    assert chooser._rotations == {}


# --- least request ----------------------------------------------------------------------------


def test_the_less_busy_of_two_wins() -> None:
    cluster = cluster_of("least_request", 1, 1)
    busy = cluster.endpoints[0]
    chooser = balancer()
    picked = Counter(
        chooser.pick(cluster, None, all_admitted, lambda endpoint: 5 * (endpoint is busy))
        for _ in range(4000)
    )

    assert 800 < picked[busy] < 1200  # only where both draws are of the busy one


def test_idle_equals_share_evenly() -> None:
    assert all(800 < share < 1200 for share in shares(cluster_of("least_request", *[1] * 4), 4000))


def test_two_choices_are_among_the_admitted() -> None:
    cluster = cluster_of("least_request", *[1] * 40)

    found = shares(cluster, 1000, *cluster.endpoints[2:])

    assert found[0] + found[1] == 1000
    assert 400 < found[0] < 600


def test_unequal_weights_share_by_weight_when_idle() -> None:
    assert shares(cluster_of("least_request", 1, 2, 5), 800) == [100, 200, 500]


def test_unequal_weights_shrink_with_active_requests() -> None:
    """Weight 4 with three active counts as much as weight 1 with none (weight/(active+1))."""
    cluster = cluster_of("least_request", 4, 1)
    heavy = cluster.endpoints[0]
    chooser = balancer()
    picked = Counter(
        chooser.pick(cluster, None, all_admitted, lambda endpoint: 3 * (endpoint is heavy))
        for _ in range(1000)
    )

    assert abs(picked[heavy] - 500) <= 2


def test_after_the_first_the_least_busy_follow() -> None:
    cluster = cluster_of("least_request", *[1] * 5)
    active = dict(zip(cluster.endpoints, [4, 0, 3, 1, 2], strict=True))

    first, *rest = balancer().candidates(cluster, None, all_admitted, active.__getitem__)

    assert [active[endpoint] for endpoint in rest] == sorted(set(range(5)) - {active[first]})


# --- weighted groups --------------------------------------------------------------------------


def group(*weights: float) -> Route:
    targets = tuple(Target(f"m{n}", f"c{n}", weight) for n, weight in enumerate(weights))
    return Route("group", RouteMatch(), targets)


class NoDraws(Random):
    def random(self) -> float:
        raise AssertionError("nothing here may be random")


def test_a_single_target_needs_no_draw() -> None:
    assert choose_target(group(0.0), None, NoDraws()).name == "m0"


def test_whole_weights_choose_by_hash_modulo_total_as_envoy() -> None:
    route = group(90.0, 10.0)

    assert choose_target(route, 89, NoDraws()).name == "m0"
    assert choose_target(route, 90, NoDraws()).name == "m1"
    assert choose_target(route, 12_300, NoDraws()).name == "m0"
    assert choose_target(route, 12_399, NoDraws()).name == "m1"


@pytest.mark.parametrize("weights", [(90, 10), (1, 1, 2), (33.4, 33.3, 33.3), (0.5, 0.25), (0, 7)])
@pytest.mark.parametrize("sticky", [True, False])
def test_targets_get_their_shares(weights: tuple[float, ...], sticky: bool) -> None:
    rng = NoDraws() if sticky else Random(1)
    hashes = [xxh64_intdigest(b"%d" % n) if sticky else None for n in range(20_000)]

    found = Counter(choose_target(group(*weights), hash_, rng).name for hash_ in hashes)

    for number, weight in enumerate(weights):
        assert abs(found[f"m{number}"] / 20_000 - weight / sum(weights)) < 0.015
        assert weight or not found[f"m{number}"]


def test_growing_a_canary_moves_sessions_to_it_only() -> None:
    small, large = group(90, 10), group(70, 30)

    for hash_ in SESSIONS:
        if choose_target(small, hash_, NoDraws()).name == "m1":
            assert choose_target(large, hash_, NoDraws()).name == "m1"


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
@pytest.mark.parametrize("weights", [(90, 10), (50, 50), (87.5, 12.5)])
def test_the_sessions_of_one_target_spread_evenly_over_its_endpoints(
    policy: str, weights: tuple[float, ...]
) -> None:
    """The hash that chose the target chooses the slot again; that must not skew the slots."""
    endpoints = [(endpoint.key, 1) for endpoint in pods(*[1] * 5)]
    table: HashTable = (
        MaglevTable.build(endpoints) if policy == "maglev" else RingHash.build(endpoints)
    )
    everyone, canary = Counter[int](), Counter[int]()
    for number in range(20_000):
        hash_ = xxh64_intdigest(b"%d" % number)
        everyone[table.lookup(hash_)] += 1
        if choose_target(group(*weights), hash_, NoDraws()).name == "m1":
            canary[table.lookup(hash_)] += 1

    for index in range(5):
        share = canary[index] / canary.total()
        assert abs(share - everyone[index] / everyone.total()) < 0.03


def test_groups_without_any_weight_go_to_the_first() -> None:
    assert choose_target(group(0, 0), None, Random(1)).name == "m0"
    assert choose_target(group(0, 0), 7, Random(1)).name == "m0"


@given(st.lists(st.floats(0.0, 100.0), min_size=2, max_size=6), st.one_of(st.none(), HASHES))
def test_a_target_without_weight_is_never_chosen_beside_others(
    weights: list[float], hash_: int | None
) -> None:
    chosen = choose_target(group(*weights), hash_, Random(hash_))

    assert chosen.weight > 0 or not any(weights)


# --- explain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
@given(hash_=HASHES)
def test_what_is_explained_is_what_is_picked(policy: str, hash_: int) -> None:
    cluster = EXPLAINED[policy]
    preferred = balancer().pick(cluster, hash_, all_admitted, idle)

    choice = explain(cluster, hash_, all_admitted)
    walk = explain(cluster, hash_, lambda endpoint: endpoint is not preferred)

    assert preferred is not None
    assert (choice.endpoint, choice.walked) == (preferred, ())
    assert walk.slot == choice.slot
    assert walk.walked == (preferred.key,)
    assert walk.endpoint == balancer().pick(cluster, hash_, lambda e: e is not preferred, idle)
    assert "past 1 not admitted" in walk.reason


EXPLAINED = {policy: cluster_of(policy, 1, 2, 3) for policy in ("ring_hash", "maglev")}


def test_the_slot_of_maglev_and_the_entry_of_a_ring_are_named() -> None:
    assert explain(EXPLAINED["maglev"], 5000, all_admitted).reason == "maglev: slot 964 of 1009"

    ring = EXPLAINED["ring_hash"]
    assert isinstance(ring.table, RingHash)
    hash_, index = ring.table.entries[17]
    choice = explain(ring, hash_, all_admitted)
    assert (choice.slot, choice.endpoint) == (17, ring.endpoints[index])
    assert choice.reason == f"ring_hash: entry 17 of {len(ring.table.entries)}"


def test_nobody_admitted_is_said_with_everybody_walked() -> None:
    choice = explain(EXPLAINED["maglev"], 5, lambda _: False)

    assert choice.endpoint is None
    assert set(choice.walked) == {e.key for e in EXPLAINED["maglev"].endpoints}
    assert choice.reason.endswith("but no endpoint is admitted")


@pytest.mark.parametrize(
    ("cluster", "hash_", "says"),
    [
        (cluster_of("round_robin", 1, 1), None, "round_robin: endpoints take turns by weight"),
        (cluster_of("least_request", 1, 1), 7, "least_request: the less busy of two"),
        (cluster_of("maglev", 1, 1), None, "maglev: no key in the request, so a random endpoint"),
        (replace(cluster_of("maglev", 1), table=None), 7, "maglev: no table yet, so a random"),
        (cluster_of("maglev"), 7, "maglev: the cluster has no endpoints"),
    ],
)
def test_what_the_request_alone_does_not_decide_is_said(
    cluster: Cluster, hash_: int | None, says: str
) -> None:
    choice = explain(cluster, hash_, all_admitted)

    assert (choice.slot, choice.endpoint, choice.walked) == (None, None, ())
    assert choice.reason.startswith(says)
