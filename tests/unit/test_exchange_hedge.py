"""A second attempt beside one whose link is in doubt: when there is one, where, and who wins.

The grid: who of the two ends the race, how, and what the other does afterwards. In each cell one
response reaches the client, the other attempt is reset, each attempt is told once, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from stickyproxy.errors import ErrorKind, H2Code
from stickyproxy.health.outcome import Outcome
from stickyproxy.model import Headers
from stickyproxy.rules import CircuitBreaker, RetryPolicy, Upkeep
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import CLUSTER, GRPC, GRPC_END, GRPC_OK, POST, Plan, message
from support.rounds import Round, begun, doubt, flags
from support.told import told

ANSWER: Headers = [*GRPC_OK, *GRPC_END]
BODY = bytes(range(256)) * 100


def plan(**more: object) -> Plan:
    more.setdefault("endpoints", 3)
    return Plan(sticky=True, idempotent=True, **more)  # type: ignore[arg-type]


async def hedged(house: House, body: bytes | None = None) -> tuple[Round, Call, Call]:
    """A call with two attempts under way: the first one's link is in doubt."""
    one = await begun(house, body=body)
    first = await one.attempt()
    doubt(house)
    return one, first, await one.attempt()


async def over(house: House, number: int = 1) -> None:
    await house.reports(number)
    await trio.testing.wait_all_tasks_blocked()
    assert house.left_behind() == []


async def was_reset(got: Call) -> None:
    await got.until(lambda call: call.reset is not None or call.lost)
    assert got.lost or got.reset == H2Code.CANCEL


# --- when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("body", [None, BODY], ids=["head", "body"])
@on_jumping_clock
async def test_a_hedge_goes_whole_to_the_same_endpoint_over_another_link(
    body: bytes | None, engine: str
) -> None:
    async with open_house(plan(engine=engine)) as house:
        one, first, second = await hedged(house, body)
        assert one.keys[0] == one.keys[1]
        assert second.peer is not first.peer
        assert bytes((await second.end()).body) == (body or b"")
        assert dict(second.head)[b"grpc-previous-rpc-attempts"] == b"1"
        second.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await was_reset(first)
        (report,) = await house.reports()
        assert (report.attempts, report.error, report.at_home) == (2, None, True)
        stats = house.metrics.cluster(CLUSTER)
        assert (stats.upstream_rq_hedge, stats.upstream_rq_hedge_won) == (1, 1)
        assert house.metrics.retries == {"hedge": 1}
        await over(house)


@pytest.mark.parametrize("body", [None, BODY], ids=["head", "body"])
@pytest.mark.parametrize("winner", [0, 1])
@on_jumping_clock
async def test_over_http1_the_loser_loses_its_connection(winner: int, body: bytes | None) -> None:
    async with open_house(plan(upstream="http")) as house:
        one = await begun(house, POST, body)
        both = [await one.attempt()]
        doubt(house)
        both.append(await one.attempt())
        assert one.keys[0] == one.keys[1]
        assert bytes((await both[winner].end()).body) == (body or b"")
        both[winner].respond([(b":status", b"200"), (b"content-length", b"2")])
        both[winner].say(b"ok", end=True)
        assert bytes((await one.call.end()).body) == b"ok"
        await both[1 - winner].peer.gone()
        await over(house)


@pytest.mark.parametrize(
    "declared", [None, RetryPolicy(("5xx", "reset", "unavailable"), 5)], ids=["nothing", "policy"]
)
@on_jumping_clock
async def test_without_the_routes_word_doubt_changes_nothing(declared: RetryPolicy | None) -> None:
    async with open_house(Plan(endpoints=3, sticky=True, retry=declared)) as house:
        one = await begun(house)
        first = await one.attempt()
        (stream,) = doubt(house)
        assert stream.on_doubt is None
        await trio.sleep(5)
        assert one.no_more()
        first.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)


