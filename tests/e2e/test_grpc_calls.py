"""grpcio's client and server with the proxy between them: what goes through must come out the same."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from grpc import aio

from stickyproxy.wire.codecs import HTTP2_ENGINES
from support.grpc_backends import PATIENCE, SERVICE, Client, Fleet, connected, running_backends
from support.grpc_calls import access_line, request_id
from support.proxy_process import ProxyProcess, running_proxy

MEGABYTES_4 = Random(4).randbytes(4 << 20)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with running_backends("pod-1", "pod-2") as fleet:
        yield fleet


@pytest.fixture(scope="module", params=sorted(HTTP2_ENGINES))
def proxy(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[ProxyProcess]:
    flags = (*fleet.flags, "--sticky", "header:x-user", "--codec", request.param)
    with running_proxy(*flags) as proxy:
        yield proxy
        assert [event for event in proxy.events if str(event["event"]).startswith("bug")] == []


@pytest.fixture
def client(proxy: ProxyProcess, fleet: Fleet) -> Iterator[Client]:
    fleet.journal.clear()
    with connected(proxy.target) as client:
        yield client


def test_the_four_kinds_of_call(client: Client) -> None:
    parts = [b"a", b"", b"ccc"]

    assert client.echo(b"one", timeout=PATIENCE) == b"one"
    assert client.collect(iter(parts), timeout=PATIENCE) == b"a||ccc"
    assert list(client.repeat(b"r", metadata=(("x-times", "50"),), timeout=PATIENCE)) == [b"r"] * 50
    assert list(client.chat(iter(parts), timeout=PATIENCE)) == parts


def test_answers_come_while_the_client_still_sends(client: Client) -> None:
    asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = client.chat(iter(asked.get, None), timeout=PATIENCE)

    for number in range(20):
        asked.put(b"%d" % number)
        assert next(answers) == b"%d" % number
    asked.put(None)

    assert list(answers) == []


def test_a_half_closed_request_is_still_answered(client: Client) -> None:
    """Client-streaming answers only after the client's end, so the end must arrive by itself."""
    asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    call = client.collect.future(iter(asked.get, None), timeout=PATIENCE)
    asked.put(b"a")
    asked.put(b"b")
    assert not call.done()
    asked.put(None)

    assert call.result() == b"a|b"


def test_a_server_that_is_done_before_the_client_ends_the_call_well(client: Client) -> None:
    go_on = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"first"
        go_on.wait(PATIENCE)

    call = client.first(endless(), timeout=PATIENCE)

    assert list(call) == [b"first"]
    assert call.code() is grpc.StatusCode.OK
    go_on.set()


def test_metadata_goes_both_ways_in_order_and_byte_by_byte(client: Client, fleet: Fleet) -> None:
    every_byte = bytes(range(256))
    metadata = (
        ("i-bin", every_byte),
        ("i-bin", b""),
        ("i-bin", b"\x00,\xff"),
        ("i-text", "b"),
        ("i-text", "a, with a comma"),
        ("t-bin", every_byte[::-1]),
        ("t-bin", b"second"),
        ("t-text", "z"),
        ("t-text", "y"),
        ("x-empty", ""),
    )

    answer, call = client.echo.with_call(b"x", metadata=metadata, timeout=PATIENCE)

    def sent(prefix: str) -> list[tuple[str, str | bytes]]:
        return [pair for pair in metadata if pair[0].startswith(prefix)]

    [seen] = fleet.journal.wait_for(1)
    arrived = [(key, value) for key, value in seen.metadata if key in dict(metadata)]
    assert answer == b"x"
    assert sorted(arrived, key=lambda pair: pair[0]) == sorted(metadata, key=lambda pair: pair[0])
    assert [tuple(p) for p in call.initial_metadata() if p[0].startswith("i-")] == sent("i-")
    assert [tuple(p) for p in call.trailing_metadata()] == sent("t-")


def test_a_client_is_told_nothing_that_no_server_said(client: Client) -> None:
    _, call = client.echo.with_call(b"x", timeout=PATIENCE)

    assert {key for key, _ in call.initial_metadata()} == {"x-backend"}
    assert tuple(call.trailing_metadata()) == ()


def test_4_mb_messages_go_both_ways_at_once(client: Client) -> None:
    calls = [client.echo.future(MEGABYTES_4, timeout=PATIENCE) for _ in range(4)]

    assert all(call.result() == MEGABYTES_4 for call in calls)
    assert list(client.chat(iter([MEGABYTES_4] * 2), timeout=PATIENCE)) == [MEGABYTES_4] * 2


def test_4_mb_messages_pass_after_many_calls_that_shared_the_connection(client: Client) -> None:
    """Credit that small calls forgot to give back would stall a large one."""
    calls = [client.echo.future(bytes(60_000), timeout=PATIENCE) for _ in range(100)]
    assert all(call.result() == bytes(60_000) for call in calls)

    assert client.echo(MEGABYTES_4, timeout=PATIENCE) == MEGABYTES_4


