"""Clients that would stay for ever are sent to reconnect, and no call of theirs fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest

from support.exposed import Exposed
from support.grpc_backends import PATIENCE, Client, Fleet, connected, running_backends, wait_until
from support.http_backends import echo_backends
from support.http_clients import raw_client
from support.proxy_process import ProxyProcess, running_proxy

AGE = ("--max-connection-age", "1")
RETIRED = "stickyproxy_downstream_connections_max_age_total"
CUT = "stickyproxy_downstream_connections_max_age_cut_total"
ROUNDS = 3
"""How often each client's connection is to have grown old."""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with running_backends("pod-1", "pod-2", "pod-3") as fleet:
        yield fleet


class Caller:
    """A client that calls without pause, over one channel and with one session."""

    def __init__(self, client: Client, user: str) -> None:
        self.failures: list[str] = []
        self.backends: set[str] = set()
        self.calls = 0
        self._client = client
        self._user = user

    def call_until(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                # No wait_for_ready and no retry policy: what a careless client would do.
                self.backends.add(self._client.backend_of([("x-user", self._user)]))
                self.calls += 1
            except grpc.RpcError as error:
                self.failures.append(repr(error))
                return


def retired(proxy: ProxyProcess) -> float:
    return Exposed(proxy).total(RETIRED)


def test_clients_under_load_reconnect_again_and_again_without_a_failed_call(fleet: Fleet) -> None:
    stop, clients = threading.Event(), 8
    with (
        running_proxy(*fleet.flags, "--sticky", "header:x-user", *AGE) as proxy,
        ExitStack() as stack,
        ThreadPoolExecutor(clients) as pool,
    ):
        channels = [stack.enter_context(connected(proxy.target)) for _ in range(clients)]
        callers = [Caller(client, f"user-{n}") for n, client in enumerate(channels)]
        running = [pool.submit(caller.call_until, stop) for caller in callers]
        try:
            wait_until(
                lambda: any(c.failures for c in callers) or retired(proxy) >= ROUNDS * clients,
                f"{ROUNDS} connections of each client grew old",
            )
        finally:
            stop.set()
        for one in running:
            one.result(PATIENCE)
        assert [caller.failures for caller in callers] == [[]] * clients
        assert [len(caller.backends) for caller in callers] == [1] * clients
        assert all(caller.calls for caller in callers)
        met = Exposed(proxy)
        assert met.total("stickyproxy_downstream_connections_total") > ROUNDS * clients
        assert met.total(CUT) == 0


def test_a_call_goes_on_while_the_connection_below_it_is_past_its_age(fleet: Fleet) -> None:
    with (
        running_proxy(*fleet.flags, *AGE) as proxy,
        connected(proxy.target) as client,
    ):
        said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        replies = client.chat(iter(said.get, b""))
        said.put(b"before")
        assert next(replies) == b"before"
        wait_until(lambda: retired(proxy) == 1, "the connection grew old")
        # Another call must not ride on it any more: it finds, or makes, a connection of its own.
        assert client.echo(b"beside", timeout=PATIENCE) == b"beside"
        said.put(b"after")
        assert next(replies) == b"after"
        assert Exposed(proxy).total("stickyproxy_downstream_connections_total") == 2
        said.put(b"")
        assert list(replies) == []
        assert replies.code() is grpc.StatusCode.OK


def test_a_call_that_outstays_the_grace_is_told_unavailable(fleet: Fleet) -> None:
    with (
        running_proxy(*fleet.flags, *AGE, "--max-connection-age-grace", "1") as proxy,
        connected(proxy.target) as client,
    ):
        call = client.hold.future(b"", timeout=PATIENCE)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert "the grace after the connection's age is over" in call.details()
        assert Exposed(proxy).total(CUT) == 1


def test_an_http1_connection_past_its_age_closes_with_its_next_response() -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    with (
        echo_backends() as [web],
        running_proxy("--backend", f"http://{web.address}", "--max-connection-age", "4") as proxy,
        raw_client(proxy.port) as client,
    ):
        client.send(request)
        status, fields, _ = client.read_response()
        assert (status, fields.get("connection")) == (200, None)
        wait_until(lambda: retired(proxy) == 1, "the connection grew old")
        client.send(request)
        status, fields, _ = client.read_response()
        assert (status, fields.get("connection")) == (200, "close")
        assert client.read_to_end() == b""
