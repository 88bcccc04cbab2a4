"""Who balances: a test for every row of the table, and for the names in it."""

from __future__ import annotations

import itertools

import pytest

from stickyproxy.config.resources.resolution import (
    BUILT_IN,
    ENDPOINT_KIND,
    SERVICE_KIND,
    Balancing,
    Resolution,
    endpoints_enabled,
    kind_of,
    resolution,
)

PODS, DNS = Resolution(Balancing.PODS), Resolution(Balancing.DNS)
POD_RESOLVER, DNS_RESOLVER = "kubernetes-endpoint", "kubernetes-service"
ERROR = None

TABLE: dict[tuple[bool | None, str | None, bool], Resolution | None] = {
    # (AMBASSADOR_ENABLE_ENDPOINTS, resolver, load_balancer): who balances
    (None, None, False): PODS,
    (None, None, True): PODS,
    (None, POD_RESOLVER, False): PODS,
    (None, POD_RESOLVER, True): PODS,
    (None, DNS_RESOLVER, False): DNS,
    (None, DNS_RESOLVER, True): ERROR,
    (True, None, False): PODS,
    (True, None, True): PODS,
    (True, POD_RESOLVER, False): PODS,
    (True, POD_RESOLVER, True): PODS,
    (True, DNS_RESOLVER, False): DNS,
    (True, DNS_RESOLVER, True): ERROR,
    (False, None, False): DNS,
    (False, None, True): ERROR,
    (False, POD_RESOLVER, False): PODS,
    (False, POD_RESOLVER, True): PODS,
    (False, DNS_RESOLVER, False): DNS,
    (False, DNS_RESOLVER, True): ERROR,
}


def test_the_table_has_every_row() -> None:
    rows = itertools.product((None, True, False), (None, POD_RESOLVER, DNS_RESOLVER), (False, True))
    assert set(rows) == TABLE.keys()


@pytest.mark.parametrize("place", ["mapping", "module"])
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_row(row: tuple[bool | None, str | None, bool], place: str) -> None:
    """Resolver and load_balancer both in the Mapping, or both in the Module."""
    enabled, resolver, balanced = row
    if place == "mapping":
        found = resolution(enabled, resolver=resolver, load_balancer=balanced)
    else:
        found = resolution(enabled, module_resolver=resolver, module_load_balancer=balanced)
    expected = TABLE[row]
    if expected is not None:
        assert found == expected
    else:
        assert "load_balancer needs the pods" in found.error
        assert "kubernetes-endpoint" in found.error, "says what would be right"


def test_resolver_of_the_mapping_wins_over_the_modules() -> None:
    assert resolution(None, resolver=POD_RESOLVER, module_resolver=DNS_RESOLVER) == PODS
    assert resolution(None, resolver=DNS_RESOLVER, module_resolver=POD_RESOLVER) == DNS


def test_load_balancer_of_the_module_is_no_error_of_a_mapping_that_asks_for_dns() -> None:
    assert resolution(None, resolver=DNS_RESOLVER, module_load_balancer=True) == DNS
    assert resolution(None, module_resolver=DNS_RESOLVER, load_balancer=True).error


def test_both_names_that_ambassador_has_for_pods_mean_pods() -> None:
    assert (
        resolution(False, resolver="endpoint") == resolution(False, resolver=POD_RESOLVER) == PODS
    )


def test_resolver_resources_have_names_of_their_own_and_may_take_built_in_ones() -> None:
    mine = {"mine": ENDPOINT_KIND, "endpoint": SERVICE_KIND, "consul-dc1": "ConsulResolver"}
    assert resolution(False, resolver="mine", load_balancer=True, defined=mine) == PODS
    assert resolution(None, resolver="endpoint", defined=mine) == DNS
    consul = resolution(None, resolver="consul-dc1", defined=mine).error
    assert "consul-dc1 is a ConsulResolver, which is not served" in consul


def test_resolver_that_is_not_there_is_an_error_that_names_it() -> None:
    found = resolution(None, resolver="kubernetes-endpiont")
    assert "kubernetes-endpiont is not there" in found.error
    assert kind_of("kubernetes-endpiont", {}) is None
    assert set(BUILT_IN.values()) == {ENDPOINT_KIND, SERVICE_KIND}


@pytest.mark.parametrize("enabled", [True, False])
def test_variable_is_read_as_people_write_it(enabled: bool) -> None:
    words = ("true", "TRUE", "1", "yes", " on ") if enabled else ("false", "0", "No", "off")
    assert {endpoints_enabled(word) for word in words} == {enabled}


def test_variable_may_be_empty_and_must_not_be_nonsense() -> None:
    assert endpoints_enabled("") is None
    with pytest.raises(ValueError, match="`maybe` is neither"):
        endpoints_enabled("maybe")
