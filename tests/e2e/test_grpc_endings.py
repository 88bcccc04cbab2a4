"""How calls end when they do not end well, what the client is told, and what the access log says.

The log's triples are HTTP status, grpc-status and flags.
"""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator

import grpc
import pytest

from stickyproxy.wire.codecs import HTTP2_ENGINES
from support import rawframes as raw
from support.grpc_backends import (
    PATIENCE,
    SERVICE,
    Client,
    Fleet,
    connected,
    running_backends,
    status,
)
from support.grpc_calls import access_line, answer_of, grpc_message, grpc_request, request_id, told
from support.http_clients import raw_h2_client
from support.proxy_process import ProxyProcess, running_proxy

DEADLINE = 1.5
"""Seconds, each of them waited for: a call that is to run out has to reach its server first."""
MESSAGE = "größer als 100 %25 ∞ \U0001f600\n\ttab"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running_backends("pod-1", "pod-2") as fleet:
        yield fleet


@pytest.fixture(scope="module", params=sorted(HTTP2_ENGINES))
def proxy(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[ProxyProcess]:
    with running_proxy(*fleet.flags, "--codec", request.param) as proxy:
        yield proxy
        assert [event for event in proxy.events if str(event["event"]).startswith("bug")] == []


@pytest.fixture
def client(proxy: ProxyProcess, fleet: Fleet) -> Iterator[Client]:
    fleet.journal.clear()
    with connected(proxy.target) as client:
        yield client


@pytest.mark.parametrize("number", range(17))
def test_every_status_and_its_message_come_as_the_server_said_them(
    proxy: ProxyProcess, client: Client, number: int
) -> None:
    name = f"status-{number}"

    text = f"{number} {MESSAGE}".encode()
    future = client.fail.future(text, metadata=(request_id(name),), timeout=PATIENCE)

    # A server made with grpcio sends no message with OK.
    assert answer_of(future) == (status(number), MESSAGE if number else "")
    assert told(access_line(proxy, name)) == (200, number, "-")


@pytest.mark.parametrize("number", [1, 5, 13, 14, 16])
def test_a_status_after_messages_comes_in_trailers(
    proxy: ProxyProcess, client: Client, number: int
) -> None:
    name = f"late-{number}"
    metadata = (request_id(name), ("t-why-bin", b"\x00\xff"))

    call = client.fail_late(f"{number} {MESSAGE}".encode(), metadata=metadata, timeout=PATIENCE)

    assert list(itertools.islice(call, 2)) == [b"one", b"two"]
    assert answer_of(call) == (status(number), MESSAGE)
    assert ("t-why-bin", b"\x00\xff") in [tuple(pair) for pair in call.trailing_metadata()]
    line = access_line(proxy, name)
    assert told(line) == (200, number, "-")
    assert line["messages_out"] == 2


def test_an_answer_of_trailers_only_stays_one_frame(proxy: ProxyProcess) -> None:
    with raw_h2_client(proxy.port) as client:
        client.request(1, grpc_request(f"/{SERVICE}/Fail"), end=False)
        client.send(raw.data(1, grpc_message(b"7 no"), end=True))
        last = client.ending(1)

    assert last is not None
    assert (last.kind, last.flags & raw.END_STREAM) == (raw.HEADERS, raw.END_STREAM)
    assert dict(client.heads[1])[b"grpc-status"] == b"7"
    assert (client.bodies, client.trailers) == ({}, {})


def test_a_method_that_no_server_has_is_the_servers_own_answer(
    proxy: ProxyProcess, client: Client
) -> None:
    call = client.method("unary_unary", f"/{SERVICE}/Nothing").future(
        b"", metadata=(request_id("nothing"),), timeout=PATIENCE
    )

    assert answer_of(call) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert told(access_line(proxy, "nothing")) == (200, 12, "-")


def test_a_call_cancelled_before_its_answer_is_cancelled_at_the_server(
    proxy: ProxyProcess, client: Client, fleet: Fleet
) -> None:
    call = client.hold.future(b"", metadata=(request_id("cancel"),), timeout=PATIENCE)
    [seen] = fleet.journal.wait_for(1)
    call.cancel()

    assert seen.ended.wait(PATIENCE)
    assert call.code() is grpc.StatusCode.CANCELLED
    line = access_line(proxy, "cancel")
    assert told(line)[1:] == (1, "DC")
    assert line["upstream_host"] == fleet[seen.backend].key


def test_a_conversation_that_is_cancelled_is_cancelled_at_the_server(
    proxy: ProxyProcess, client: Client, fleet: Fleet
) -> None:
    asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    asked.put(b"x")
    call = client.chat(iter(asked.get, None), metadata=(request_id("leave"),), timeout=PATIENCE)
    assert next(call) == b"x"
    [seen] = fleet.journal.wait_for(1)
    call.cancel()

    assert seen.ended.wait(PATIENCE)
    assert call.code() is grpc.StatusCode.CANCELLED
    line = access_line(proxy, "leave")
    assert told(line) == (200, 1, "DC")
    assert (line["messages_in"], line["messages_out"]) == (1, 1)
    asked.put(None)


def test_a_client_that_hangs_up_cancels_all_its_calls(proxy: ProxyProcess, fleet: Fleet) -> None:
    fleet.journal.clear()
    with connected(proxy.target) as client:
        calls = [
            client.hold.future(b"", metadata=(request_id(f"hang-up-{n}"),), timeout=PATIENCE)
            for n in range(10)
        ]
        seen = fleet.journal.wait_for(10)

    assert all(one.ended.wait(PATIENCE) for one in seen)
    assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
    assert {told(access_line(proxy, f"hang-up-{n}"))[1:] for n in range(10)} == {(1, "DC")}


def test_the_server_hears_how_long_the_client_waits(client: Client, fleet: Fleet) -> None:
    """To a second: grpcio's server reckons by the wall clock, which may be set meanwhile."""
    client.echo(b"", timeout=PATIENCE)
    client.echo(b"")

    limited, unlimited = fleet.journal.wait_for(2)
    assert limited.time_remaining is not None
    assert PATIENCE / 2 < limited.time_remaining < PATIENCE + 1
    assert unlimited.time_remaining is None or unlimited.time_remaining > 10**6


def test_a_deadline_ends_the_call_on_both_sides(proxy: ProxyProcess, fleet: Fleet) -> None:
    """A client without a clock; the server has one, and may be faster than the proxy."""
    fleet.journal.clear()
    with raw_h2_client(proxy.port) as client:
        timeout = (b"grpc-timeout", b"%dm" % (1000 * DEADLINE))
        name = (b"x-request-id", b"deadline")
        client.request(1, grpc_request(f"/{SERVICE}/Hold", timeout, name), end=False)
        client.send(raw.data(1, grpc_message(b""), end=True))
        last = client.ending(1)

    [seen] = fleet.journal.wait_for(1)
    assert last is not None
    assert last.kind == raw.HEADERS
    assert dict(client.trailers.get(1) or client.heads[1])[b"grpc-status"] == b"4"
    assert seen.ended.wait(PATIENCE)
    assert seen.time_remaining is not None
    assert seen.time_remaining < DEADLINE
    assert told(access_line(proxy, "deadline")) in {(200, 4, "UT"), (200, 4, "-")}


def test_a_client_hears_of_its_deadline(proxy: ProxyProcess, client: Client, fleet: Fleet) -> None:
    call = client.hold.future(b"", metadata=(request_id("late"),), timeout=DEADLINE)

    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    [seen] = fleet.journal.wait_for(1)
    assert seen.ended.wait(PATIENCE)
    # Client, proxy and server have a clock each; whoever's rings first ends it.
    assert told(access_line(proxy, "late"))[1:] in {(4, "UT"), (4, "-"), (1, "DC")}


def test_a_message_over_the_clients_own_limit_is_the_clients_matter(
    proxy: ProxyProcess, client: Client
) -> None:
    with connected(proxy.target, ("grpc.max_receive_message_length", 1000)) as small:
        call = small.echo.future(bytes(100_000), timeout=PATIENCE)

        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert small.echo(b"next", timeout=PATIENCE) == b"next"
    assert client.echo(b"other", timeout=PATIENCE) == b"other"
