"""grpc's negative HTTP/2 cases with grpcio: a backend that misbehaves is no worse through us than directly.

`./dev conformance negative` has the same with the official client, and its resets and its GOAWAY, which the
fidelity matrix has here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import grpc
import pytest

from conformance.negative.server import CASES, LARGE, Server, behaving
from support.http_lab import mappings
from support.proxy_process import running_proxy

SERVED = {case: how for case, how in CASES.items() if how.pings or how.limit == 1}
AT_ONCE = 15  # calls, as in the official client
PATIENCE = 30.0  # seconds a call
BODY = b"x" * 271_828  # as large as the official request


class Proxied(NamedTuple):
    """A proxy before all servers, each below a prefix of its own."""

    port: int
    servers: dict[str, Server]


def prefix(case: str) -> str:
    return case.replace(", ", "_")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    config = tmp_path_factory.mktemp("negative") / "mappings.yaml"
    with ExitStack() as running:
        servers = {case: running.enter_context(behaving(how)) for case, how in SERVED.items()}
        services = {
            prefix(case): f"h2c://127.0.0.1:{server.port}" for case, server in servers.items()
        }
        config.write_text(mappings(services))
        proxy = running.enter_context(running_proxy(str(config)))
        yield Proxied(proxy.port, servers)


def told(channel: grpc.Channel, case: str) -> str:
    """What a call comes to: OK, or the code of its failure."""
    call = channel.unary_unary(
        f"/{prefix(case)}/UnaryCall", request_serializer=bytes, response_deserializer=bytes
    )
    try:
        answer = call(BODY, timeout=PATIENCE)
    except grpc.RpcError as error:
        return str(error.code().name)
    assert len(answer) > LARGE
    return "OK"


def all_told(port: int, case: str) -> list[str]:
    """One call, and then fifteen at once."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, ThreadPoolExecutor(AT_ONCE) as pool:
        return [told(channel, case), *pool.map(lambda _: told(channel, case), range(AT_ONCE))]


@pytest.mark.parametrize("case", SERVED)
def test_a_misbehaving_server_is_no_worse_through_us(proxied: Proxied, case: str) -> None:
    with behaving(SERVED[case]) as server:
        assert set(all_told(server.port, case)) == {"OK"}
    assert set(all_told(proxied.port, case)) == {"OK"}
    assert proxied.servers[case].complaint() == ""
