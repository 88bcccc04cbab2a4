"""Active checks at work: over connections of their own, in time, and leaving nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest
import trio

from stickyproxy.errors import H2Code
from stickyproxy.rules import ConnectCheck, GrpcCheck, HealthCheck, HttpCheck, Upkeep
from stickyproxy.upstream.probe import Probes
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import CLUSTER, GRPC_END, GRPC_OK, OK, Plan

BOTH = pytest.mark.parametrize("upstream", ["h2c", "http"])
HTTP = HealthCheck(HttpCheck("/healthz"), timeout=3.0, interval=5.0)
GRPC = HealthCheck(GrpcCheck("pkg.Service"), timeout=3.0, interval=5.0)
CONNECT = HealthCheck(ConnectCheck(), timeout=3.0, interval=5.0)
EMPTY = [(b"content-length", b"0")]


class Checking:
    """A house whose backends are checked."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.health = house.context.health
        self.probes = Probes(
            house.upstream,
            house._dialler,
            self.health,
            house.metrics,
            rng=Random(1),
            bug=house._bug,
        )
        self.probes.keep(house.context.snapshot.clusters)

    def out(self) -> list[str]:
        return sorted(key for _, key in self.health.suspected)

    def reason(self, number: int = 1) -> str:
        return self.health.suspected[CLUSTER, f"10.0.0.{number}:80"].check

    async def question(self, number: int) -> Call:
        """The question of this number that reached the first backend, whole."""
        return await (await self.house.backend().request(number)).end()

    async def answer(self, number: int, status: int) -> None:
        (await self.question(number)).respond([(b":status", b"%d" % status), *EMPTY], end=True)


@asynccontextmanager
async def checking(
    check: HealthCheck, upstream: str = "h2c", n: int = 1
) -> AsyncIterator[Checking]:
    upkeep = Upkeep(health_checks=(check,))
    async with open_house(Plan(upstream=upstream, endpoints=n, upkeep=upkeep)) as house:
        yield Checking(house)
        assert not house.bugs


@BOTH
def test_an_http_check_that_is_not_expected_takes_out_and_a_good_one_brings_back(
    upstream: str,
) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP, upstream) as checks:
            await checks.answer(1, 200)
            await checks.answer(2, 503)
            await checks.house.until(checks.out)
            assert checks.out() == ["10.0.0.1:80"]
            assert checks.reason() == "HTTP 503"
            await checks.answer(3, 200)
            await checks.house.until(lambda: not checks.out())

    run()


@BOTH
def test_one_connection_is_asked_as_long_as_the_answers_are_good(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP, upstream, n=1) as checks:
            for number in range(1, 6):
                await checks.answer(number, 200)
            assert len(checks.house.backend().links) == 1
            await checks.answer(6, 503)
            await checks.answer(7, 200)
            assert len(checks.house.backend().links) == 2

    run()


def test_a_connection_that_ends_between_two_questions_is_no_failure() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(replace(HTTP, unhealthy_threshold=1)) as checks:
            await checks.answer(1, 200)
            await trio.sleep(1)
            checks.house.backend().links[0].close()
            await checks.answer(2, 200)
            assert not checks.out()

    run()


@BOTH
def test_a_check_uses_no_link_of_the_pool(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP, upstream) as checks:
            await checks.answer(1, 200)
            assert not checks.house.links

    run()


def test_a_grpc_service_that_does_not_serve_is_out_until_it_does() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(GRPC) as checks:
            for number, serving in enumerate((1, 2, 1), 1):
                got = await checks.question(number)
                assert dict(got.head)[b":path"] == b"/grpc.health.v1.Health/Check"
                got.respond(GRPC_OK)
                got.say(b"\0\0\0\0\x02\x08" + bytes([serving]))
                got.trailer(GRPC_END, end=True)
                await trio.sleep(0.1)
                assert bool(checks.out()) is (serving == 2)

    run()


def test_a_server_without_the_health_service_is_left_in_peace() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(GRPC) as checks:
            for number in (1, 2, 3):
                got = await checks.question(number)
                got.respond([*GRPC_OK, (b"grpc-status", b"12")], end=True)
            await trio.sleep(1)
            assert not checks.out()

    run()


