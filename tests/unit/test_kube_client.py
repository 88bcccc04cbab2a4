"""Requests to the API server: over TLS and plain, HTTP/2 and HTTP/1.1, and what goes wrong."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock

from stickyproxy.codec.api import CodecLimits
from stickyproxy.control.discovery.kube_client import (
    CONNECT_LIMIT,
    HEAD_LIMIT,
    ApiError,
    ApiUnreachable,
    KubeClient,
    error_of,
)
from stickyproxy.control.discovery.kube_server import ApiServer, with_alpn
from stickyproxy.control.discovery.kube_transport import PONG_LIMIT, SILENCE, Connector
from stickyproxy.events import HeadReceived
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream
from support.fake_kube import FakeKube, Fault
from support.fake_kube_store import SERVICES
from support.kube_entry import GivenAccess
from support.kube_objects import service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATH = "/api/v1/namespaces/default/services"


@asynccontextmanager
async def client_of(
    access: GivenAccess, connector: Connector | None = None
) -> AsyncIterator[KubeClient]:
    client = KubeClient(access, connector)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    fake = FakeKube()
    async with fake.running():
        yield fake


async def test_objects_are_written_and_read_on_one_connection(
    kube: FakeKube, autojump_clock: MockClock
) -> None:
    async with client_of(GivenAccess(), kube.connector) as client:
        await client.send("POST", PATH, body=service("qotm"))
        changed = await client.get(f"{PATH}/qotm")
        changed["spec"]["ports"] = None
        await client.send("PUT", f"{PATH}/qotm", body=changed)
        listed = await client.get(PATH, {"labelSelector": ""})
        assert [one["spec"]["ports"] for one in listed["items"]] == [None]
        await client.send("DELETE", f"{PATH}/qotm")
    assert kube.dialled == 1
    assert kube.asked[0].method == "POST"


async def test_watches_of_http1_have_a_connection_each(
    kube: FakeKube, autojump_clock: MockClock
) -> None:
    async with (
        client_of(GivenAccess(), kube.connector) as client,
        client.request("GET", PATH, {"watch": "true"}),
    ):
        await client.get(PATH)
        await client.get(PATH)
    assert kube.dialled == 2


@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    [
        (Fault("status", "", 403), 403, None),
        (Fault("status", "", 429, retry_after=7), 429, 7.0),
        (Fault("status", "", 504, retry_after=1), 504, 1.0),
    ],
)
async def test_refusal_says_what_the_server_said(
    kube: FakeKube, autojump_clock: MockClock, fault: Fault, status: int, retry_after: float | None
) -> None:
    kube.faults.append(fault)
    async with client_of(GivenAccess(), kube.connector) as client:
        with pytest.raises(ApiError, match="as the test wishes") as refused:
            await client.get(PATH)
    assert refused.value.status == status
    assert refused.value.retry_after == retry_after


def test_status_without_its_fields_is_still_an_error() -> None:
    odd: list[Any] = [None, [], {}, {"details": None}, {"details": {"retryAfterSeconds": None}}]
    for found in odd:
        error = error_of(found, 500)
        assert (error.status, error.retry_after) == (500, None)
    assert error_of({}, 429, "3").retry_after == 3
    assert error_of({}, 429, "Wed, 21 Oct 2026 07:28:00 GMT").retry_after is None


async def test_dead_server_is_unreachable_in_words(
    kube: FakeKube, autojump_clock: MockClock
) -> None:
    kube.down = True
    async with client_of(GivenAccess(), kube.connector) as client:
        with pytest.raises(ApiUnreachable, match=r"127\.0\.0\.1:80: connection refused"):
            await client.get(PATH)
        kube.down = False
        kube.faults += [Fault("close", ""), Fault("silent", "")]
        with pytest.raises(ApiUnreachable):
            await client.get(PATH)
        began = trio.current_time()
        with pytest.raises(ApiUnreachable, match="no response within"):
            await client.get(PATH)
        assert trio.current_time() - began == HEAD_LIMIT
        assert (await client.get(PATH))["items"] == []


async def test_connection_that_never_comes_about_has_a_limit(autojump_clock: MockClock) -> None:
    async def never(_: ApiServer) -> tuple[trio.abc.Stream, str]:
        await trio.sleep_forever()
        raise AssertionError

    async with client_of(GivenAccess(), never) as client:
        with pytest.raises(ApiUnreachable, match="timed out after 10 s"):
            await client.get(PATH)
        assert trio.current_time() == CONNECT_LIMIT


async def test_request_that_is_cancelled_leaves_a_client_that_works(
    kube: FakeKube, autojump_clock: MockClock
) -> None:
    kube.faults.append(Fault("silent", ""))
    async with client_of(GivenAccess(), kube.connector) as client:
        with trio.move_on_after(1) as scope:
            await client.get(PATH)
        assert scope.cancelled_caught
        assert (await client.get(PATH))["items"] == []


# --- HTTP/2 ---


class Http2Server:
    """Our own link in the server role. `serve` answers; `frozen` stops all that it would say."""

    def __init__(self, serve: Callable[[Stream, HeadReceived], Awaitable[None]]) -> None:
        self.dialled = 0
        self.sent_before_freezing: trio.testing.MemorySendStream | None = None
        self._serve = serve
        self._codecs = Codecs("reference", CodecLimits())

    def connector(self, nursery: trio.Nursery) -> Connector:
        async def connect(_: ApiServer) -> tuple[trio.abc.Stream, str]:
            await trio.lowlevel.checkpoint()
            self.dialled += 1
            ours, theirs = trio.testing.memory_stream_pair()
            codec = self._codecs.server(multiplexed=True, tls=True)
            self.sent_before_freezing = theirs.send_stream
            nursery.start_soon(Link(theirs, codec, serve=self._serve).run)
            return ours, "h2"

        return connect

    def freeze(self) -> None:
        """From now on nothing arrives, and nothing says so: a half-open connection."""
        if self.sent_before_freezing is not None:
            self.sent_before_freezing.send_all_hook = trio.sleep_forever


async def answer_and_hold(stream: Stream, head: HeadReceived) -> None:
    path = dict(head.headers)[b":path"]
    stream.send_headers([(b":status", b"200")], end_stream=False)
    await stream.send_data(b'{"path":"%s"}\n' % path, end_stream=b"watch" not in path)
    if b"watch" in path:
        await trio.sleep_forever()


async def test_http2_carries_watches_and_lists_on_one_connection(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Http2Server(answer_and_hold)
    async with (
        client_of(GivenAccess(), server.connector(nursery)) as client,
        client.request("GET", "/watch1") as first,
        client.request("GET", "/watch2") as second,
    ):
        assert (await client.get("/list")) == {"path": "/list"}
        assert await first.receive() == b'{"path":"/watch1"}\n'
        assert await second.receive() == b'{"path":"/watch2"}\n'
    assert server.dialled == 1
    nursery.cancel_scope.cancel()


async def test_half_open_http2_connection_is_found_by_a_ping_in_seconds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Http2Server(answer_and_hold)
    async with client_of(GivenAccess(), server.connector(nursery)) as client:
        async with client.request("GET", "/watch") as answer:
            await answer.receive()
            server.freeze()
            began = trio.current_time()
            with pytest.raises(ApiUnreachable):
                await answer.receive()
            assert trio.current_time() - began <= SILENCE + PONG_LIMIT + 5
        assert (await client.get("/list")) == {"path": "/list"}
    assert server.dialled == 2
    nursery.cancel_scope.cancel()


async def test_quiet_http2_connection_that_answers_pings_stays(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Http2Server(answer_and_hold)
    async with (
        client_of(GivenAccess(), server.connector(nursery)) as client,
        client.request("GET", "/watch") as answer,
    ):
        await answer.receive()
        with trio.move_on_after(600) as quiet:
            await answer.receive()
        assert quiet.cancelled_caught
    assert server.dialled == 1
    nursery.cancel_scope.cancel()


async def test_idle_connection_is_closed_after_a_while(
    kube: FakeKube, autojump_clock: MockClock
) -> None:
    async with client_of(GivenAccess(), kube.connector) as client:
        await client.get(PATH)
        await trio.sleep(200)
        assert not client._links
        await client.get(PATH)
    assert kube.dialled == 2


# --- TLS, on real sockets ---


async def test_tls_is_verified_by_the_ca_given_and_by_no_other(kube: FakeKube) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    port = await kube.listen(context)
    kube.store.put(SERVICES, service("qotm"))

    def trusting(ca: trustme.CA) -> GivenAccess:
        return GivenAccess(port=port, tls=with_alpn(_trusting(ca)))

    async with client_of(trusting(authority)) as client:
        assert len((await client.get(PATH))["items"]) == 1
    async with client_of(trusting(stranger)) as client:
        with pytest.raises(ApiUnreachable, match="TLS: "):
            await client.get(PATH)


def _trusting(ca: trustme.CA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())


async def test_plain_http_and_a_server_that_speaks_no_tls(kube: FakeKube) -> None:
    port = await kube.listen()
    async with client_of(GivenAccess(port=port)) as client:
        assert (await client.get(PATH))["items"] == []
    async with client_of(GivenAccess(port=port, tls=_trusting(trustme.CA()))) as client:
        with pytest.raises(ApiUnreachable, match="TLS: "):
            await client.get(PATH)
