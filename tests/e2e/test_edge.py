"""Hosts, Listeners and TLSContexts in the whole proxy: who is met where, and with which certificate."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.edge_clients import (
    ask,
    context,
    free_port,
    plainly,
    refuses,
    secured,
    securely,
)
from support.edge_files import (
    authority,
    ca_pem,
    document,
    mapping,
    pair,
    secret,
    stranger,
    tls_secret,
)
from support.grpc_backends import wait_until
from support.http_backends import EchoBackend, echo_backends
from support.proxy_process import ProxyProcess, command, running_proxy

pytestmark = pytest.mark.timeout(180)

ROUTED = "requestPolicy: {insecure: {action: Route}}\n"


@pytest.fixture(scope="module")
def backend() -> Iterator[EchoBackend]:
    with echo_backends() as [made]:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def to(backend: EchoBackend, name: str = "web", prefix: str = "/", more: str = "") -> str:
    return mapping(
        name, prefix, "web", f"rewrite: ''\nendpoints: ['127.0.0.1:{backend.port}']\n{more}"
    )


def host(name: str, hostname: str, more: str = "") -> str:
    return document("Host", name, f"hostname: '{hostname}'\ntlsSecret: {{name: {name}}}\n{more}")


def listener(name: str, port: int, protocol: str = "HTTPS", more: str = "") -> str:
    spec = f"port: {port}\nprotocol: {protocol}\nsecurityModel: XFP\n"
    return document("Listener", name, f"{spec}hostBinding: {{namespace: {{from: ALL}}}}\n{more}")


def reload(proxy: ProxyProcess, config: Path, text: str) -> None:
    count = sum(line.get("event") == "reloaded" for line in proxy.events)
    config.write_text(text)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for_event("reloaded", count + 1)


# --- Hosts ----------------------------------------------------------------------------------------


def test_two_hosts_have_two_certificates_and_each_its_way_with_cleartext(
    config: Path, backend: EchoBackend
) -> None:
    config.write_text(
        to(backend)
        + tls_secret("a", "a.example")
        + tls_secret("b", "b.example")
        + host("a", "a.example")
        + host("b", "*.b.example", "requestPolicy: {insecure: {action: Reject}}")
        + document("Host", "c", "hostname: c.example\n" + ROUTED)
    )
    with running_proxy(str(config)) as proxy:
        port = proxy.port
        assert securely(port, "a.example")[:3] == (200, "", "a.example")
        assert securely(port, "x.b.example")[:3] == (200, "", "b.example")
        place = "https://a.example/x?y=1"
        assert plainly(port, "a.example", "/x?y=1")[:2] == (301, place)
        assert plainly(port, "x.b.example")[:2] == (404, "")
        assert plainly(port, "c.example").status == 200
        assert plainly(port, "d.example").status == 404
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            securely(port, "c.example")
        lines = proxy.wait_for_access(6)
        redirected = next(line for line in lines if line["http_status"] == 301)
        assert redirected["authority"] == "a.example"


def test_a_selector_hides_other_mappings_from_its_host(config: Path, backend: EchoBackend) -> None:
    config.write_text(
        to(backend)
        + mapping(
            "shop",
            "/shop/",
            "web",
            f"endpoints: ['127.0.0.1:{backend.port}']",
            "labels: {team: shop}",
        )
        + document(
            "Host",
            "shop",
            "hostname: shop\nmappingSelector: {matchLabels: {team: shop}}\n" + ROUTED,
        )
        + document("Host", "all", ROUTED)
    )
    with running_proxy(str(config)) as proxy:
        assert plainly(proxy.port, "shop", "/shop/").status == 200
        assert plainly(proxy.port, "shop", "/").status == 404
        assert plainly(proxy.port, "other", "/").status == 200


def test_clients_without_a_certificate_find_no_way_in(
    config: Path, tmp_path: Path, backend: EchoBackend
) -> None:
    config.write_text(
        to(backend)
        + tls_secret("a", "a.example")
        + tls_secret("b", "b.example")
        + secret("ca", ca_crt=ca_pem())
        + document("TLSContext", "a-context", "ca_secret: ca\ncert_required: true\n")
        + host("a", "a.example")
        + host("b", "b.example")
    )
    known = context(pair("client.example"), tmp_path)
    with running_proxy(str(config)) as proxy:
        port = proxy.port
        assert securely(port, "a.example", by=known).status == 200
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            securely(port, "a.example")
        assert securely(port, "b.example").status == 200
        assert securely(port, "a.example", name="b.example").status == 421, "by the other's door"
        assert securely(port, "b.example", name="a.example", by=known).status == 200


def test_a_client_that_says_much_at_once_still_reads_that_a_certificate_is_required(
    config: Path, backend: EchoBackend
) -> None:
    asking = document("TLSContext", "a-context", "ca_secret: ca\ncert_required: true\n")
    config.write_text(
        to(backend)
        + tls_secret("a", "a.example")
        + secret("ca", ca_crt=ca_pem())
        + asking
        + host("a", "a.example")
    )
    with (
        running_proxy(str(config)) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as plain,
        context().wrap_socket(plain, server_hostname="a.example") as client,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        say_and_read(client, bytes(4_000_000))


def say_and_read(client: ssl.SSLSocket, data: bytes) -> None:
    """What was said may be lost: what was answered may not."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(data)
    client.recv(1)


