"""Who a client is: by PROXY headers of balancers that are trusted, and by certificates."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from support.edge_clients import context, free_port, secured
from support.edge_files import ca_pem, document, mapping, pair, secret, tls_secret
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import PATIENCE, RawClient
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy

TRUSTED, STRANGER = "127.0.0.9", "127.0.0.10"
V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(
    (203, 0, 113, 7, 198, 51, 100, 1, 18, 103, 1, 187)
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def web() -> Iterator[EchoBackend]:
    with echo_backends() as [backend]:
        yield backend


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def proxy(web: EchoBackend, authority: Authority) -> Iterator[ProxyProcess]:
    flags = ("--backend", f"http://{web.address}", "--proxy-protocol-from", f"{TRUSTED}/32")
    with running_proxy(*flags, *authority.proxy_flags, binds=["https://127.0.0.1:0"]) as running:
        yield running


def connect(port: int, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(address, 0))


def seen_by_backend(web: EchoBackend, client: RawClient) -> dict[str, Any]:
    web.requests.clear()
    client.send(GET)
    assert client.read_response()[0] == 200
    return dict(web.requests[-1]["headers"])


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_trusted_balancers_header_comes_before_tls(
    proxy: ProxyProcess, web: EchoBackend, authority: Authority, header: bytes
) -> None:
    with connect(proxy.port, TRUSTED) as plain:
        plain.sendall(header)
        by = authority.client_context()
        with by.wrap_socket(plain, server_hostname="localhost") as sock:
            seen = seen_by_backend(web, RawClient(sock))
            assert seen["x-forwarded-for"] == "203.0.113.7"
            line = proxy.wait_for_access(1)[-1]
            assert "203.0.113.7" in str(line)


def test_a_stranger_cannot_say_who_it_is(proxy: ProxyProcess, authority: Authority) -> None:
    with connect(proxy.port, STRANGER) as plain:
        plain.sendall(V1)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            authority.client_context().wrap_socket(plain, server_hostname="localhost")


def test_a_stranger_is_served_as_itself(
    proxy: ProxyProcess, web: EchoBackend, authority: Authority
) -> None:
    with connect(proxy.port, STRANGER) as plain:
        by = authority.client_context()
        with by.wrap_socket(plain, server_hostname="localhost") as sock:
            assert seen_by_backend(web, RawClient(sock))["x-forwarded-for"] == STRANGER


def test_a_trusted_balancer_that_leaves_its_header_out_is_not_served(proxy: ProxyProcess) -> None:
    with connect(proxy.port, TRUSTED) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            assert plain.recv(100) == b""
        except ConnectionResetError:
            return


# --- ports that say so ---


def listener(port: int, how: str) -> str:
    rest = "securityModel: INSECURE\nhostBinding: {namespace: {from: ALL}}\n"
    return document("Listener", f"l{port}", f"port: {port}\n{how}\n{rest}")


def seen_from(web: EchoBackend, port: int, header: bytes) -> str:
    """The client's address as the backend was told it; "" if the request was not served."""
    web.requests.clear()
    with connect(port, TRUSTED) as plain:
        plain.sendall(header + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionResetError):
            while plain.recv(65_536):
                pass
    return dict(web.requests[-1]["headers"])["x-forwarded-for"] if web.requests else ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_listener_with_proxy_believes_balancers_nearby_and_one_without_does_not(
    web: EchoBackend, tmp_path: Path, workers: str
) -> None:
    ports = [free_port() for _ in range(3)]
    hows = ("protocolStack: [PROXY, HTTP, TCP]", "protocol: HTTPPROXY", "protocol: HTTP")
    config = tmp_path / "edge.yaml"
    config.write_text(
        "".join(listener(port, how) for port, how in zip(ports, hows, strict=True))
        + mapping("m", "/", f"http://{web.address}")
    )
    with running_proxy(str(config), "--workers", workers, binds=()) as proxy:
        proxy.wait_for_event("listening", 3)
        assert [seen_from(web, port, V2) for port in ports] == ["203.0.113.7", "203.0.113.7", ""]
        assert [seen_from(web, port, b"") for port in ports] == ["", "", TRUSTED]


def test_who_is_named_is_believed_and_nearby_others_are_not(
    web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    config = tmp_path / "edge.yaml"
    how = "protocolStack: [PROXY, HTTP, TCP]"
    config.write_text(listener(port, how) + mapping("m", "/", f"http://{web.address}"))
    flags = ("--proxy-protocol-from", "192.0.2.0/24")
    with running_proxy(str(config), *flags, binds=()):
        assert seen_from(web, port, V1) == ""
        assert seen_from(web, port, b"") == TRUSTED


def test_a_module_that_uses_the_proxy_protocol_has_it_on_every_port(
    web: EchoBackend, tmp_path: Path
) -> None:
    config = tmp_path / "module.yaml"
    config.write_text(
        "---\napiVersion: getambassador.io/v3alpha1\nkind: Module\nmetadata: {name: ambassador}\n"
        "spec: {config: {use_proxy_proto: true}}\n" + mapping("m", "/", f"http://{web.address}")
    )
    with running_proxy(str(config)) as proxy:
        assert seen_from(web, proxy.port, V1) == "203.0.113.7"
        assert seen_from(web, proxy.port, b"") == ""


# --- certificates of clients ---


MODULE = (
    "---\napiVersion: getambassador.io/v3alpha1\nkind: Module\nmetadata: {name: ambassador}\n"
    "spec:\n  config:\n    forward_client_cert_details: SANITIZE_SET\n"
    "    set_current_client_cert_details: {subject: true, dns: true}\n"
)


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "not asked for"])
def test_a_client_certificate_is_told_to_the_backend_when_asked_for(
    web: EchoBackend, tmp_path: Path, asked: bool
) -> None:
    port = free_port()
    config = tmp_path / "edge.yaml"
    config.write_text(
        tls_secret("a", "a.test")
        + secret("ca", ca_crt=ca_pem())
        + document("TLSContext", "a-context", "ca_secret: ca\n")
        + document(
            "Host", "a", "hostname: a.test\ntlsSecret: {name: a}\ntlsContext: {name: a-context}\n"
        )
        + document(
            "Listener",
            "l",
            f"port: {port}\nprotocol: HTTPS\nsecurityModel: XFP\n"
            "hostBinding: {namespace: {from: ALL}}\n",
        )
        + mapping("m", "/", f"http://{web.address}")
        + (MODULE if asked else "")
    )
    with ExitStack() as stack:
        stack.enter_context(running_proxy(str(config), binds=()))
        forged = b"X-Forwarded-Client-Cert: Hash=0\r\n"
        for mine in (pair("client.test"), None):
            by = context(mine, tmp_path)
            with secured(port, "a.test", by) as (client, _):
                web.requests.clear()
                client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n" + forged + b"\r\n")
                assert client.read_response()[0] == 200
            said = dict(web.requests[-1]["headers"]).get("x-forwarded-client-cert")
            if asked and mine is not None:
                assert said is not None
                assert said.startswith("Hash=")
                assert said.endswith(";DNS=client.test")
                assert "Subject=" in said
            else:
                assert said is None
