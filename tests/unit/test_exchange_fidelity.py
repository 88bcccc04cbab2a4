"""What one side says is what the other hears; where it could not understand, it is told in its words."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from stickyproxy.errors import ErrorKind, H2Code
from stickyproxy.model import Headers
from stickyproxy.proxy import attempts
from stickyproxy.proxy.exchange import Exchange
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GET, GRPC, GRPC_END, GRPC_OK, OK, POST, Plan, message

HTML: Headers = [(b"content-type", b"text/html"), (b"set-cookie", b"a=1")]


async def asked(house: House, headers: Headers, *, end: bool = True) -> tuple[Call, Call]:
    client = house.clients[0] if house.clients else await house.client()
    seen = len(house.backend().arrived)
    call = client.request(headers, end=end)
    return call, await house.backend().request(seen + 1)


@pytest.mark.parametrize(
    ("status", "told"),
    [(b"502", b"14"), (b"404", b"12"), (b"401", b"16"), (b"200", b"2"), (b"302", b"2")],
)
@pytest.mark.parametrize("up", ["h2c", "http"])
@on_jumping_clock
async def test_a_page_becomes_a_grpc_status_in_one_frame(
    up: str, status: bytes, told: bytes
) -> None:
    async with open_house(Plan(upstream=up)) as house:
        call, got = await asked(house, GRPC)
        got.respond([(b":status", status), *HTML])
        got.say(b"<html>")
        await call.end()
        assert (call.status, call.grpc_status, call.frames) == (b"200", told, 1)
        assert call.field(b"set-cookie") == b"a=1"
        await got.peer.until(lambda: got.reset is not None or got.peer.eof)
        await house.reports()
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_client_of_another_encoding_is_answered_in_its_own_kind() -> None:
    """connect-go takes nothing but the content type of its codec."""
    json = [(n, b"application/grpc+json" if n == b"content-type" else v) for n, v in GRPC]
    async with open_house() as house:
        call, got = await asked(house, json)
        got.respond([(b":status", b"502"), *HTML], end=True)
        await call.end()
        assert (call.field(b"content-type"), call.grpc_status) == (b"application/grpc+json", b"14")
        house.backend().down = True
        (await house.backend().linked()).close()
        refused = await house.clients[0].request(json, end=True).end()
        assert refused.field(b"content-type") == b"application/grpc+json"
        assert refused.grpc_status == b"14"


@on_jumping_clock
async def test_a_page_that_clients_read_differently_is_left_to_them() -> None:
    """431 is INTERNAL by gRPC's document, UNKNOWN to grpc-go and INTERNAL to grpc-java."""
    async with open_house() as house:
        call, got = await asked(house, GRPC)
        got.respond([(b":status", b"431"), *HTML], end=True)
        await call.end()
        assert (call.status, call.grpc_status) == (b"431", b"")
        (report,) = await house.reports()
        assert report.error is None
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_trailers_only_answer_stays_one_frame() -> None:
    async with open_house() as house:
        for end in (True, False):
            call, got = await asked(house, GRPC, end=end)
            got.respond(
                [*GRPC_OK, (b"grpc-status", b"5"), (b"grpc-message", b"%25 gone")], end=True
            )
            await call.end()
            assert (call.frames, call.grpc_status) == (1, b"5")
            assert call.field(b"grpc-message") == b"%25 gone"


@pytest.mark.parametrize("length", [[], [(b"content-length", b"0")]])
@on_jumping_clock
async def test_headers_and_later_trailers_without_a_body_are_kept(length: Headers) -> None:
    async with open_house() as house:
        call, got = await asked(house, GRPC)
        got.respond([*GRPC_OK, *length])
        await call.headed()
        await trio.sleep(0.05)
        got.trailer(GRPC_END, end=True)
        await call.end()
        assert (call.frames, call.trailers) == (2, GRPC_END)


@on_jumping_clock
async def test_informational_heads_are_forwarded_each() -> None:
    async with open_house() as house:
        call, got = await asked(house, POST, end=False)
        hints = [[(b":status", b"103"), (b"link", b"</%d>" % n)] for n in range(3)]
        for hint in hints:
            got.respond(hint)
        await call.until(lambda c: len(c.informational) == 3)
        assert call.informational == hints
        call.say(b"", end=True)
        got.respond(OK, end=True)
        assert (await call.end()).status == b"200"


