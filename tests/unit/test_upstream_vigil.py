"""Bad connections under the clock of a test: what the proxy notices, does, and leaves behind.

A connection is dead when its peer neither reads nor writes any more, while the backend goes on to take
new ones; a frozen backend takes them and says nothing; one that is off does not even take them.
"""

from __future__ import annotations

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ProxyError
from stickyproxy.health.headtimes import LEARNT
from stickyproxy.health.linkscore import DEAD_AFTER, HOST_PATIENCE, MUTE, PINGS
from stickyproxy.health.poolplan import GRACE
from stickyproxy.metrics import Metrics
from stickyproxy.model import ClusterSpec, Endpoint
from stickyproxy.upstream.dial import NEXT_TICK
from stickyproxy.wire.pulse import ask
from support.clock import on_jumping_clock
from support.house import Backend, House, open_house
from support.peers import Call, Peer
from support.plan import CLUSTER, GRPC, GRPC_END, GRPC_OK, Plan

ANSWER = [*GRPC_OK, *GRPC_END]
SLOW = [*GRPC, (b"x-slow", b"1")]
SERVICE = 0.01


async def serve(house: House, backend: Backend) -> None:
    """Answer each request after SERVICE, for as long as its peer reads; SLOW ones never."""
    done = 0
    while True:
        await trio.sleep(0.004)
        for got in backend.arrived[done:]:
            if not got.field(b"x-slow"):
                house.nursery.start_soon(answer, got)
        done = len(backend.arrived)


async def answer(got: Call) -> None:
    await trio.sleep(SERVICE)
    await got.peer.until(lambda: got.peer.reading)
    if got.reset is None and not got.lost:
        got.respond(ANSWER, end=True)


async def warm(house: House, client: Peer) -> None:
    """Traffic, after which its times are known and each endpoint has its spare."""
    for backend in house.backends.values():
        house.nursery.start_soon(serve, house, backend)
    for _ in range((LEARNT + 2) * len(house.backends)):
        assert (await client.request(GRPC, end=True).end()).grpc_status == b"0"
        await trio.sleep(0.02)
    await house.until(lambda: all(len(pool.links) == 2 for _, pool in house.pools))


def die(peer: Peer) -> None:
    """Neither reads nor says anything from now on."""
    peer.reading = peer.answering = False


def live(peer: Peer) -> None:
    peer.answering = True
    peer.reading = True


def freeze(backend: Backend) -> None:
    for peer in backend.links:
        die(peer)
    backend.mute = True


def counted(house: House, name: str) -> float:
    return house.metrics.cluster(CLUSTER).as_dict()[name]


@on_jumping_clock
async def test_an_endpoint_with_traffic_has_one_warm_spare_and_an_idle_one_has_none() -> None:
    async with open_house(Plan(endpoints=2, sticky=True)) as house:
        client = await house.client()
        for backend in house.backends.values():
            house.nursery.start_soon(serve, house, backend)
        for _ in range(3 * LEARNT):
            await client.request([*GRPC, (b"x-user", b"ann")], end=True).end()
        await trio.sleep(1)
        assert sorted(len(backend.links) for backend in house.backends.values()) == [0, 2]
        loaded, spare = house.links
        assert (loaded.codec.capacity(), len(spare.streams)) == (1024, 0)


@on_jumping_clock
async def test_a_dead_connection_costs_only_what_was_on_it_and_new_calls_go_on_at_once() -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        backend = house.backend()
        die(backend.links[0])
        lost = client.request(GRPC, end=True)
        begun = trio.current_time()
        await house.until(lambda: house.pool.vigil.suspects)
        assert trio.current_time() - begun < 0.05
        for _ in range(20):
            started = trio.current_time()
            assert (await client.request(GRPC, end=True).end()).grpc_status == b"0"
            assert trio.current_time() - started < 2 * SERVICE
        assert not lost.over
        await lost.end()
        assert lost.grpc_status == b"14"
        assert DEAD_AFTER < trio.current_time() - begun < DEAD_AFTER + 0.2
        assert not house.pools.doubts
        await house.reports(LEARNT + 2 + 21)
        assert house.left_behind() == []
        assert counted(house, "upstream_link_dead_total") == 1


@on_jumping_clock
async def test_a_long_stream_on_a_dead_connection_ends_with_unavailable() -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        backend = house.backend()
        long = client.request(GRPC)
        got = await backend.request(len(backend.arrived) + 1)
        got.respond(GRPC_OK)
        await long.headed()
        die(got.peer)
        begun = trio.current_time()
        client.request(GRPC, end=True)
        await house.until(lambda: house.pool.vigil.suspects)
        client.request(GRPC, end=True)
        await long.end()
        assert (long.grpc_status, long.lost) == (b"14", False)
        assert trio.current_time() - begun < DEAD_AFTER + 0.2


