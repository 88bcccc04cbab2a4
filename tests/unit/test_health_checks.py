"""Active checks without I/O: what is asked, what an answer means, when it is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.health.checks import (
    EDGE,
    JITTER,
    LEAST,
    NO_INFORMATION,
    WELL,
    CheckState,
    Verdict,
    accident,
    judge,
    question,
)
from stickyproxy.model import Endpoint, Headers
from stickyproxy.rules import ConnectCheck, GrpcCheck, HealthCheck, HttpCheck

POD = Endpoint("10.0.0.1:80", (("10.0.0.1", 80),), host="qotm.prod")
HTTP = HttpCheck("/healthz")
GRPC = GrpcCheck("pkg.Service")
SURE = Verdict(False, "HTTP 503", sure=True)
LATE = accident("no answer within 3 s")


def state(healthy: int = 1, unhealthy: int = 2) -> CheckState:
    return CheckState(HealthCheck(HTTP, 3.0, 10.0, healthy, unhealthy))


# --- thresholds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [SURE, LATE])
def test_the_first_answer_decides_by_itself(verdict: Verdict) -> None:
    held = state(unhealthy=5)
    assert held.note(verdict)
    assert held.reason == verdict.reason


def test_an_accident_counts_when_it_happens_often_enough_in_a_row() -> None:
    held = state(unhealthy=3)
    held.note(WELL)
    verdicts = [LATE, LATE, WELL, LATE, LATE, LATE]
    assert [held.note(verdict) for verdict in verdicts] == [False] * 5 + [True]
    assert held.reason


def test_a_plain_no_counts_at_once() -> None:
    held = state(unhealthy=3)
    held.note(WELL)
    assert held.note(SURE)


def test_it_is_well_again_after_enough_good_answers_in_a_row() -> None:
    held = state(healthy=3)
    held.note(SURE)
    verdicts = [WELL, WELL, SURE, WELL, WELL, WELL]
    assert [held.note(verdict) for verdict in verdicts] == [False] * 5 + [True]
    assert held.reason == ""


def test_the_reason_is_the_latest_one() -> None:
    held = state()
    held.note(SURE)
    held.note(LATE)
    assert held.reason == LATE.reason


@given(st.lists(st.sampled_from([WELL, SURE, LATE]), max_size=20))
def test_what_tells_nothing_changes_nothing(verdicts: list[Verdict]) -> None:
    one, other = state(2, 2), state(2, 2)
    for verdict in verdicts:
        assert one.note(verdict) == other.note(verdict)
        assert not one.note(NO_INFORMATION)
        assert one.reason == other.reason


# --- times ----------------------------------------------------------------------------------------


@given(draw=st.floats(0, 1))
def test_intervals_vary_by_the_jitter_and_no_more(draw: float) -> None:
    held = state()
    held.note(WELL)
    assert 10 * (1 - JITTER) <= held.delay(draw) <= 10 * (1 + JITTER)


@given(draw=st.floats(0, 1))
def test_the_first_question_comes_soon(draw: float) -> None:
    assert 0 <= state().delay(draw) <= 1.0


def test_more_is_asked_while_something_is_about_to_change_or_is_wrong() -> None:
    held = state(healthy=2, unhealthy=2)
    seen = []
    for verdict in (WELL, LATE, LATE, LATE, WELL, WELL, WELL):
        held.note(verdict)
        seen.append(held.delay(0.5))
    calm, edge = 10.0, 10.0 / EDGE
    assert seen == [calm, edge, edge, edge, edge, calm, calm]


def test_an_interval_of_nearly_nothing_is_no_flood() -> None:
    held = CheckState(HealthCheck(HTTP, interval=0.001))
    held.note(SURE)
    assert held.delay(0.0) == LEAST


# --- questions ------------------------------------------------------------------------------------


def test_an_http_check_asks_for_its_path_by_the_name_of_the_service() -> None:
    head, body = question(HealthCheck(HTTP), POD, b"https")
    assert head == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"qotm.prod"),
        (b":path", b"/healthz"),
        (b"user-agent", b"stickyproxy/health-check"),
    ]
    assert body == b""


def test_headers_are_added_replaced_and_removed() -> None:
    added = (("x-a", "1", True), ("x-a", "2", True), ("x-b", "3", True), ("x-b", "4", False))
    check = HttpCheck("/", "here", added, ("user-agent",))
    head, _ = question(HealthCheck(check), POD, b"http")
    assert head[2] == (b":authority", b"here")
    assert head[4:] == [(b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"4")]


def test_a_grpc_check_is_a_call_of_the_health_service() -> None:
    head, body = question(HealthCheck(GRPC, timeout=1.5), POD, b"http")
    fields = dict(head)
    assert fields[b":path"] == b"/grpc.health.v1.Health/Check"
    assert fields[b"grpc-timeout"] == b"1500m"
    assert fields[b"te"] == b"trailers"
    assert body == b"\0\0\0\0\x0d\x0a\x0bpkg.Service"


def test_the_whole_server_is_asked_about_with_an_empty_message() -> None:
    assert question(HealthCheck(GrpcCheck()), POD, b"http")[1] == b"\0\0\0\0\0"


def test_a_long_name_has_its_length_in_two_octets() -> None:
    _, body = question(HealthCheck(GrpcCheck("s" * 300)), POD, b"http")
    assert body[5:8] == b"\x0a\xac\x02"
    assert len(body) == 5 + 3 + 300


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "well"), [(200, True), (201, False), (503, False), (301, False)]
)
def test_200_alone_is_expected_unless_said_otherwise(status: int, well: bool) -> None:
    verdict = judge(HTTP, [(b":status", b"%d" % status)], b"")
    assert verdict.well is well
    assert well or verdict == Verdict(False, f"HTTP {status}", sure=True)


@pytest.mark.parametrize(("status", "well"), [(199, False), (200, True), (299, True), (404, True)])
def test_both_ends_of_an_expected_range_are_in_it(status: int, well: bool) -> None:
    check = HttpCheck("/", expected=((200, 299), (404, 404)))
    assert judge(check, [(b":status", b"%d" % status)], b"").well is well


def grpc(status: int, message: bytes = b"") -> tuple[Headers, bytes]:
    head = [(b":status", b"200"), (b"grpc-status", b"%d" % status)]
    return head, b"\0" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (grpc(0, b"\x08\x01"), WELL),
        (grpc(0, b"\x08\x02"), Verdict(False, "NOT_SERVING", sure=True)),
        (grpc(0, b"\x08\x03"), Verdict(False, "SERVICE_UNKNOWN", sure=True)),
        (grpc(0, b""), Verdict(False, "UNKNOWN", sure=True)),
        (grpc(0, b"\x08\x09"), Verdict(False, "serving status 9", sure=True)),
        (grpc(12), NO_INFORMATION),
        (grpc(5), Verdict(False, "NOT_FOUND", sure=True)),
        (grpc(14), Verdict(False, "UNAVAILABLE", sure=True)),
        (grpc(99), Verdict(False, "status 99", sure=True)),
        (grpc(4), accident("DEADLINE_EXCEEDED")),
        (([(b":status", b"502")], b"<html>"), Verdict(False, "HTTP 502, no gRPC", sure=True)),
    ],
)
def test_grpc_answers(answer: tuple[Headers, bytes], verdict: Verdict) -> None:
    assert judge(GRPC, *answer) == verdict


@given(st.binary(max_size=20), st.integers(0, 20))
def test_no_answer_breaks_the_check(body: bytes, status: int) -> None:
    head = [(b":status", b"200"), (b"grpc-status", b"%d" % status)]
    assert judge(GRPC, head, body).well in {True, False, None}


def test_to_connect_is_enough_for_a_connect_check() -> None:
    assert judge(ConnectCheck(), [], b"") == WELL
