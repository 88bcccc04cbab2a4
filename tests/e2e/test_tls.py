"""TLS on both sides, with real certificates: what is negotiated, what is verified, what is told."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.http_backends import EchoBackend, body_of, echo_backends
from support.http_clients import PATIENCE, RawClient, h2_request, raw_client, raw_h2_client
from support.http_lab import Authority, Lab
from support.proxy_process import ProxyProcess, running_proxy


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ours"), "127.0.0.1", "localhost", "qotm.test")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("strange"))


@contextmanager
def secured(lab: Lab, *alpn: str) -> Iterator[ssl.SSLSocket]:
    context = lab.authority.client_context(*alpn)
    with (
        socket.create_connection(("127.0.0.1", lab.secure.port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock,
    ):
        yield sock


# --- towards clients --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["spdy/3"], None),
        ([], None),
    ],
)
def test_alpn_prefers_h2(http_lab: Lab, offered: list[str], chosen: str | None) -> None:
    with secured(http_lab, *offered) as sock:
        assert sock.selected_alpn_protocol() == chosen
        assert sock.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]
)
def test_tls_1_2_has_suites_that_keep_the_past_secret(http_lab: Lab, suite: str) -> None:
    assert agreed_suite(http_lab, suite) in (suite, suite.replace("ECDSA", "RSA"))


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "AES256-SHA"])
def test_suites_that_http2_forbids_are_not_there(http_lab: Lab, suite: str) -> None:
    """RFC 9113 Appendix A: without forward secrecy, or not AEAD."""
    with pytest.raises(ssl.SSLError):
        agreed_suite(http_lab, suite)


def agreed_suite(lab: Lab, suite: str) -> str:
    context = lab.authority.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suite}:{suite.replace('ECDSA', 'RSA')}")
    with (
        socket.create_connection(("127.0.0.1", lab.secure.port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        found = sock.cipher()
        assert found is not None
        return found[0]


def test_tls_1_1_is_refused(http_lab: Lab) -> None:
    context = lab_context_of_1_1(http_lab)
    with (
        socket.create_connection(("127.0.0.1", http_lab.secure.port), timeout=PATIENCE) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def lab_context_of_1_1(lab: Lab) -> ssl.SSLContext:
    context = lab.authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own opinion of it
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.parametrize("offered", [[], ["http/1.1"], ["spdy/3"]])
def test_without_h2_by_alpn_it_is_http1(http_lab: Lab, offered: list[str]) -> None:
    with secured(http_lab, *offered) as sock:
        client = RawClient(sock)
        client.send(b"GET /http/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response()[0] == 200


def test_a_body_without_a_length_ends_with_close_notify(http_lab: Lab) -> None:
    """Without it nobody could tell the end from a cut (RFC 9112 §9.8): OpenSSL makes it an error."""
    with secured(http_lab) as sock:
        client = RawClient(sock)
        client.send(b"GET /http/bytes?size=90000&chunked=1 HTTP/1.0\r\nHost: a\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        assert client.read_to_end() == body_of(90_000)


def test_what_is_no_tls_hurts_nobody(http_lab: Lab) -> None:
    with raw_client(http_lab.secure.port) as silent, raw_client(http_lab.secure.port) as plain:
        plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" not in plain.read_to_end()
        silent.send(b"\x16\x03\x01")  # the beginning of a ClientHello, and never its end
        with secured(http_lab) as sock:
            client = RawClient(sock)
            client.send(b"GET /http/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response()[0] == 200


def test_tls_on_the_cleartext_port_hurts_nobody(http_lab: Lab) -> None:
    address = ("127.0.0.1", http_lab.clear.port)
    with socket.create_connection(address, timeout=PATIENCE) as plain, pytest.raises(ssl.SSLError):
        http_lab.authority.client_context().wrap_socket(plain, server_hostname="localhost")
    with raw_h2_client(http_lab.clear.port) as client:
        client.request(1, h2_request(b"/http/"))
        assert client.response(1)[0][b":status"] == b"200"


# --- towards backends -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure_backend(ours: Authority) -> Iterator[EchoBackend]:
    with echo_backends(tls=ours.server_context("http/1.1")) as [backend]:
        yield backend


def get(proxy: ProxyProcess) -> tuple[int, dict[str, str], bytes]:
    with raw_client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return client.read_response()


def test_an_unknown_authority_is_refused_and_both_ways_out_are_named(
    secure_backend: EchoBackend, strange: Authority
) -> None:
    backend = f"https://{secure_backend.address}"
    with running_proxy("--backend", backend, "--backend-ca", str(strange.ca_file)) as proxy:
        status, _, body = get(proxy)
        reason = proxy.wait_for_event("connect_failed")["reason"]
    assert status == 503
    for told in (body.decode(), reason):
        assert "certificate verify failed" in told
        assert "--backend-ca" in told
        assert "--backend-insecure" in told


def test_the_systems_authorities_hold_where_no_other_is_named(secure_backend: EchoBackend) -> None:
    with running_proxy("--backend", f"https://{secure_backend.address}") as proxy:
        assert get(proxy)[0] == 503


@pytest.mark.parametrize("insecure", [False, True])
def test_either_way_out_works(
    secure_backend: EchoBackend, ours: Authority, *, insecure: bool
) -> None:
    way_out = ["--backend-insecure"] if insecure else ["--backend-ca", str(ours.ca_file)]
    with running_proxy("--backend", f"https://{secure_backend.address}", *way_out) as proxy:
        assert get(proxy)[0] == 200


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    other = Authority.make(tmp_path, "other.test")
    with (
        echo_backends(tls=other.server_context()) as [backend],
        running_proxy(
            *("--backend", f"https://{backend.address}", "--backend-ca", str(other.ca_file))
        ) as proxy,
    ):
        status, _, body = get(proxy)
    assert status == 503
    assert b"127.0.0.1" in body


def test_each_backend_is_verified_by_its_own_name(tmp_path: Path) -> None:
    """Two names, two certificates: what is asked of one must not be asked of the other."""
    first = Authority.make(tmp_path / "a", "127.0.0.1")
    second = Authority.make(tmp_path / "b", "localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(first.ca_file.read_bytes() + second.ca_file.read_bytes())
    with (
        echo_backends(tls=first.server_context()) as [one],
        echo_backends(tls=second.server_context()) as [two],
        running_proxy(
            *("--backend", f"https://127.0.0.1:{one.port}"),
            *("--backend", f"https://localhost:{two.port}"),
            *("--backend-ca", str(both)),
        ) as proxy,
    ):
        assert [get(proxy)[0] for _ in range(4)] == [200] * 4
        assert (len(one.requests), len(two.requests)) == (2, 2)


def test_a_service_is_verified_by_its_name_wherever_it_lives(
    tmp_path: Path, ours: Authority
) -> None:
    asked: list[str | None] = []
    context = ours.server_context("http/1.1")
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    config = tmp_path / "m.yaml"
    config.write_text(
        "apiVersion: ambassador/v1\nkind: Mapping\nname: q\nprefix: /\n"
        "service: https://qotm.test:8443\n"
    )
    with (
        echo_backends(tls=context) as [backend],
        running_proxy(
            str(config),
            *("--service", f"qotm.test={backend.address}", "--backend-ca", str(ours.ca_file)),
        ) as proxy,
    ):
        assert get(proxy)[0] == 200
    assert asked == ["qotm.test"]


def test_a_backend_without_h2_is_named_as_such(
    secure_backend: EchoBackend, ours: Authority
) -> None:
    backend = f"h2://{secure_backend.address}"
    with running_proxy("--backend", backend, "--backend-ca", str(ours.ca_file)) as proxy:
        status, _, body = get(proxy)
    assert status == 503
    assert b"ALPN" in body
    assert b"https://" in body


@pytest.mark.parametrize("scheme", ["https", "h2"])
def test_a_backend_without_tls_is_named_as_such(scheme: str) -> None:
    with (
        echo_backends() as [backend],
        running_proxy("--backend", f"{scheme}://{backend.address}") as proxy,
    ):
        status, _, body = get(proxy)
    assert status == 503
    assert b"does not speak TLS" in body


@pytest.mark.parametrize("scheme", ["h2c", ""])
def test_a_backend_taken_for_h2_is_named_once(scheme: str) -> None:
    with echo_backends() as [backend]:
        url = f"{scheme}://{backend.address}" if scheme else backend.address
        with running_proxy("--backend", url) as proxy:
            told = [get(proxy) for _ in range(3)]
            proxy.wait_for_access(3)
            proxy.wait_for_event("backend_speaks_http1")
            hints = [e for e in proxy.events if e["event"] == "backend_speaks_http1"]
    assert {status for status, _, _ in told} == {503}
    assert len(hints) == 1
    assert f"http://{backend.address}" in hints[0]["hint"]
