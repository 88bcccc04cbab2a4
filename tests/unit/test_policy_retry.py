"""What a route's word on retries means, answer by answer and failure by failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.config.fields.features import RETRY_ON, WITHOUT_EFFECT
from stickyproxy.errors import ErrorKind, GrpcStatus, H2Code, ProxyError, Retry, Side
from stickyproxy.model import Headers
from stickyproxy.policy.retry import (
    BUDGET_LEAST,
    DO_NOT,
    MAX_INTERVAL,
    SAVED_MOST,
    SAVED_SHARE,
    Budget,
    RetryRules,
    backoff,
    max_retries,
    pushback,
    rules_of,
    with_previous,
)
from stickyproxy.rules import CircuitBreaker, RetryPolicy

GRPC: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
ACTING = [condition for condition in RETRY_ON if condition not in WITHOUT_EFFECT]

CONNECT = ProxyError(ErrorKind.CONNECT_FAILED, Side.UPSTREAM, "", retry=Retry.NEXT_ENDPOINT)
CLOSED = ProxyError(ErrorKind.UPSTREAM_CLOSED, Side.UPSTREAM, "")
BROKEN = ProxyError(ErrorKind.UPSTREAM_PROTOCOL, Side.UPSTREAM, "")
RESET = ProxyError(ErrorKind.UPSTREAM_RESET, Side.UPSTREAM, "", code=H2Code.CANCEL, relay=True)
REFUSED = ProxyError(
    ErrorKind.UPSTREAM_RESET, Side.UPSTREAM, "", code=H2Code.REFUSED_STREAM, relay=True
)
SLOW = ProxyError(ErrorKind.TIMEOUT, Side.UPSTREAM, "")
DEADLINE = ProxyError(ErrorKind.TIMEOUT, Side.INTERNAL, "")
GONE = ProxyError(ErrorKind.CLIENT_GONE, Side.DOWNSTREAM, "", code=H2Code.CANCEL, relay=True)
FULL = ProxyError(ErrorKind.OVERLOAD, Side.INTERNAL, "")


def rules(*conditions: str, idempotent: bool = False) -> RetryRules:
    return RetryRules(RetryPolicy(conditions), idempotent=idempotent)


def status(code: int, *more: tuple[bytes, bytes]) -> Headers:
    return [(b":status", b"%d" % code), *more]


def met(headers: Headers) -> set[str]:
    return {one for one in RETRY_ON if rules(one).of_answer(headers)}


@pytest.mark.parametrize(
    ("head", "conditions"),
    [
        (status(200), set()),
        (status(404), set()),
        (status(409), {"retriable-4xx"}),
        (status(429), set()),
        (status(500), {"5xx"}),
        (status(501), {"5xx"}),
        (status(502), {"5xx", "gateway-error"}),
        (status(503), {"5xx", "gateway-error"}),
        (status(504), {"5xx", "gateway-error"}),
        (status(503, (b"x-envoy-overloaded", b"true")), set()),
        (status(429, (b"x-envoy-ratelimited", b"true")), {"envoy-ratelimited"}),
        (status(503, (b"x-envoy-ratelimited", b"true")), {"envoy-ratelimited"}),
        (status(503, (b"grpc-status", b"14")), {"5xx", "gateway-error", "unavailable"}),
        ([*GRPC, (b"grpc-status", b"0")], set()),
        ([*GRPC, (b"grpc-status", b"1")], {"cancelled"}),
        ([*GRPC, (b"grpc-status", b"2")], set()),
        ([*GRPC, (b"grpc-status", b"4")], {"deadline-exceeded"}),
        ([*GRPC, (b"grpc-status", b"8")], {"resource-exhausted"}),
        ([*GRPC, (b"grpc-status", b"13")], {"internal"}),
        ([*GRPC, (b"grpc-status", b"14")], {"unavailable"}),
        ([*GRPC, (b"grpc-status", b"999")], set()),
    ],
)
def test_an_answer_meets_just_these_conditions(head: Headers, conditions: set[str]) -> None:
    assert met(head) == conditions


@pytest.mark.parametrize(
    ("error", "conditions"),
    [
        (CONNECT, {"5xx", "gateway-error", "connect-failure", "reset", "reset-before-request"}),
        (CLOSED, {"5xx", "gateway-error", "reset"}),
        (BROKEN, {"5xx", "gateway-error", "reset"}),
        (RESET, {"5xx", "gateway-error", "reset"}),
        (REFUSED, {"5xx", "gateway-error", "reset", "refused-stream"}),
        (SLOW, {"5xx", "gateway-error", "reset"}),
        (DEADLINE, set()),
        (GONE, set()),
        (FULL, set()),
    ],
)
def test_a_failure_meets_just_these_conditions(error: ProxyError, conditions: set[str]) -> None:
    assert {one for one in RETRY_ON if rules(one).of_failure(error)} == conditions


def test_every_condition_that_acts_is_met_by_something() -> None:
    answers = [status(code) for code in (409, 503)]
    answers += [status(429, (b"x-envoy-ratelimited", b"1"))]
    answers += [[*GRPC, (b"grpc-status", b"%d" % code)] for code in GrpcStatus]
    found = {condition for head in answers for condition in met(head)}
    found |= {one for one in RETRY_ON for e in (CONNECT, REFUSED) if rules(one).of_failure(e)}

    assert found == set(ACTING)


@pytest.mark.parametrize("error", [CLOSED, BROKEN, RESET, REFUSED])
def test_only_what_is_idempotent_is_resent_without_a_policy(error: ProxyError) -> None:
    assert rules(idempotent=True).may_resend(error)
    assert not rules("5xx", "reset").may_resend(error)


@pytest.mark.parametrize("error", [SLOW, DEADLINE, GONE, FULL, CONNECT])
def test_what_is_no_broken_link_or_stream_is_never_resent_without_a_policy(
    error: ProxyError,
) -> None:
    assert not rules(idempotent=True).may_resend(error)


def test_a_route_that_says_nothing_has_no_rules() -> None:
    assert rules_of(None, idempotent=False) is None
    only = rules_of(None, idempotent=True)
    assert only is not None
    assert (only.most, only.per_try_timeout) == (0, None)


@pytest.mark.parametrize(("written", "most"), [(None, 1), (0, 0), (7, 7)])
def test_one_retry_is_the_default(written: int | None, most: int) -> None:
    assert RetryRules(RetryPolicy(("5xx",), written), idempotent=False).most == most


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_at_random_below_a_bound_that_doubles(retry: int, draw: float) -> None:
    bound = min(0.025 * 2 ** min(retry - 1, 20), MAX_INTERVAL)

    assert backoff(retry, draw) == pytest.approx(draw * bound)
    assert 0 <= backoff(retry, draw) <= MAX_INTERVAL


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"1500", 1.5),
        (b"-1", DO_NOT),
        (b"", DO_NOT),
        (b"1.5", DO_NOT),
        (b"soon", DO_NOT),
        (b"9" * 11, DO_NOT),
        ("²".encode(), DO_NOT),
    ],
)
def test_pushback_is_milliseconds_or_a_no(value: bytes, seconds: float) -> None:
    assert pushback([*GRPC, (b"grpc-retry-pushback-ms", value)]) == seconds
    assert pushback(GRPC) is None


@pytest.mark.parametrize(
    ("sent", "told"), [(None, b"2"), (b"3", b"5"), (b"junk", b"2"), (b"-1", b"2")]
)
def test_previous_attempts_are_added_to_the_clients_own(sent: bytes | None, told: bytes) -> None:
    head = GRPC if sent is None else [*GRPC, (b"grpc-previous-rpc-attempts", sent)]

    assert with_previous(head, 2) == [*GRPC, (b"grpc-previous-rpc-attempts", told)]


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_a_budget_is_a_fifth_of_what_is_under_way_but_three(under_way: int, workers: int) -> None:
    budget = Budget(None, workers)
    while budget.take(under_way):
        assert budget.taken <= 10_001

    least = -(-BUDGET_LEAST // workers)
    assert budget.taken == max(least, -(-under_way // 5))
    budget.give_back()
    assert budget.take(under_way)


def test_who_waits_for_a_place_is_told_in_turn_until_somebody_wants_it() -> None:
    budget, told = Budget(1), []

    def waiter(name: str, *, wants: bool) -> Callable[[], bool]:
        def hear() -> bool:
            told.append(name)
            return wants

        return hear

    assert budget.take(0)
    for name, wants in (("gone", False), ("left", False), ("here", True), ("next", True)):
        budget.wait(waiter(name, wants=wants))
    budget.give_back()
    assert told == ["gone", "left", "here"]


def test_nobody_waits_where_no_place_ever_is() -> None:
    budget = Budget(0)

    budget.wait(lambda: pytest.fail("there is no place"))
    budget.taken += 1
    budget.give_back()


@pytest.mark.parametrize(
    ("most", "workers", "each"), [(0, 1, 0), (7, 1, 7), (7, 2, 4), (1, 8, 1), (0, 4, 0)]
)
def test_a_circuit_breaker_replaces_the_share(most: int, workers: int, each: int) -> None:
    budget = Budget(most, workers)

    assert [budget.take(1000) for _ in range(each + 1)] == [True] * each + [False]


def test_the_breaker_of_default_priority_counts() -> None:
    high = CircuitBreaker("high", max_retries=9)

    assert max_retries(()) is None
    assert max_retries((high,)) is None
    assert max_retries((high, CircuitBreaker(max_retries=0))) == 0


def test_hedges_may_be_made_of_what_was_saved_and_no_more() -> None:
    budget = Budget(None)
    assert not budget.spend(19)
    assert budget.spend(20)
    assert not budget.spend(39)
    burst = 0
    while budget.spend(1_000_000):
        burst += 1
    assert burst == SAVED_MOST
    assert not budget.spend(1_000_000)
    assert not budget.spend(5), "endpoints that left take their count with them"


def test_in_the_long_run_a_twentieth_is_sent_twice_at_most() -> None:
    budget, made = Budget(None), 0
    for begun in range(10_000):
        made += budget.spend(begun)
    assert made <= 10_000 * SAVED_SHARE


def test_what_an_operator_allows_is_all_there_is() -> None:
    assert not Budget(3).spend(1_000_000)


def test_several_workers_have_saved_no_more_than_one() -> None:
    budget, burst = Budget(None, workers=4), 0
    while budget.spend(1_000_000):
        burst += 1
    assert burst == SAVED_MOST / 4
