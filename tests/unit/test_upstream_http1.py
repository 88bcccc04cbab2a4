"""Backends of HTTP/1.1 that go bad: there is no PING, so a new connection asks whether they live.

A frozen backend takes connections and says nothing; one that works on one request at a time is busy, and
says nothing either until that is done.
"""

from __future__ import annotations

import pytest
import trio

from stickyproxy.errors import ErrorKind
from stickyproxy.health.headtimes import LEARNT, LEAST_RARE, RareTimes
from stickyproxy.health.linkscore import HOST_PATIENCE
from stickyproxy.health.poolplan import QUESTION_PAUSE
from stickyproxy.upstream.asking import AGAIN
from support.clock import on_jumping_clock
from support.house import Backend, House, open_house
from support.peers import Call, Peer
from support.plan import CLUSTER, GET, Plan

SLOW = [*GET, (b"x-slow", b"1")]
ANSWER = [(b":status", b"200"), (b"content-length", b"0")]
CLOSING = [(b":status", b"501"), (b"content-length", b"0"), (b"connection", b"close")]
HANGS_UP = [(b"hangs up", b"")]
"""What it says to `OPTIONS *`: it closes the connection, as for a request that is none."""
NONSENSE = [(b"nonsense", b"")]
"""What it says is no HTTP/1.1."""
NEVER = [(b"never", b"")]
SERVICE = 0.01
NOTICED = 0.25
"""Seconds: twice the slowest, the time a new connection gets, and some looks."""


def asked(backend: Backend) -> list[Call]:
    return [got for got in backend.arrived if got.field(b":path") == b"*"]


async def serve(house: House, backend: Backend, options: list[tuple[bytes, bytes]]) -> None:
    """Answer each request after SERVICE, for as long as the process runs; SLOW ones never."""
    done = 0
    while True:
        await trio.sleep(0.002)
        for got in backend.arrived[done:]:
            if not got.field(b"x-slow"):
                house.nursery.start_soon(answer, backend, got, options)
        done = len(backend.arrived)


async def answer(backend: Backend, got: Call, options: list[tuple[bytes, bytes]]) -> None:
    await trio.sleep(SERVICE)
    await got.peer.until(lambda: not backend.mute)
    if got.lost:
        return
    if got.field(b":path") != b"*":
        got.respond(ANSWER, end=True)
    elif options == HANGS_UP:
        got.peer.close()
    elif options == NONSENSE:
        await got.peer.wire.send_all(b"<html>what?</html>\r\n\r\n")
    elif options != NEVER:
        got.respond(options, end=True)


async def warm(house: House, options: list[tuple[bytes, bytes]] | None = None) -> Peer:
    """A client, after enough calls to know what is usual."""
    client = await house.client()
    for backend in house.backends.values():
        house.nursery.start_soon(serve, house, backend, options or ANSWER)
    for _ in range((LEARNT + 2) * len(house.backends)):
        assert (await client.request(GET, end=True).end()).status == b"200"
    await trio.sleep(3 * SERVICE)  # for the question that is asked while all is well
    return client


def freeze(backend: Backend) -> None:
    backend.mute = True


def thaw(backend: Backend) -> None:
    backend.mute = False
    for peer in backend.links:
        peer.answering = True
        peer.resume()
        peer.kick()


def first(house: House) -> Backend:
    return next(iter(house.backends.values()))


def counted(house: House, name: str) -> float:
    return house.metrics.cluster(CLUSTER).as_dict()[name]


@pytest.mark.parametrize("idempotent", [True, False])
@on_jumping_clock
async def test_a_frozen_backend_is_walked_past_and_back_with_its_first_answer(
    idempotent: bool,
) -> None:
    async with open_house(Plan(endpoints=2, upstream="http", idempotent=idempotent)) as house:
        client = await warm(house)
        frozen = first(house)
        dials = frozen.dials
        freeze(frozen)
        begun, calls = trio.current_time(), []
        while not house.pools.doubts:
            calls.append(client.request(GET, end=True))
            await trio.sleep(0.01)
        assert trio.current_time() - begun < NOTICED
        for _ in range(20):
            started = trio.current_time()
            assert (await client.request(GET, end=True).end()).status == b"200"
            assert trio.current_time() - started < 2 * SERVICE
        stuck = [call for call in calls if not call.over]
        assert len(stuck) == 0 if idempotent else len(stuck) <= 6
        await trio.sleep(2)
        assert frozen.dials - dials <= len(calls) / 2 + 2
        thaw(frozen)
        await house.until(lambda: not house.pools.doubts)
        assert all([(await call.end()).status == b"200" for call in calls])
        served = len(frozen.arrived)
        for _ in range(4):
            await client.request(GET, end=True).end()
        assert len(frozen.arrived) == served + 2
        assert house.bugs == []


