"""Retries by a route's policy: which answer is taken, where the request goes next, and when it ends."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.errors import ErrorKind, H2Code
from stickyproxy.model import Headers
from stickyproxy.rules import CircuitBreaker, RetryPolicy, Upkeep
from support.clock import on_jumping_clock
from support.house import open_house
from support.plan import CLUSTER, GRPC, GRPC_END, GRPC_OK, OK, POST, Plan, message
from support.rounds import Round, begun, flags

ANSWER: Headers = [*GRPC_OK, *GRPC_END]
UNAVAILABLE: Headers = [*GRPC_OK, (b"grpc-status", b"14")]
BODY = bytes(range(256)) * 100


def plan(*conditions: str, retries: int = 1, endpoints: int = 3, **more: object) -> Plan:
    policy = RetryPolicy(conditions, retries)
    return Plan(endpoints=endpoints, sticky=True, retry=policy, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["reference", "fast"])
@on_jumping_clock
async def test_an_answer_that_the_policy_names_is_not_taken_but_the_next_endpoints_is(
    engine: str,
) -> None:
    async with open_house(plan("unavailable", engine=engine)) as house:
        one = await begun(house, body=BODY)
        first = await (await one.attempt()).end()
        first.respond(UNAVAILABLE, end=True)
        second = await (await one.attempt()).end()
        assert bytes(second.body) == BODY
        second.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        assert one.call.frames == 1
        assert len(set(one.keys)) == 2
        (report,) = await house.reports()
        assert (report.attempts, report.error) == (2, None)
        assert house.metrics.retries == {"unavailable": 1}
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_5xx_with_a_body_is_reset_and_nothing_of_it_is_heard() -> None:
    async with open_house(plan("5xx")) as house:
        one = await begun(house, POST)
        first = await one.attempt()
        first.respond([(b":status", b"503")])
        first.say(b"sorry")
        second = await one.attempt()
        assert (await first.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        second.respond(OK)
        second.say(b"fine", end=True)
        assert (await one.call.end()).status == b"200"
        assert bytes(one.call.body) == b"fine"
        await house.reports()
        assert house.left_behind() == []


@pytest.mark.parametrize("retries", [0, 1, 2, 6])
@on_jumping_clock
async def test_after_the_last_retry_the_answer_is_forwarded_as_it_is(retries: int) -> None:
    async with open_house(plan("5xx", retries=retries)) as house:
        one = await begun(house, POST)
        for number in range(retries + 1):
            got = await one.attempt()
            got.respond([(b":status", b"503"), (b"x-try", b"%d" % number)])
            got.say(b"sorry", end=True)
        await one.call.end()
        assert (one.call.status, one.call.field(b"x-try")) == (b"503", b"%d" % retries)
        assert bytes(one.call.body) == b"sorry"
        assert one.no_more()
        await house.reports()
        assert flags(house) == "URX"
        stats = house.metrics.cluster(CLUSTER)
        assert stats.upstream_rq_retry_limit_exceeded == 1
        # Each endpoint once before any is asked again, and the session's own first.
        assert all(len(set(one.keys[i : i + 3])) == len(one.keys[i : i + 3]) for i in (0, 3, 6))
        assert one.keys[3:4] in ([], one.keys[:1])
        assert house.left_behind() == []


@on_jumping_clock
async def test_what_no_condition_names_is_forwarded_at_once() -> None:
    async with open_house(plan("cancelled", "5xx", retries=5)) as house:
        one = await begun(house)
        (await one.attempt()).respond(UNAVAILABLE, end=True)
        assert (await one.call.end()).grpc_status == b"14"
        await house.reports()
        assert one.no_more()
        assert flags(house) == ""


@on_jumping_clock
async def test_a_status_in_trailers_behind_a_head_comes_too_late() -> None:
    async with open_house(plan("unavailable")) as house:
        one = await begun(house)
        got = await one.attempt()
        got.respond(GRPC_OK)
        got.trailer([(b"grpc-status", b"14")], end=True)
        assert (await one.call.end()).grpc_status == b"14"
        await house.reports()
        assert one.no_more()


@on_jumping_clock
async def test_a_body_past_the_replay_limit_is_not_sent_again() -> None:
    async with open_house(plan("unavailable")) as house:
        client = await house.client()
        one = Round(house, client.request(GRPC))
        one.call.say(message(40_000))
        got = await (await one.attempt()).has(40_000)
        got.respond(UNAVAILABLE, end=True)
        assert (await one.call.end()).grpc_status == b"14"
        await house.reports()
        assert one.no_more()
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_request_that_is_still_on_its_way_goes_again_with_what_is_there() -> None:
    async with open_house(plan("unavailable")) as house:
        client = await house.client()
        one = Round(house, client.request([*GRPC, (b"x-user", b"ann")]))
        one.call.say(BODY)
        first = await (await one.attempt()).has(len(BODY))
        first.respond(UNAVAILABLE, end=True)
        second = await one.attempt()
        one.call.say(b"rest", end=True)
        assert bytes((await second.end()).body) == BODY + b"rest"
        second.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await house.reports()
        assert house.left_behind() == []


# --- without an answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [H2Code.INTERNAL_ERROR, H2Code.CANCEL])
@pytest.mark.parametrize("condition", ["reset", "5xx", "gateway-error"])
@on_jumping_clock
async def test_a_reset_stream_goes_to_the_next_endpoint(condition: str, code: int) -> None:
    async with open_house(plan(condition)) as house:
        one = await begun(house)
        (await one.attempt()).rst(code)
        (await one.attempt()).respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        assert len(set(one.keys)) == 2
        await house.reports()
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_lost_connection_is_tried_again_at_its_endpoint_and_then_elsewhere() -> None:
    async with open_house(plan("reset", retries=3)) as house:
        one = await begun(house)
        for _ in range(3):
            (await one.attempt()).peer.break_off()
        (await one.attempt()).respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        assert one.keys[0] == one.keys[1]
        assert len(set(one.keys[1:])) == 3
        await house.reports()
        assert house.left_behind() == []


@pytest.mark.parametrize("how", ["rst", "break_off", "close"])
@on_jumping_clock
async def test_a_request_that_nobody_declared_is_sent_once_however_it_ends(how: str) -> None:
    async with open_house(Plan(endpoints=3, sticky=True)) as house:
        one = await begun(house)
        got = await one.attempt()
        if how == "rst":
            got.rst(H2Code.INTERNAL_ERROR)
        else:
            getattr(got.peer, how)()
        await one.call.end()
        await house.reports()
        assert one.no_more()
        assert house.left_behind() == []


@on_jumping_clock
async def test_what_cannot_be_connected_is_tried_again_later_where_the_policy_says_so() -> None:
    async with open_house(plan("connect-failure", retries=4, endpoints=2)) as house:
        for backend in house.backends.values():
            backend.down = True
        one = await begun(house)
        await house.until(lambda: sum(b.dials for b in house.backends.values()) >= 3)
        for backend in house.backends.values():
            backend.down = False
        (await one.attempt()).respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await house.reports()
        assert house.left_behind() == []


@on_jumping_clock
async def test_the_last_failure_is_what_the_client_hears_and_the_log_says_why_no_more() -> None:
    async with open_house(plan("reset", retries=1)) as house:
        one = await begun(house)
        (await one.attempt()).rst(H2Code.INTERNAL_ERROR)
        (await one.attempt()).rst(H2Code.ENHANCE_YOUR_CALM)
        assert (await one.call.end()).reset == H2Code.ENHANCE_YOUR_CALM
        await house.reports()
        assert flags(house) == "UR,URX"
        assert house.left_behind() == []


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@on_jumping_clock
async def test_a_try_that_takes_too_long_is_given_up_for_the_next(streaming: bool) -> None:
    policy = RetryPolicy(("5xx",), 1, per_try_timeout=2.0)
    async with open_house(Plan(endpoints=2, sticky=True, retry=policy)) as house:
        client = await house.client()
        one = Round(house, client.request([*GRPC, (b"x-user", b"ann")], end=not streaming))
        first = await one.attempt()
        if streaming:
            await trio.sleep(10)  # it counts from the end of the request
            assert first.reset is None
            one.call.say(BODY, end=True)
        begun_at = trio.current_time()
        second = await one.attempt()
        assert 1.9 <= trio.current_time() - begun_at <= 2.2
        assert (await first.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        second.respond(GRPC_OK)
        await one.call.headed()
        await trio.sleep(10)  # the head is there: the limit of the try is over
        second.trailer(GRPC_END, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        assert len(set(one.keys)) == 2
        await house.reports()
        assert house.metrics.cluster(CLUSTER).upstream_rq_per_try_timeout == 1
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_try_that_waits_for_a_connection_is_given_up_too() -> None:
    policy = RetryPolicy(("5xx",), 1, per_try_timeout=1.0)
    async with open_house(
        Plan(endpoints=2, sticky=True, retry=policy, connect_timeout=60)
    ) as house:
        for backend in house.backends.values():
            backend.hold = trio.Event()
        one = await begun(house)
        await house.until(lambda: all(b.dials for b in house.backends.values()))
        assert (await one.call.end()).grpc_status == b"4"
        await house.reports()
        assert flags(house) == "UT,URX"
        for backend in house.backends.values():
            assert backend.hold is not None
            backend.hold.set()
        await house.step()
        assert house.left_behind() == []


@on_jumping_clock
async def test_the_deadline_spans_all_attempts_and_pauses() -> None:
    async with open_house(plan("unavailable", retries=1000, endpoints=1)) as house:
        client = await house.client()
        one = Round(house, client.request([*GRPC, (b"grpc-timeout", b"1S")], end=True))
        started = trio.current_time()
        while not one.call.over:
            await house.step()
            for got in house.backend().arrived:
                if not getattr(got, "told", False):
                    got.told = True  # type: ignore[attr-defined]
                    got.respond(UNAVAILABLE, end=True)
        # No time for another one: the backend's own word, rather than a deadline that passes.
        assert one.call.grpc_status in (b"14", b"4")
        assert trio.current_time() - started <= 1.1
        left = [dict(got.head)[b"grpc-timeout"] for got in house.backend().arrived]
        assert len(left) > 3
        assert len(set(left)) == len(left)
        await house.reports()
        assert house.left_behind() == []


@pytest.mark.parametrize(
    ("value", "again"), [(b"3000", True), (b"0", True), (b"-1", False), (b"x", False)]
)
@on_jumping_clock
async def test_pushback_says_when_or_that_not(value: bytes, again: bool) -> None:
    async with open_house(plan("unavailable", retries=3)) as house:
        one = await begun(house)
        (await one.attempt()).respond([*UNAVAILABLE, (b"grpc-retry-pushback-ms", value)], end=True)
        told = trio.current_time()
        if again:
            (await one.attempt()).respond(ANSWER, end=True)
            waited = trio.current_time() - told
            assert int(value) / 1000 <= waited <= int(value) / 1000 + 0.1
        await one.call.end()
        assert one.call.grpc_status == (b"0" if again else b"14")
        await house.reports()
        assert one.no_more()
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_pushback_beyond_the_deadline_is_not_waited_for() -> None:
    async with open_house(plan("unavailable", timeout=2.0)) as house:
        one = await begun(house)
        (await one.attempt()).respond(
            [*UNAVAILABLE, (b"grpc-retry-pushback-ms", b"9000")], end=True
        )
        started = trio.current_time()
        assert (await one.call.end()).grpc_status == b"14"
        assert trio.current_time() - started < 0.5
        await house.reports()
        assert house.left_behind() == []


@pytest.mark.parametrize(("own", "told"), [(None, [None, b"1", b"2"]), (b"4", [b"4", b"5", b"6"])])
@on_jumping_clock
async def test_backends_are_told_of_the_attempts_before(
    own: bytes | None, told: list[bytes | None]
) -> None:
    name = b"grpc-previous-rpc-attempts"
    async with open_house(plan("unavailable", retries=2)) as house:
        one = await begun(house, [*GRPC, *([(name, own)] if own is not None else [])])
        heard = []
        for status in (UNAVAILABLE, UNAVAILABLE, ANSWER):
            got = await one.attempt()
            heard.append(dict(got.head).get(name))
            got.respond(status, end=True)
        await one.call.end()
        assert heard == told


@on_jumping_clock
async def test_what_was_never_processed_is_no_attempt_before() -> None:
    async with open_house(plan("unavailable")) as house:
        one = await begun(house)
        (await one.attempt()).rst(H2Code.REFUSED_STREAM)
        second = await one.attempt()
        assert b"grpc-previous-rpc-attempts" not in dict(second.head)
        assert one.keys[0] == one.keys[1]
        second.respond(ANSWER, end=True)
        await one.call.end()


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("breaker", "most"), [(None, 3), (1, 1), (0, 0), (8, 8)])
@on_jumping_clock
async def test_no_more_retries_run_at_once_than_the_budget_allows(
    breaker: int | None, most: int
) -> None:
    upkeep = Upkeep()
    if breaker is not None:
        upkeep = Upkeep(circuit_breakers=(CircuitBreaker(max_retries=breaker),))
    async with open_house(plan("unavailable", endpoints=1, upkeep=upkeep)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(10)]
        await house.backend().request(10)
        for got in list(house.backend().arrived):
            got.respond(UNAVAILABLE, end=True)
        await house.until(lambda: sum(call.over for call in calls) == 10 - most)
        await house.until(lambda: len(house.backend().arrived) == 10 + most)
        assert all(call.grpc_status == b"14" for call in calls if call.over)
        for got in house.backend().arrived[10:]:
            got.respond(ANSWER, end=True)
        for call in calls:
            await call.end()
        assert sum(call.grpc_status == b"0" for call in calls) == most
        await house.reports(10)
        stats = house.metrics.cluster(CLUSTER)
        assert stats.upstream_rq_retry_overflow == 10 - most
        assert house.metrics.retries.get("unavailable", 0) == most
        assert house.left_behind() == []


# --- somebody gives up ----------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["client", "deadline", "drain", "link"])
@on_jumping_clock
async def test_the_pause_before_a_retry_ends_with_its_exchange(who: str) -> None:
    limit = [(b"grpc-timeout", b"2S")] if who == "deadline" else []
    async with open_house(plan("unavailable")) as house:
        client = await house.client()
        one = Round(house, client.request([*GRPC, *limit, (b"x-user", b"ann")], end=True))
        got = await one.attempt()
        wait = b"1900" if who == "deadline" else b"60000"
        got.respond([*UNAVAILABLE, (b"grpc-retry-pushback-ms", wait)], end=True)
        await house.until(lambda: house.metrics.retries)
        assert not one.call.over
        if who == "client":
            one.call.rst(H2Code.CANCEL)
        elif who == "drain":
            house.downstream.cancel_scope.cancel()
        elif who == "link":
            client.break_off()
        else:
            await one.attempt()  # its backend says nothing any more
            assert (await one.call.end()).grpc_status == b"4"
        await house.until(lambda: house.ended)
        await trio.sleep(120)
        assert one.no_more()
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_deadline_amid_a_pause_that_began_before_it_was_set_is_kept() -> None:
    """The route's limit counts from the end of the request, which may come amid the pause."""
    async with open_house(plan("5xx", timeout=1.0)) as house:
        client = await house.client()
        one = Round(house, client.request([*POST, (b"x-user", b"ann")]))
        got = await one.attempt()
        got.respond([(b":status", b"503"), (b"grpc-retry-pushback-ms", b"5000")], end=True)
        await house.until(lambda: house.metrics.retries)
        one.call.say(b"rest", end=True)
        second = await one.attempt()
        assert bytes((await second.end()).body) == b"rest"
        second.respond(OK, end=True)
        assert (await one.call.end()).status == b"200"
        (report,) = await house.reports()
        assert report.error is None or report.error.kind is ErrorKind.TIMEOUT
        assert house.left_behind() == []
