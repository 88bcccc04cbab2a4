"""Calls among endpoints that are not well: outliers, checks, breakers and slow start together."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
import trio

from stickyproxy.control.upkeep import Teller, sweep
from stickyproxy.health.book import HealthBook
from stickyproxy.health.newcomers import Newcomers
from stickyproxy.rules import HealthCheck, HttpCheck, OutlierDetection, SlowStart, Upkeep
from stickyproxy.upstream.probe import Probes
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import CLUSTER, GET, GRPC, Plan

LIMITS = OutlierDetection(max_ejection_time_jitter=0.0)
CHECK = HealthCheck(HttpCheck("/healthz"), timeout=3.0, interval=5.0)
USERS = [b"user-%d" % number for number in range(40)]
EMPTY = (b"content-length", b"0")


class Street:
    """A house whose backends answer by themselves: what is in `says`, else 200."""

    def __init__(self, house: House, client: Peer) -> None:
        self.house = house
        self.client = client
        self.says: dict[str, bytes] = {}
        self.check_says: dict[str, bytes] = {}

    async def answer(self) -> None:
        done: set[int] = set()
        while True:
            for key, backend in self.house.backends.items():
                for call in backend.arrived:
                    if id(call) not in done and call.end_stream:
                        done.add(id(call))
                        self._answer(key, call)
            await trio.sleep(0.02)

    def _answer(self, key: str, call: Call) -> None:
        says = self.check_says if call.field(b":path") == b"/healthz" else self.says
        status = says.get(key, b"200")
        if call.field(b"content-type") == b"application/grpc":
            head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
            call.respond([*head, (b"grpc-status", status)], end=True)
        else:
            call.respond([(b":status", status), EMPTY, (b"x-by", key.encode())], end=True)

    async def ask(self, user: bytes = USERS[0]) -> tuple[bytes, str]:
        """Status, and who answered."""
        call = await self.client.request([*GET, (b"x-user", user)], end=True).end()
        return call.status, call.field(b"x-by").decode()

    async def homes(self) -> dict[bytes, str]:
        return {user: (await self.ask(user))[1] for user in USERS}

    def state(self, key: str) -> str:
        seen = self.house.context.health.seen(CLUSTER, key)
        return seen.flags if seen is not None else ""


@asynccontextmanager
async def street(
    endpoints: int, *, sticky: bool = True, checked: bool = False, slow: SlowStart | None = None
) -> AsyncIterator[Street]:
    checks = (CHECK,) if checked else ()
    upkeep = Upkeep(outlier_detection=LIMITS, health_checks=checks)
    async with open_house(Plan(endpoints=endpoints, sticky=sticky, upkeep=upkeep)) as house:
        newcomers = Newcomers(slow)
        house.context.newcomers = newcomers
        house.context.health = HealthBook(Teller(house.metrics, newcomers))
        house.context.install(house.context.snapshot)
        made = Street(house, await house.client())
        probes = Probes(
            house.upstream,
            house._dialler,
            house.context.health,
            house.metrics,
            rng=Random(1),
            bug=house._bug,
        )
        probes.keep(house.context.snapshot.clusters)
        house.nursery.start_soon(made.answer)
        house.nursery.start_soon(sweep, house.context.health, newcomers, house.metrics)
        yield made
        assert not house.bugs


@pytest.mark.parametrize("endpoints", [2, 3])
def test_users_of_an_endpoint_that_answers_503_move_and_come_back_and_nobody_else_does(
    endpoints: int,
) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(endpoints) as there:
            before = await there.homes()
            sick = before[USERS[0]]
            there.says[sick] = b"503"
            assert [(await there.ask())[0] for _ in range(6)] == [b"503"] * 5 + [b"200"]
            during = await there.homes()
            assert sick not in during.values()
            assert all(during[user] == home for user, home in before.items() if home != sick)
            del there.says[sick]
            await trio.sleep(LIMITS.base_ejection_time + 2)
            assert await there.homes() == before
            assert there.house.left_behind() == []

    run()


def test_one_endpoint_is_kept_whatever_it_answers() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(1) as there:
            there.says["10.0.0.1:80"] = b"503"
            assert {(await there.ask())[0] for _ in range(30)} == {b"503"}
            assert there.state("10.0.0.1:80") == ""

    run()


def test_when_all_answer_503_only_as_many_go_as_may() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(3) as there:
            there.says = dict.fromkeys(there.house.backends, b"503")
            for _ in range(10):
                await there.homes()
            assert [there.state(key) for key in there.house.backends].count("") == 2
            stats = there.house.metrics.cluster(CLUSTER)
            assert stats.outlier_detection_ejections_enforced_total == 1
            assert stats.outlier_detection_ejections_overflow > 0

    run()


def test_a_grpc_status_counts_as_the_http_status_it_means() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(3) as there:
            sick = (await there.ask())[1]
            there.says = dict.fromkeys(there.house.backends, b"0") | {sick: b"14"}
            said = []
            for _ in range(6):
                head = [*GRPC, (b"x-user", USERS[0])]
                said.append((await there.client.request(head, end=True).end()).grpc_status)
            assert said == [b"14"] * 5 + [b"0"]
            assert there.state(sick) == "/failed_outlier_check"

    run()


def test_clients_that_give_up_eject_nobody() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(3) as there:
            for _ in range(30):
                call = there.client.request([*GET, (b"x-user", USERS[0])])
                await there.house.step()
                call.rst(8)
            await there.house.reports(30)
            assert not there.house.context.health.suspected

    run()


def test_a_host_that_cannot_be_connected_to_is_the_breakers_and_back_at_once() -> None:
    """However many waited for the connect: it is one piece of news, and no ejection of 30 s."""

    @on_jumping_clock
    async def run() -> None:
        async with street(3) as there:
            before = await there.homes()
            sick = before[USERS[0]]
            backend = there.house.backends[sick]
            backend.down = True
            for peer in backend.links:
                peer.close()
            await there.house.step()
            during = await there.homes()
            assert sick not in during.values()
            assert "outlier" not in there.state(sick)
            backend.down = False
            await trio.sleep(5)
            await there.homes()
            assert await there.homes() == before

    run()


def test_a_failing_check_and_an_outlier_of_another_are_both_walked_past() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(5, checked=True) as there:
            before = await there.homes()
            outlier = before[USERS[0]]
            unwell = next(home for home in before.values() if home != outlier)
            there.check_says[unwell] = b"500"
            there.says[outlier] = b"503"
            for _ in range(5):
                await there.ask()
            await there.house.until(lambda: there.state(unwell))
            during = await there.homes()
            assert {outlier, unwell}.isdisjoint(during.values())
            out = {outlier, unwell}
            assert all(during[user] == home for user, home in before.items() if home not in out)
            there.says.clear()
            there.check_says.clear()
            await trio.sleep(40)
            assert await there.homes() == before

    run()


def test_with_too_few_left_calls_go_home_again() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(4, checked=True) as there:
            before = await there.homes()
            there.check_says = dict.fromkeys(list(there.house.backends)[:3], b"500")
            await trio.sleep(10)
            assert there.house.context.health.panicking == {CLUSTER}
            assert await there.homes() == before
            there.check_says.popitem()
            await trio.sleep(10)
            assert len(set((await there.homes()).values())) == 2

    run()


@pytest.mark.parametrize("window", [20.0, 0.0])
def test_who_joins_comes_to_its_share_by_and_by(window: float) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with street(3, sticky=False, slow=SlowStart(window=window)) as there:
            snapshot = there.house.context.snapshot
            whole = snapshot.clusters[CLUSTER]
            first = replace(whole, endpoints=whole.endpoints[:2])
            there.house.context.install(replace(snapshot, clusters={CLUSTER: first}))
            there.house.context.install(snapshot)
            joined = whole.endpoints[2].key

            async def share() -> float:
                seen = Counter([(await there.ask())[1] for _ in range(60)])
                return seen[joined] / 60

            young = await share()
            await trio.sleep(25)
            assert await share() == pytest.approx(1 / 3, abs=0.02)
            assert (young < 0.15) is (window > 0)

    run()