@on_jumping_clock
async def test_a_backend_that_was_out_of_reach_is_no_newcomer_though_no_connection_is_left() -> (
    None
):
    """A hedge's loser takes its connection with it."""
    async with open_house(Plan(endpoints=2, upstream="http", idempotent=True)) as house:
        client = await warm(house)
        frozen = first(house)
        pool = house.pool_of(frozen)
        freeze(frozen)
        while not house.pools.doubts:
            client.request(GET, end=True)
            await trio.sleep(0.01)
        for link in list(pool.links):
            link.close()
        await house.until(lambda: not pool.links)
        assert house.pools.was_silent(CLUSTER, frozen.key)


@on_jumping_clock
async def test_slow_answers_are_no_suspicion_as_long_as_the_backend_says_it_lives() -> None:
    async with open_house(Plan(upstream="http", connect_timeout=60)) as house:
        client = await warm(house)
        before = len(asked(house.backend()))
        calls = [client.request(SLOW, end=True) for _ in range(3)]
        await trio.sleep(5)
        assert not any(call.over for call in calls)
        assert not house.pool.vigil.suspects
        assert not house.pools.doubts
        assert 1 <= len(asked(house.backend())) - before <= 5 / QUESTION_PAUSE + 1
        assert len(house.links) == 4, "what asked is one more, and is asked again"
        for call in calls:
            call.rst(8)


@on_jumping_clock
async def test_a_backend_whose_other_answers_come_is_asked_no_more_than_once() -> None:
    async with open_house(Plan(upstream="http")) as house:
        client = await warm(house)
        slow = client.request(SLOW, end=True)
        for _ in range(200):
            await client.request(GET, end=True).end()
        assert not slow.over
        assert len(asked(house.backend())) == 1, "while all was well"
        slow.rst(8)


@pytest.mark.parametrize("options", [CLOSING, HANGS_UP], ids=["closing", "hangs-up"])
@on_jumping_clock
async def test_any_answer_will_do_also_one_that_ends_its_connection(
    options: list[tuple[bytes, bytes]],
) -> None:
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        client = await warm(house, options)
        slow = [client.request(SLOW, end=True) for _ in range(2)]
        await trio.sleep(3)
        backend = first(house)
        assert len(asked(backend)) >= 2
        assert not house.pools.doubts
        assert not house.pool_of(backend).vigil.suspects
        assert all(error is None for error in house.heard)
        for call in slow:
            call.rst(8)
        await house.reports(2 * (LEARNT + 2) + 2)
        await trio.sleep(0.1)
        assert house.left_behind() == []


@on_jumping_clock
async def test_who_answers_the_question_with_nonsense_is_asked_once_and_keeps_its_connections() -> (
    None
):
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        client = await warm(house, NONSENSE)
        await calls(client, 2 / SERVICE)
        assert [len(asked(backend)) for backend in house.backends.values()] == [1, 1]
        assert [backend.dials for backend in house.backends.values()] == [2, 2]
        slow = [client.request(SLOW, end=True) for _ in range(2)]
        await trio.sleep(3)
        assert not house.pools.doubts
        assert all(error is None for error in house.heard)
        for call in slow:
            call.rst(8)
        await trio.sleep(0.1)


@on_jumping_clock
async def test_an_endpoint_that_left_is_asked_nothing_and_keeps_no_connection() -> None:
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        await warm(house, NEVER)
        pool = house.pool_of(first(house))
        await house.until(lambda: asked(first(house)))
        pool.retire()
        await trio.sleep(1)
        assert pool.links == []
        assert pool.question._open == []


@on_jumping_clock
async def test_silence_means_nothing_of_who_never_answers_the_question() -> None:
    """It is asked while all is well, and again ten minutes later; nobody waits for it."""
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        client = await warm(house, NEVER)
        await calls(client, 2 / SERVICE)
        assert [len(asked(backend)) for backend in house.backends.values()] == [1, 1]
        slow = [client.request(SLOW, end=True) for _ in range(2)]
        for _ in range(5):
            await trio.sleep(1)
            assert not house.pools.doubts
        for call in slow:
            call.rst(8)
        await calls(client, 20)
        assert [len(asked(backend)) for backend in house.backends.values()] == [1, 1]
        await trio.sleep(AGAIN)
        await calls(client, 20)
        assert [len(asked(backend)) for backend in house.backends.values()] == [2, 2]


