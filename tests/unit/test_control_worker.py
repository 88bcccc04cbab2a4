"""A worker's end: nobody who got in is turned away, and nobody gets in behind it."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trustme

from stickyproxy.accesslog import Record
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.doors import Listening
from stickyproxy.control.worker import Worker
from stickyproxy.errors import ConfigError
from stickyproxy.metrics import Metrics
from stickyproxy.model import Bind, Snapshot
from stickyproxy.policy.routes import Routes
from stickyproxy.wire.silence import silence
from stickyproxy.wire.sockets import accept_pending, listen
from support.rawframes import GOAWAY, PING, PREFACE, Frame, RawCoder, parse, ping, settings

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
NOTHING = Snapshot(1, Routes(()), {})
"""No routes: every request is answered 404, with no backend needed."""
FOR_EVER = float("inf")
PATIENCE = 20.0


class Running:
    """A worker on a loopback port, and the records of what it served."""

    def __init__(self, settings: ProcessSettings, protocol: str) -> None:
        self.records: list[Record] = []
        self.metrics = Metrics()
        self.worker = Worker(settings, self.metrics, self.records.append)
        self.ended = trio.Event()
        self.protocol = protocol
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await listen(Bind("tcp", host="127.0.0.1", port=0))
        self.port = listener.socket.getsockname()[1]
        try:
            await self.worker.run([Listening(listener, self.protocol, "")], NOTHING, task_status)
        finally:
            listener.socket.close()
        self.ended.set()

    def connect_now(self) -> trio.SocketStream:
        """Connected as far as the kernel goes; no task of the worker ran meanwhile."""
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.setblocking(False)
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


@asynccontextmanager
async def running(
    process: ProcessSettings | None = None, protocol: str = "auto"
) -> AsyncIterator[Running]:
    started = Running(process or ProcessSettings(), protocol)
    async with trio.open_nursery() as nursery:
        await nursery.start(started.run)
        with trio.fail_after(PATIENCE):
            yield started
        nursery.cancel_scope.cancel()


async def response(stream: trio.abc.Stream) -> bytes:
    """Head and body of a 404, which has a content-length."""
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"\n"):
        data = await stream.receive_some()
        assert data, f"it ended after {received!r}"
        received += data
    return received


async def ends(stream: trio.abc.Stream) -> bool:
    return await stream.receive_some() == b""


async def test_connections_in_the_accept_queue_are_served_and_told_to_close() -> None:
    async with running() as it:
        clients = [it.connect_now() for _ in range(50)]
        it.worker.drain(FOR_EVER)
        await trio.testing.wait_all_tasks_blocked()
        for client in clients:
            await client.send_all(GET)
            assert b"connection: close" in (await response(client)).lower()
            assert await ends(client)
            await client.aclose()
        await it.ended.wait()
        assert len(it.records) == 50


async def test_idle_connection_ends_with_its_next_response() -> None:
    async with running() as it:
        client = it.connect_now()
        await client.send_all(GET)
        assert b"connection: close" not in (await response(client)).lower()
        it.worker.drain(FOR_EVER)
        await trio.testing.wait_all_tasks_blocked()
        assert not it.ended.is_set(), "closing it now could cross a request on its way"
        await client.send_all(GET)
        assert b"connection: close" in (await response(client)).lower()
        assert await ends(client)
        await client.aclose()
        await it.ended.wait()


@pytest.mark.parametrize("said", [b"", GET[:9], GET[:-2]], ids=["nothing", "half", "but-the-end"])
async def test_request_whose_bytes_come_after_the_drain_began_is_served(said: bytes) -> None:
    async with running() as it:
        client = it.connect_now()
        if said:
            await client.send_all(said)
        await trio.testing.wait_all_tasks_blocked()
        it.worker.drain(FOR_EVER)
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(GET[len(said) :])
        assert b"connection: close" in (await response(client)).lower()
        assert await ends(client)
        await client.aclose()
        await it.ended.wait()


async def test_idle_connections_end_at_the_deadline() -> None:
    async with running() as it:
        clients = [it.connect_now() for _ in range(3)]
        await clients[0].send_all(GET)
        await response(clients[0])
        await clients[1].send_all(GET[:9])
        await trio.testing.wait_all_tasks_blocked()
        it.worker.drain(trio.current_time() + 0.1)
        for client in clients:
            assert await ends(client)
            await client.aclose()
        await it.ended.wait()


async def test_connection_without_a_request_for_the_idle_timeout_is_closed() -> None:
    async with running() as it:
        it.worker.watch._idle_timeout = 0.0
        client = it.connect_now()
        await client.send_all(GET)
        await response(client)
        assert await ends(client)
        await client.aclose()


async def frames_until(
    stream: trio.SocketStream, enough: Callable[[list[Frame]], bool]
) -> list[Frame]:
    received = b""
    while True:
        data = await stream.receive_some()
        received += data
        frames = parse(received)
        if enough(frames) or not data:
            return frames


async def test_requests_that_race_the_final_goaway_are_served_or_told_unprocessed() -> None:
    """Streams go on being opened until the client sees the GOAWAY that names the last one."""
    async with running() as it:
        client = it.connect_now()
        coder = RawCoder()
        head = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/"),
        ]
        await client.send_all(PREFACE + settings() + coder.headers(1, head, end=True))
        await frames_until(client, lambda frames: any(f.stream == 1 for f in frames))
        it.worker.drain(FOR_EVER)
        first = await frames_until(client, lambda frames: any(f.kind == PING for f in frames))
        (announced,) = [f for f in first if f.kind == GOAWAY]
        (asked,) = [f for f in first if f.kind == PING]
        assert (announced.number, announced.code) == (2**31 - 1, 0)
        # In one segment: a request, the pong, and a request that cannot know what the pong brings.
        await client.send_all(
            coder.headers(3, head, end=True)
            + ping(asked.payload, ack=True)
            + coder.headers(5, head, end=True)
        )
        rest = await frames_until(client, lambda _: False)
        (final,) = [f for f in rest if f.kind == GOAWAY]
        assert final.code == 0
        answered = {f.stream for f in rest if f.stream and f.flags & 1}
        assert answered == {number for number in (3, 5) if number <= final.number}
        assert 3 in answered
        await client.aclose()
        await it.ended.wait()


async def test_peer_that_owes_us_the_pong_still_gets_the_final_goaway() -> None:
    async with running() as it:
        client = it.connect_now()
        await client.send_all(PREFACE + settings())
        await trio.testing.wait_all_tasks_blocked()
        it.worker.drain(FOR_EVER)
        frames = await frames_until(client, lambda _: False)
        assert [f.number for f in frames if f.kind == GOAWAY] == [2**31 - 1, 0]
        await client.aclose()
        await it.ended.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_nobody_connects_between_the_last_accept_and_the_close(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    (listener,) = await listen(Bind("tcp", host=host, port=0))
    address = listener.socket.getsockname()[:2]
    before = await trio.open_tcp_stream(*address)
    silence(listener)
    late = trio.socket.socket(listener.socket.family)
    with trio.move_on_after(0.3) as waiting:
        await late.connect(address)
    assert waiting.cancelled_caught, "neither accepted, which would be lost, nor refused yet"
    (taken,) = accept_pending(listener)
    listener.socket.close()
    await before.send_all(b"hello")
    assert await taken.receive_some() == b"hello", "what was accepted is not filtered"
    late.close()
    await before.aclose()
    await taken.aclose()


async def test_renewed_certificate_meets_new_connections_and_a_wrong_one_is_refused(
    tmp_path: Path,
) -> None:
    ca = trustme.CA()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue(name: str) -> None:
        issued = ca.issue_cert("127.0.0.1", common_name=name)
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(cert)

    issue("one")
    process = replace(ProcessSettings(), tls_cert=cert, tls_key=key)
    settings = Settings(process, routes=(), clusters=())
    context = ssl.create_default_context()
    ca.configure_trust(context)

    async def meets(it: Running) -> object:
        raw = it.connect_now()
        client = trio.SSLStream(raw, context, server_hostname="127.0.0.1", https_compatible=True)
        await client.do_handshake()
        shown = dict(pair for part in client.getpeercert()["subject"] for pair in part)
        await client.aclose()
        return shown["commonName"]

    async with running(process, "https") as it:
        assert await meets(it) == "one"
        issue("two")
        it.worker.exchange(it.worker.load_certificates(settings))
        assert await meets(it) == "two"
        key.write_text("damaged")
        with pytest.raises(ConfigError, match="--tls-key"):
            it.worker.exchange(it.worker.load_certificates(settings))
        assert await meets(it) == "two"
