"""gRPC-Web through the house: a backend that speaks gRPC, a client that speaks as browsers can."""

from __future__ import annotations

import base64

import pytest
import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind, H2Code
from stickyproxy.model import HeaderAdd, Headers
from stickyproxy.policy.grpcweb import trailers_frame
from stickyproxy.rules import Cors, RetryPolicy
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.peers import Call, Peer
from support.plan import GRPC_END, GRPC_OK, POST, SHADOW, Plan, message

downstreams = pytest.mark.parametrize("down", ["h1", "h2"])
forms = pytest.mark.parametrize("form", ["", "+proto", "-text", "-text+proto"])


def asking(form: str, *more: tuple[bytes, bytes]) -> Headers:
    return [
        *POST[:3],
        (b":path", b"/pkg.Service/Method"),
        (b"content-type", b"application/grpc-web" + form.encode()),
        (b"x-grpc-web", b"1"),
        *more,
    ]


def web(**more: object) -> Plan:
    return Plan(grpc_web=True, **more)  # type: ignore[arg-type]


def written(data: bytes, form: str) -> bytes:
    return base64.b64encode(data) if "-text" in form else data


def read(call: Call, form: str) -> bytes:
    body = bytes(call.body)
    if "-text" not in form:
        return body
    assert len(body) % 4 == 0
    return b"".join(base64.b64decode(body[at : at + 4]) for at in range(0, len(body), 4))


def status(call: Call, form: str = "") -> bytes:
    """The grpc-status of a body that ends with its trailers."""
    body = read(call, form)
    while body:
        size = 5 + int.from_bytes(body[1:5], "big")
        if body[0] & 0x80:
            lines = dict(line.split(b": ", 1) for line in body[5:size].splitlines())
            assert len(body) == size
            return lines[b"grpc-status"]
        body = body[size:]
    return b""


async def started(
    house: House, down: str, form: str, *more: tuple[bytes, bytes]
) -> tuple[Peer, Call]:
    client = await house.client(down)
    return client, client.request(asking(form, *more))


async def asked(
    house: House, down: str, form: str = "", *more: tuple[bytes, bytes], answered: bool = False
) -> tuple[Peer, Call, Call]:
    """A whole call that its backend has, `answered` as far as a first message that the page has."""
    client, call = await started(house, down, form, *more)
    call.say(written(message(10), form), end=True)
    got = await house.backend().request()
    if answered:
        got.respond(GRPC_OK)
        got.say(message(10))
        await call.has(10)
    return client, call, got


async def nothing_left(house: House, kind: ErrorKind | None = None) -> None:
    [exchange] = await house.reports()
    assert (exchange.error and exchange.error.kind) == kind
    await house.until(lambda: not house.left_behind())


@downstreams
@forms
@on_jumping_clock
async def test_a_unary_call_is_grpc_for_the_backend(down: str, form: str) -> None:
    async with open_house(web()) as house:
        _, call = await started(house, down, form)
        call.say(written(message(100), form), end=True)
        got = await (await house.backend().request()).end()
        fields = dict(got.head)
        assert fields[b"content-type"] == b"application/grpc" + form.encode().replace(b"-text", b"")
        assert fields[b"te"] == b"trailers"
        assert b"content-length" not in fields
        assert bytes(got.body) == message(100)
        got.respond([*GRPC_OK, (b"x-more", b"1")])
        got.say(message(50))
        got.trailer([*GRPC_END, (b"grpc-message", b"fine")], end=True)
        await call.end()
        assert call.status == b"200"
        own = b"application/grpc-web" + (b"-text" if "-text" in form else b"")
        assert call.field(b"content-type") == own
        assert call.field(b"x-more") == b"1"
        trailers = trailers_frame([*GRPC_END, (b"grpc-message", b"fine")])
        assert read(call, form) == message(50) + trailers
        assert not call.trailers
        await nothing_left(house)
        [exchange] = house.ended
        assert exchange.upload.messages is not None
        assert exchange.response.messages is not None
        assert (exchange.upload.messages.count, exchange.response.messages.count) == (1, 1)


