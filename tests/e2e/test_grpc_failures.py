"""Failures that no server told: the proxy has to, in words that a gRPC client understands."""

from __future__ import annotations

import queue
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from stickyproxy.demo.children import Child
from stickyproxy.demo.servers import SERVICE as ECHO
from stickyproxy.demo.servers import EchoReply, EchoRequest
from support import rawframes as raw
from support.grpc_backends import PATIENCE, Client, Kind, connected, running_backends
from support.grpc_calls import access_line, answer_of, grpc_message, grpc_request, request_id, told
from support.http_backends import echo_backends
from support.http_clients import raw_h2_client
from support.proxy_process import running_proxy

MAPPING = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata:
  name: backend
spec:
  hostname: "*"
  prefix: /test.Backend/
  service: {service}
  grpc: true
"""

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@contextmanager
def dead_port() -> Iterator[str]:
    """An address where nobody listens, and nobody else will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@contextmanager
def mortal_server() -> Iterator[tuple[Child, str]]:
    """A server in a process of its own, which can be killed, and its address."""
    server = Child("pod", "stickyproxy.demo.servers", "pod")
    try:
        yield server, server.address()
    finally:
        server.process.kill()  # whether it runs, hangs or is dead
        server.terminate()
        server.wait()


def echo_chat(client: Client) -> Any:
    return client.channel.stream_stream(
        f"/{ECHO}/Chat",
        request_serializer=EchoRequest.SerializeToString,
        response_deserializer=EchoReply.FromString,
    )


def test_a_server_that_dies_between_messages_is_told_in_trailers() -> None:
    asked: queue.SimpleQueue[object] = queue.SimpleQueue()
    with (
        mortal_server() as (server, backend),
        running_proxy("--backend", backend) as proxy,
        connected(proxy.target) as client,
    ):
        chat = echo_chat(client)
        asked.put(EchoRequest(text="hello"))
        call = chat(iter(asked.get, None), metadata=(request_id("death"),), timeout=PATIENCE)
        first = next(call)
        server.process.kill()
        died, line = answer_of(call), access_line(proxy, "death")
        asked.put(None)

        again = chat(iter([]), metadata=(request_id("after"),), timeout=PATIENCE)
        refused, after = answer_of(again), access_line(proxy, "after")

    assert isinstance(first, EchoReply)
    assert died[0] is UNAVAILABLE
    assert died[1].endswith("(UC upstream_closed)")
    assert (told(line), line["messages_out"]) == ((200, 14, "UC"), 1)
    assert line["upstream_host"] == backend
    assert refused == (
        UNAVAILABLE,
        f"stickyproxy: backend {backend}: connection refused (UF connect_failed)",
    )
    assert told(after) == (200, 14, "UF")


def test_a_deadline_ends_a_call_to_a_server_that_hangs() -> None:
    hello = grpc_message(EchoRequest(text="hello").SerializeToString())
    with (
        mortal_server() as (server, backend),
        running_proxy("--backend", backend) as proxy,
        raw_h2_client(proxy.port) as client,
    ):
        client.request(1, grpc_request(f"/{ECHO}/Say"), end=False)
        client.send(raw.data(1, hello, end=True))
        _, _, before = client.response(1)

        server.process.send_signal(signal.SIGSTOP)
        timeout, name = (b"grpc-timeout", b"100m"), (b"x-request-id", b"hangs")
        client.request(3, grpc_request(f"/{ECHO}/Say", timeout, name), end=False)
        client.send(raw.data(3, hello, end=True))
        head, body, after = client.response(3)
        line = access_line(proxy, "hangs")

    assert dict(before)[b"grpc-status"] == b"0"
    assert (head[b":status"], head[b"grpc-status"]) == (b"200", b"4")
    assert (body, after) == (b"", [])
    assert told(line) == (200, 4, "UT")
    assert line["upstream_host"] == backend


def test_a_backend_that_is_down_is_unavailable_and_named() -> None:
    with (
        dead_port() as nowhere,
        running_proxy("--backend", nowhere) as proxy,
        connected(proxy.target) as client,
    ):
        calls = [
            client.echo.future(b"", metadata=(request_id(f"down-{n}"),), timeout=PATIENCE)
            for n in range(20)
        ]
        answers = {answer_of(call) for call in calls}
        lines = [access_line(proxy, f"down-{n}") for n in range(20)]
        proxy.wait_for_event("connect_failed")
        events = [event for event in proxy.events if event["event"] == "connect_failed"]

    assert answers == {
        (
            UNAVAILABLE,
            f"stickyproxy: backend {nowhere}: connection refused (UF connect_failed)",
        )
    }
    assert {told(line) for line in lines} == {(200, 14, "UF")}
    assert {line["upstream_host"] for line in lines} == {nowhere}
    assert 0 < len(events) < 20


