"""Which certificate a client meets, what it has to show, and how certificates are exchanged."""

from __future__ import annotations

import datetime as dt
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stickyproxy.codec.api import CodecLimits
from stickyproxy.counters import ProcessStats
from stickyproxy.edge import Pem, ServerTls, TlsTerms
from stickyproxy.errors import ConfigError
from stickyproxy.events import HeadReceived
from stickyproxy.model import Connection, UpstreamProtocol, UpstreamTls
from stickyproxy.proxy.server import Server, ServeStream
from stickyproxy.wire.certificates import Certificates, make_certificates
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.hello import LARGEST_HELLO, read_hello
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.tls import client_tls_context
from stickyproxy.wire.watch import LinkWatch
from support.edge_files import authority, ca_pem, pair, pair_of, stranger
from support.plan import OK

PATIENCE = 30.0
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def server_tls(name: str, *globs: str, host: str = "", **more: Any) -> ServerTls:
    found = pair(host or globs[0].replace("*", "x"))
    made = ServerTls(name, globs, Pem(found.chain.encode()), Pem(found.key.encode()))
    return replace(made, **more)


def certificates(*wanted: ServerTls, old: Certificates | None = None) -> Certificates:
    def never(problem: str) -> None:
        raise AssertionError(problem)

    return make_certificates(wanted, None, old, never)


class Place:
    """A server on memory streams, and what the connections to it were."""

    def __init__(self, tls: Certificates, nursery: trio.Nursery) -> None:
        self.seen: list[Connection] = []
        self.stats = ProcessStats()
        self.server = Server(
            serve=self._serve,
            rejected=lambda *_: None,
            bug=lambda error, where: pytest.fail(f"{where}: {error!r}"),
            codecs=Codecs("fast", CodecLimits()),
            watch=LinkWatch(),
            stats=self.stats,
            tls=tls,
            listener="Listener l",
        )
        self._nursery = nursery

    def _serve(self, connection: Connection) -> ServeStream:
        self.seen.append(connection)

        async def serve(stream: Stream, _: HeadReceived) -> None:
            stream.send_headers([*OK, (b"content-length", b"0")], end_stream=True)
            stream.close()

        return serve

    def plain(self, protocol: str = "auto") -> trio.abc.Stream:
        here, there = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.server.serve_connection, there, protocol)
        return here

    async def secured(
        self, name: str, context: ssl.SSLContext | None = None, protocol: str = "https"
    ) -> trio.SSLStream[trio.abc.Stream]:
        stream = trio.SSLStream(
            self.plain(protocol), context or client(), server_hostname=name, https_compatible=True
        )
        await stream.do_handshake()
        return stream

    async def shown(self, name: str, context: ssl.SSLContext | None = None) -> str:
        """The name on the certificate that is shown, once a request was served with it."""
        stream = await self.secured(name, context)
        await stream.send_all(GET)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        found: str = stream.getpeercert()["subjectAltName"][0][1]
        await trio.aclose_forcefully(stream)
        return found


@asynccontextmanager
async def place(*wanted: ServerTls, made: Certificates | None = None) -> AsyncIterator[Place]:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            yield Place(made or certificates(*wanted), nursery)
            nursery.cancel_scope.cancel()


