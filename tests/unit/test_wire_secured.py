"""TLS that the hub reads and writes: what is sealed arrives whole, in order, and its end is told."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ProxyError
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.direct import SecuredTap, flow_of
from stickyproxy.wire.farewell import linger
from stickyproxy.wire.hub import Hub, hub_of
from stickyproxy.wire.link import Link
from stickyproxy.wire.secured import RECORD, Secured
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.tcpinfo import look, tcp_socket
from support import key_updates

BODY = bytes(range(256)) * 4096  # 1 MiB: more than a socket takes, and 64 records

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Contexts:
    def __init__(self, version: ssl.TLSVersion) -> None:
        ca = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.create_default_context()
        ca.issue_cert("svc.example").configure_cert(self.server)
        ca.configure_trust(self.client)
        for context in (self.server, self.client):
            context.minimum_version = context.maximum_version = version


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.name)
def contexts(request: pytest.FixtureRequest) -> Contexts:
    return Contexts(request.param)


class Bytes(trio.abc.Stream):
    """Below a Secured that is fed by hand: what is sent is kept."""

    def __init__(self) -> None:
        self.sent = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    async def receive_some(self, _: int | None = None) -> bytes:
        raise AssertionError("nobody reads here")

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError("nobody waits here")

    async def aclose(self) -> None:
        return


class Ours:
    """A Secured after its handshake, and OpenSSL itself as its peer; what either says is carried by hand."""

    def __init__(self, contexts: Contexts) -> None:
        self._to, self._from = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = contexts.client.wrap_bio(self._to, self._from, server_hostname="svc.example")
        self.secured = Secured(Bytes(), contexts.server, server_side=True)
        while not (self.secured._shaken() & self._peer_shaken()):
            self.secured._incoming.write(self._from.read())
            self._to.write(b"".join(self.secured.seal(())))
        self._to.write(b"".join(self.secured.seal(())))  # its tickets

    def _peer_shaken(self) -> bool:
        try:
            self.peer.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def sealed_by_peer(self, *parts: bytes) -> bytes:
        for part in parts:
            assert self.peer.write(part) == len(part)
        return self._from.read()

    def goodbye_of_peer(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.peer.unwrap()
        return self._from.read()

    def heard_by_peer(self, sealed: bytes) -> bytes:
        self._to.write(sealed)
        heard = b""
        while self._to.pending:
            heard += self.peer.read(RECORD)
        return heard


def test_records_cut_at_any_byte_are_opened_whole(contexts: Contexts) -> None:
    ours = Ours(contexts)
    sealed = ours.sealed_by_peer(b"first", b"second")
    opened = [ours.secured.open(sealed[at : at + 1]) for at in range(len(sealed))]
    assert [part for part in opened if part] == [b"first", b"second"]
    assert not ours.secured.over()


def test_all_records_of_a_read_are_opened_at_once(contexts: Contexts) -> None:
    ours = Ours(contexts)
    sealed = ours.sealed_by_peer(b"first", BODY[:RECORD], b"last")
    assert ours.secured.open(sealed[:-1]) == b"first" + BODY[:RECORD]
    assert ours.secured.open(sealed[-1:]) == b"last"


def test_pieces_leave_in_their_order_as_few_records(contexts: Contexts) -> None:
    ours = Ours(contexts)
    sealed = b"".join(ours.secured.seal([b"a", memoryview(BODY)[:40_000], b"z"]))
    assert len(sealed) < 40_002 + 3 * 64, "three records of 16 KiB, not one a piece"
    assert ours.heard_by_peer(sealed) == b"a" + BODY[:40_000] + b"z"
    assert ours.secured.written >= len(sealed)


def test_a_large_read_goes_through_openssl_by_records(contexts: Contexts) -> None:
    """Its buffers never shrink: those of a connection that had a body once would hold as much for ever."""
    ours = Ours(contexts)
    sealed = b"".join(
        ours.sealed_by_peer(BODY[at : at + RECORD]) for at in range(0, 1 << 18, RECORD)
    )
    fed: list[int] = []
    write = ours.secured._incoming.write

    class Counting:
        def write(self, data: bytes) -> None:
            fed.append(len(data))
            write(data)

        @property
        def pending(self) -> int:
            return incoming.pending

    incoming, ours.secured._incoming = ours.secured._incoming, Counting()  # type: ignore[assignment]
    assert ours.secured.open(sealed) == BODY[: 1 << 18]
    assert max(fed) <= RECORD
    assert max(map(len, ours.secured.seal([BODY]))) < RECORD + 64


def test_what_was_said_before_a_close_notify_is_heard(contexts: Contexts) -> None:
    ours = Ours(contexts)
    assert ours.secured.open(ours.sealed_by_peer(b"last") + ours.goodbye_of_peer()) == b"last"
    assert ours.secured.over()
    assert ours.secured.open(b"") == b""


def test_what_came_before_a_broken_record_is_heard_and_an_alert_is_owed(
    contexts: Contexts,
) -> None:
    ours = Ours(contexts)
    good, bad = ours.sealed_by_peer(b"good"), bytearray(ours.sealed_by_peer(b"bad"))
    bad[-1] ^= 1
    assert ours.secured.open(good + bytes(bad)) == b"good"
    assert ours.secured.owes
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            ours.secured.over()
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        ours.heard_by_peer(b"".join(ours.secured.seal(())))
    assert ours.secured.seal([b"more"]) == []


def test_a_farewell_is_a_close_notify_and_harmless_twice(contexts: Contexts) -> None:
    ours = Ours(contexts)
    assert (
        ours.heard_by_peer(b"".join(ours.secured.seal([b"all"])) + ours.secured.farewell())
        == b"all"
    )
    assert ours.peer.read(RECORD) == b""
    ours.secured.farewell()


def test_a_farewell_without_a_handshake_says_nothing(contexts: Contexts) -> None:
    assert Secured(Bytes(), contexts.server, server_side=True).farewell() == b""


# --- over a socket, read and written by the hub ---


@pytest.fixture
def pair() -> Iterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Ours, and the peer's; TCP, so that the kernel tells what has left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        one, other = (trio.socket.from_stdlib_socket(end) for end in (ours, theirs))
        yield trio.SocketStream(one), trio.SocketStream(other)


Pair = tuple[trio.SocketStream, trio.SocketStream]


async def shaken(
    pair: Pair, contexts: Contexts
) -> tuple[Secured, trio.SSLStream[trio.SocketStream]]:
    """The peer's end is trio's own, which insists on a close_notify."""
    ours = Secured(pair[0], contexts.server, server_side=True)
    theirs = trio.SSLStream(pair[1], contexts.client, server_hostname="svc.example")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    return ours, theirs


class Reader:
    """Takes all, until its end."""

    def __init__(self, secured: Secured) -> None:
        hub = hub_of(secured)
        assert hub is not None
        self.data = b""
        self.asides = 0
        self.tap = SecuredTap(secured, hub, 65_536, self.take, self.aside)

    def take(self, data: bytes) -> int:
        self.data += data
        return 65_536 if data else 0

    def aside(self, spent: float) -> bool:
        self.asides += spent > 0
        return True


async def test_a_link_over_tls_is_the_hubs(pair: Pair, contexts: Contexts) -> None:
    ours, _ = await shaken(pair, contexts)
    assert isinstance(hub_of(ours), Hub)
    assert hub_of(Secured(Bytes(), contexts.server, server_side=True)) is None


async def test_what_comes_with_the_handshakes_end_is_read(pair: Pair) -> None:
    """Over TLS 1.3 a client's first request is often in the same packet."""
    contexts = Contexts(ssl.TLSVersion.TLSv1_3)
    to, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts.client.wrap_bio(to, back, server_hostname="svc.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    ours = Secured(pair[0], contexts.server, server_side=True, said=back.read())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        to.write(await pair[1].receive_some())
        client.do_handshake()
        client.write(b"at once")
        await pair[1].send_all(back.read())
    reader = Reader(ours)
    with trio.move_on_after(0.01):
        await reader.tap.flow()
    assert reader.data == b"at once"


@pytest.mark.parametrize("polite", [True, False])
async def test_the_end_of_the_socket_is_the_end(
    contexts: Contexts, pair: Pair, polite: bool
) -> None:
    ours, theirs = await shaken(pair, contexts)
    reader = Reader(ours)
    await theirs.send_all(b"all")
    if polite:
        with trio.move_on_after(0.01):
            await theirs.unwrap()
    else:
        await pair[1].send_eof()
    with trio.fail_after(10):
        await reader.tap.flow()
    assert reader.data == b"all"


async def test_garbage_on_the_socket_breaks_it_after_what_was_well(
    contexts: Contexts, pair: Pair
) -> None:
    ours, theirs = await shaken(pair, contexts)
    reader = Reader(ours)
    await theirs.send_all(b"well")
    await pair[1].send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
        await reader.tap.flow()
    assert (reader.data, reader.asides) == (b"well", 1)


async def test_who_has_enough_is_not_read_for_and_loses_nothing(
    contexts: Contexts, pair: Pair
) -> None:
    ours, theirs = await shaken(pair, contexts)
    heard: list[bytes] = []

    def take(data: bytes) -> int:
        heard.append(data)
        return 0

    flow = flow_of(ours, hub_of(ours), 65_536, take, lambda _: True)
    await theirs.send_all(b"one")
    with trio.fail_after(10):
        await flow()
        await theirs.send_all(b"two")
        await flow()
    assert heard == [b"one", b"two"]


async def test_the_last_thing_said_is_a_close_notify(contexts: Contexts, pair: Pair) -> None:
    ours, theirs = await shaken(pair, contexts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(linger, ours)
        with trio.fail_after(10):
            assert await theirs.receive_some() == b""  # raises without one
        pair[1].socket.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what the socket took")
async def test_who_is_cut_off_is_not_told_that_it_was_all(contexts: Contexts, pair: Pair) -> None:
    """A close_notify behind a record that is not whole is none; behind a whole one it is a lie."""
    ours, theirs = await shaken(pair, contexts)
    link = Link(
        ours, Codecs("fast", CodecLimits()).server(multiplexed=False, tls=True), serve=answer
    )
    sock = tcp_socket(ours)
    assert sock is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await theirs.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        with trio.move_on_after(0.05):  # by then the socket takes no more
            await trio.sleep_forever()
        assert link.unsent()
        before = look(sock)
        link.tick(trio.current_time() + 100, 1e9)
        while await pair[1].receive_some():
            pass
        after = look(sock)
        pair[1].socket.close()
    assert before is not None
    assert after is not None
    assert after.sent - after.resent == before.sent - before.resent + before.unsent


# --- a link on it ---

Get = list[tuple[bytes, bytes]]
GET: Get = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"a")]


