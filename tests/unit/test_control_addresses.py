"""From names and addresses to endpoints."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from stickyproxy.control.discovery.addresses import endpoints_of, is_literal, names_of
from stickyproxy.model import ClusterSpec, UpstreamProtocol
from stickyproxy.rules import Upkeep


def spec(*targets: tuple[str, int], weights: tuple[int, ...] = ()) -> ClusterSpec:
    return ClusterSpec("c", "svc", UpstreamProtocol.H2C, targets, weights)


def keys(cluster: ClusterSpec, known: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [endpoint.key for endpoint in endpoints_of(cluster, known)]


def test_every_address_of_a_name_is_an_endpoint_sorted_by_key() -> None:
    known = {"svc": ("10.0.0.9", "10.0.0.10", "10.0.0.1")}
    assert keys(spec(("svc", 80)), known) == ["10.0.0.10:80", "10.0.0.1:80", "10.0.0.9:80"]


def test_one_address_of_each_family_is_one_endpoint_with_both() -> None:
    (endpoint,) = endpoints_of(spec(("localhost", 80)), {"localhost": ("127.0.0.1", "::1")})
    assert endpoint.key == "127.0.0.1:80"
    assert endpoint.addresses == (("127.0.0.1", 80), ("::1", 80))


def test_several_addresses_in_both_families_count_by_their_ipv4_ones() -> None:
    known = {"svc": ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")}
    assert keys(spec(("svc", 80)), known) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert keys(spec(("svc", 80)), {"svc": ("10.0.0.1", "fd00::1", "fd00::2")}) == ["10.0.0.1:80"]


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        ("v4", ["10.0.0.1:80", "192.0.2.1:80"]),
        ("v6", ["192.0.2.1:80", "[fd00::1]:80", "[fd00::2]:80"]),
    ],
)
def test_only_the_wanted_family_of_a_name_is_used(families: str, expected: list[str]) -> None:
    """An address that was written as such stays."""
    wanted = replace(spec(("svc", 80), ("192.0.2.1", 80)), upkeep=Upkeep(families=families))
    assert keys(wanted, {"svc": ("10.0.0.1", "fd00::1", "fd00::2")}) == expected


def test_ipv6_only_names_give_bracketed_endpoints() -> None:
    assert keys(spec(("svc", 80)), {"svc": ("fd00::2", "fd00::1")}) == [
        "[fd00::1]:80",
        "[fd00::2]:80",
    ]


def test_ipv6_addresses_are_written_in_one_way() -> None:
    assert keys(spec(("FD00:0:0::0001", 80), ("fd00::1", 80)), {}) == ["[fd00::1]:80"]


@pytest.mark.parametrize(("host", "literal"), [("10.0.0.1", True), ("::1", True), ("a.b", False)])
def test_literals_ask_no_dns(host: str, literal: bool) -> None:
    assert is_literal(host) is literal
    assert names_of([spec((host, 80))]) == (set() if literal else {host})


def test_name_that_is_not_known_gives_no_endpoint_and_harms_no_other_target() -> None:
    assert keys(spec(("gone", 80), ("10.0.0.1", 80)), {}) == ["10.0.0.1:80"]


def test_weights_follow_their_target_and_an_address_named_twice_counts_once() -> None:
    found = endpoints_of(
        spec(("svc", 80), ("10.0.0.1", 80), weights=(3, 7)), {"svc": ("10.0.0.2", "10.0.0.1")}
    )
    assert [(e.key, e.weight) for e in found] == [("10.0.0.1:80", 3), ("10.0.0.2:80", 3)]


def test_order_of_targets_and_of_answers_does_not_matter() -> None:
    rng = random.Random(7)
    targets = [(f"10.0.{i}.1", 80) for i in range(20)] + [("svc", 80)]
    answers = [f"10.1.0.{i}" for i in range(20)]
    expected = endpoints_of(spec(*targets), {"svc": tuple(answers)})
    for _ in range(5):
        rng.shuffle(targets)
        rng.shuffle(answers)
        assert endpoints_of(spec(*targets), {"svc": tuple(answers)}) == expected