@pytest.mark.parametrize("size", [0, 1000])
@on_jumping_clock
async def test_a_request_that_is_not_whole_is_not_hedged(size: int) -> None:
    async with open_house(plan()) as house:
        one = await begun(house, body=message(size) if size else None, open_end=True)
        first = await (await one.attempt()).has(size)
        doubt(house)
        await trio.sleep(5)
        assert one.no_more()
        one.call.say(b"", end=True)
        await first.end()
        first.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)


@on_jumping_clock
async def test_a_body_that_was_committed_is_not_hedged() -> None:
    async with open_house(plan()) as house:
        one = await begun(house, body=message(40_000), open_end=True)
        first = await (await one.attempt()).has(40_000)
        one.call.say(b"", end=True)
        await first.end()
        doubt(house)
        await trio.sleep(5)
        assert one.no_more()
        first.respond(ANSWER, end=True)
        await one.call.end()
        await over(house)


@on_jumping_clock
async def test_a_body_whose_end_came_later_is_hedged_too() -> None:
    async with open_house(plan()) as house:
        one = await begun(house, body=message(1000), open_end=True)
        first = await (await one.attempt()).has(1000)
        one.call.say(b"rest", end=True)
        await first.end()
        doubt(house)
        second = await (await one.attempt()).end()
        assert bytes(second.body) == message(1000) + b"rest"
        second.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await was_reset(first)
        await over(house)


@on_jumping_clock
async def test_a_response_that_began_is_not_doubted() -> None:
    async with open_house(plan()) as house:
        one = await begun(house)
        first = await one.attempt()
        first.respond(GRPC_OK)
        await one.call.headed()
        doubt(house)
        await trio.sleep(5)
        assert one.no_more()
        first.trailer(GRPC_END, end=True)
        await one.call.end()
        await over(house)


@on_jumping_clock
async def test_a_head_that_lies_before_the_doubt_wins_without_a_race() -> None:
    async with open_house(plan()) as house:
        one = await begun(house)
        first = await one.attempt()
        first.respond(ANSWER, end=True)
        (stream,) = [s for link in house.links for s in link.streams.values()]
        await house.until(lambda: stream.remote_done or not stream.link.streams)
        stream.doubt()
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)
        assert one.no_more()


@on_jumping_clock
async def test_there_is_one_hedge_at_a_time() -> None:
    async with open_house(plan()) as house:
        one, first, second = await hedged(house)
        doubt(house)
        doubt(house)
        await trio.sleep(5)
        assert one.no_more()
        first.respond(ANSWER, end=True)
        await one.call.end()
        await was_reset(second)
        await over(house)


@pytest.mark.parametrize(("breaker", "most"), [(None, 3), (0, 0), (1, 1)])
@on_jumping_clock
async def test_hedges_stay_within_the_budget(breaker: int | None, most: int) -> None:
    upkeep = Upkeep()
    if breaker is not None:
        upkeep = Upkeep(circuit_breakers=(CircuitBreaker(max_retries=breaker),))
    async with open_house(plan(endpoints=1, upkeep=upkeep)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(8)]
        await house.backend().request(8)
        doubt(house)
        await house.backend().request(8 + most)
        await house.step()
        assert len(house.backend().arrived) == 8 + most
        for got in house.backend().arrived[:8]:
            got.respond(ANSWER, end=True)
        for call in calls:
            assert (await call.end()).grpc_status == b"0"
        stats = house.metrics.cluster(CLUSTER)
        assert (stats.upstream_rq_hedge, stats.upstream_rq_retry_overflow) == (most, 8 - most)
        await over(house, 8)


