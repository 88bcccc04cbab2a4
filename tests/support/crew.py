"""A proxy with several worker processes, and what tests ask of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from support.grpc_backends import wait_until
from support.http_clients import RawClient, raw_client
from support.proxy_process import ProxyProcess, running_proxy


def admin(proxy: ProxyProcess, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.admin_port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def workers(proxy: ProxyProcess) -> list[dict[str, Any]]:
    """Of `/server_info`; those that are being replaced are not among them."""
    found: list[dict[str, Any]] = json.loads(admin(proxy, "/server_info"))["workers"]
    return found


def pids(proxy: ProxyProcess) -> dict[int, int]:
    """By the worker's number."""
    return {one["worker"]: one["pid"] for one in workers(proxy)}


def has(proxy: ProxyProcess, connections: Sequence[int]) -> bool:
    """Whether the workers have so many connections, in their order."""
    return [one["connections"] for one in workers(proxy)] == list(connections)


def wait_whole(proxy: ProxyProcess, count: int = 2) -> None:
    """Until all workers serve again."""

    def whole() -> bool:
        return [one["state"] for one in workers(proxy)] == ["LIVE"] * count

    wait_until(whole, "all workers serve")


def total(proxy: ProxyProcess, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    text = admin(proxy, "/metrics")
    found = 0.0
    for given, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
        if all(f'{key}="{wanted}"' in given for key, wanted in labels.items()):
            found += float(value)
    return found


@contextmanager
def connections(proxy: ProxyProcess, count: int) -> Iterator[list[RawClient]]:
    """Open, one after the other, and known to be served."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(raw_client(proxy.port))
            assert get(client)[0] == 200
            clients.append(client)
        yield clients


def get(
    client: RawClient, path: str = "/", headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Status, and what the backend saw."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    client.send(f"GET {path} HTTP/1.1\r\nhost: a\r\n{lines}\r\n".encode())
    status, _, body = client.read_response()
    return status, json.loads(body) if body.startswith(b"{") else None


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running_crew(*arguments: str, count: int = 2) -> Iterator[ProxyProcess]:
    with running_proxy("--workers", str(count), *arguments) as proxy:
        try:
            yield proxy
        finally:
            if proxy.process.poll() is None:
                left = pids(proxy).values()
                proxy.process.kill()
                for pid in left:  # they would end by themselves, after their drain
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