@on_jumping_clock
async def test_a_connection_that_comes_back_is_used_again_and_lost_nothing() -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        first = house.backend().links[0]
        die(first)
        late = client.request(GRPC, end=True)
        await house.until(lambda: house.pool.vigil.suspects)
        await trio.sleep(0.3)
        live(first)
        assert (await late.end()).grpc_status == b"0"
        await house.until(lambda: not house.pool.vigil.suspects)
        assert counted(house, "upstream_link_recovered_total") == 1
        call = client.request(GRPC, end=True)
        await call.end()
        assert house.backend().arrived[-1].peer is first
        assert house.backend().dials <= 3


@on_jumping_clock
async def test_a_frozen_backend_is_walked_past_and_back_as_soon_as_it_thaws() -> None:
    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        await warm(house, client)
        frozen = next(iter(house.backends.values()))
        before = frozen.dials
        freeze(frozen)
        calls = []
        for _ in range(50):
            calls.append(client.request(GRPC, end=True))
            await trio.sleep(0.01)
        assert house.pools.doubts
        stuck = sum(not call.over for call in calls)
        assert 1 <= stuck <= 5
        await trio.sleep(2.5)
        assert frozen.dials - before <= 3
        for peer in frozen.links:
            live(peer)
        frozen.mute = False
        await house.until(lambda: not house.pools.doubts)
        assert all([(await call.end()).grpc_status == b"0" for call in calls])
        served = len(frozen.arrived)
        for _ in range(4):
            await client.request(GRPC, end=True).end()
        assert len(frozen.arrived) == served + 2
        await house.reports(2 * (LEARNT + 2) + 54)
        assert house.left_behind() == []