@downstreams
@on_jumping_clock
async def test_text_may_be_cut_at_any_byte(down: str) -> None:
    """And each part gives back its credit."""
    async with open_house(web(limits=CodecLimits(stream_credit=100))) as house:
        _, call = await started(house, down, "-text")
        text = base64.b64encode(message(200)) + base64.b64encode(message(7))
        call.say(text[:3])
        got = await house.backend().request()
        got.respond(GRPC_OK)  # nothing is kept to be sent again
        for at in range(3, len(text)):
            await call.send(text[at : at + 1], end=at + 1 == len(text))
            await house.step()
        await got.end()
        assert bytes(got.body) == message(200) + message(7)
        got.trailer(GRPC_END, end=True)
        await call.end()
        assert status(call, "-text") == b"0"
        await nothing_left(house)


@on_jumping_clock
async def test_who_waits_for_a_100_gets_it_for_no_server_of_grpc_says_it() -> None:
    async with open_house(web()) as house:
        _, call = await started(
            house, "h1", "", (b"expect", b"100-continue"), (b"content-length", b"10")
        )
        await house.until(lambda: bool(call.informational))
        assert call.informational == [[(b":status", b"100")]]
        call.say(message(10), end=True)
        got = await (await house.backend().request()).end()
        assert b"expect" not in dict(got.head)
        got.respond([*GRPC_OK, *GRPC_END], end=True)
        await call.end()
        assert status(call) == b"0"
        await nothing_left(house)


@downstreams
@on_jumping_clock
async def test_only_a_post_is_a_call(down: str) -> None:
    async with open_house(web()) as house:
        client = await house.client(down)
        call = client.request([(b":method", b"PUT"), *asking("")[1:]])
        call.say(message(10), end=True)
        got = await (await house.backend().request()).end()
        assert dict(got.head)[b"content-type"] == b"application/grpc-web"
        got.respond([(b":status", b"405")], end=True)
        await call.end()
        assert call.status == b"405"
        await nothing_left(house)


@downstreams
@on_jumping_clock
async def test_what_is_no_base64_is_told_as_a_status(down: str) -> None:
    async with open_house(web()) as house:
        _, call = await started(house, down, "-text")
        call.say(b"!!!!", end=True)
        await call.end()
        assert status(call, "-text") == b"13"
        await nothing_left(house, ErrorKind.BAD_REQUEST)


@downstreams
@pytest.mark.parametrize("late", [b"!!!!", b"A"])
@pytest.mark.parametrize("answered", [False, True])
@on_jumping_clock
async def test_what_is_no_base64_is_told_behind_what_went_on_too(
    down: str, late: bytes, answered: bool
) -> None:
    async with open_house(web()) as house:
        _, call = await started(house, down, "-text")
        call.say(base64.b64encode(message(9)))
        got = await (await house.backend().request()).has(9)
        if answered:
            got.respond(GRPC_OK)
            got.say(message(10))
            await call.has(10)
        call.say(late, end=True)
        await call.end()
        assert status(call, "-text") == b"13"
        assert (await got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await nothing_left(house, ErrorKind.BAD_REQUEST)


@downstreams
@forms
@on_jumping_clock
async def test_each_message_of_a_stream_is_there_when_the_backend_said_it(
    down: str, form: str
) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, form)
        got.respond(GRPC_OK)
        for number in range(1, 5):
            got.say(message(10)[:6])
            await house.step()
            got.say(message(10)[6:])
            while len(read(call, form)) < 10 * number:
                await house.step()
        got.trailer(GRPC_END, end=True)
        await call.end()
        assert status(call, form) == b"0"
        await nothing_left(house)