def test_a_new_certificate_is_shown_to_new_connections_and_harms_no_old_one(
    config: Path, backend: EchoBackend
) -> None:
    rest = to(backend) + host("a", "a.example")
    config.write_text(rest + tls_secret("a", "one.example"))
    with running_proxy(str(config)) as proxy, secured(proxy.port, "a.example") as (old, shown):
        assert shown == "one.example"
        reload(proxy, config, rest + tls_secret("a", "two.example"))
        assert securely(proxy.port, "a.example").shown == "two.example"
        assert ask(old, "a.example", "/").status == 200
        found = pair("one.example")
        torn = secret("a", tls_crt=found.chain, tls_key=pair("x").key)
        config.write_text(rest + torn)
        proxy.signal(signal.SIGHUP)
        said = proxy.wait_for_event("reload_refused")["problem"]
        assert said == "Host a: its private key is not that of its certificate; give the pair"
        assert securely(proxy.port, "a.example").shown == "two.example"


def test_a_certificate_that_fits_no_key_prevents_the_start_and_fails_the_check(
    config: Path, backend: EchoBackend
) -> None:
    torn = secret("a", tls_crt=pair("a.example").chain, tls_key=pair("x").key)
    config.write_text(to(backend) + host("a", "a.example") + torn)
    for words in (("run", str(config), "--bind", "127.0.0.1:0"), ("check", str(config))):
        ended = subprocess.run(
            command(*words), check=False, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 2
        problem = "Host a: its private key is not that of its certificate; give the pair"
        assert problem in ended.stderr


def test_nothing_that_can_be_read_from_outside_has_a_key(
    config: Path, backend: EchoBackend
) -> None:
    config.write_text(
        to(backend, more="tls: up\n")
        + tls_secret("a", "a.example")
        + host("a", "a.example")
        + document("TLSContext", "up", "secret: a\nca_secret: ca\n")
        + secret("ca", ca_crt=ca_pem())
    )
    with running_proxy(str(config)) as proxy:
        pages = ["config_dump", "clusters?format=json", "listeners", "server_info", "metrics"]
        told = [fetch(proxy, page) for page in pages]
        securely(proxy.port, "a.example")
        told += [json.dumps(proxy.events), json.dumps(proxy.wait_for_access(1))]
    lines = [*pair("a.example").key.splitlines()[1:-1], *ca_pem().splitlines()[1:-1]]
    for text in told:
        assert "PRIVATE KEY" not in text
        assert not [line for line in lines if line in text]


def fetch(proxy: ProxyProcess, page: str) -> str:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{proxy.admin_port}/{page}", timeout=30
    ) as answer:
        text: str = answer.read().decode()
    return text


# --- Listeners ------------------------------------------------------------------------------------


def test_listeners_say_where_to_listen(config: Path, backend: EchoBackend) -> None:
    clear, either = free_port(), free_port()
    config.write_text(
        to(backend)
        + tls_secret("a", "a.example")
        + host("a", "a.example")
        + listener("clear", clear, "HTTP")
        + listener("either", either)
        + document(
            "Listener",
            "hop",
            f"port: {(hop := free_port())}\nprotocol: HTTP\nsecurityModel: XFP\nl7Depth: 1\n"
            "hostBinding: {namespace: {from: ALL}}",
        )
    )
    with running_proxy(str(config), binds=()) as proxy:
        proxy.wait_for_event("listening", 3)
        assert plainly(clear, "a.example").status == 301
        assert plainly(either, "a.example").status == 301
        assert securely(either, "a.example")[:3] == (200, "", "a.example")
        with pytest.raises((ssl.SSLError, OSError)):
            securely(clear, "a.example")
        assert forwarded(hop) == 200
        assert forwarded(clear) == 301, "nobody is believed there"
        told = {line["bind"] for line in proxy.events if line.get("event") == "listening"}
        assert told == {f"0.0.0.0:{port}" for port in (clear, either, hop)}
        assert f"0.0.0.0:{either}" in fetch(proxy, "listeners")