def client(*, check: bool = False, shows: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    context.check_hostname = check
    if shows is not None:
        shows.issue_cert("client.example").configure_cert(context)
    return context


# --- the name -------------------------------------------------------------------------------------


async def test_the_most_special_certificate_is_shown() -> None:
    async with place(
        server_tls("all", "*", host="all.test"),
        server_tls("wide", "*.example", host="wide.test"),
        server_tls("deep", "*.b.example", host="deep.test"),
        server_tls("tail", "shop.*", host="tail.test"),
        server_tls("exact", "a.example", host="exact.test"),
    ) as it:
        for name, shown in (
            ("a.example", "exact.test"),
            ("A.Example", "exact.test"),
            ("b.example", "wide.test"),
            ("x.y.b.example", "deep.test"),
            ("shop.org", "tail.test"),
            ("elsewhere", "all.test"),
            ("127.0.0.1", "all.test"),
        ):
            assert await it.shown(name) == shown, name
        assert [one.tls_name for one in it.seen[:3]] == ["exact", "exact", "wide"]
        assert {one.listener for one in it.seen} == {"Listener l"}


async def test_a_name_without_a_certificate_is_told_so() -> None:
    async with place(server_tls("a", "a.example")) as it:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await it.secured("b.example")
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert caught.value.__cause__.reason == "TLSV1_UNRECOGNIZED_NAME"
        await trio.testing.wait_all_tasks_blocked()
        assert it.stats.downstream_handshake_failures_total == 1


async def test_the_default_certificate_is_for_all_other_names() -> None:
    default = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("default.test").configure_cert(default)
    made = make_certificates([server_tls("a", "a.example")], default, None, pytest.fail)
    async with place(made=made) as it:
        assert await it.shown("a.example") == "a.example"
        assert await it.shown("b.example") == "default.test"
        assert [one.tls_name for one in it.seen] == ["a", ""]


async def test_tls_and_clear_text_come_by_one_port() -> None:
    async with place(server_tls("a", "a.example")) as it:
        secured = await it.secured("a.example", protocol="auto")
        await secured.send_all(GET)
        assert (await secured.receive_some()).startswith(b"HTTP/1.1 200")
        plain = it.plain()
        await plain.send_all(GET)
        assert (await plain.receive_some()).startswith(b"HTTP/1.1 200")
        assert [one.tls for one in it.seen] == [True, False]


async def test_a_clear_port_takes_no_tls() -> None:
    async with place(server_tls("a", "a.example")) as it:
        with pytest.raises(trio.BrokenResourceError):
            await it.secured("a.example", protocol="clear")


# --- what a Host asks for -------------------------------------------------------------------------


async def test_each_name_has_its_own_versions_and_protocols() -> None:
    """The version is agreed on before a server name callback is called; it has to hold all the same."""
    async with place(
        server_tls("new", "new.example", terms=TlsTerms(min_version="v1.3", alpn=("http/1.1",))),
        server_tls("old", "old.example", terms=TlsTerms(max_version="v1.2")),
    ) as it:
        offering = client()
        offering.set_alpn_protocols(["h2", "http/1.1"])
        new = await it.secured("new.example", offering)
        old = await it.secured("old.example", offering)
        assert (new.version(), old.version()) == ("TLSv1.3", "TLSv1.2")
        assert new.selected_alpn_protocol() == "http/1.1"
        assert old.selected_alpn_protocol() == "h2"
        behind = client()
        behind.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(trio.BrokenResourceError):
            await it.secured("new.example", behind)


async def test_ciphers_and_curve_are_those_that_were_asked_for() -> None:
    cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
    key = pair("a.example").key
    cipher = cipher.replace("ECDSA", "RSA") if "RSA" in key else cipher
    terms = TlsTerms(max_version="v1.2", ciphers=(cipher,), curve="secp384r1")
    async with place(server_tls("a", "a.example", terms=terms)) as it:
        stream = await it.secured("a.example")
        assert stream.cipher()[0] == cipher


async def test_clients_must_show_a_certificate_of_the_ca() -> None:
    strict = server_tls("a", "a.example", client_ca=Pem(ca_pem().encode()), client_required=True)
    lenient = server_tls("b", "b.example", client_ca=Pem(ca_pem().encode()))
    async with place(strict, lenient) as it:
        known = client(shows=authority())
        assert await it.shown("a.example", known) == "a.example"
        assert await it.shown("b.example", known) == "b.example"
        assert await it.shown("b.example") == "b.example"
        for name, stranger_or_nobody in (
            ("a.example", client()),
            ("a.example", client(shows=stranger())),
            ("b.example", client(shows=stranger())),
        ):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await it.shown(name, stranger_or_nobody)
            assert isinstance(caught.value.__cause__, ssl.SSLError), "it was told why"


def revocations(*serials: int) -> Pem:
    """The authority's list of certificates that are no good any more."""
    key = serialization.load_pem_private_key(authority().private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority().cert_pem.bytes()).subject
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    end = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    made = x509.CertificateRevocationListBuilder(issuer, begin, end)
    for serial in serials:
        one = x509.RevokedCertificateBuilder(serial, begin).build()
        made = made.add_revoked_certificate(one)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = made.sign(key, hashes.SHA256())
    return Pem(signed.public_bytes(serialization.Encoding.PEM))


async def test_a_revoked_certificate_opens_nothing() -> None:
    good, revoked = authority().issue_cert("good.test"), authority().issue_cert("revoked.test")
    serial = x509.load_pem_x509_certificate(revoked.cert_chain_pems[0].bytes()).serial_number
    strict = server_tls(
        "a",
        "a.example",
        client_ca=Pem(ca_pem().encode()),
        client_required=True,
        crl=revocations(serial),
    )
    async with place(strict) as it:
        known, gone = client(), client()
        good.configure_cert(known)
        revoked.configure_cert(gone)
        assert await it.shown("a.example", known) == "a.example"
        with pytest.raises(trio.BrokenResourceError):
            await it.shown("a.example", gone)


# --- exchange -------------------------------------------------------------------------------------


async def test_an_exchange_leaves_connections_alone_and_serves_new_ones() -> None:
    before = certificates(server_tls("a", "a.example", host="one.test"))
    async with place(made=before) as it:
        stream = await it.secured("a.example")
        after = certificates(server_tls("a", "a.example", host="two.test"), old=before)
        it.server.tls = after
        assert await it.shown("a.example") == "two.test"
        await stream.send_all(GET)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


def test_what_did_not_change_is_not_loaded_anew() -> None:
    wanted = server_tls("a", "a.example")
    before = certificates(wanted)
    renamed = replace(wanted, name="b", globs=("*.example",))
    after = certificates(renamed, server_tls("c", "c.example"), old=before)
    one, two = before.pick("a.example"), after.pick("a.example")
    assert one is not None
    assert two is not None
    assert two.context is one.context
    assert two.name == "b"


def test_a_broken_one_stays_as_it_was_and_harms_no_other() -> None:
    good = server_tls("a", "a.example", strict=False)
    before = certificates(good)
    broken = replace(good, key=server_tls("x", "x").key, globs=("a.example", "new.example"))
    never_good = replace(broken, name="n", globs=("n.example",))
    told: list[str] = []
    other = server_tls("b", "b.example")
    after = make_certificates([broken, never_good, other], None, before, told.append)
    was, kept = before.pick("a.example"), after.pick("new.example")
    assert was is not None
    assert kept is not None
    assert kept.context is was.context
    assert after.pick("b.example") is not None
    assert after.pick("n.example") is None
    mismatch = "its private key is not that of its certificate; give the pair"
    assert told == [f"a: {mismatch}", f"n: {mismatch}"]


def test_one_that_stays_broken_is_told_of_once_and_another_broken_one_in_its_place_again() -> None:
    good = server_tls("a", "a.example", strict=False)
    broken = replace(good, key=server_tls("x", "x").key)
    told: list[str] = []
    certificates = None
    for wanted, times in [(broken, 1), (broken, 1), (good, 1), (broken, 2)]:
        certificates = make_certificates([wanted], None, certificates, told.append)
        assert len(told) == times
    make_certificates([replace(good, key=Pem(b"none"))], None, certificates, told.append)
    assert len(told) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chain": b"-----BEGIN CERTIFICATE-----\nAAAA"}, "its certificate is no PEM certificate"),
        ({"key": b"-----BEGIN PRIVATE KEY-----\nAAAA"}, "its private key is no PEM key"),
        ({"key": b"-----BEGIN ENCRYPTED PRIVATE KEY-----"}, "its private key has a passphrase"),
        ({"client_ca": b"-----BEGIN CERTIFICATE-----\n%"}, "its CA is no PEM certificate"),
        ({"crl": b"-----BEGIN X509 CRL-----\n%"}, "its list of revoked certificates is no PEM CRL"),
    ],
)
def test_what_is_wrong_is_said_without_what_it_holds(change: dict[str, bytes], said: str) -> None:
    texts: dict[str, Any] = {key: Pem(text) for key, text in change.items()}
    wanted = replace(server_tls("Host a", "a.example"), **texts)
    with pytest.raises(ConfigError) as caught:
        certificates(wanted)
    (problem,) = caught.value.problems
    assert problem.startswith(f"Host a: {said}")
    assert "AAAA" not in problem