@pytest.mark.parametrize("form", ["", "-text"])
@downstreams
@on_jumping_clock
async def test_empty_compressed_and_huge_messages_pass(down: str, form: str) -> None:
    """A flag, a length and that many bytes: nobody here looks inside."""
    compressed = b"\1" + message(300)[1:]
    body = message(5) + compressed + message(400_000)
    async with open_house(web()) as house:
        _, call = await started(house, down, form, (b"grpc-encoding", b"gzip"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, call, written(body, form))
            got = await (await house.backend().request()).end()
            assert dict(got.head)[b"grpc-encoding"] == b"gzip"
            assert bytes(got.body) == body
            got.respond([*GRPC_OK, (b"grpc-encoding", b"gzip")])
            await got.send(body)
            got.trailer(GRPC_END, end=True)
            await call.end()
        assert call.field(b"grpc-encoding") == b"gzip"
        assert read(call, form) == body + trailers_frame(GRPC_END)
        await nothing_left(house)


async def send_and_end(call: Call, body: bytes) -> None:
    await call.send(body)
    call.trailer(GRPC_END, end=True)


async def send_all(call: Call, body: bytes) -> None:
    await call.send(body, end=True)


async def asked_without_reading(house: House, form: str, credit: int) -> tuple[Call, Call]:
    """A call of a client that takes `credit` bytes, and at the backend, which has begun to answer."""
    client = await house.client("h2", CodecLimits(stream_credit=credit))
    client.granting = False
    call = client.request(asking(form))
    call.say(written(message(10), form), end=True)
    got = await house.backend().request()
    got.respond(GRPC_OK)
    return call, got


@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_trailers_wait_for_a_client_that_does_not_read(form: str) -> None:
    async with open_house(web()) as house:
        call, got = await asked_without_reading(house, form, 100)
        got.say(message(95))
        got.trailer(GRPC_END, end=True)
        await trio.sleep(5)
        assert not call.over
        call.grant()
        await call.end()
        assert call.end_stream
        assert read(call, form) == message(95) + trailers_frame(GRPC_END)
        await nothing_left(house)


@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_what_became_of_the_backend_waits_for_such_a_client_too(form: str) -> None:
    async with open_house(web()) as house:
        call, got = await asked_without_reading(house, form, 200)
        got.say(message(140))
        await call.has(len(written(message(140), form)))
        got.rst(H2Code.ENHANCE_YOUR_CALM)
        await trio.sleep(5)
        assert not call.over
        call.grant()
        await call.end()
        assert call.end_stream
        assert status(call, form) == b"8"
        await nothing_left(house, ErrorKind.UPSTREAM_RESET)


@downstreams
@pytest.mark.parametrize("form", ["", "-text"])
@pytest.mark.parametrize("said", [0, 10])
@on_jumping_clock
async def test_an_answer_that_ends_without_a_status_gets_one(
    down: str, form: str, said: int
) -> None:
    """A client of gRPC knows that it is missing; one of gRPC-Web may take it for success."""
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, form)
        got.respond(GRPC_OK, end=not said)
        if said:
            got.say(message(said), end=True)
        await call.end()
        assert call.end_stream
        assert read(call, form)[:said] == (message(said) if said else b"")
        assert status(call, form) == b"13"
        await nothing_left(house, ErrorKind.UPSTREAM_PROTOCOL)


@downstreams
@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_an_answer_that_ends_amid_a_message_has_no_end(down: str, form: str) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, form)
        got.respond(GRPC_OK)
        got.say(message(100)[:50], end=True)
        await call.end()
        assert not call.end_stream
        await nothing_left(house, ErrorKind.UPSTREAM_PROTOCOL)


@downstreams
@on_jumping_clock
async def test_an_answer_of_no_type_is_taken_for_grpc(down: str) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, "-text")
        got.respond([(b":status", b"200")])
        got.say(message(10))
        got.trailer(GRPC_END, end=True)
        await call.end()
        assert call.field(b"content-type") == b"application/grpc-web-text"
        assert status(call, "-text") == b"0"
        await nothing_left(house)


@downstreams
@on_jumping_clock
async def test_http_that_passes_as_it_is_stays_what_it_is(down: str) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, "-text")
        got.respond([(b":status", b"431"), (b"content-type", b"text/html")])
        got.say(b"<h1>too large</h1>", end=True)
        await call.end()
        assert (call.status, bytes(call.body)) == (b"431", b"<h1>too large</h1>")
        await nothing_left(house)