def forwarded(port: int) -> int:
    """What becomes of a request that a hop before us says to be secure."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(
            b"GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-proto: https\r\n"
            b"x-forwarded-for: 192.0.2.1\r\n\r\n"
        )
        return int(sock.recv(65_536).split()[1])


def test_listeners_come_and_go_and_drop_no_request(config: Path, backend: EchoBackend) -> None:
    first, second = free_port(), free_port()
    config.write_text(to(backend) + listener("one", first, "HTTP"))
    with running_proxy(str(config), binds=()) as proxy:
        proxy.wait_for_event("listening")
        with socket.create_connection(("127.0.0.1", first), timeout=30) as waiting:
            waiting.sendall(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
            wait_until(lambda: any("wait" in one["target"] for one in backend.requests), "asked")
            reload(proxy, config, to(backend) + listener("two", second, "HTTP"))
            proxy.wait_for_event("listening", 2)
            assert plainly(second, "a").status == 200
            wait_until(lambda: refuses(first), "the first port is closed")
            backend.release.set()
            assert waiting.recv(65_536).startswith(b"HTTP/1.1 200")
        assert proxy.wait_for_event("listening_ended")["bind"] == f"0.0.0.0:{first}"


def test_an_explicit_bind_is_served_beside_listeners(config: Path, backend: EchoBackend) -> None:
    port = free_port()
    config.write_text(to(backend) + listener("one", port, "HTTP"))
    with running_proxy(str(config)) as proxy:
        proxy.wait_for_event("listening", 2)
        assert plainly(proxy.port, "a").status == 200
        assert plainly(port, "a").status == 200
        reload(proxy, config, to(backend))
        wait_until(lambda: refuses(port), "closed with its Listener")
        assert plainly(proxy.port, "a").status == 200


def test_a_taken_port_is_the_trouble_of_its_listener_alone(
    config: Path, backend: EchoBackend
) -> None:
    good = free_port()
    with socket.create_server(("0.0.0.0", 0)) as other:
        taken = other.getsockname()[1]
        text = to(backend) + listener("good", good, "HTTP") + listener("bad", taken, "HTTP")
        config.write_text(text)
        with running_proxy(str(config), binds=()) as proxy:
            said = proxy.wait_for_event("listener_refused")["problem"]
            assert said.startswith(f"Listener bad: port 0.0.0.0:{taken}: address already in use")
            assert plainly(good, "a").status == 200
            other.close()
            reload(proxy, config, text)
            wait_until(lambda: not refuses(taken), "opened when it was free")
            assert plainly(taken, "a").status == 200


def test_no_port_at_all_prevents_the_start(config: Path, backend: EchoBackend) -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        config.write_text(to(backend) + listener("bad", other.getsockname()[1]))
        words = command("run", str(config), "--admin", "off")
        ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "Listener bad: port 0.0.0.0:" in ended.stderr


# --- towards backends -----------------------------------------------------------------------------


def guarded_backend(folder: Path) -> ssl.SSLContext:
    """It shows a certificate for `web` and wants one of ours."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    file = folder / "web.pem"
    file.write_text(pair("web").key + pair("web").chain)
    made.load_cert_chain(file)
    made.verify_mode = ssl.CERT_REQUIRED
    authority().configure_trust(made)
    return made


def test_a_tls_context_shows_a_certificate_and_verifies_the_backend(
    config: Path, tmp_path: Path
) -> None:
    stranger_ca = stranger().cert_pem.bytes().decode()
    with echo_backends(tls=guarded_backend(tmp_path)) as [made]:
        config.write_text(
            to(made, "good", "/good/", "tls: good\n")
            + to(made, "distrusting", "/distrusting/", "tls: distrusting\n")
            + to(made, "nameless", "/nameless/", "tls: nameless\n")
            + tls_secret("client", "client.example")
            + secret("ca", ca_crt=ca_pem())
            + secret("other", ca_crt=stranger_ca)
            + document("TLSContext", "good", "secret: client\nca_secret: ca\n")
            + document("TLSContext", "distrusting", "secret: client\nca_secret: other\n")
            + document("TLSContext", "nameless", "ca_secret: ca\n")
        )
        with running_proxy(str(config)) as proxy:
            assert plainly(proxy.port, "a", "/good/").status == 200
            assert plainly(proxy.port, "a", "/distrusting/").status == 503
            reason = proxy.wait_for_event("connect_failed")["reason"]
            assert "certificate verify failed for web" in reason
            assert "(by the CA of TLSContext distrusting)" in reason
            assert plainly(proxy.port, "a", "/nameless/").status == 503