@BOTH
def test_no_answer_in_time_counts_from_the_second_on(upstream: str) -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP, upstream) as checks:
            await checks.answer(1, 200)
            await checks.question(2)
            await checks.question(3)
            assert not checks.out()
            await checks.house.until(checks.out)
            assert checks.reason() == "no answer within 3 s"

    run()


def test_a_backend_that_cannot_be_connected_to_is_out_after_its_first_check() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP, n=2) as checks:
            checks.house.backend(2).down = True
            await checks.answer(1, 200)
            await checks.house.until(checks.out)
            assert checks.out() == ["10.0.0.2:80"]
            assert "connection refused" in checks.reason(2)

    run()


def test_a_backend_that_never_says_settings_fails_its_connect_check() -> None:
    """A frozen process accepts connections; only its SETTINGS prove that it runs."""

    @on_jumping_clock
    async def run() -> None:
        async with checking(CONNECT, n=2) as checks:
            checks.house.backend(2).mute = True
            await checks.house.until(checks.out)
            assert checks.out() == ["10.0.0.2:80"]
            checks.house.backend(2).mute = False
            await checks.house.until(lambda: not checks.out())
            assert not checks.house.backend(1).arrived

    run()


def test_a_reset_is_an_accident_and_not_an_answer() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP) as checks:
            await checks.answer(1, 200)
            (await checks.question(2)).rst(H2Code.INTERNAL_ERROR)
            await checks.answer(3, 200)
            await trio.sleep(1)
            assert not checks.out()

    run()


def test_an_endpoint_that_is_out_is_asked_more_often() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP) as checks:
            began = trio.current_time()
            for number in range(1, 12):
                await checks.answer(number, 503)
            seconds = trio.current_time() - began
            assert seconds < 11 * HTTP.interval / 4, "a fifth of the interval, and a moment"

    run()


def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP) as checks:
            got = await checks.question(1)
            got.respond(OK)
            got.say(b"x" * 10_000)
            await got.until(lambda call: call.reset is not None)
            await checks.answer(2, 200)
            assert not checks.out()

    run()


def test_a_snapshot_without_the_check_ends_it_and_what_it_held() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP) as checks:
            await checks.answer(1, 503)
            await checks.house.until(checks.out)
            cluster = checks.house.context.snapshot.clusters[CLUSTER]
            spec = replace(cluster.spec, upkeep=Upkeep())
            checks.probes.keep({CLUSTER: replace(cluster, spec=spec)})
            assert not checks.out()
            await trio.sleep(60)
            assert len(checks.house.backend().arrived) == 1
            assert all(peer.eof for peer in checks.house.backend().links)

    run()


def test_of_several_workers_one_asks_and_the_others_forget_with_it() -> None:
    @on_jumping_clock
    async def run() -> None:
        upkeep = Upkeep(health_checks=(HTTP,))
        async with open_house(Plan(endpoints=2, upkeep=upkeep)) as house:
            health, clusters = house.context.health, house.context.snapshot.clusters
            probes = Probes(
                house.upstream,
                house._dialler,
                health,
                house.metrics,
                rng=Random(1),
                bug=house._bug,
                mine=lambda _, key: key == "10.0.0.2:80",
            )
            probes.keep(clusters)
            health.check_failed(CLUSTER, "10.0.0.1:80", "learned")
            await trio.sleep(60)
            assert not house.backend(1).arrived
            assert house.backend(2).arrived
            probes.keep({})
            assert not health.suspected

    run()


def test_a_snapshot_with_the_same_check_leaves_it_alone() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP) as checks:
            await checks.answer(1, 200)
            checks.probes.keep(dict(checks.house.context.snapshot.clusters))
            await checks.answer(2, 200)
            assert len(checks.house.backend().links) == 1

    run()


def test_every_question_is_counted() -> None:
    @on_jumping_clock
    async def run() -> None:
        async with checking(HTTP) as checks:
            for number, status in enumerate((200, 503, 200), 1):
                await checks.answer(number, status)
            await checks.question(4)
            await trio.sleep(4)
            stats = checks.house.metrics.cluster(CLUSTER)
            assert stats.health_check_attempt == 4
            assert stats.health_check_success == 2
            assert stats.health_check_failure == 2
            assert stats.health_check_network_failure == 1

    run()