@downstreams
@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_a_trailers_only_answer_is_a_body_that_a_page_can_read(down: str, form: str) -> None:
    async with open_house(web(added=(HeaderAdd("x-ours", "1"),))) as house:
        _, call, got = await asked(house, down, form)
        ended = [(b"grpc-status", b"5"), (b"x-more", b"1"), (b"x-more", b"2"), (b"y-bin", b"AAEC")]
        got.respond([*GRPC_OK, *ended], end=True)
        await call.end()
        assert read(call, form) == trailers_frame(ended)
        assert call.field(b"grpc-status") == b""
        assert call.field(b"x-more") == b""
        assert call.field(b"x-ours") == b"1"
        await nothing_left(house)
        assert house.ended[0].response.grpc_status == 5


@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_a_trailers_only_answer_does_not_care_who_else_fills_the_link(form: str) -> None:
    limits = CodecLimits(stream_credit=10_000_000, link_credit=10_000_000)
    async with open_house(web()) as house, trio.open_nursery() as nursery:
        client = await house.client("h2", limits)
        large = client.request(asking(form), end=True)
        first = await house.backend().request(1)
        call = client.request(asking(form), end=True)
        second = await house.backend().request(2)
        client.reading = False
        first.respond(GRPC_OK)
        nursery.start_soon(send_and_end, first, message(1_000_000))
        await trio.sleep(1)
        second.respond([*GRPC_OK, (b"grpc-status", b"5")], end=True)
        await trio.sleep(1)
        client.reading = True
        await call.end()
        assert status(call, form) == b"5"
        await large.end()
        assert status(large, form) == b"0"


@downstreams
@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_a_call_is_tried_again_as_any_other(down: str, form: str) -> None:
    retry = RetryPolicy(("unavailable",), num_retries=1)
    async with open_house(web(retry=retry)) as house:
        _, call, got = await asked(house, down, form)
        got.respond([*GRPC_OK, (b"grpc-status", b"14"), (b"x-more", b"1")], end=True)
        again = await (await house.backend().request(2)).end()
        assert bytes(again.body) == bytes(got.body) == message(10)
        again.respond(GRPC_OK)
        again.say(message(20))
        again.trailer(GRPC_END, end=True)
        await call.end()
        assert read(call, form) == message(20) + trailers_frame(GRPC_END)
        await nothing_left(house)


@downstreams
@on_jumping_clock
async def test_failures_of_ours_are_told_in_grpc_web(down: str) -> None:
    async with open_house(web()) as house:
        house.backend().down = True
        _, call = await started(house, down, "")
        call.say(message(10), end=True)
        await call.end()
        assert (call.status, status(call)) == (b"200", b"14")
        assert call.field(b"content-type") == b"application/grpc-web"
        assert call.field(b"x-stickyproxy-error") == b"UF"
        await nothing_left(house, ErrorKind.CONNECT_FAILED)


@downstreams
@on_jumping_clock
async def test_a_page_of_a_backend_is_told_as_a_status(down: str) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down)
        got.respond([(b":status", b"403"), (b"content-type", b"text/html")])
        got.say(b"<h1>no</h1>", end=True)
        await call.end()
        assert status(call) == b"7"
        await nothing_left(house)


