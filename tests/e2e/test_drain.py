"""The graceful end: nobody who was let in is turned away."""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from support.drain_load import GET, Load, read_response
from support.grpc_backends import SERVICE, Fleet, connected, running_backends, wait_until
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import h2_request, raw_client, raw_h2_client
from support.http_lab import Authority, mappings
from support.proxy_process import ProxyProcess, command, running_proxy
from support.rawframes import GOAWAY, PING, Frame, data, ping

ROUNDS = int(os.environ.get("STICKYPROXY_DRAIN_ROUNDS", "4"))
"""Of the drain under load. 50 take two minutes; the default is for every day."""
LONG = ("--drain-delay", "600", "--drain-timeout", "1200")
SHORT = ("--drain-delay", "0.3", "--drain-timeout", "30")
AT_ONCE = ("--drain-delay", "0", "--drain-timeout", "600")


@dataclass(frozen=True)
class Behind:
    """What stands behind the proxies, and the file that says so."""

    config: Path
    fleet: Fleet
    web: EchoBackend
    authority: Authority


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("drain")
    with running_backends("pod-1") as fleet, echo_backends() as [web]:
        config = folder / "config.yaml"
        config.write_text(
            mappings({"http": f"http://{web.address}"}, "timeout_ms: 0\n")
            + "---\napiVersion: ambassador/v1\nkind: Mapping\nname: grpc\n"
            + f"prefix: /{SERVICE}/\nservice: {fleet['pod-1'].key}\ngrpc: true\n"
        )
        yield Behind(config, fleet, web, Authority.make(folder / "authority"))


def set_gates(fleet: Fleet, *, is_open: bool) -> None:
    for backend in fleet:
        if is_open:
            backend.gate.set()
        else:
            backend.gate.clear()


@pytest.fixture
def held(behind: Behind) -> Iterator[Fleet]:
    """Calls of `Hold` wait until the test opens the gate."""
    set_gates(behind.fleet, is_open=False)
    behind.fleet.journal.clear()
    yield behind.fleet
    set_gates(behind.fleet, is_open=True)


def admin(proxy: ProxyProcess, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.admin_port, timeout=20)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_sigterm_says_not_ready_at_once_and_goes_on_serving(behind: Behind) -> None:
    with running_proxy(str(behind.config), *LONG) as proxy:
        assert admin(proxy, "/ready") == (200, "LIVE\n")
        with raw_client(proxy.port) as old:
            old.send(GET)
            assert "connection: close" not in read_response(old)
            proxy.signal(signal.SIGTERM)
            proxy.wait_for_event("draining")
            assert admin(proxy, "/ready") == (503, "DRAINING\n")
            assert admin(proxy, "/healthz")[0] == 200
            assert "stickyproxy_drain_state 1.0" in admin(proxy, "/metrics")[1]
            with raw_client(proxy.port) as new:
                for client in (old, new, old, new):
                    client.send(GET)
                    assert "connection: close" not in read_response(client)


def test_second_signal_ends_it_now(behind: Behind, held: Fleet) -> None:
    with running_proxy(str(behind.config), *LONG) as proxy, connected(proxy.target) as client:
        call = client.hold.future(b"x")
        held.journal.wait_for(1)
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_event("draining")
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_interrupt_does_not_wait_for_the_delay(behind: Behind) -> None:
    with running_proxy(str(behind.config), *LONG) as proxy:
        proxy.signal(signal.SIGINT)
        assert proxy.wait() == 0


def test_interrupt_cuts_short_a_delay_that_drain_began(behind: Behind) -> None:
    with running_proxy(str(behind.config), *LONG) as proxy:
        assert admin(proxy, "/drain_listeners", "POST")[0] == 200
        proxy.wait_for_event("draining")
        proxy.signal(signal.SIGINT)
        assert proxy.wait() == 0


def test_streams_under_way_are_waited_for_and_the_last_goaway_names_them(
    behind: Behind, held: Fleet
) -> None:
    with running_proxy(str(behind.config), *AT_ONCE) as proxy, raw_h2_client(proxy.port) as client:
        fields = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
        path = f"/{SERVICE}/Hold".encode()
        client.request(1, h2_request(path, *fields, method=b"POST"), end=False)
        client.send(data(1, bytes(5), end=True))  # one empty message
        held.journal.wait_for(1)
        proxy.signal(signal.SIGTERM)
        seen: list[Frame] = []
        while (found := client.frame()) is not None:
            seen.append(found)
            if found.kind == PING:
                client.send(ping(found.payload, ack=True))
            if sum(frame.kind == GOAWAY for frame in seen) == 2:
                set_gates(held, is_open=True)
        told = [(frame.number, frame.code) for frame in seen if frame.kind == GOAWAY]
        assert told == [(2**31 - 1, 0), (1, 0)]
        assert dict(client.trailers[1])[b"grpc-status"] == b"0"
        assert proxy.wait() == 0