@pytest.mark.parametrize("kernel_lives", [True, False])
@on_jumping_clock
async def test_a_host_that_acknowledges_and_says_nothing_is_dialled_every_five_seconds(
    kernel_lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickyproxy.upstream.dial.acknowledged", lambda _: kernel_lives)
    async with open_house(Plan(endpoints=2)) as house:
        house.nursery.start_soon(house.watch.run)
        client = await house.client()
        await warm(house, client)
        frozen = next(iter(house.backends.values()))
        before = frozen.dials
        freeze(frozen)
        for _ in range(100):
            client.request(GRPC, end=True)
            await trio.sleep(0.1)
        assert frozen.dials - before == (2 if kernel_lives else 4)
        frozen.mute = False
        live(frozen.links[-1])
        begun = trio.current_time()
        await house.until(lambda: not house.pools.doubts)
        assert trio.current_time() - begun < 1


@on_jumping_clock
async def test_who_waits_for_a_connection_is_told_in_time_though_the_host_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stickyproxy.upstream.dial.acknowledged", lambda _: True)
    async with open_house(Plan(connect_timeout=3)) as house:
        house.nursery.start_soon(house.watch.run)
        client = await house.client()
        await warm(house, client)
        freeze(house.backend())
        client.request(GRPC, end=True)
        await house.until(lambda: house.pools.doubts)
        call = client.request(GRPC, end=True)
        begun = trio.current_time()
        assert (await call.end()).grpc_status == b"14"
        assert trio.current_time() - begun < 3 + NEXT_TICK


@pytest.mark.parametrize("both", [False, True])
@on_jumping_clock
async def test_a_frozen_backend_is_noticed_by_a_link_that_may_not_be_asked_any_more(
    both: bool,
) -> None:
    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        await warm(house, client)
        frozen = next(iter(house.backends.values()))
        links = list(house.pool_of(frozen).links)
        for link in links if both else links[1:]:
            score = house.pool_of(frozen).vigil._watched[link].score
            score._pings = [trio.current_time() + 0.001] * PINGS  # as if spent since the last data
        freeze(frozen)
        begun, calls = trio.current_time(), []
        while not house.pools.doubts:
            calls.append(client.request(GRPC, end=True))
            await trio.sleep(0.01)
        assert trio.current_time() - begun < (MUTE + 0.2 if both else 0.2)
        assert (await client.request(GRPC, end=True).end()).grpc_status == b"0"
        for peer in frozen.links:
            live(peer)
        frozen.mute = False
        assert all([(await call.end()).grpc_status == b"0" for call in calls])


@on_jumping_clock
async def test_a_session_whose_host_died_moves_within_a_tenth_of_a_second_and_returns() -> None:
    async with open_house(Plan(endpoints=3, sticky=True)) as house:
        client = await house.client()
        ann = [*GRPC, (b"x-user", b"ann")]
        for backend in house.backends.values():
            house.nursery.start_soon(serve, house, backend)
        for _ in range(2 * LEARNT):
            await client.request(ann, end=True).end()
        home = next(one for one in house.backends.values() if one.arrived)
        await house.until(lambda: len(home.links) == 2)
        freeze(home)
        client.request(ann, end=True)
        await house.until(lambda: house.pool_of(home).vigil.suspects)
        begun = trio.current_time()
        assert (await client.request(ann, end=True).end()).grpc_status == b"0"
        assert trio.current_time() - begun < GRACE + 2 * SERVICE + 0.02
        assert house.pool_of(home).doubted
        home.mute = False
        for peer in home.links:
            live(peer)
        await house.until(lambda: not house.pools.doubts)
        served = len(home.arrived)
        await client.request(ann, end=True).end()
        assert len(home.arrived) == served + 1


@pytest.mark.parametrize("sticky", [True, False])
@on_jumping_clock
async def test_only_who_belongs_to_a_frozen_host_waits_for_a_new_connection_to_it(
    sticky: bool,
) -> None:
    async with open_house(Plan(endpoints=2, sticky=sticky)) as house:
        client = await house.client()
        ann = [*GRPC, (b"x-user", b"ann")]
        for backend in house.backends.values():
            house.nursery.start_soon(serve, house, backend)
        for _ in range(4 * LEARNT):
            await client.request(ann, end=True).end()
        home = next(one for one in house.backends.values() if one.arrived)
        await house.until(lambda: len(home.links) == 2)
        freeze(home)
        calls = [client.request(ann, end=True) for _ in range(2)]
        await house.until(lambda: len(house.pool_of(home).vigil.suspects) == 2)
        doubted = house.pool_of(home).doubted
        assert doubted is not sticky
        for call in calls:
            call.rst(8)


@pytest.mark.parametrize(("how", "warm_still"), [("froze", True), ("restarted", False)])
@on_jumping_clock
async def test_who_was_only_out_of_reach_is_known_from_who_was_restarted(
    how: str, warm_still: bool
) -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        backend, told = house.backend(), []

        def heard(_: ClusterSpec, endpoint: Endpoint, error: ProxyError | None) -> None:
            told.append((error is None, house.pools.was_silent(CLUSTER, endpoint.key)))

        house.pools._heard = heard
        if how == "froze":
            freeze(backend)
        else:
            backend.down = True
            for peer in backend.links:
                peer.break_off()
        client.request(GRPC, end=True)
        await trio.sleep(2 * HOST_PATIENCE)
        assert not house.links
        backend.down = backend.mute = False
        await house.until(lambda: house.links)
        assert (False, warm_still) in told
        assert told[-1] == (True, warm_still)


@on_jumping_clock
async def test_the_only_endpoint_is_waited_for() -> None:
    async with open_house(Plan(connect_timeout=60)) as house:
        client = await house.client()
        await warm(house, client)
        freeze(house.backend())
        client.request(GRPC, end=True)
        await house.until(lambda: house.pools.doubts)
        call = client.request(GRPC, end=True)
        await trio.sleep(1)
        assert not call.over
        house.backend().mute = False
        for peer in house.backend().links:
            live(peer)
        assert (await call.end()).grpc_status == b"0"


@on_jumping_clock
async def test_nobody_waits_for_a_silent_host_longer_than_its_patience() -> None:
    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        await warm(house, client)
        freeze(next(iter(house.backends.values())))
        begun = trio.current_time()
        calls = [client.request(GRPC, end=True) for _ in range(2)]
        for call in calls:
            await call.end()
        assert sorted(call.grpc_status for call in calls) == [b"0", b"14"]
        assert HOST_PATIENCE < trio.current_time() - begun < HOST_PATIENCE + 0.5


@on_jumping_clock
async def test_a_backend_that_answers_ping_and_no_streams_is_slow_and_not_dead() -> None:
    """And it is asked no more often than servers of gRPC bear."""
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        dials, pings = house.backend().dials, counted(house, "upstream_link_pings_total")
        call = client.request(SLOW, end=True)
        await trio.sleep(60)
        assert not call.over
        assert house.backend().dials <= dials + 1, "one to see whether it lives"
        assert counted(house, "upstream_link_suspect_ping_total") == 0
        assert counted(house, "upstream_link_suspect_company_total") == 0
        assert 1 <= counted(house, "upstream_link_pings_total") - pings <= 2 * PINGS
        call.rst(8)


@on_jumping_clock
async def test_a_backend_that_counts_pings_is_asked_no_more_and_loses_nothing() -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        slow = client.request(SLOW, end=True)
        got = await house.backend().request(len(house.backend().arrived) + 1)
        last = max(call.stream_id for call in got.peer.calls.values())
        said = last.to_bytes(4, "big") + (0xB).to_bytes(4, "big") + b"too_many_pings"
        await got.peer.wire.send_all(len(said).to_bytes(3, "big") + b"\x07\0\0\0\0\0" + said)
        await house.until(lambda: not house.pool.vigil.pings)
        assert not house.context.health.suspected
        pings = counted(house, "upstream_link_pings_total")
        for _ in range(20):
            assert (await client.request(GRPC, end=True).end()).grpc_status == b"0"
        client.request(SLOW, end=True)
        await trio.sleep(60)
        assert counted(house, "upstream_link_pings_total") == pings
        got.respond(ANSWER, end=True)
        assert (await slow.end()).grpc_status == b"0"


@on_jumping_clock
async def test_an_answer_that_was_on_its_way_before_a_ping_arrived_forgives_no_ping() -> None:
    """A server counts the PINGs since it last said HEADERS or DATA, in its order of things."""
    async with open_house() as house:
        client = await house.client()
        for _ in range(2):
            client.request(GRPC, end=True)
        first, second = await house.backend().request(1), await house.backend().request(2)
        link = house.links[0]
        assert link.pulse is not None
        before = link.pulse.proof
        first.respond(ANSWER, end=True)
        ask(link)
        await house.reports(1)
        await house.until(lambda: link.pulse is not None and not link.pulse.open)
        assert link.pulse.proof == before
        second.respond(ANSWER, end=True)
        await house.reports(2)
        assert link.pulse.proof == link.pulse.heard > before


@on_jumping_clock
async def test_a_tiny_window_is_no_illness() -> None:
    """One that opens slowly keeps uploads waiting, and the link well."""
    async with open_house(Plan(backend_limits=CodecLimits(stream_credit=16))) as house:
        client = await house.client()
        await warm(house, client)
        house.backend().granting = False
        for peer in house.backend().links:
            peer.granting = False
        call = client.request(SLOW)
        call.say(b"u" * 1000)
        await trio.sleep(30)
        assert not call.over
        assert counted(house, "upstream_link_suspect_ping_total") == 0
        call.rst(8)
        await house.until(lambda: not any(link.streams for link in house.links))
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_backend_that_forbids_streams_is_used_once_it_allows_them() -> None:
    async with open_house(Plan(backend_limits=CodecLimits(max_concurrent_streams=0))) as house:
        client = await house.client()
        call = client.request(GRPC, end=True)
        await call.end()
        assert call.grpc_status == b"14"
        assert house.backend().arrived == []


@on_jumping_clock
async def test_a_flapping_host_is_dialled_seldom_and_loses_nobody_for_good() -> None:
    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        await warm(house, client)
        flapping = next(iter(house.backends.values()))
        dials, calls = flapping.dials, []
        for _ in range(5):
            freeze(flapping)
            for _ in range(30):
                calls.append(client.request(GRPC, end=True))
                await trio.sleep(0.02)
            flapping.mute = False
            for peer in flapping.links:
                live(peer)
            for _ in range(30):
                calls.append(client.request(GRPC, end=True))
                await trio.sleep(0.02)
        assert all([(await call.end()).grpc_status == b"0" for call in calls])
        assert flapping.dials - dials <= 12
        await house.reports(2 * (LEARNT + 2) + len(calls))
        assert house.left_behind() == []


@on_jumping_clock
async def test_people_are_told_how_each_connection_is_and_why() -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        die(house.backend().links[0])
        client.request(GRPC, end=True)
        await house.until(lambda: house.pool.vigil.suspects)
        told = house.metrics.as_dict()
        assert told["endpoints"][0][2]["cx_suspect"] == 1
        ((_, _, (bad, good, *more)),) = told["links"]
        assert bad.startswith("suspect, 1 stream, for 0.0 s: no answer to a PING within")
        assert good == "well, 0 streams"
        both = Metrics.from_dicts(told, told)
        assert both.links["things", "10.0.0.1:80"] == [bad, good, *more] * 2


@on_jumping_clock
async def test_nothing_is_looked_at_while_nothing_is_under_way() -> None:
    async with open_house() as house:
        client = await house.client()
        await warm(house, client)
        await trio.sleep(5)
        assert house.sweep._due == {}
        assert not any(link.pulse and link.pulse.watched for link in house.links)