@on_jumping_clock
async def test_a_hedge_that_finds_the_budget_used_up_has_its_turn() -> None:
    """A link that falls silent leaves more behind than may be hedged at once."""
    async with open_house(plan(endpoints=1)) as house:
        client = await house.client()
        arrived = house.backend().arrived
        calls = {
            b"%d" % n: client.request([*GRPC, (b"x-n", b"%d" % n)], end=True) for n in range(10)
        }
        await house.backend().request(10)
        doubt(house)
        await house.backend().request(13)
        hedged = {got.field(b"x-n") for got in arrived[10:]}
        gone = next(name for name in calls if name not in hedged)
        calls.pop(gone).rst(H2Code.CANCEL)  # a turn that nobody takes goes on to the next
        await house.reports()
        for number in range(9):
            answer(await house.backend().request(11 + number))
        for call in calls.values():
            assert (await call.end()).grpc_status == b"0"
        stats = house.metrics.cluster(CLUSTER)
        assert (stats.upstream_rq_hedge, stats.upstream_rq_hedge_won) == (9, 9)
        assert stats.upstream_rq_retry_overflow == 7
        await over(house, 10)
        assert all(not budget._waiting for budget in house.context._budgets.values())


@on_jumping_clock
async def test_all_on_a_link_that_goes_bad_are_hedged_at_once_of_what_was_saved() -> None:
    async with open_house(plan(endpoints=1)) as house:
        client = await house.client()
        arrived, saved = house.backend().arrived, 8
        for number in range(saved * 20):
            call = client.request(GRPC, end=True)
            answer(await house.backend().request(number + 1))
            await call.end()
        before = len(arrived)
        calls = [client.request(GRPC, end=True) for _ in range(12)]
        await house.backend().request(before + 12)
        doubt(house)
        await house.backend().request(before + 12 + 11)
        await house.step()
        assert len(arrived) == before + 12 + 3 + saved, "three places, and one for twenty calls"
        for got in arrived[before:]:
            if got.reset is None:
                answer(got)
        for call in calls:
            assert (await call.end()).grpc_status == b"0"
        await over(house, before + 12)


@on_jumping_clock
async def test_a_race_that_is_over_gives_its_place_in_the_budget_back_at_once() -> None:
    async with open_house(plan(endpoints=1)) as house:
        rounds = []
        for _ in range(5):  # more than the budget has places
            one, _, second = await _next_hedged(house)
            second.respond(GRPC_OK)
            await one.call.headed()
            rounds.append((one, second))
        for one, second in rounds:
            second.trailer(GRPC_END, end=True)
            assert (await one.call.end()).grpc_status == b"0"
        assert house.metrics.cluster(CLUSTER).upstream_rq_retry_overflow == 0
        await over(house, 5)


async def _next_hedged(house: House) -> tuple[Round, Call, Call]:
    seen = len(house.backend().arrived)
    one = await begun(house)
    first = await house.backend().request(seen + 1)
    doubt(house)
    return one, first, await house.backend().request(seen + 2)


# --- where ----------------------------------------------------------------------------------------


@on_jumping_clock
async def test_an_endpoint_that_is_doubted_itself_is_left_for_the_next_of_the_walk() -> None:
    async with open_house(plan()) as house:
        one = await begun(house)
        first = await one.attempt()
        own = next(pool for _, pool in house.pools if pool.endpoint.key == one.keys[0])
        house.sweep.leave(own)  # which would see that it is well
        house.pools.doubts.add(own)
        doubt(house)
        second = await one.attempt()
        assert one.keys[0] != one.keys[1]
        second.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await was_reset(first)
        (report,) = await house.reports()
        assert report.endpoint is not None
        assert (report.endpoint.key, report.at_home) == (one.keys[1], False)
        await over(house)


@on_jumping_clock
async def test_a_hedge_at_an_endpoint_that_is_tried_again_is_its_one_probe() -> None:
    async with open_house(plan(endpoints=2)) as house:
        one = await begun(house)
        await one.attempt()
        other = next(b for b in house.backends.values() if b.key != one.keys[0])
        other.hold = trio.Event()
        own, spare = (
            next(e for e in house.context.snapshot.clusters[CLUSTER].endpoints if e.key == key)
            for key in (one.keys[0], other.key)
        )
        health = house.context.health
        health.connect_failed(CLUSTER, spare, trio.current_time())
        await trio.sleep(2)
        assert health.admits(CLUSTER, spare, trio.current_time())
        house.pools.doubts.add(house.pools.pool(house.context.snapshot.clusters[CLUSTER], own))
        doubt(house)
        await house.until(lambda: other.dials)
        assert not health.admits(CLUSTER, spare, trio.current_time())
        other.hold.set()
        answer(await one.attempt())
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)