def test_empty_messages_are_messages(client: Client, proxy: ProxyProcess) -> None:
    answers = list(client.chat(iter([b""] * 3), metadata=(request_id("empty"),), timeout=PATIENCE))

    line = access_line(proxy, "empty")
    assert answers == [b"", b"", b""]
    assert (line["messages_in"], line["messages_out"]) == (3, 3)


def test_compressed_messages_stay_compressed(client: Client, proxy: ProxyProcess) -> None:
    zeros = bytes(1 << 20)

    answer = client.echo(
        zeros,
        compression=grpc.Compression.Gzip,
        metadata=(request_id("gzip"), ("x-compress", "gzip")),
        timeout=PATIENCE,
    )

    line = access_line(proxy, "gzip")
    assert answer == zeros
    assert 0 < line["bytes_in"] < len(zeros) // 100
    assert 0 < line["bytes_out"] < len(zeros) // 100


def test_500_calls_at_a_time_on_one_connection(client: Client, fleet: Fleet) -> None:
    calls = [client.hold.future(b"%d" % n, timeout=PATIENCE) for n in range(500)]
    fleet.journal.wait_for(500)
    with fleet.open_gates():
        answers = [call.result() for call in calls]

    assert answers == [b"%d" % n for n in range(500)]


def test_100_conversations_interleaved_on_one_connection(client: Client) -> None:
    asked: list[queue.SimpleQueue[bytes | None]] = [queue.SimpleQueue() for _ in range(100)]
    calls = [client.chat(iter(q.get, None), timeout=PATIENCE) for q in asked]

    for turn in range(3):
        for number, questions in enumerate(asked):
            questions.put(b"%d %d" % (turn, number))
        for number, answers in enumerate(calls):
            assert next(answers) == b"%d %d" % (turn, number)
    for questions in asked:
        questions.put(None)

    assert [list(answers) for answers in calls] == [[]] * 100


def test_many_threads_on_many_connections(proxy: ProxyProcess, client: Client) -> None:
    def use(number: int) -> list[bytes]:
        with connected(proxy.target) as own:
            return [own.echo(b"%d %d" % (number, n), timeout=PATIENCE) for n in range(10)]

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(use, range(32)))

    assert client.echo(b"still here", timeout=PATIENCE) == b"still here"
    assert answers == [[b"%d %d" % (number, n) for n in range(10)] for number in range(32)]


def test_a_client_that_pings_is_served_all_the_while(proxy: ProxyProcess, fleet: Fleet) -> None:
    """Servers made with gRPC answer that with too_many_pings; a proxy for many clients must not."""
    pinging = (
        ("grpc.keepalive_time_ms", 10),
        ("grpc.keepalive_timeout_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    fleet.journal.clear()
    with connected(proxy.target, *pinging) as client:
        held = client.hold.future(b"x", timeout=PATIENCE)
        fleet.journal.wait_for(1)
        assert [client.echo(b"y", timeout=PATIENCE) for _ in range(200)] == [b"y"] * 200
        with fleet.open_gates():
            assert held.result() == b"x"


async def _aio_calls(target: str) -> tuple[bytes, list[bytes], grpc.StatusCode, str]:
    channel: Any  # the stubs want serializers
    async with aio.insecure_channel(target) as channel:
        one = await channel.unary_unary(f"/{SERVICE}/Echo")(b"one", timeout=PATIENCE)
        chat = channel.stream_stream(f"/{SERVICE}/Chat")(timeout=PATIENCE)
        answers = []
        for number in range(5):
            await chat.write(b"%d" % number)
            answers.append(await chat.read())
        await chat.done_writing()
        failing = channel.unary_unary(f"/{SERVICE}/Fail")(b"5 nothing", timeout=PATIENCE)
        return one, answers, await failing.code(), await failing.details()


def test_the_asyncio_client_is_served_too(proxy: ProxyProcess) -> None:
    told = asyncio.run(_aio_calls(proxy.target))

    assert told == (
        b"one",
        [b"0", b"1", b"2", b"3", b"4"],
        grpc.StatusCode.NOT_FOUND,
        "nothing",
    )


def test_a_client_that_waits_until_it_is_ready_is_served_once_the_proxy_is(
    fleet: Fleet, tmp_path: Path
) -> None:
    bind = f"unix:{tmp_path / 'proxy.sock'}"
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    with connected(bind, ("grpc.initial_reconnect_backoff_ms", 100)) as client:
        client.channel.subscribe(states.put)
        call = client.echo.future(b"patience", wait_for_ready=True, timeout=PATIENCE)
        while states.get(timeout=PATIENCE) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            pass
        assert not call.done()

        with running_proxy(*fleet.flags, binds=[bind]):
            assert call.result() == b"patience"
