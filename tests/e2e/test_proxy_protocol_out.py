"""PROXY headers out, to servers that are not ours: HAProxy and nginx, which refuse a connection without."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.edge_clients import free_port
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import PATIENCE, RawClient
from support.http_lab import Authority
from support.proxy_process import ProxyProcess, running_proxy

HAPROXY, NGINX = shutil.which("haproxy"), shutil.which("nginx")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CLIENTS = ("127.0.0.21", "127.0.0.22")


@contextmanager
def running(*command: str, port: int) -> Iterator[None]:
    """A server, once it listens."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                probe.settimeout(0.1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "it did not start"
        yield
    finally:
        process.terminate()
        process.wait(10)


def haproxy(folder: Path, port: int, web: EchoBackend, more: str) -> tuple[str, ...]:
    config = folder / "haproxy.cfg"
    config.write_text(f"""
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen told
  bind 127.0.0.1:{port} accept-proxy {more}
  http-request set-header x-told %[src]:%[src_port],%[dst]:%[dst_port]
  server web {web.address}
""")
    return HAPROXY or "", "-db", "-q", "-f", str(config)


def nginx(folder: Path, port: int, web: EchoBackend) -> tuple[str, ...]:
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port} proxy_protocol;
    location / {{
      set $from $proxy_protocol_addr:$proxy_protocol_port;
      set $to $proxy_protocol_server_addr:$proxy_protocol_server_port;
      proxy_set_header x-told $from,$to;
      proxy_pass http://{web.address};
    }}
  }}
}}
""")
    return NGINX or "", "-p", str(folder), "-c", str(config)


def ask_as(proxy: ProxyProcess, web: EchoBackend, address: str) -> list[tuple[str, str]]:
    """Three requests on one connection: who it was told to be, and who it is."""
    found = []
    place = ("127.0.0.1", proxy.port)
    with socket.create_connection(place, PATIENCE, source_address=(address, 0)) as sock:
        client = RawClient(sock)
        own = ":".join(map(str, sock.getsockname()))
        for _ in range(3):
            web.requests.clear()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response()[0] == 200
            told = dict(web.requests[-1]["headers"])["x-told"]
            found.append((told, f"{own},127.0.0.1:{proxy.port}"))
    return found


def check(url: str, web: EchoBackend, *flags: str) -> None:
    with running_proxy("--backend", url, "--backend-proxy-protocol", "v2", *flags) as proxy:
        for address in (*CLIENTS, *CLIENTS):
            for told, truth in ask_as(proxy, web, address):
                assert told == truth


@pytest.fixture(scope="module")
def web() -> Iterator[EchoBackend]:
    with echo_backends() as [backend]:
        yield backend


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@needs_haproxy
@pytest.mark.parametrize("protocol", ["http", "h2c"])
def test_haproxy_knows_the_client_of_each_request(
    tmp_path: Path, web: EchoBackend, protocol: str
) -> None:
    port = free_port()
    more = "proto h2" if protocol == "h2c" else ""
    with running(*haproxy(tmp_path, port, web, more), port=port):
        check(f"{protocol}://127.0.0.1:{port}", web)


@needs_haproxy
@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_the_header_comes_before_tls(
    tmp_path: Path, web: EchoBackend, authority: Authority, alpn: str
) -> None:
    port = free_port()
    both = tmp_path / "both.pem"
    both.write_bytes(authority.cert_file.read_bytes() + authority.key_file.read_bytes())
    with running(*haproxy(tmp_path, port, web, f"ssl crt {both} alpn {alpn}"), port=port):
        scheme = "h2" if alpn == "h2" else "https"
        check(f"{scheme}://localhost:{port}", web, "--backend-ca", str(authority.ca_file))


@needs_nginx
def test_nginx_knows_the_client_of_each_request(tmp_path: Path, web: EchoBackend) -> None:
    port = free_port()
    with running(*nginx(tmp_path, port, web), port=port):
        check(f"http://127.0.0.1:{port}", web)


@needs_haproxy
def test_without_the_header_haproxy_refuses(tmp_path: Path, web: EchoBackend) -> None:
    """So the claims above can fail."""
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(running(*haproxy(tmp_path, port, web, ""), port=port))
        proxy = stack.enter_context(running_proxy("--backend", f"http://127.0.0.1:{port}"))
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as sock:
            client = RawClient(sock)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response()[0] != 200


@needs_haproxy
def test_what_a_balancer_before_us_said_goes_on(tmp_path: Path, web: EchoBackend) -> None:
    port = free_port()
    flags = ("--backend-proxy-protocol", "v2", "--proxy-protocol-from", CLIENTS[0])
    with ExitStack() as stack:
        stack.enter_context(running(*haproxy(tmp_path, port, web, ""), port=port))
        url = f"http://127.0.0.1:{port}"
        proxy = stack.enter_context(running_proxy("--backend", url, *flags))
        place = ("127.0.0.1", proxy.port)
        with socket.create_connection(place, PATIENCE, source_address=(CLIENTS[0], 0)) as sock:
            client = RawClient(sock)
            client.send(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n")
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response()[0] == 200
    told = dict(web.requests[-1]["headers"])["x-told"]
    assert told == "203.0.113.7:4711,198.51.100.1:443"