def test_ciphers_that_nobody_knows_are_refused() -> None:
    with pytest.raises(ConfigError, match="a: cipher_suites: OpenSSL knows none"):
        certificates(server_tls("a", "a", terms=TlsTerms(ciphers=("NOPE",))))


def test_a_key_never_shows_itself() -> None:
    tls = server_tls("a", "a.example")
    body = pair("a.example").key.splitlines()[1]
    for shown in (repr(tls), str(tls), f"{tls.key}", repr(vars(type(tls.key)))):
        assert body not in shown
    assert not [one for one in gc.get_referrers(tls.key) if isinstance(one, str)]


# --- towards a backend ----------------------------------------------------------------------------


async def test_a_backend_is_shown_our_certificate_and_verified_by_its_ca() -> None:
    wants = server_tls("a", "a.example", client_ca=Pem(ca_pem().encode()), client_required=True)
    mine, other = pair("client.example"), pair_of(stranger(), "client.example")
    good = UpstreamTls(
        ca=Pem(ca_pem().encode()), chain=Pem(mine.chain.encode()), key=Pem(mine.key.encode())
    )
    strange = replace(good, chain=Pem(other.chain.encode()), key=Pem(other.key.encode()))
    distrusting = replace(good, ca=Pem(stranger().cert_pem.bytes()))
    async with place(wants) as it:
        context = client_tls_context(good, UpstreamProtocol.HTTPS)
        assert await it.shown("a.example", context) == "a.example"
        for bad in (strange, distrusting, replace(good, chain=None)):
            with pytest.raises((trio.BrokenResourceError, ssl.SSLError)):
                await it.shown("a.example", client_tls_context(bad, UpstreamProtocol.HTTPS))