@on_jumping_clock
async def test_a_hedge_whose_dial_fails_goes_elsewhere() -> None:
    async with open_house(plan()) as house:
        one = await begun(house)
        first = await one.attempt()
        one.places[0].down = True
        doubt(house)
        second = await one.attempt()
        assert one.keys[0] != one.keys[1]
        first.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await was_reset(second)
        (report,) = await house.reports()
        assert report.endpoint is not None
        assert report.endpoint.key == one.keys[0]
        await over(house)


@pytest.mark.parametrize("how", ["answer", "break_off", "rst"])
@on_jumping_clock
async def test_a_hedge_that_reaches_nobody_leaves_the_first_attempt_alone(how: str) -> None:
    async with open_house(plan(endpoints=1)) as house:
        with told(house) as heard:
            one = await begun(house)
            first = await one.attempt()
            house.backend().down = True
            doubt(house)
            await house.until(lambda: house.backend().dials == 2)
            await trio.sleep(1)
            assert not one.call.over
            if how == "answer":
                first.respond(ANSWER, end=True)
                assert (await one.call.end()).grpc_status == b"0"
            elif how == "rst":
                first.rst(H2Code.INTERNAL_ERROR)
                (await one.attempt()).respond(ANSWER, end=True)
            else:
                first.peer.break_off()
            await one.call.end()
            (report,) = await house.reports()
            assert len(heard) == report.attempts
            assert one.no_more()
            await over(house)


@on_jumping_clock
async def test_a_hedge_that_still_waits_for_its_link_is_given_up() -> None:
    async with open_house(plan(connect_timeout=60)) as house:
        with told(house) as heard:
            one = await begun(house)
            first = await one.attempt()
            one.places[0].hold = held = trio.Event()
            doubt(house)
            await house.until(lambda: one.places[0].dials == 2)
            first.respond(ANSWER, end=True)
            assert (await one.call.end()).grpc_status == b"0"
            await over(house)
            assert sorted(outcome.name for _, outcome in heard) == ["NEUTRAL", "SUCCESS"]
            held.set()  # the dial goes on: it is the pool's
            await house.until(lambda: len(house.links) == 2)
            await over(house)


# --- who wins -------------------------------------------------------------------------------------

Move = Callable[[Call], None]


def answer(got: Call) -> None:
    got.respond(ANSWER, end=True)


def rst(got: Call) -> None:
    got.rst(H2Code.INTERNAL_ERROR)


def break_off(got: Call) -> None:
    got.peer.break_off()


def goaway(got: Call) -> None:
    got.peer.goaway(0)


def nothing(_: Call) -> None:
    return


@pytest.mark.parametrize("after", [nothing, answer, rst, break_off, goaway])
@pytest.mark.parametrize("winner", [0, 1])
@on_jumping_clock
async def test_the_first_head_wins_whatever_the_other_does_then(winner: int, after: Move) -> None:
    async with open_house(plan()) as house:
        with told(house) as heard:
            one, *both = await hedged(house)
            won, lost = both[winner], both[1 - winner]
            won.respond(GRPC_OK)
            await one.call.headed()
            await was_reset(lost)
            if not lost.over or after in (break_off, goaway):
                after(lost)
            await trio.sleep(1)
            won.say(message(50))
            won.trailer(GRPC_END, end=True)
            assert (await one.call.end()).grpc_status == b"0"
            assert bytes(one.call.body) == message(50)
            await over(house)
            assert sorted(outcome.name for _, outcome in heard) == ["NEUTRAL", "SUCCESS"]
            assert one.no_more()


