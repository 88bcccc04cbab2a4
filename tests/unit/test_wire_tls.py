"""TLS on both sides: what is agreed on, what is verified, and the words for what is not."""

from __future__ import annotations

import shutil
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from stickyproxy.errors import ConfigError, ErrorKind, ProxyError, Retry
from stickyproxy.model import Bind, Endpoint, UpstreamProtocol, UpstreamTls
from stickyproxy.wire.sockets import connect, listen, peer_of, server_tls_context
from stickyproxy.wire.tls import client_tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


class Files:
    """A CA and a certificate for `backend.test` and 127.0.0.1, as people have them."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("backend.test", "127.0.0.1")
        self.ca = str(folder / "ca.pem")
        self.cert = str(folder / "cert.pem")
        self.key = str(folder / "key.pem")
        authority.cert_pem.write_to_path(self.ca)
        leaf.private_key_pem.write_to_path(self.key)
        for at, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(self.cert, append=at > 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


async def serve_tls(context: ssl.SSLContext, stream: trio.SocketStream) -> None:
    secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    try:
        await secured.do_handshake()
        told = str(secured.selected_alpn_protocol()).encode()
        await secured.send_all(told + b" tls")
        await secured.receive_some()
    except (trio.BrokenResourceError, ssl.SSLError):
        pass
    finally:
        stream.socket.close()


async def serve_garbage(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await stream.aclose()


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.aclose()


@asynccontextmanager
async def backend(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[Endpoint]:
    (listener,) = await listen(Bind("tcp", host="127.0.0.1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        yield Endpoint(f"127.0.0.1:{port}", (("127.0.0.1", port),))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("protocol", "spoken"), [(UpstreamProtocol.H2, "h2"), (UpstreamProtocol.HTTPS, "http/1.1")]
)
async def test_both_sides_agree_on_the_protocol_of_the_scheme(
    files: Files, protocol: UpstreamProtocol, spoken: str
) -> None:
    context = server_tls_context(files.cert, files.key)
    async with backend(partial(serve_tls, context)) as where:
        tls = UpstreamTls(ca_file=files.ca)
        stream, negotiated = await connect(where, protocol, timeout=5, tls=tls, host="backend.test")
        assert negotiated == spoken
        assert await stream.receive_some() == spoken.encode() + b" tls"
        assert peer_of(stream).tls
        await trio.aclose_forcefully(stream)


async def failure(
    where: Endpoint, tls: UpstreamTls | None, protocol: UpstreamProtocol, host: str = ""
) -> str:
    with pytest.raises(ProxyError) as caught:
        await connect(where, protocol, timeout=5, tls=tls, host=host)
    assert caught.value.kind is ErrorKind.CONNECT_FAILED
    assert caught.value.retry is Retry.NEXT_ENDPOINT
    assert caught.value.detail.startswith(f"backend {where.key}: ")
    return caught.value.detail


async def test_an_unknown_ca_is_refused_with_both_ways_out(files: Files) -> None:
    context = server_tls_context(files.cert, files.key)
    async with backend(partial(serve_tls, context)) as where:
        detail = await failure(where, None, UpstreamProtocol.H2)
    assert "certificate verify failed" in detail
    assert "--backend-ca" in detail
    assert "--backend-insecure" in detail


async def test_a_certificate_for_another_name_is_refused_unless_that_name_is_asked_for(
    files: Files,
) -> None:
    context = server_tls_context(files.cert, files.key)
    known = UpstreamTls(ca_file=files.ca)
    renamed = UpstreamTls(ca_file=files.ca, server_name="backend.test")
    async with backend(partial(serve_tls, context)) as where:
        assert "other.test" in await failure(where, known, UpstreamProtocol.H2, "other.test")
        stream, _ = await connect(
            where, UpstreamProtocol.H2, timeout=5, tls=renamed, host="other.test"
        )
        await trio.aclose_forcefully(stream)


async def test_without_a_host_the_address_itself_is_verified(files: Files) -> None:
    context = server_tls_context(files.cert, files.key)
    async with backend(partial(serve_tls, context)) as where:
        tls = UpstreamTls(ca_file=files.ca)
        stream, _ = await connect(where, UpstreamProtocol.H2, timeout=5, tls=tls)
        await trio.aclose_forcefully(stream)


async def test_insecure_asks_for_nothing(files: Files) -> None:
    context = server_tls_context(files.cert, files.key)
    async with backend(partial(serve_tls, context)) as where:
        tls = UpstreamTls(verify=False)
        stream, _ = await connect(where, UpstreamProtocol.H2, timeout=5, tls=tls, host="any.test")
        await trio.aclose_forcefully(stream)


async def test_a_backend_without_h2_is_told_by_alpn(files: Files) -> None:
    context = server_tls_context(files.cert, files.key)
    context.set_alpn_protocols(["http/1.1"])
    async with backend(partial(serve_tls, context)) as where:
        tls = UpstreamTls(ca_file=files.ca)
        detail = await failure(where, tls, UpstreamProtocol.H2)
    assert "did not negotiate h2 by ALPN" in detail


async def test_a_backend_without_alpn_speaks_http_1(files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    async with backend(partial(serve_tls, context)) as where:
        tls = UpstreamTls(ca_file=files.ca)
        stream, negotiated = await connect(where, UpstreamProtocol.HTTPS, timeout=5, tls=tls)
        assert negotiated == "http/1.1"
        await trio.aclose_forcefully(stream)


async def test_a_backend_that_speaks_no_tls_is_told_as_such() -> None:
    async with backend(serve_garbage) as where:
        assert "does not speak TLS" in await failure(where, None, UpstreamProtocol.HTTPS)


async def test_a_backend_that_hangs_up_in_the_handshake_is_told_as_such() -> None:
    async with backend(hang_up) as where:
        detail = await failure(where, None, UpstreamProtocol.H2)
    assert "TLS handshake failed" in detail
    assert "closed the connection" in detail


async def test_a_missing_ca_file_is_a_failed_connect_that_names_it() -> None:
    async with backend(hang_up) as where:
        detail = await failure(where, UpstreamTls(ca_file="/no/ca.pem"), UpstreamProtocol.H2)
    assert "/no/ca.pem" in detail


def test_a_changed_ca_file_is_read_again(files: Files, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    tls = UpstreamTls(ca_file=str(ca))
    ca.write_text("nothing yet")
    with pytest.raises(ConfigError):
        client_tls_context(tls, UpstreamProtocol.H2)
    ca.unlink()
    shutil.copy(files.ca, ca)
    context = client_tls_context(tls, UpstreamProtocol.H2)
    assert context.cert_store_stats()["x509_ca"] == 1
    assert client_tls_context(tls, UpstreamProtocol.H2) is context
    assert client_tls_context(tls, UpstreamProtocol.HTTPS) is not context


def test_both_sides_refuse_old_tls(files: Files) -> None:
    server = server_tls_context(files.cert, files.key)
    client = client_tls_context(UpstreamTls(), UpstreamProtocol.H2)
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2


def test_neither_side_renegotiates(files: Files) -> None:
    """RFC 9113 §9.2.1; towards a backend it would have us read before we may write."""
    server = server_tls_context(files.cert, files.key)
    client = client_tls_context(UpstreamTls(), UpstreamProtocol.HTTPS)
    assert server.options & client.options & ssl.OP_NO_RENEGOTIATION


def complaint(cert: str, key: str) -> str:
    with pytest.raises(ConfigError) as caught:
        server_tls_context(cert, key)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


def test_a_missing_file_is_named(files: Files) -> None:
    assert "--tls-cert /no/c.pem: no such file" in complaint("/no/c.pem", files.key)
    assert "--tls-key /no/k.pem: no such file" in complaint(files.cert, "/no/k.pem")


def test_swapped_files_are_told_apart(files: Files) -> None:
    assert f"--tls-cert {files.key}: no CERTIFICATE" in complaint(files.key, files.cert)


def test_a_foreign_key_is_told(files: Files, tmp_path: Path) -> None:
    foreign = Files(tmp_path)
    line = complaint(files.cert, foreign.key)
    assert f"--tls-key {foreign.key}: it is not the key of" in line


@pytest.mark.parametrize("label", ["CERTIFICATE", "PRIVATE KEY"])
def test_a_damaged_pem_is_laid_at_the_right_door(files: Files, tmp_path: Path, label: str) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text(f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    if label == "CERTIFICATE":
        assert f"--tls-cert {damaged}: its PEM text" in complaint(str(damaged), files.key)
    else:
        assert f"--tls-key {damaged}: its PEM text" in complaint(files.cert, str(damaged))


def test_a_key_with_a_passphrase_asks_no_terminal(files: Files, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    locked.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    assert "passphrase" in complaint(files.cert, str(locked))