# --- ClientHello ----------------------------------------------------------------------------------


def hello(name: str | None) -> bytes:
    """What a real client begins with."""
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    talk = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        talk.do_handshake()
    return outgoing.read()


async def read_in_pieces(said: bytes, size: int) -> tuple[str, bytes]:
    here, there = trio.testing.memory_stream_pair()
    found: list[tuple[str, bytes]] = []

    async def read() -> None:
        found.append(await read_hello(there))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for at in range(0, len(said), size):
            await here.send_all(said[at : at + size])
            await trio.testing.wait_all_tasks_blocked()
        await here.aclose()
    return found[0]


@pytest.mark.parametrize("size", [1, 5, 100, 5000])
async def test_the_name_is_found_in_any_pieces(size: int) -> None:
    said = hello("Shop.Example")
    assert await read_in_pieces(said, size) == ("shop.example", said)


async def test_a_hello_without_a_name_and_what_is_none_have_no_name() -> None:
    for said in (
        hello(None),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"\x16" * 300,
        b"",
        b"\x80",
    ):
        name, read = await read_in_pieces(said, 64)
        assert name == ""
        assert said.startswith(read[: len(said)])


async def test_a_hello_over_several_records_is_one() -> None:
    said = hello("a.example")
    body = said[5:]
    records = b"".join(
        said[:3] + len(body[at : at + 50]).to_bytes(2) + body[at : at + 50]
        for at in range(0, len(body), 50)
    )
    assert (await read_in_pieces(records, 70))[0] == "a.example"


async def test_every_cut_and_every_changed_byte_is_survived() -> None:
    said = hello("a.example")
    for at in range(len(said)):
        broken = said[:at] + bytes([said[at] ^ 0xFF]) + said[at + 1 :]
        name, _ = await read_in_pieces(broken, LARGEST_HELLO)
        assert isinstance(name, str)


async def test_a_hello_without_end_is_not_read_without_end() -> None:
    endless = b"\x16\x03\x01\x3f\xff\x01\xff\xff\xff" + bytes(10 * LARGEST_HELLO)
    here, there = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send_all, endless)
        name, said = await read_hello(there)
        nursery.cancel_scope.cancel()
    assert name == ""
    assert len(said) <= 3 * LARGEST_HELLO
