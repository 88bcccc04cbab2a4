"""Retries by policy between real gRPC ends: grpcio says no, and is asked again where the route says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from stickyproxy.errors import GrpcStatus
from support.grpc_backends import PATIENCE, Client, Fleet, connected, running_backends
from support.grpc_calls import access_line, request_id
from support.proxy_process import ProxyProcess, running_proxy

MAPPING = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata:
  name: backend
spec:
  hostname: "*"
  prefix: /test.Backend/
  service: backends
  endpoints: [{endpoints}]
  grpc: true
  retry_policy: {{retry_on: "{conditions}", num_retries: {retries}}}
"""

CONDITIONS = {
    GrpcStatus.CANCELLED: "cancelled",
    GrpcStatus.DEADLINE_EXCEEDED: "deadline-exceeded",
    GrpcStatus.INTERNAL: "internal",
    GrpcStatus.RESOURCE_EXHAUSTED: "resource-exhausted",
    GrpcStatus.UNAVAILABLE: "unavailable",
}
ALL = ",".join(CONDITIONS.values())


@contextmanager
def retrying(
    folder: Path, conditions: str, retries: int = 1
) -> Iterator[tuple[Fleet, ProxyProcess, Client]]:
    with running_backends("one", "two", "three") as fleet:
        endpoints = ", ".join(backend.key for backend in fleet)
        file = folder / "mapping.yaml"
        file.write_text(MAPPING.format(endpoints=endpoints, conditions=conditions, retries=retries))
        with running_proxy(str(file)) as proxy, connected(proxy.target) as client:
            yield fleet, proxy, client


def tries(fleet: Fleet) -> list[str | bytes | None]:
    """What each attempt was told of those before it."""
    told = (seen.values("grpc-previous-rpc-attempts") for seen in fleet.journal.calls)
    return [found[0] if found else None for found in told]


def ended(client: Client, asked: bytes, name: str) -> grpc.StatusCode:
    """How a flaky call ended for its client."""
    call = client.flaky.future(asked, metadata=(request_id(name),), timeout=PATIENCE)
    code = call.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_each_grpc_condition_is_retried_elsewhere_and_no_other_status_is(tmp_path: Path) -> None:
    with retrying(tmp_path, ALL) as (fleet, proxy, client):
        for code in GrpcStatus:
            if code is GrpcStatus.OK:
                continue
            fleet.journal.clear()
            status = ended(client, b"%d 1 " % code, code.name)
            line = access_line(proxy, code.name)
            if code in CONDITIONS:
                assert status is grpc.StatusCode.OK, code
                assert tries(fleet) == [None, "1"]
                assert len({seen.backend for seen in fleet.journal.calls}) == 2
                assert line["attempts"] == 2
            else:
                assert status.value[0] == code
                assert tries(fleet) == [None]
                assert (line["attempts"], line["response_flags"]) == (1, "-")
        with urlopen(f"http://127.0.0.1:{proxy.admin_port}/metrics", timeout=PATIENCE) as page:
            metrics = page.read().decode()
        for condition in CONDITIONS.values():
            assert f'stickyproxy_retries_total{{reason="{condition}"}} 1.0' in metrics


def test_only_the_condition_that_is_named_is_retried(tmp_path: Path) -> None:
    with retrying(tmp_path, "internal") as (fleet, _, client):
        assert ended(client, b"14 1 ", "a") is grpc.StatusCode.UNAVAILABLE
        assert tries(fleet) == [None]


@pytest.mark.parametrize(
    ("times", "code"), [(3, grpc.StatusCode.OK), (4, grpc.StatusCode.INTERNAL)]
)
def test_as_often_as_the_policy_says_and_then_the_servers_word(
    times: int, code: grpc.StatusCode, tmp_path: Path
) -> None:
    with retrying(tmp_path, ALL, retries=3) as (fleet, proxy, client):
        assert ended(client, b"13 %d " % times, "a") is code
        assert tries(fleet) == [None, "1", "2", "3"]
        line = access_line(proxy, "a")
        exhausted = "-" if code is grpc.StatusCode.OK else "URX"
        assert (line["attempts"], line["response_flags"]) == (4, exhausted)


@pytest.mark.parametrize("pushback", [b"-1", b"later"])
def test_a_server_that_does_not_want_to_be_asked_again_is_not(
    pushback: bytes, tmp_path: Path
) -> None:
    with retrying(tmp_path, ALL, retries=3) as (fleet, _, client):
        assert ended(client, b"14 1 " + pushback, "a") is grpc.StatusCode.UNAVAILABLE
        assert tries(fleet) == [None]


def test_a_server_that_says_when_is_asked_again_then(tmp_path: Path) -> None:
    with retrying(tmp_path, ALL) as (fleet, proxy, client):
        assert ended(client, b"14 1 300", "a") is grpc.StatusCode.OK
        assert tries(fleet) == [None, "1"]
        assert access_line(proxy, "a")["duration_ms"] >= 300
