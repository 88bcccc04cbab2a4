"""When the machine does not play along: nobody reads what we write, and no file is left to open."""

from __future__ import annotations

import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stickyproxy.logs import QUEUE_LIMIT
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import raw_client
from support.proxy_process import ProxyProcess, running_proxy


@pytest.fixture(scope="module")
def web() -> Iterator[EchoBackend]:
    with echo_backends() as [backend]:
        yield backend


def get(port: int, path: str) -> str:
    with raw_client(port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        status, _, body = client.read_response()
        assert status == 200
        return body.decode()


def test_stuck_reader_of_our_output_costs_lines_and_nothing_else(web: EchoBackend) -> None:
    """Nobody reads stdout: the pipe is full after 64 KiB, our queue after `QUEUE_LIMIT`."""
    flags = ("--backend", f"http://{web.address}", "--drain-delay", "0")
    # Paths with much to escape make long lines of few requests.
    request = b"GET /" + b"%22" * 2_000 + b" HTTP/1.1\r\nhost: a\r\nuser-agent: " + b'"' * 4_000
    with running_proxy(*flags, stuck=True) as proxy, raw_client(proxy.port) as client:
        served = 0
        while not lost_lines(proxy):
            for _ in range(100):
                client.send(request + b"\r\n\r\n")
                assert client.read_response()[0] == 200
            served += 100
            assert served * 1_000 < 3 * QUEUE_LIMIT, "no line was lost of 8,000"
        assert get(proxy.port, "/")
        assert get(proxy.admin_port, "/ready") == "LIVE\n"
        proxy.signal(signal.SIGTERM)
        client.sock.close()
        assert proxy.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_costs_lines_and_it_says_so(web: EchoBackend, workers: str) -> None:
    flags = ("--backend", f"http://{web.address}", "--workers", workers)
    with Path("/dev/full").open("wb") as full, running_proxy(*flags, log=full) as proxy:
        for _ in range(20):
            assert get(proxy.port, "/")
        told = proxy.wait_for_event("access_log_lines_lost")
        assert "disk full" in told["hint"]
        proxy.wait_until(lambda: lost_lines(proxy) >= 20)
        assert get(proxy.port, "/")


def lost_lines(proxy: ProxyProcess) -> int:
    name = "stickyproxy_access_log_lines_lost_total"
    (value,) = re.findall(rf"^{name} (\S+)$", get(proxy.admin_port, "/metrics"), re.MULTILINE)
    return int(float(value))


def test_one_address_has_so_many_connections_and_others_have_theirs(web: EchoBackend) -> None:
    flags = ("--max-connections-per-address", "2", "--access-log", "off")
    with running_proxy("--backend", f"http://{web.address}", *flags) as proxy, ExitStack() as held:
        greedy = [held.enter_context(raw_client(proxy.port)) for _ in range(3)]
        assert greedy[2].read_to_end() == b""
        told = proxy.wait_for_event("connections_refused")
        assert told["setting"] == "max-connections-per-address"
        with socket.create_connection(
            ("127.0.0.1", proxy.port), 30, source_address=("127.0.0.2", 0)
        ) as other:
            other.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert other.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        greedy[0].sock.close()
        proxy.wait_until(lambda: answered(proxy))


def answered(proxy: ProxyProcess) -> bool:
    """Whether one more is let in: the proxy may not have noticed yet that another left."""
    with raw_client(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        try:
            return client.sock.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        except ConnectionResetError:
            return False


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_running_out_of_files_is_survived(web: EchoBackend) -> None:
    with running_proxy("--backend", f"http://{web.address}") as proxy, ExitStack() as held:
        assert get(proxy.port, "/")
        in_use = len(list(Path(f"/proc/{proxy.process.pid}/fd").iterdir()))
        limit = in_use + 10
        resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = [held.enter_context(raw_client(proxy.port)) for _ in range(40)]
        told = proxy.wait_for_event("accept_failed")
        assert "limit of open files" in told["hint"]
        for client in clients[:-1]:
            client.sock.close()
        clients[-1].send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert clients[-1].read_response()[0] == 200, "the one that waited longest in the queue"
        assert get(proxy.port, "/")
        assert len([line for line in proxy.events if line["event"] == "accept_failed"]) == 1
        clients[-1].sock.close()
        proxy.signal(signal.SIGINT)
        assert proxy.wait() == 0
