"""WebSockets through the house, from either HTTP to either: the handshake, frames, back-pressure."""

from __future__ import annotations

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind
from stickyproxy.health.linkscore import Sight
from stickyproxy.health.outcome import Outcome
from stickyproxy.model import Headers
from stickyproxy.rules import Redirect
from stickyproxy.upstream.vigil import _Watched
from stickyproxy.wire.link import Link
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call
from support.plan import GET, OK, SHADOW_KEY, Plan
from support.told import told
from support.websockets import (
    ACCEPT,
    KEY,
    MASK,
    WAYS,
    accepting,
    asking,
    close,
    connected,
    frame,
    plan,
)

both_ways = pytest.mark.parametrize(("down", "up"), WAYS)


@pytest.fixture(params=["reference", "fast"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def nothing_left(house: House, kind: ErrorKind | None = None) -> None:
    [exchange] = await house.reports()
    assert (exchange.error and exchange.error.kind) == kind
    await trio.testing.wait_all_tasks_blocked()
    await house.until(lambda: not house.left_behind())


async def asked(house: House, down: str, head: Headers | None = None) -> tuple[Call, Call]:
    """A handshake at its client and at its backend, which has said nothing yet."""
    call = (await house.client(down)).request(asking(down) if head is None else head)
    return call, await house.backend().request()


async def answered(house: House, down: str, head: Headers | None = None) -> Call:
    """A handshake to which the house has the answer."""
    return await (await house.client(down)).request(asking(down) if head is None else head).end()


@both_ways
@on_jumping_clock
async def test_a_handshake_is_made_on_each_side_as_its_http_has_it(
    down: str, up: str, engine: str
) -> None:
    async with open_house(plan(up, engine=engine)) as house:
        more = ((b"sec-websocket-protocol", b"chat"), (b"origin", b"http://a.example"))
        call, got = await asked(house, down, asking(down, *more))
        fields = dict(got.head)
        assert fields[b":protocol"] == b"websocket"
        assert fields[b":path"] == b"/chat"
        assert fields[b":method"] == (b"GET" if up == "http" else b"CONNECT")
        assert fields[b"sec-websocket-version"] == b"13"
        assert fields[b"sec-websocket-protocol"] == b"chat"
        assert fields[b"origin"] == b"http://a.example"
        assert (b"sec-websocket-key" in fields) == (up == "http")
        assert fields.get(b"sec-websocket-key") != KEY

        extension = (b"sec-websocket-extensions", b"permessage-deflate")
        got.respond(accepting(got, (b"sec-websocket-protocol", b"chat"), extension))
        await call.headed()
        assert call.status == (b"101" if down == "h1" else b"200")
        assert call.field(b"sec-websocket-accept") == (ACCEPT if down == "h1" else b"")
        assert call.field(b"sec-websocket-protocol") == b"chat"
        assert call.field(b"sec-websocket-extensions") == b"permessage-deflate"


@both_ways
@on_jumping_clock
async def test_frames_pass_untouched_and_a_close_ends_both_sides(
    down: str, up: str, engine: str
) -> None:
    async with open_house(plan(up, engine=engine)) as house:
        socket = await connected(house, down)
        said = frame(b"question", mask=MASK) + frame(b"", 9, mask=MASK)
        socket.call.say(said)
        await socket.got.has(len(said))
        answer = frame(b"ans", fin=False) + frame(b"", 10) + frame(b"wer", 0)
        socket.got.say(answer)
        await socket.call.has(len(answer))

        socket.call.say(close(1000, MASK))
        await socket.got.has(len(said) + len(close(1000, MASK)))
        socket.got.say(close(1000), end=True)
        if up == "http":
            await house.step()
            socket.backend.close()
        await socket.call.end()
        assert bytes(socket.got.body) == said + close(1000, MASK)
        assert bytes(socket.call.body) == answer + close(1000)
        assert socket.call.end_stream
        await nothing_left(house)
        tunnel = house.ended[0].tunnel
        assert tunnel is not None
        assert (tunnel.from_client.count, tunnel.from_backend.count) == (1, 1)
        assert tunnel.close_code == 1000


@both_ways
@on_jumping_clock
async def test_large_messages_cross_whole_in_both_directions_at_once(
    down: str, up: str, engine: str
) -> None:
    async with open_house(plan(up, engine=engine)) as house:
        socket = await connected(house, down)
        out, back = frame(b"o" * 700_000, 2, mask=MASK), frame(b"b" * 700_000, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.call.send, out)
            nursery.start_soon(socket.got.send, back)
            await socket.got.has(len(out))
            await socket.call.has(len(back))
        assert bytes(socket.got.body) == out
        assert bytes(socket.call.body) == back


@both_ways
@on_jumping_clock
async def test_who_does_not_read_stops_who_sends(down: str, up: str, engine: str) -> None:
    """Bounded by windows and wires, in each direction, while the other goes on."""
    async with open_house(plan(up, engine=engine, wire=1 << 14)) as house:
        socket = await connected(house, down)
        socket.call.granting = socket.client.reading = False
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await socket.got.send(frame(bytes(1000)))
                await trio.lowlevel.checkpoint()
                sent += 1004

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.sleep(5)
            before = sent
            await trio.sleep(5)
            assert sent == before
            assert sent < 1_000_000
            question = frame(b"still here", mask=MASK)
            if down == "h1" or up == "http":
                socket.call.say(question)
                await socket.got.has(len(question))
            socket.client.reading = True
            socket.call.grant()
            await socket.call.has(before)
            nursery.cancel_scope.cancel()


@both_ways
@on_jumping_clock
async def test_a_refusal_reaches_the_client_as_the_backend_said_it(down: str, up: str) -> None:
    async with open_house(plan(up)) as house:
        call, got = await asked(house, down)
        got.respond([(b":status", b"401"), (b"www-authenticate", b"Bearer")])
        got.say(b"who are you", end=True)
        await call.end()
        assert (call.status, bytes(call.body)) == (b"401", b"who are you")
        assert call.field(b"www-authenticate") == b"Bearer"
        await nothing_left(house)
        assert house.ended[0].response.status == 401


@pytest.mark.parametrize("down", ["h1", "h2"])
@on_jumping_clock
async def test_a_backend_that_answers_200_to_an_upgrade_has_not_accepted(down: str) -> None:
    """To a client of HTTP/2 it must not look as if it had."""
    async with open_house(plan("http")) as house:
        call, got = await asked(house, down)
        got.respond([(b":status", b"200"), (b"content-length", b"4")])
        got.say(b"page", end=True)
        await call.end()
        if down == "h1":
            assert (call.status, bytes(call.body)) == (b"200", b"page")
            await nothing_left(house)
        else:
            assert call.status == b"502"
            await nothing_left(house, ErrorKind.UPSTREAM_PROTOCOL)


@on_jumping_clock
async def test_who_takes_no_websockets_is_not_ill_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or anybody could have an endpoint ejected by asking it for one."""
    async with open_house(plan("http")) as house:
        with told(house) as heard:
            _, got = await asked(house, "h2")
            got.respond([(b":status", b"200"), (b"content-length", b"4")])
            await house.reports()
    async with open_house(plan("h2c")) as house:
        with told(house) as more:
            _, got = await asked(house, "h2")
            got.respond([(b":status", b"204")], end=True)
            await house.reports()
    monkeypatch.setattr("stickyproxy.codec.reference.ReferenceCodec.extended_connect", False)
    async with open_house(plan("h2c")) as house:
        with told(house) as most:
            await answered(house, "h2")
    assert [heard, more, most] == [[("10.0.0.1:80", Outcome.NEUTRAL)]] * 3


@pytest.mark.parametrize("down", ["h1", "h2"])
@on_jumping_clock
async def test_a_backend_that_proves_nothing_is_no_websocket(down: str) -> None:
    for accept in ([], [(b"sec-websocket-accept", ACCEPT)]):
        async with open_house(plan("http")) as house:
            call, got = await asked(house, down)
            got.respond([(b":status", b"101"), *accept])
            await call.end()
            assert call.status == b"502"
            await nothing_left(house, ErrorKind.UPSTREAM_PROTOCOL)


@pytest.mark.parametrize("down", ["h1", "h2"])
@on_jumping_clock
async def test_an_http2_backend_that_announced_nothing_is_not_asked(
    down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickyproxy.codec.reference.ReferenceCodec.extended_connect", False)
    async with open_house(plan("h2c")) as house:
        # A client's codec is not held to it: what matters is what reaches the backend.
        call = await answered(house, down)
        assert call.status == b"502"
        assert b"8441" in bytes(call.body)
        assert house.backend().arrived == []
        await nothing_left(house, ErrorKind.UPSTREAM_PROTOCOL)


BAD: dict[str, tuple[Headers, bytes]] = {
    "no version": ([(b"sec-websocket-key", KEY)], b"426"),
    "old version": ([(b"sec-websocket-version", b"8"), (b"sec-websocket-key", KEY)], b"426"),
    "two versions": (
        [*[(b"sec-websocket-version", b"13")] * 2, (b"sec-websocket-key", KEY)],
        b"426",
    ),
    "no key": ([(b"sec-websocket-version", b"13")], b"400"),
    "short key": ([(b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"aGk=")], b"400"),
    "junk key": ([(b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"!" * 24)], b"400"),
    "two keys": (
        [(b"sec-websocket-version", b"13"), *[(b"sec-websocket-key", KEY)] * 2],
        b"400",
    ),
}


@pytest.mark.parametrize("name", BAD)
@on_jumping_clock
async def test_a_bad_handshake_is_answered_here_and_the_connection_lives(name: str) -> None:
    fields, status = BAD[name]
    async with open_house(plan("http")) as house:
        call = await answered(house, "h1", [*asking("h1")[:5], *fields])
        assert call.status == status
        if status == b"426":
            assert call.field(b"sec-websocket-version") == b"13"
        assert house.backend().arrived == []
        await nothing_left(house)


@on_jumping_clock
async def test_a_method_that_is_not_get_is_405() -> None:
    async with open_house(plan("http")) as house:
        call = await answered(house, "h1", [(b":method", b"DELETE"), *asking("h1")[1:]])
        assert (call.status, call.field(b"allow")) == (b"405", b"GET")
        await nothing_left(house)


@pytest.mark.parametrize(
    ("method", "status"), [(b"GET", b"426"), (b"HEAD", b"405"), (b"DELETE", b"405")]
)
@on_jumping_clock
async def test_the_next_request_on_a_refused_ones_connection_is_served(
    method: bytes, status: bytes
) -> None:
    bad = b" /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with open_house(plan("http")) as house:
        client = house.raw_client()
        await client.send_all(method + bad)
        heard = await client.receive_some()
        assert heard.startswith(b"HTTP/1.1 " + status)
        assert heard.endswith(b"\r\n\r\n") is (method == b"HEAD")
        await client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        (await house.backend().request()).respond([(b":status", b"204")], end=True)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("up", ["http", "h2c"])
@on_jumping_clock
async def test_a_websocket_that_ends_with_its_head_is_400(up: str) -> None:
    async with open_house(plan(up)) as house:
        client = await house.client("h2")
        call = await client.request(asking("h2"), end=True).end()
        assert call.status == b"400"
        assert house.backend().arrived == []
        await nothing_left(house, ErrorKind.BAD_REQUEST)


@on_jumping_clock
async def test_a_bad_version_over_http2_is_426_too() -> None:
    async with open_house(plan("http")) as house:
        call = await answered(house, "h2", asking("h2")[:5])
        assert (call.status, call.field(b"sec-websocket-version")) == (b"426", b"13")
        await nothing_left(house)


@pytest.mark.parametrize("up", ["http", "h2c"])
@on_jumping_clock
async def test_where_no_websocket_is_allowed_an_upgrade_is_a_plain_get(up: str) -> None:
    async with open_house(Plan(upstream=up)) as house:
        call, got = await asked(house, "h1")
        assert dict(got.head)[b":method"] == b"GET"
        assert b":protocol" not in dict(got.head)
        await got.until(lambda call: call.end_stream)
        got.respond([(b":status", b"204")], end=True)
        await call.end()
        assert call.status == b"204"
        await nothing_left(house)


@on_jumping_clock
async def test_where_no_websocket_is_allowed_extended_connect_is_403() -> None:
    async with open_house(Plan()) as house:
        call = await answered(house, "h2")
        assert call.status == b"403"
        await nothing_left(house, ErrorKind.FORBIDDEN)


@on_jumping_clock
async def test_another_protocol_is_501() -> None:
    async with open_house(plan("h2c")) as house:
        head = [(b":protocol", b"connect-udp") if f[0] == b":protocol" else f for f in asking("h2")]
        call = await answered(house, "h2", head)
        assert call.status == b"501"
        await nothing_left(house, ErrorKind.UNSUPPORTED)


@both_ways
@on_jumping_clock
async def test_a_backend_that_cannot_be_reached_is_passed_over(down: str, up: str) -> None:
    async with open_house(plan(up, endpoints=2)) as house:
        house.backend(1).down = house.backend(2).down = True
        call = await answered(house, down)
        assert call.status == b"503"
        assert [b.dials for b in house.backends.values()] == [1, 1]
        await nothing_left(house, ErrorKind.CONNECT_FAILED)


@both_ways
@on_jumping_clock
async def test_sessions_of_websockets_and_of_requests_have_one_backend(down: str, up: str) -> None:
    async with open_house(plan(up, endpoints=5, sticky=True)) as house:
        client = await house.client("h2")
        user = (b"x-user", b"alice")
        call = client.request([*GET, user], end=True)
        await house.until(lambda: any(b.arrived for b in house.backends.values()))
        [home] = [b for b in house.backends.values() if b.arrived]
        home.arrived[0].respond(OK, end=True)
        await call.end()
        for number in range(2, 5):
            call = (await house.client(down)).request(asking(down, user))
            got = await home.request(number)
            got.respond(accepting(got))
            await call.headed()


@on_jumping_clock
async def test_what_a_client_says_early_waits_for_the_backends_word() -> None:
    async with open_house(plan("http")) as house:
        client = await house.client("h2")
        call = client.request(asking("h2"))
        early = frame(b"early", mask=MASK)
        call.say(early)
        got = await house.backend().request()
        await trio.sleep(1)
        assert not got.body
        got.respond(accepting(got))
        await got.has(len(early))
        assert bytes(got.body) == early


@both_ways
@on_jumping_clock
async def test_the_routes_timeout_is_not_for_websockets(down: str, up: str) -> None:
    async with open_house(plan(up, timeout=3.0)) as house:
        socket = await connected(house, down)
        await trio.sleep(600)  # nor is the time for a request's body, a minute without a part of it
        socket.got.say(frame(b"late"))
        await socket.call.has(len(frame(b"late")))


@pytest.mark.parametrize("down", ["h1", "h2"])
@on_jumping_clock
async def test_resting_websockets_of_http1_are_not_judged_as_if_they_waited(
    down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand of them, 20 times a second, were a tenth of a core. Who waits is seen all the same."""
    seen: list[Link] = []
    sight = _Watched.sight

    def noted(one: _Watched, now: float, *, closely: bool) -> Sight:
        seen.append(one.link)
        return sight(one, now, closely=closely)

    monkeypatch.setattr(_Watched, "sight", noted)
    async with open_house(plan("http")) as house:
        await connected(house, down)
        await trio.sleep(60)
        assert seen == []
        (await house.client("h2")).request(GET, end=True)
        await house.backend().request(2)
        await trio.sleep(5)
        assert seen
        assert len(set(seen)) == 1


@on_jumping_clock
async def test_many_streams_of_one_client_are_websockets_beside_calls() -> None:
    async with open_house(plan("h2c", limits=CodecLimits())) as house:
        client = await house.client("h2")
        calls = [client.request(asking("h2")) for _ in range(20)]
        for number in range(1, 21):
            got = await house.backend().request(number)
            got.respond(accepting(got))
        for call in calls:
            await call.headed()
        plain = client.request(GET, end=True)
        got = await house.backend().request(21)
        got.respond(OK, end=True)
        await plain.end()
        assert plain.status == b"200"
        assert not any(call.over for call in calls)


@both_ways
@on_jumping_clock
async def test_a_shadow_gets_no_copy_of_a_websocket(down: str, up: str) -> None:
    async with open_house(plan(up, shadow=100.0)) as house:
        socket = await connected(house, down)
        socket.call.say(frame(b"private", mask=MASK))
        await socket.got.has(len(frame(b"private", mask=MASK)))
        assert house.backends[SHADOW_KEY].dials == 0


@pytest.mark.parametrize("down", ["h1", "h2"])
@on_jumping_clock
async def test_a_redirect_is_for_websockets_too(down: str) -> None:
    async with open_house(plan("http", redirect=Redirect(authority="b.example"))) as house:
        call = await answered(house, down)
        assert call.status == b"301"
        assert call.field(b"location") == b"http://b.example/chat"
        await nothing_left(house)