@pytest.mark.parametrize("order", [0, 1])
@on_jumping_clock
async def test_both_answers_at_the_same_time_make_one_response(order: int) -> None:
    async with open_house(plan()) as house:
        with told(house) as heard:
            one, *both = await hedged(house)
            for number in (order, 1 - order):
                both[number].respond([*GRPC_OK, (b"x-who", b"%d" % number)])
                both[number].trailer(GRPC_END, end=True)
            assert (await one.call.end()).grpc_status == b"0"
            assert one.call.field(b"x-who") in (b"0", b"1")
            await over(house)
            assert sorted(outcome.name for _, outcome in heard) == ["NEUTRAL", "SUCCESS"]


@pytest.mark.parametrize("how", [rst, break_off, goaway])
@pytest.mark.parametrize("failing", [0, 1])
@on_jumping_clock
async def test_an_attempt_that_fails_amid_the_race_leaves_it_to_the_other(
    failing: int, how: Move
) -> None:
    async with open_house(plan()) as house:
        with told(house) as heard:
            one, *both = await hedged(house)
            how(both[failing])
            await trio.sleep(1)
            assert not one.call.over
            assert one.no_more()
            both[1 - failing].respond(ANSWER, end=True)
            assert (await one.call.end()).grpc_status == b"0"
            await over(house)
            assert len(heard) == 2
            assert [o for _, o in heard].count(Outcome.SUCCESS) == 1
            assert one.no_more()


@pytest.mark.parametrize("how", [rst, break_off])
@on_jumping_clock
async def test_when_both_fail_the_request_is_resent_at_most_twice(how: Move) -> None:
    async with open_house(plan()) as house:
        with told(house) as heard:
            one, first, second = await hedged(house)
            how(first)
            how(second)
            how(await one.attempt())
            how(await one.attempt())
            await one.call.end()
            (report,) = await house.reports()
            await trio.sleep(10)
            assert one.no_more()
            assert report.attempts == len(one.keys) == len(heard) == 4
            assert report.error is not None
            await over(house)


@on_jumping_clock
async def test_an_answer_that_the_policy_declines_wins_the_race_and_is_not_forwarded() -> None:
    policy = RetryPolicy(("unavailable",), 1)
    async with open_house(plan(retry=policy)) as house:
        one, first, second = await hedged(house)
        second.respond([*GRPC_OK, (b"grpc-status", b"14")], end=True)
        await was_reset(first)
        third = await one.attempt()
        assert dict(third.head)[b"grpc-previous-rpc-attempts"] == b"2"
        third.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)


@on_jumping_clock
async def test_a_body_stuck_on_the_first_link_reaches_the_second_whole() -> None:
    """The first link stands still before the request is out; whoever sends there is told to stop."""
    async with open_house(plan(wire=4096)) as house:
        client = await house.client()
        one = Round(house, client.request([*POST, (b"x-user", b"ann")]))
        first = await one.attempt()
        first.peer.reading = False
        one.call.say(BODY, end=True)
        await house.until(lambda: house.server.links and _uploaded(house))
        doubt(house)
        second = await (await one.attempt()).end()
        assert bytes(second.body) == BODY
        second.respond([(b":status", b"200")])
        await one.call.headed()
        first.peer.reading = True  # there is room again, for nobody
        await trio.sleep(1)
        second.say(b"done", end=True)
        assert bytes((await one.call.end()).body) == b"done"
        await over(house)


def _uploaded(house: House) -> bool:
    """The client's end was received."""
    links = [link for link in house.server.links if link.streams]
    return all(stream.remote_done for link in links for stream in link.streams.values())