def test_a_large_upload_to_a_backend_that_is_down_is_answered() -> None:
    """The body is still on its way when the answer is known."""
    with (
        dead_port() as nowhere,
        running_proxy("--backend", nowhere) as proxy,
        connected(proxy.target) as client,
    ):
        call = client.echo.future(bytes(4 << 20), timeout=PATIENCE)

        assert call.code() is UNAVAILABLE


def test_a_cluster_without_endpoints_is_unavailable() -> None:
    with (
        running_proxy("--backend", "nobody.invalid:50051") as proxy,
        connected(proxy.target) as client,
    ):
        call = client.echo.future(b"", metadata=(request_id("empty"),), timeout=PATIENCE)
        code, message = answer_of(call)
        line = access_line(proxy, "empty")

    assert code is UNAVAILABLE
    assert "(UH no_healthy_endpoint)" in message
    assert told(line) == (200, 14, "UH")
    assert line["upstream_host"] is None


def test_a_service_that_nobody_mapped_is_unimplemented(tmp_path: Path) -> None:
    config = tmp_path / "mapping.yaml"
    with running_backends("pod") as fleet:
        config.write_text(MAPPING.format(service=fleet["pod"].key))
        with running_proxy(str(config)) as proxy, connected(proxy.target) as client:
            assert client.echo(b"mapped", timeout=PATIENCE) == b"mapped"
            call = client.method("unary_unary", "/other.Service/Call").future(
                b"", metadata=(request_id("stray"),), timeout=PATIENCE
            )
            code, message = answer_of(call)
            line = access_line(proxy, "stray")

    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "(NR no_route)" in message
    assert told(line) == (200, 12, "NR")
    assert (line["route"], line["cluster"], line["upstream_host"]) == (None, None, None)


def test_an_http_backend_behind_a_grpc_mapping_is_named_once_with_its_scheme() -> None:
    with (
        echo_backends() as [backend],
        running_proxy("--backend", backend.address) as proxy,
        connected(proxy.target) as client,
    ):
        answers = [
            answer_of(client.echo.future(b"", metadata=(request_id(f"h1-{n}"),), timeout=PATIENCE))
            for n in range(3)
        ]
        lines = [access_line(proxy, f"h1-{n}") for n in range(3)]
        proxy.wait_for_event("backend_speaks_http1")
        named = [event for event in proxy.events if event["event"] == "backend_speaks_http1"]

    assert {code for code, _ in answers} == {UNAVAILABLE}
    assert "it speaks HTTP/1.x, not HTTP/2" in answers[0][1]
    assert {told(line) for line in lines} == {(200, 14, "UF")}
    [event] = named
    assert event["endpoint"] == backend.address
    assert f"http://{backend.address}" in event["hint"]


def test_an_http_answer_to_a_grpc_call_becomes_its_grpc_status() -> None:
    with (
        echo_backends() as [backend],
        running_proxy("--backend", f"http://{backend.address}") as proxy,
        connected(proxy.target) as client,
    ):
        call = client.echo.future(b"", metadata=(request_id("page"),), timeout=PATIENCE)
        code, message = answer_of(call)
        line = access_line(proxy, "page")

    assert code is grpc.StatusCode.UNKNOWN
    assert "the backend answered HTTP 200" in message
    assert told(line) == (200, 2, "-")


@pytest.mark.parametrize("scheme", ["", "grpc://"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_localhost_is_one_backend_by_the_family_that_listens(scheme: str, address: str) -> None:
    found = {info[4][0] for info in socket.getaddrinfo("localhost", None)}
    if address not in found:
        pytest.skip(f"localhost is no {address} on this machine")
    with running_backends("pod", kind=Kind(address)) as fleet:
        flags = ("--backend", f"{scheme}localhost:{fleet['pod'].port}")
        with running_proxy(*flags) as proxy, connected(proxy.target) as client:
            assert [client.backend_of() for _ in range(5)] == ["pod"] * 5
            hosts = {line["upstream_host"] for line in proxy.wait_for_access(5)}
            failures = [e for e in proxy.events if e["event"] == "connect_failed"]

    assert len(hosts) == 1
    assert failures == []