async def answer(stream: Stream, _: HeadReceived) -> None:
    with suppress(ProxyError):  # the test is over
        try:
            stream.send_headers([(b":status", b"200")], end_stream=False)
            await stream.send_data(BODY, end_stream=True)
        finally:
            stream.close()


@asynccontextmanager
async def linked(pair: Pair, contexts: Contexts) -> AsyncIterator[Link]:
    """A link to a server that answers with `BODY`, ours too; both read and written by the hub."""
    server = Secured(pair[0], contexts.server, server_side=True)
    client = Secured(pair[1], contexts.client, server_hostname="svc.example")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    codecs = Codecs("fast", CodecLimits())
    front = Link(server, codecs.server(multiplexed=True, tls=True), serve=answer)
    link = Link(client, codecs.client(multiplexed=True, tls=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(front.run)
        nursery.start_soon(link.run)
        yield link
        link.close()


async def body_of(stream: Stream, *, every: float = 0.0) -> bytes:
    """Read whole, with a pause of so many seconds before each part."""
    body = b""
    with trio.fail_after(30):
        while not (stream.remote_done and not stream.lying):
            await trio.sleep(every)
            event = await stream.receive()
            if isinstance(event, DataReceived):
                body += event.data
                stream.grant(event.credit)
    stream.close()
    return body


async def test_bodies_that_the_socket_does_not_take_at_once_arrive_whole(
    pair: Pair, contexts: Contexts
) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    async with linked(pair, contexts) as link:
        streams = [link.open_stream(GET, end_stream=True) for _ in range(4)]
        bodies: list[bytes] = []

        async def read(stream: Stream) -> None:
            bodies.append(await body_of(stream))

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(read, stream)
        assert bodies == [BODY] * 4


async def test_a_slow_reader_gets_all_of_it(pair: Pair, contexts: Contexts) -> None:
    async with linked(pair, contexts) as link:
        assert await body_of(link.open_stream(GET, end_stream=True), every=0.001) == BODY


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what has left")
async def test_it_is_known_to_the_byte_what_has_left(pair: Pair, contexts: Contexts) -> None:
    """What never left may be asked again elsewhere, whatever it is."""
    async with linked(pair, contexts) as link:
        assert await body_of(link.open_stream(GET, end_stream=True)) == BODY
        await trio.testing.wait_all_tasks_blocked(0.01)
        sock = tcp_socket(link.transport)
        assert sock is not None
        info = look(sock)
        assert info is not None
        assert link.handed == info.sent - info.resent
        assert link.open_stream(GET, end_stream=True).at == link.handed


# --- beside OpenSSL's own program ---


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")
async def test_new_keys_are_agreed_on_while_nothing_else_is_said() -> None:
    """RFC 8446 §4.6.3: who is asked for new keys answers with its own, before whatever it says next."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        client = await trio.lowlevel.open_process(
            ["openssl", "s_client", "-msg", "-connect", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        ours = Secured(
            await listener.accept(), Contexts(ssl.TLSVersion.TLSv1_3).server, server_side=True
        )
        await ours.do_handshake()
        link = Link(ours, Codecs("fast", CodecLimits()).server(multiplexed=False, tls=True))
        nursery.start_soon(link.run)
        assert client.stdin is not None
        assert client.stdout is not None
        heard = b""
        with trio.fail_after(10):
            while b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate" not in heard:
                if b"read R BLOCK" in heard:
                    await client.stdin.send_all(b"K\n")
                heard += await client.stdout.receive_some()
        link.close()
        client.kill()
        await client.wait()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")
async def test_what_is_said_between_the_halves_of_a_ticket_is_kept(tmp_path: Path) -> None:
    """It may come in several records (RFC 8446 §5.1); until all are here OpenSSL writes nothing."""
    ca = trustme.CA(key_type=trustme.KeyType.RSA)
    client = ssl.create_default_context()
    ca.issue_cert("me.example", key_type=trustme.KeyType.RSA).configure_cert(client)
    ca.configure_trust(client)
    pair, authority = tmp_path / "pair.pem", tmp_path / "ca.pem"
    ca.issue_cert("svc.example").private_key_and_cert_chain_pem.write_to_path(pair)
    ca.cert_pem.write_to_path(authority)
    said = ["-quiet", "-rev", "-tls1_3", "-max_send_frag", "512", "-Verify", "1", "-cert"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = await trio.lowlevel.open_process(
        ["openssl", "s_server", *said, pair, "-CAfile", authority, "-port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(10):
            transport = await _reach(port)
            ours = Secured(transport, client, server_hostname="svc.example")
            await ours.do_handshake()
            tickets = await transport.receive_some(RECORD)
            assert ours.open(tickets[:600]) == b"", "one record and some of the next"
            assert ours.seal([b"in ", b"between"]) == []
            assert ours.owes
            assert ours.seal([b" all"]) == []
            assert ours.open(tickets[600:]) == b""
            assert ours.owes, "so that the link writes without anything else to say"
            await transport.send_all(b"".join(ours.seal([b"\n"])))
            assert not ours.owes
            answer = b""
            while not answer.endswith(b"\n"):
                answer += ours.open(await transport.receive_some(RECORD))
            assert answer == b"lla neewteb ni\n"
            assert not ours.over()
            await ours.aclose()
    finally:
        server.kill()
        with trio.CancelScope(shield=True):
            await server.wait()


async def _reach(port: int) -> trio.SocketStream:
    while True:
        try:
            return await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(0, ""), (1, ""), (0, "PRI * HTTP/2.0\r\n\r\nSM")],
    ids=["0", "1", "0 and data"],
)
async def test_who_asks_for_new_keys_all_the_time_is_given_up(kind: int, data: str) -> None:
    """OpenSSL answers without end, at 15 to 33 us each; who does not read the answers makes us keep them."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        port = listener.socket.getsockname()[1]
        client = await trio.lowlevel.open_process(
            [sys.executable, key_updates.__file__, str(port), str(kind), data],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        raw = await listener.accept()
        ours = Secured(raw, Contexts(ssl.TLSVersion.TLSv1_3).server, server_side=True)
        await ours.do_handshake()
        assert client.stdout is not None
        if await client.stdout.receive_some() != key_updates.READY:
            pytest.skip("this build of Python keeps its TLS elsewhere")
        link = Link(ours, Codecs("fast", CodecLimits()).server(multiplexed=True, tls=True))
        with trio.fail_after(10):
            await link.run()
        assert link.failure is not None
        assert "more work than it asks for" in link.failure.detail
        client.kill()
        await client.wait()
        nursery.cancel_scope.cancel()