def test_calls_that_outlast_the_drain_timeout_are_ended_and_the_exit_is_good(
    behind: Behind, held: Fleet
) -> None:
    flags = ("--drain-delay", "0.1", "--drain-timeout", "0.5")
    with running_proxy(str(behind.config), *flags) as proxy, connected(proxy.target) as client:
        call = client.hold.future(b"x")
        held.journal.wait_for(1)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in call.details()
        (line,) = proxy.wait_for_access(1)
        assert line["grpc_status"]["name"] == "Unavailable"


def test_request_under_way_on_http1_is_answered_with_connection_close(behind: Behind) -> None:
    behind.web.release.clear()
    with running_proxy(str(behind.config), *AT_ONCE) as proxy, raw_client(proxy.port) as client:
        before = len(behind.web.requests)
        client.send(GET.replace(b"/http/a", b"/http/wait"))
        wait_until(lambda: len(behind.web.requests) > before, "the request arrived")
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_event("draining")
        behind.web.release.set()
        assert "connection: close" in read_response(client)
        assert client.read_to_end() == b""
        assert proxy.wait() == 0


# --- the command and the page ---------------------------------------------------------------------


def test_drain_page_wants_post_and_a_later_sigterm_cuts_nothing(
    behind: Behind, held: Fleet
) -> None:
    """A preStop hook drains; the SIGTERM that follows is the first signal, not the second."""
    with running_proxy(str(behind.config), *AT_ONCE) as proxy, connected(proxy.target) as client:
        assert admin(proxy, "/drain_listeners")[0] == 405
        assert admin(proxy, "/ready")[0] == 200
        call = client.hold.future(b"x")
        held.journal.wait_for(1)
        assert admin(proxy, "/drain_listeners", "POST")[0] == 200
        proxy.wait_for_event("draining")
        proxy.signal(signal.SIGTERM)
        assert admin(proxy, "/drain_listeners", "POST")[0] == 200, "asking twice is harmless"
        set_gates(held, is_open=True)
        assert call.result(timeout=20) == b"x"
        assert proxy.wait() == 0


def test_drain_command_waits_until_the_proxy_is_gone(behind: Behind, held: Fleet) -> None:
    with running_proxy(str(behind.config), *AT_ONCE) as proxy, connected(proxy.target) as client:
        call = client.hold.future(b"x")
        held.journal.wait_for(1)
        drain = command("drain", "--admin", f"127.0.0.1:{proxy.admin_port}", "--wait")
        with subprocess.Popen(drain, stderr=subprocess.PIPE) as waiting:
            proxy.wait_for_event("draining")
            assert waiting.poll() is None
            set_gates(held, is_open=True)
            assert call.result(timeout=20) == b"x"
            _, told = waiting.communicate(timeout=30)
        assert (waiting.returncode, told) == (0, b"")
        assert proxy.wait() == 0
        gone = subprocess.run(drain, capture_output=True, check=False, timeout=30)
        assert gone.returncode == 1
        assert b"no proxy answers at 127.0.0.1:" in gone.stderr


# --- under load -----------------------------------------------------------------------------------


@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_no_call_fails_because_of_a_drain(behind: Behind) -> None:
    """Handshakes, half-sent heads, keep-alive, downloads, streams: each meets a SIGTERM."""
    set_gates(behind.fleet, is_open=True)
    with ThreadPoolExecutor(2) as pairs:
        results = list(pairs.map(lambda seed: drained_under_load(behind, seed), range(ROUNDS)))
    assert [failures for failures in results if failures] == []


def drained_under_load(behind: Behind, seed: int) -> list[str]:
    """What went wrong in one round; every other one speaks TLS."""
    authority = behind.authority
    secure = seed % 2 == 1
    flags = (str(behind.config), *SHORT, *(authority.proxy_flags if secure else ()))
    with running_proxy(*flags) as first, running_proxy(*flags) as second:
        load = Load([first.port, second.port], authority.ca_file if secure else None)
        load.start()
        load.wait_for_more(2)
        threading.Event().wait(random.Random(seed).uniform(0, 0.05))
        first.signal(signal.SIGTERM)
        first.wait_for_event("draining")
        load.drained.set()
        code = first.wait()
        load.wait_for_more()
        load.stop()
        told = [f"exit {code}"] * bool(code) + load.failures
        lines = first.access + second.access
        told += [
            str(line)
            for line in (*first.events, *second.events)
            if line.get("level", "error") == "error"
        ]
        told += [str(line) for line in lines if line["response_flags"] != "-"]
    return told