@pytest.mark.parametrize("up", ["h2c", "http"])
@on_jumping_clock
async def test_an_early_answer_ends_the_request_without_an_error(up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        call, got = await asked(house, POST, end=False)
        call.say(b"x" * 10_000)
        await got.has(10_000)
        got.respond([(b":status", b"413"), (b"content-length", b"3")])
        got.say(b"big", end=True)
        await call.until(lambda c: c.reset is not None)
        assert (call.status, bytes(call.body), call.end_stream) == (b"413", b"big", True)
        assert call.reset == H2Code.NO_ERROR
        await got.peer.until(lambda: got.reset is not None or got.peer.eof)
        (report,) = await house.reports()
        assert report.error is None
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_client_lost_in_the_turn_after_a_whole_answer_was_not_lost_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request's task is still being put away then; nothing of the call is outstanding."""
    download = attempts._download

    async def download_and_lose_the_client(exchange: Exchange, *rest: Any) -> None:
        await download(exchange, *rest)
        trio.lowlevel.current_trio_token().run_sync_soon(exchange.downstream.link.tear)

    monkeypatch.setattr(attempts, "_download", download_and_lose_the_client)
    async with open_house() as house:
        call, got = await asked(house, POST, end=False)
        got.respond([(b":status", b"413")], end=True)
        (report,) = await house.reports()
        assert report.error is None
        await call.peer.until(lambda: call.peer.eof or call.peer.broken)


@on_jumping_clock
async def test_closing_trailers_and_the_reset_behind_them_are_both_heard() -> None:
    async with open_house() as house:
        call, got = await asked(house, GRPC, end=False)
        got.respond([*GRPC_OK, *GRPC_END], end=True)
        got.rst(H2Code.NO_ERROR)
        await call.until(lambda c: c.reset is not None)
        assert (call.grpc_status, call.reset) == (b"0", H2Code.NO_ERROR)
        (report,) = await house.reports()
        assert report.error is None


@on_jumping_clock
async def test_what_comes_after_an_early_answer_costs_the_connection_nothing() -> None:
    """Fifty bodies of 60 KB that nobody takes: more than the link's credit, were it not given back."""
    async with open_house() as house:
        for _ in range(50):
            call, got = await asked(house, POST, end=False)
            got.respond(OK, end=True)
            call.say(b"x" * 60_000)
            await call.until(lambda c: c.reset is not None)
        call, got = await asked(house, POST, end=False)
        await call.send(b"y" * 400_000, end=True)
        assert len((await got.end()).body) == 400_000


@on_jumping_clock
async def test_request_trailers_pass_and_framing_fields_in_them_do_not() -> None:
    async with open_house() as house:
        call, got = await asked(house, POST, end=False)
        call.say(b"body")
        call.trailer([(b"x-checksum", b"1"), (b"content-length", b"9")], end=True)
        await got.end()
        assert (bytes(got.body), got.trailers) == (b"body", [(b"x-checksum", b"1")])


@on_jumping_clock
async def test_an_empty_last_frame_ends_both_bodies() -> None:
    async with open_house() as house:
        call, got = await asked(house, POST, end=False)
        call.say(b"")
        call.say(b"a")
        call.say(b"", end=True)
        assert bytes((await got.end()).body) == b"a"
        got.respond(OK)
        got.say(b"")
        got.say(b"b")
        got.say(b"", end=True)
        await call.end()
        assert (bytes(call.body), call.reset) == (b"b", None)


@on_jumping_clock
async def test_metadata_keeps_its_order_and_its_doubles() -> None:
    twice: Headers = [(b"x-a", b"1"), (b"x-bin", b"AAE"), (b"x-a", b"0"), (b"x-bin", b"Ag==")]
    async with open_house() as house:
        call, got = await asked(house, [*GRPC, *twice])
        got.respond([*GRPC_OK, *twice])
        got.trailer([*GRPC_END, *twice], end=True)
        await call.end()
        for heard in (got.head, call.head, call.trailers):
            assert [field for field in heard if field in twice] == twice


@pytest.mark.parametrize(("headers", "told"), [(GRPC, b"13"), (GET, b"")])
@on_jumping_clock
async def test_response_headers_over_the_limit_are_the_backends_fault(
    headers: Headers, told: bytes
) -> None:
    async with open_house() as house:
        call, got = await asked(house, headers)
        got.respond([*OK, *((b"x-%d" % n, b"v") for n in range(150))])
        await call.end()
        assert call.grpc_status == told
        assert call.status == (b"200" if told else b"502")
        await got.until(lambda c: c.reset is not None)
        (report,) = await house.reports()
        assert report.error is not None
        assert report.error.kind is ErrorKind.UPSTREAM_PROTOCOL


@on_jumping_clock
async def test_our_bug_ends_one_stream_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream task that stumbles answers 500 on its stream; the others never notice."""
    async with open_house() as house:
        other, waiting = await asked(house, GRPC)
        stumble = house.context.balancer.pick

        def pick(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(house.context.balancer, "pick", pick)
        client = house.clients[0]
        plain, grpc = client.request(POST, end=True), client.request(GRPC)
        assert (await plain.end()).status == b"500"
        assert (await grpc.end()).grpc_status == b"13"
        monkeypatch.setattr(house.context.balancer, "pick", stumble)
        waiting.respond([*GRPC_OK, *GRPC_END], end=True)
        assert (await other.end()).grpc_status == b"0"
        assert [where for _, where in house.bugs] == ["exchange"] * 2
        house.bugs.clear()
        await house.reports(3)
        assert house.left_behind() == []


@on_jumping_clock
async def test_our_bug_on_a_backends_link_ends_that_link_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house() as house:
        call, _ = await asked(house, GRPC)
        link = house.links[0]

        def stumble(_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(link, "hear", stumble)
        (await house.backend().linked()).ping(b"12345678")
        assert (await call.end()).grpc_status == b"14"
        await house.until(lambda: house.bugs)
        assert [where for _, where in house.bugs] == ["link"]
        house.bugs.clear()
        again, got = await asked(house, GRPC)
        got.respond([*GRPC_OK, *GRPC_END], end=True)
        assert (await again.end()).grpc_status == b"0"
        assert house.backend().dials == 2
        assert house.left_behind() == []


@on_jumping_clock
async def test_a_backend_that_breaks_the_protocol_harms_its_own_link_only() -> None:
    async with open_house(Plan(endpoints=2)) as house:
        client = await house.client()
        calls = [client.request(GRPC, end=True) for _ in range(2)]
        one, other = house.backend(1), house.backend(2)
        got = await one.request(), await other.request()
        await one.links[0].wire.send_all(b"\0\0\1\0\0\0\0\0\0x" + message(100))
        got[1].respond([*GRPC_OK, *GRPC_END], end=True)
        statuses = sorted([(await call.end()).grpc_status for call in calls])
        assert statuses == [b"0", b"13"]
        await house.reports(2)
        assert house.left_behind() == []
