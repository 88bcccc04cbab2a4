"""Outcomes: who is to blame for how an attempt ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stickyproxy.errors import ErrorKind, GrpcStatus, ProxyError, Side
from stickyproxy.health.outcome import Outcome, classify


@pytest.mark.parametrize(
    ("http", "outcome"),
    [
        (200, Outcome.SUCCESS),
        (304, Outcome.SUCCESS),
        (404, Outcome.SUCCESS),
        (429, Outcome.SUCCESS),
        (500, Outcome.FAILURE_5XX),
        (501, Outcome.FAILURE_5XX),
        (502, Outcome.FAILURE_GATEWAY),
        (503, Outcome.FAILURE_GATEWAY),
        (504, Outcome.FAILURE_GATEWAY),
        (505, Outcome.FAILURE_5XX),
    ],
)
def test_an_http_answer_is_judged_by_its_status(http: int, outcome: Outcome) -> None:
    assert classify(http, None, None) is outcome


FAILURES = {
    GrpcStatus.UNKNOWN: Outcome.FAILURE_5XX,
    GrpcStatus.INTERNAL: Outcome.FAILURE_5XX,
    GrpcStatus.DATA_LOSS: Outcome.FAILURE_5XX,
    GrpcStatus.UNIMPLEMENTED: Outcome.FAILURE_5XX,
    GrpcStatus.UNAVAILABLE: Outcome.FAILURE_GATEWAY,
    GrpcStatus.DEADLINE_EXCEEDED: Outcome.FAILURE_GATEWAY,
}


@pytest.mark.parametrize("status", list(GrpcStatus))
def test_a_grpc_answer_is_judged_by_its_grpc_status_not_by_its_200(status: GrpcStatus) -> None:
    assert classify(200, status, None) is FAILURES.get(status, Outcome.SUCCESS)


@pytest.mark.parametrize("status", [17, -1, 1000])
def test_a_grpc_status_nobody_knows_is_a_failure(status: int) -> None:
    assert classify(200, status, None) is Outcome.FAILURE_5XX


LOCAL = {
    ErrorKind.UPSTREAM_RESET,
    ErrorKind.UPSTREAM_CLOSED,
    ErrorKind.UPSTREAM_PROTOCOL,
    ErrorKind.TIMEOUT,
}


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_only_failures_of_the_upstream_side_count_against_it(kind: ErrorKind) -> None:
    expected = Outcome.FAILURE_LOCAL if kind in LOCAL else Outcome.NEUTRAL
    if kind is ErrorKind.CONNECT_FAILED:  # one dial is one piece of news, however many waited
        expected = Outcome.FAILURE_CONNECT
    assert classify(None, None, ProxyError(kind, Side.UPSTREAM, "")) is expected
    assert classify(None, None, ProxyError(kind, Side.DOWNSTREAM, "")) is Outcome.NEUTRAL
    assert classify(None, None, ProxyError(kind, Side.INTERNAL, "")) is Outcome.NEUTRAL


def test_a_reset_after_a_good_head_is_still_a_failure() -> None:
    reset = ProxyError(ErrorKind.UPSTREAM_RESET, Side.UPSTREAM, "")
    assert classify(200, None, reset) is Outcome.FAILURE_LOCAL


def test_an_attempt_that_was_given_up_says_nothing() -> None:
    assert classify(None, None, None) is Outcome.NEUTRAL


def test_what_only_repeats_the_end_of_a_connection_blames_nobody() -> None:
    error = ProxyError(ErrorKind.UPSTREAM_CLOSED, Side.UPSTREAM, "reset by peer")
    assert classify(None, None, error) is Outcome.FAILURE_LOCAL
    assert classify(None, None, replace(error, echo=True)) is Outcome.NEUTRAL