@downstreams
@on_jumping_clock
async def test_a_deadline_is_told_and_cancels_the_backend(down: str) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, "", (b"grpc-timeout", b"1S"))
        assert b"grpc-timeout" in dict(got.head)
        got.respond(GRPC_OK)
        got.say(message(10))
        await call.end()
        assert status(call) == b"4"
        assert (await got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await nothing_left(house, ErrorKind.TIMEOUT)


@downstreams
@pytest.mark.parametrize("answered", [False, True])
@on_jumping_clock
async def test_a_page_that_closes_cancels_the_backend(down: str, answered: bool) -> None:
    async with open_house(web()) as house:
        client, call, got = await asked(house, down, answered=answered)
        if down == "h2":
            call.rst(H2Code.CANCEL)
        else:
            client.close()
        assert (await got.until(lambda c: c.reset is not None)).reset == H2Code.CANCEL
        await nothing_left(house, ErrorKind.CLIENT_GONE)


@downstreams
@pytest.mark.parametrize("answered", [False, True])
@on_jumping_clock
async def test_a_backends_reset_is_told_as_a_status(down: str, answered: bool) -> None:
    """A page sees no code: what it would have meant is said in its stead."""
    async with open_house(web()) as house:
        _, call, got = await asked(house, down, answered=answered)
        got.rst(H2Code.ENHANCE_YOUR_CALM)
        await call.end()
        assert status(call) == b"8"
        await nothing_left(house, ErrorKind.UPSTREAM_RESET)


@downstreams
@on_jumping_clock
async def test_a_backend_that_dies_amid_a_message_leaves_no_status(down: str) -> None:
    async with open_house(web()) as house:
        _, call, got = await asked(house, down)
        got.respond(GRPC_OK)
        got.say(message(100)[:50])
        await call.has(50)
        got.peer.close()
        await call.end()
        assert not call.end_stream
        await nothing_left(house, ErrorKind.UPSTREAM_CLOSED)


@downstreams
@pytest.mark.parametrize("form", ["", "-text"])
@on_jumping_clock
async def test_where_it_is_not_translated_it_passes_as_it_is(down: str, form: str) -> None:
    async with open_house(Plan()) as house:
        _, call = await started(house, down, form)
        call.say(b"whatever", end=True)
        got = await (await house.backend().request()).end()
        assert dict(got.head)[b"content-type"] == b"application/grpc-web" + form.encode()
        assert bytes(got.body) == b"whatever"
        got.respond([(b":status", b"200"), (b"content-type", b"application/grpc-web")])
        got.say(b"answer", end=True)
        await call.end()
        assert bytes(call.body) == b"answer"
        await nothing_left(house)


@downstreams
@on_jumping_clock
async def test_a_page_of_another_origin_may_call_and_read_all_of_it(down: str) -> None:
    cors = Cors(("https://a.example",), "POST", "x-grpc-web", "grpc-status", max_age="60")
    origin = (b"origin", b"https://a.example")
    async with open_house(web(cors=cors)) as house:
        client = await house.client(down)
        asked = (b"access-control-request-method", b"POST")
        flight = client.request(
            [(b":method", b"OPTIONS"), *asking("")[1:4], origin, asked], end=True
        )
        await flight.end()
        assert flight.field(b"access-control-allow-origin") == b"https://a.example"
        call = client.request(asking("", origin))
        call.say(message(10), end=True)
        got = await house.backend().request()
        got.respond([*GRPC_OK, *GRPC_END], end=True)
        await call.end()
        assert call.field(b"access-control-allow-origin") == b"https://a.example"
        assert status(call) == b"0"


@downstreams
@on_jumping_clock
async def test_a_page_of_another_origin_hears_of_an_overload(down: str) -> None:
    origin = (b"origin", b"https://a.example")
    async with open_house(web(cors=Cors(("https://a.example",)), shadow=100.0)) as house:
        house.context.overloaded = True
        client = await house.client(down)
        asked = (b"access-control-request-method", b"POST")
        flight = client.request(
            [(b":method", b"OPTIONS"), *asking("")[1:4], origin, asked], end=True
        )
        await flight.end()
        assert flight.status == b"200"
        call = client.request(asking("", origin))
        call.say(message(10), end=True)
        await call.end()
        assert call.field(b"access-control-allow-origin") == b"https://a.example"
        assert status(call) == b"14"
        await house.until(lambda: not house.left_behind())
        assert [exchange.attempts for exchange in house.ended] == [0, 0]
        assert not house.backend().arrived
        assert house.context.metrics.cluster(SHADOW).upstream_rq_shadow_total == 0
        assert not any(backend.arrived for backend in house.backends.values())