# --- somebody gives up ----------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [False, True], ids=["racing", "dialling"])
@pytest.mark.parametrize("alone", [False, True], ids=["both", "second"])
@pytest.mark.parametrize("who", ["client", "link", "deadline", "drain"])
@on_jumping_clock
async def test_whoever_gives_up_ends_both_attempts(who: str, alone: bool, waiting: bool) -> None:
    """`alone`: the first attempt has failed by then, and only the second is under way."""
    limit = [(b"grpc-timeout", b"9S")] if who == "deadline" else []
    async with open_house(plan(connect_timeout=60)) as house:
        with told(house) as heard:
            one = await begun(house, [*GRPC, *limit])
            first = await one.attempt()
            if waiting:
                one.places[0].hold = trio.Event()
            doubt(house)
            second = None if waiting else await one.attempt()
            await house.until(lambda: one.places[0].dials == 2)
            if alone:
                first.peer.break_off()
                await house.step()
            assert not one.call.over
            if who == "client":
                one.call.rst(H2Code.CANCEL)
            elif who == "link":
                one.call.peer.break_off()
            elif who == "drain":
                house.downstream.cancel_scope.cancel()
            else:
                assert (await one.call.end()).grpc_status == b"4"
            await house.until(lambda: house.ended)
            await house.step()
            for got in (second, None if alone else first):
                if got is not None:
                    await was_reset(got)
            assert one.no_more()
            kinds = {
                "client": ErrorKind.CLIENT_GONE,
                "link": ErrorKind.CLIENT_GONE,
                "deadline": ErrorKind.TIMEOUT,
                "drain": ErrorKind.OVERLOAD,
            }
            (report,) = house.ended
            assert report.error is not None
            assert report.error.kind is kinds[who]
            assert len(heard) == report.attempts == 2
            assert all(outcome is not Outcome.SUCCESS for _, outcome in heard)
            for backend in house.backends.values():
                if backend.hold is not None:
                    backend.hold.set()
            await house.step()
            assert house.left_behind() == []


@on_jumping_clock
async def test_the_limit_of_a_try_ends_both_attempts_and_the_policy_says_what_then() -> None:
    policy = RetryPolicy(("5xx",), 1, per_try_timeout=2.0)
    async with open_house(plan(retry=policy)) as house:
        one, first, second = await hedged(house)
        third = await one.attempt()
        await was_reset(first)
        await was_reset(second)
        third.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)


# --- a link that is proven dead -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "break_off"])
@pytest.mark.parametrize("body", [None, BODY], ids=["head", "body"])
@on_jumping_clock
async def test_what_a_dead_link_lost_is_resent_at_once_to_the_same_endpoint(
    body: bytes | None, how: str
) -> None:
    async with open_house(plan()) as house:
        one = await begun(house, body=body)
        first = await (await one.attempt()).end()
        died = trio.current_time()
        getattr(first.peer, how)()
        second = await (await one.attempt()).end()
        assert trio.current_time() - died <= 0.05
        assert one.keys[0] == one.keys[1]
        assert bytes(second.body) == (body or b"")
        second.respond(ANSWER, end=True)
        assert (await one.call.end()).grpc_status == b"0"
        await over(house)


@on_jumping_clock
async def test_all_that_one_dead_link_lost_is_resent_budget_or_not() -> None:
    """No more is under way than before, and none of it is an answer to load."""
    async with open_house(plan(endpoints=1)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(50)]
        (await house.backend().request(50)).peer.break_off()
        await house.backend().request(100)
        for got in house.backend().arrived[50:]:
            got.respond(ANSWER, end=True)
        for call in calls:
            assert (await call.end()).grpc_status == b"0"
        assert house.metrics.cluster(CLUSTER).upstream_rq_retry_overflow == 0
        await over(house, 50)


@on_jumping_clock
async def test_a_request_that_kills_links_is_given_up_at_the_third() -> None:
    async with open_house(plan()) as house:
        one = await begun(house)
        for _ in range(3):
            (await one.attempt()).peer.break_off()
        assert (await one.call.end()).grpc_status == b"14"
        assert one.keys[0] == one.keys[1] != one.keys[2]
        await over(house)
        assert one.no_more()
        assert flags(house) == "UC"


@pytest.mark.parametrize("status", [b"200", b"503"])
@on_jumping_clock
async def test_nothing_is_resent_once_a_response_began(status: bytes) -> None:
    async with open_house(plan()) as house:
        one = await begun(house, POST)
        first = await one.attempt()
        first.respond([(b":status", status)])
        await one.call.headed()
        first.peer.break_off()
        await one.call.end()
        await over(house)
        assert one.no_more()
