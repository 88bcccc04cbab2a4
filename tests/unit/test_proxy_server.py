"""A client's connection from its first byte to its last: which protocol, and what if it is none."""

from __future__ import annotations

import ssl

import pytest
import trio
import trustme

from stickyproxy.codec.api import CodecLimits
from stickyproxy.counters import ProcessStats
from stickyproxy.events import HeadReceived
from stickyproxy.model import Connection
from stickyproxy.proxy.server import (
    HANDSHAKE_TIMEOUT,
    PREFACE,
    Server,
    ServeStream,
)
from stickyproxy.wire.certificates import Certificates
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.conduct import FIRST_BYTE
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch
from support import rawframes as raw
from support.clock import on_jumping_clock
from support.plan import GET, OK
from support.wires import Wire, wire_pair

H1_GET = b"GET /things HTTP/1.1\r\nhost: svc.example\r\n\r\n"


class Door:
    """A Server whose requests are answered with 200, or stumble on `/bug`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.stats = ProcessStats()
        self.bugs: list[tuple[BaseException, str]] = []
        self.server = Server(
            serve=self._serve,
            rejected=lambda *_: None,
            bug=lambda error, where: self.bugs.append((error, where)),
            codecs=Codecs("reference", CodecLimits()),
            watch=LinkWatch(),
            stats=self.stats,
            tls=Certificates(tls) if tls is not None else None,
        )

    def _serve(self, _: Connection) -> ServeStream:
        async def serve(stream: Stream, head: HeadReceived) -> None:
            if (b":path", b"/bug") in head.headers:
                raise ZeroDivisionError
            stream.send_headers([*OK, (b"content-length", b"0")], end_stream=True)
            stream.close()

        return serve

    def open(self, nursery: trio.Nursery, protocol: str = "auto") -> Wire:
        """The client's end of a new connection."""
        here, there = wire_pair()
        nursery.start_soon(self.server.serve_connection, here, protocol)
        return there

    async def left(self) -> None:
        with trio.fail_after(200):
            while self.stats.downstream_connections:  # noqa: ASYNC110 - what is watched is a count
                await trio.sleep(0.01)


async def all_of(wire: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await wire.receive_some():
        received += data
    return received


@pytest.mark.parametrize("piece", [1, 2, 7, 23, 1000])
@on_jumping_clock
async def test_the_preface_may_come_in_any_pieces(piece: int) -> None:
    said = PREFACE + raw.settings() + raw.RawCoder().headers(1, GET, end=True)
    async with trio.open_nursery() as nursery:
        door = Door()
        wire = door.open(nursery)
        for at in range(0, len(said), piece):
            await wire.send_all(said[at : at + piece])
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        frames = raw.parse(await wire.receive_some())
        assert [frame.stream for frame in frames if frame.kind == raw.HEADERS] == [1]
        await wire.aclose()
        await door.left()
        assert door.bugs == []


@pytest.mark.parametrize("piece", [1, 3, 1000])
@on_jumping_clock
async def test_http1_on_the_same_port_in_any_pieces(piece: int) -> None:
    async with trio.open_nursery() as nursery:
        door = Door()
        wire = door.open(nursery)
        for at in range(0, len(H1_GET), piece):
            await wire.send_all(H1_GET[at : at + piece])
            await trio.sleep(0.01)
        assert (await wire.receive_some()).startswith(b"HTTP/1.1 200 ")
        await wire.aclose()
        await door.left()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"hello?\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRO * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 100_000,
    ],
)
@on_jumping_clock
async def test_nonsense_is_closed_with_400_or_without_a_word(said: bytes) -> None:
    async with trio.open_nursery() as nursery:
        door = Door()
        wire = door.open(nursery)
        nursery.start_soon(send, wire, said)
        heard = await all_of(wire)
        assert heard == b"" or heard.startswith(
            (b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 505 ")
        )
        await door.left()
        assert door.bugs == []


async def send(wire: trio.abc.SendStream, said: bytes) -> None:
    try:
        await wire.send_all(said)
    except trio.BrokenResourceError:
        return


@on_jumping_clock
async def test_http1_on_a_port_for_http2_only_is_not_served() -> None:
    async with trio.open_nursery() as nursery:
        door = Door()
        wire = door.open(nursery, "h2c")
        await wire.send_all(H1_GET)
        frames = raw.parse(await all_of(wire))
        assert frames[0].kind == raw.SETTINGS
        assert raw.HEADERS not in [frame.kind for frame in frames]
        await door.left()
        assert door.bugs == []


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP"])
@on_jumping_clock
async def test_who_says_nothing_is_closed_after_a_minute(said: bytes) -> None:
    async with trio.open_nursery() as nursery:
        door = Door()
        wire = door.open(nursery)
        begun = trio.current_time()
        await wire.send_all(said)
        if said:
            await wire.send_eof()
            assert (await all_of(wire))[:12] in (b"", b"HTTP/1.1 400")
        else:
            assert await all_of(wire) == b""
            assert trio.current_time() - begun >= FIRST_BYTE
        await door.left()
        assert door.bugs == []


@on_jumping_clock
async def test_a_bug_ends_one_connection_and_is_named() -> None:
    async with trio.open_nursery() as nursery:
        door = Door()
        one, other = door.open(nursery), door.open(nursery)
        await other.send_all(H1_GET)
        await other.receive_some()
        await one.send_all(H1_GET.replace(b"/things", b"/bug"))
        assert await all_of(one) == b""
        await other.send_all(H1_GET)
        assert (await other.receive_some()).startswith(b"HTTP/1.1 200 ")
        await other.aclose()
        await door.left()
        assert [where for _, where in door.bugs] == ["connection"]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    ca.issue_cert("svc.example").configure_cert(context)
    return context


@pytest.mark.parametrize(("alpn", "h2"), [(["h2"], True), (["http/1.1"], False), ([], False)])
@on_jumping_clock
async def test_alpn_decides_over_tls(ca: trustme.CA, alpn: list[str], h2: bool) -> None:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    async with trio.open_nursery() as nursery:
        door = Door(server_context(ca))
        wire = door.open(nursery, "https")
        client = trio.SSLStream(wire, context, server_hostname="svc.example")
        preface = PREFACE + raw.settings() + raw.RawCoder().headers(1, GET, end=True)
        await client.send_all(preface if h2 else H1_GET)
        heard = b""
        while not (heard.count(raw.settings_ack()) if h2 else b"\r\n\r\n" in heard):
            heard += await client.receive_some()
        assert heard.startswith(b"HTTP/1.1 200 ") != h2
        assert door.stats.downstream_handshake_failures_total == 0
        wire.break_off()
        await door.left()


@pytest.mark.parametrize("said", [H1_GET, b"", None])
@on_jumping_clock
async def test_a_failed_handshake_is_counted(ca: trustme.CA, said: bytes | None) -> None:
    """Plain text, a hang-up, and silence for ten seconds."""
    async with trio.open_nursery() as nursery:
        door = Door(server_context(ca))
        wire = door.open(nursery, "https")
        begun = trio.current_time()
        if said:
            await wire.send_all(said)
        elif said is not None:
            await wire.aclose()
        await trio.sleep(0.1)
        await door.left()
        assert door.stats.downstream_handshake_failures_total == 1
        assert (trio.current_time() - begun >= HANDSHAKE_TIMEOUT) == (said is None)
        assert door.bugs == []