@on_jumping_clock
async def test_who_no_longer_answers_the_question_and_serves_is_not_believed_to_be_silent() -> None:
    options = list(ANSWER)
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        client = await warm(house, options)
        options[:] = NEVER
        slow = [client.request(SLOW, end=True) for _ in range(2)]
        await house.until(lambda: len(house.pools.doubts) == 2)
        for backend in house.backends.values():
            for got in backend.arrived:
                if got.field(b"x-slow"):
                    got.respond(ANSWER, end=True)
        assert all([(await call.end()).status == b"200" for call in slow])
        await calls(client, 2 / SERVICE)
        seen = [len(asked(backend)) for backend in house.backends.values()]
        slow = [client.request(SLOW, end=True) for _ in range(2)]
        for _ in range(5):
            await trio.sleep(1)
            assert not house.pools.doubts
        assert [len(asked(backend)) for backend in house.backends.values()] == seen
        for call in slow:
            call.rst(8)
        await trio.sleep(0.1)


async def calls(client: Peer, number: float) -> None:
    for _ in range(int(number)):
        assert (await client.request(GET, end=True).end()).status == b"200"


@on_jumping_clock
async def test_who_was_frozen_and_answers_the_question_a_little_late_is_asked_again() -> None:
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        client = await warm(house)
        frozen = first(house)
        for _ in range(3):
            before = len(asked(frozen))
            freeze(frozen)
            while not house.pools.doubts:
                client.request(GET, end=True)
                await trio.sleep(0.01)
            assert len(asked(frozen)) > before
            await trio.sleep(1)
            thaw(frozen)
            await house.until(lambda: not house.pools.doubts)
            for _ in range(20):
                await client.request(GET, end=True).end()


@on_jumping_clock
async def test_who_works_on_one_request_at_a_time_loses_none_however_long_it_takes() -> None:
    """It looks as one that is frozen: its sessions go elsewhere meanwhile, and nothing is ended."""
    async with open_house(Plan(endpoints=2, upstream="http")) as house:
        client = await warm(house)
        busy = first(house)
        calls = [client.request(SLOW, end=True), client.request(SLOW, end=True)]
        await house.until(lambda: any(one.field(b"x-slow") for one in busy.arrived))
        freeze(busy)
        await trio.sleep(3 * HOST_PATIENCE)
        assert house.pools.doubted(house.context.snapshot.clusters[CLUSTER], house.pool.endpoint)
        assert not any(call.over for call in calls)
        assert counted(house, "upstream_link_dead_total") == 0
        thaw(busy)
        for backend in house.backends.values():
            for got in backend.arrived:
                if got.field(b"x-slow"):
                    got.respond(ANSWER, end=True)
        assert all([(await call.end()).status == b"200" for call in calls])
        await house.until(lambda: not house.pools.doubts)


@on_jumping_clock
async def test_the_only_backend_is_waited_for_and_who_waits_is_told_in_time() -> None:
    async with open_house(Plan(upstream="http", connect_timeout=2)) as house:
        client = await warm(house)
        freeze(house.backend())
        client.request(GET, end=True)
        await house.until(lambda: house.pools.doubts)
        call = client.request(GET, end=True)
        begun = trio.current_time()
        assert (await call.end()).status == b"503"
        assert trio.current_time() - begun < 2.1
        assert any(error and error.kind is ErrorKind.CONNECT_FAILED for error in house.heard)
        thaw(house.backend())
        await house.until(lambda: not house.pools.doubts)
        assert (await client.request(GET, end=True).end()).status == b"200"


def test_late_is_what_takes_twice_as_long_as_the_slowest_in_two_hundred() -> None:
    times = RareTimes()
    seen = [0.2 if number % 100 == 0 else 0.01 for number in range(1, 5001)]
    for one in seen:
        times.note(one)
    assert 0.1 < times.rare < 0.3
    late = [one for one in seen if one > times.late]
    assert len(late) <= len(seen) / 100


def test_a_hiccup_of_a_fast_service_is_not_late() -> None:
    times = RareTimes()
    for _ in range(500):
        times.note(0.001)
    assert times.late == LEAST_RARE


def test_a_service_that_gets_slower_is_learnt_in_some_dozen_calls() -> None:
    times = RareTimes()
    for _ in range(100):
        times.note(0.01)
    for _ in range(12):
        times.note(0.1)
    assert 0.2 < times.late < 0.4
