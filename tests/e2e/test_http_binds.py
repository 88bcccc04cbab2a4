"""Where the proxy listens: each kind of bind, several at once, and what each of them speaks."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.http_backends import echo_backends
from support.http_clients import curl, needs_curl
from support.http_lab import Authority
from support.proxy_process import running_proxy


@needs_curl
def test_several_binds_serve_each_in_its_way(tmp_path: Path) -> None:
    ours = Authority.make(tmp_path / "authority", "localhost")
    path = tmp_path / "p.sock"
    binds = ["https://127.0.0.1:0", "h2c://127.0.0.1:0", f"unix:{path}", "127.0.0.1:0"]
    with (
        echo_backends() as [backend],
        running_proxy(
            "--backend", f"http://{backend.address}", *ours.proxy_flags, binds=binds
        ) as proxy,
    ):
        ca = ("--cacert", str(ours.ca_file))
        https, h2c, _, bare = proxy.ports
        for port in (https, bare):  # a key pair makes a bind without a scheme speak TLS
            assert curl(f"https://localhost:{port}/", *ca).version == "HTTP/2"
        assert curl(f"http://localhost:{h2c}/", "--http2-prior-knowledge").status == 200
        assert curl(f"http://localhost:{h2c}/", "--http1.1").exit_code != 0
        for flag in ("--http1.1", "--http2-prior-knowledge"):
            assert curl("http://a/", "--unix-socket", str(path), flag).status == 200


@needs_curl
def test_a_listening_socket_can_be_inherited() -> None:
    with echo_backends() as [backend], socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        number = listener.fileno()
        with running_proxy(
            *("--backend", f"http://{backend.address}"),
            binds=[f"fd://{number}"],
            pass_fds=[number],
        ):
            assert curl(f"http://127.0.0.1:{port}/", "--http1.1").status == 200
            assert curl(f"http://127.0.0.1:{port}/", "--http2-prior-knowledge").status == 200


@needs_curl
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_and_a_name_with_both_families() -> None:
    with echo_backends() as [backend]:
        flags = ("--backend", f"http://localhost:{backend.port}")
        with running_proxy(*flags, binds=["[::1]:0"]) as proxy:
            answer = curl(f"http://[::1]:{proxy.port}/", "--http1.1")
            assert answer.status == 200
            assert dict(answer.json()["headers"])["x-forwarded-for"] == "::1"


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    bind = f"unix:{path}"
    with (
        running_proxy("--backend", "http://127.0.0.1:9", binds=[bind]),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(path))
