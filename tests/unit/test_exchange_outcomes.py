"""Each attempt says one thing about its endpoint, when it is over and not before."""

from __future__ import annotations

import pytest

from stickyproxy.errors import H2Code
from stickyproxy.health.outcome import Outcome
from support.clock import on_jumping_clock
from support.house import open_house
from support.plan import GRPC, GRPC_END, GRPC_OK, OK, POST, Plan
from support.told import told


@pytest.mark.parametrize(
    ("trailers", "outcome"),
    [
        (GRPC_END, Outcome.SUCCESS),
        ([(b"grpc-status", b"5")], Outcome.SUCCESS),
        ([(b"grpc-status", b"14")], Outcome.FAILURE_GATEWAY),
        ([(b"grpc-status", b"13")], Outcome.FAILURE_5XX),
        ([(b"x-nothing", b"said")], Outcome.FAILURE_5XX),
    ],
)
@on_jumping_clock
async def test_a_grpc_status_is_told_at_the_end_of_the_answer(
    trailers: list[tuple[bytes, bytes]], outcome: Outcome
) -> None:
    async with open_house() as house:
        with told(house) as heard:
            call = (await house.client()).request(GRPC, end=True)
            got = await house.backend().request()
            got.respond(GRPC_OK)
            await call.headed()
            assert heard == []
            got.trailer(trailers, end=True)
            await house.reports()
            assert heard == [("10.0.0.1:80", outcome)]
            stats = house.pool.stats
            assert (stats.rq_success, stats.rq_error) == (
                int(outcome is Outcome.SUCCESS),
                int(outcome is not Outcome.SUCCESS),
            )


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (b"200", Outcome.SUCCESS),
        (b"404", Outcome.SUCCESS),
        (b"500", Outcome.FAILURE_5XX),
        (b"503", Outcome.FAILURE_GATEWAY),
    ],
)
@on_jumping_clock
async def test_an_http_status_is_told(status: bytes, outcome: Outcome) -> None:
    async with open_house() as house:
        with told(house) as heard:
            (await house.client()).request(POST, end=True)
            (await house.backend().request()).respond([(b":status", status)], end=True)
            await house.reports()
            assert heard == [("10.0.0.1:80", outcome)]


@on_jumping_clock
async def test_every_attempt_is_told_with_its_own_endpoint() -> None:
    async with open_house(Plan(endpoints=2, sticky=True)) as house:
        for backend in house.backends.values():
            backend.down = True
        house.backend(2).down = False
        with told(house) as heard:
            client = await house.client()
            for user in range(4):
                seen = len(house.backend(2).arrived)
                client.request([*GRPC, (b"x-user", b"%d" % user)], end=True)
                first = await house.backend(2).request(seen + 1)
                first.rst(H2Code.REFUSED_STREAM)
                again = await house.backend(2).request(seen + 2)
                again.respond([*GRPC_OK, *GRPC_END], end=True)
                reports = await house.reports(user + 1)
            assert len(heard) == sum(report.attempts for report in reports)
            assert ("10.0.0.1:80", Outcome.FAILURE_CONNECT) in heard
            assert heard.count(("10.0.0.2:80", Outcome.SUCCESS)) == 4
            assert {key for key, _ in heard} == {"10.0.0.1:80", "10.0.0.2:80"}


@pytest.mark.parametrize("how", ["client", "drain", "deadline"])
@on_jumping_clock
async def test_what_we_or_the_client_gave_up_says_nothing_of_the_endpoint(how: str) -> None:
    async with open_house() as house:
        with told(house) as heard:
            limit = [(b"grpc-timeout", b"1S")] if how == "deadline" else []
            call = (await house.client()).request([*GRPC, *limit], end=True)
            got = await house.backend().request()
            got.respond(GRPC_OK)
            await call.headed()
            if how == "client":
                call.rst(H2Code.CANCEL)
            elif how == "drain":
                house.downstream.cancel_scope.cancel()
            await house.until(lambda: house.ended)
            assert [outcome for _, outcome in heard] == [Outcome.NEUTRAL]


@on_jumping_clock
async def test_a_backend_that_breaks_off_is_told_as_failed() -> None:
    async with open_house() as house:
        with told(house) as heard:
            (await house.client()).request(POST, end=True)
            got = await house.backend().request()
            got.respond(OK)
            await house.step()
            got.peer.break_off()
            await house.reports()
            assert [outcome for _, outcome in heard] == [Outcome.FAILURE_LOCAL]
