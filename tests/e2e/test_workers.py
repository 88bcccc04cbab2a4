"""Several worker processes: one proxy to whoever looks at it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.crew import (
    admin,
    alive,
    connections,
    get,
    has,
    pids,
    running_crew,
    total,
    wait_whole,
    workers,
)
from support.grpc_backends import Client, Fleet, connected, running_backends, wait_until
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import RawClient, raw_client
from support.http_lab import Authority
from support.proxy_process import ProxyProcess
from support.reloading import status

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
AT_ONCE = ("--drain-delay", "0", "--drain-timeout", "600")


@pytest.fixture(scope="module")
def web() -> Iterator[EchoBackend]:
    with echo_backends() as [backend]:
        yield backend


@pytest.fixture
def proxy(web: EchoBackend) -> Iterator[ProxyProcess]:
    with running_crew("--backend", f"http://{web.address}", *AT_ONCE) as proxy:
        yield proxy


# --- as one ---------------------------------------------------------------------------------------


def test_each_connection_goes_to_the_worker_that_has_the_fewest(proxy: ProxyProcess) -> None:
    with connections(proxy, 3) as clients:
        assert has(proxy, (2, 1))
        with connections(proxy, 3):
            assert has(proxy, (3, 3))
            clients[0].sock.close()  # the first worker's
            wait_until(lambda: has(proxy, (2, 3)), "it is told that one is gone")
            with connections(proxy, 1):
                assert has(proxy, (3, 3))


def test_log_and_counters_mean_the_whole(proxy: ProxyProcess) -> None:
    with connections(proxy, 4) as clients:
        for client in clients:
            for _ in range(5):
                assert get(client)[0] == 200
        lines = proxy.wait_for_access(24)
        assert len(lines) == 24
        assert total(proxy, "request_total", route="backends") == 24
        assert total(proxy, "stickyproxy_access_log_lines_total") == 24
        assert total(proxy, "stickyproxy_downstream_connections") == 4
        assert total(proxy, "stickyproxy_endpoint_rq_total") == 24
        assert total(proxy, "stickyproxy_worker_requests_total", worker="1") == 12
        assert total(proxy, "stickyproxy_worker_requests_total", worker="2") == 12
        assert "rq_total::24" in admin(proxy, "/clusters")
        assert "cluster.backends.upstream_rq_total: 24" in admin(proxy, "/stats")


def test_users_have_one_home_whichever_worker_they_meet() -> None:
    names = [f"pod-{n}" for n in range(1, 5)]
    with (
        running_backends(*names) as fleet,
        running_crew(*fleet.flags, "--policy", "maglev", "--sticky", "header:x-user") as proxy,
        ExitStack() as stack,
    ):
        met: dict[str, set[str]] = {}
        for _ in range(4):
            client = stack.enter_context(connected(proxy.target))
            for user in range(40):
                pod = client.backend_of([("x-user", f"user-{user}")])
                met.setdefault(f"user-{user}", set()).add(pod)
        assert has(proxy, (2, 2))
    assert {len(pods) for pods in met.values()} == {1}
    assert set().union(*met.values()) == set(names)


def test_turns_are_even_over_all_workers() -> None:
    with echo_backends(3) as backends:
        flags = [word for one in backends for word in ("--backend", f"http://{one.address}")]
        with (
            running_crew(*flags, "--policy", "round_robin") as proxy,
            connections(proxy, 4) as clients,
        ):
            before = Counter({one.name: len(one.requests) for one in backends})
            for client in clients * 30:
                assert get(client)[0] == 200
        told = Counter({one.name: len(one.requests) for one in backends})
        told.subtract(before)
    assert max(told.values()) - min(told.values()) <= 2  # one for each worker's round


def test_least_request_sees_what_the_other_worker_has_under_way() -> None:
    """Of 300 calls, both draws fall on the busy one in 75; not seeing it, a worker sends it 150."""
    with (
        running_backends("busy", "free") as fleet,
        running_crew(*fleet.flags, "--policy", "least_request") as proxy,
        connected(proxy.target) as one,
        connected(proxy.target) as other,
    ):
        assert {one.backend_of(), other.backend_of()} <= {"busy", "free"}
        assert has(proxy, (1, 1))
        fleet["busy"].gate.clear()
        fleet["free"].gate.set()
        held = hold_until_busy(one, fleet)
        met = Counter(other.backend_of() for _ in range(300))
        fleet["busy"].gate.set()
        assert [call.result(30) for call in held] == [b"x"] * len(held)
    assert 30 < met["busy"] < 112


def hold_until_busy(client: Client, fleet: Fleet) -> list[Any]:
    """Calls of one worker, until one of them waits at `busy`; those at `free` are answered."""
    held: list[Any] = []
    fleet.journal.clear()
    while not any(seen.backend == "busy" for seen in fleet.journal.calls):
        held.append(client.hold.future(b"x"))
        fleet.journal.wait_for(len(held))
    return held


# --- change ---------------------------------------------------------------------------------------


def mapping(prefix: str, backend: EchoBackend) -> str:
    return (
        "apiVersion: ambassador/v1\nkind: Mapping\nname: m\n"
        f"prefix: {prefix}\nservice: http://{backend.address}\n"
    )


def test_a_reload_reaches_every_worker_and_no_connection_notices(
    web: EchoBackend, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(mapping("/old/", web))
    with running_crew(str(config), *AT_ONCE) as proxy, ExitStack() as stack:
        clients = [stack.enter_context(raw_client(proxy.port)) for _ in range(4)]
        assert [status(client, "/old/") for client in clients] == [200] * 4
        config.write_text(mapping("/new/", web))
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_event("reloaded")
        wait_until(
            lambda: {one["snapshot_version"] for one in workers(proxy)} == {2}, "all have it"
        )
        assert [status(client, "/new/") for client in clients] == [200] * 4
        assert [status(client, "/old/") for client in clients] == [404] * 4
        assert total(proxy, "stickyproxy_config_snapshot_spread_seconds") > 0


# --- workers end ----------------------------------------------------------------------------------


class Caller:
    """Goes on calling on connections of its own; `lost` counts those that broke."""

    def __init__(self, port: int) -> None:
        self.calls = 0
        self.lost = 0
        self.wrong: list[int] = []
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._over.is_set():
            with raw_client(self._port) as client:
                try:
                    self._call_on(client)
                except (OSError, AssertionError):
                    self.lost += 1

    def _call_on(self, client: RawClient) -> None:
        while not self._over.is_set():
            client.send(GET)
            code, headers, _ = client.read_response()
            if code != 200:
                self.wrong.append(code)
            self.calls += 1
            if "close" in headers.get("connection", ""):  # it was sent to another worker
                return


def test_a_killed_worker_is_replaced_and_only_its_own_connections_are_lost(
    proxy: ProxyProcess,
) -> None:
    with connections(proxy, 4) as kept:
        callers = [Caller(proxy.port) for _ in range(4)]
        for caller in callers:
            caller.start()
        wait_until(lambda: has(proxy, (4, 4)), "all are connected")
        wait_until(lambda: all(caller.calls > 5 for caller in callers), "they call")
        killed = pids(proxy)[1]
        os.kill(killed, signal.SIGKILL)
        ended = proxy.wait_for_event("worker_ended")
        assert (ended["worker"], ended["signal"]) == (1, "SIGKILL")
        wait_whole(proxy)
        seen = [caller.calls for caller in callers]
        wait_until(lambda: all(c.calls > n + 5 for c, n in zip(callers, seen, strict=True)), "go")
        for caller in callers:
            caller.stop()
        assert [caller.wrong for caller in callers] == [[]] * 4
        assert sum(caller.lost for caller in callers) == 2
        left = []
        for client in kept:
            try:
                left.append(get(client)[0])
            except (OSError, AssertionError):
                left.append(0)
        assert sorted(left) == [0, 0, 200, 200]
    assert pids(proxy)[1] != killed
    assert not alive(killed)  # and was waited for
    assert total(proxy, "stickyproxy_worker_restarts_total", worker="1") == 1
    assert proxy.wait_for_event("worker_started", 3)["worker"] == 1


def test_who_came_to_the_survivor_goes_to_the_worker_in_the_dead_ones_place(
    proxy: ProxyProcess,
) -> None:
    callers = [Caller(proxy.port) for _ in range(6)]
    for caller in callers:
        caller.start()
    wait_until(lambda: has(proxy, (3, 3)), "all are connected")
    wait_until(lambda: all(caller.calls > 5 for caller in callers), "they call")
    os.kill(pids(proxy)[1], signal.SIGKILL)
    told = proxy.wait_for_event("connections_levelled")
    assert (told["worker"], told["connections"]) == (2, 3)
    wait_until(lambda: has(proxy, (3, 3)), "the new worker has its share")
    for caller in callers:
        caller.stop()
    assert [caller.wrong for caller in callers] == [[]] * 6
    assert (
        sum(caller.lost for caller in callers) == 3
    )  # with the one that was killed, and none since
    assert total(proxy, "stickyproxy_downstream_connections_levelled_total") == 3


def test_what_a_dead_worker_had_reported_stays_in_the_counters(proxy: ProxyProcess) -> None:
    with connections(proxy, 2) as clients:
        for client in clients:
            get(client)
        assert total(proxy, "request_total") == 4  # and so all was reported
        os.kill(pids(proxy)[2], signal.SIGKILL)
        proxy.wait_for_event("worker_started", 3)
        wait_whole(proxy)
        assert total(proxy, "request_total") == 4
        assert total(proxy, "stickyproxy_downstream_connections") == 1
        assert total(proxy, "stickyproxy_worker_requests_total", worker="2") == 2


def test_a_worker_that_hangs_is_replaced_and_who_waited_for_it_is_served(
    proxy: ProxyProcess,
) -> None:
    stopped = pids(proxy)[1]
    os.kill(stopped, signal.SIGSTOP)
    with ExitStack() as stack:
        clients = [stack.enter_context(raw_client(proxy.port)) for _ in range(6)]
        for client in clients:
            client.send(GET)
        assert [client.read_response()[0] for client in clients] == [200] * 6
        ended = proxy.wait_for_event("worker_ended")
        assert (ended["worker"], ended["reason"]) == (1, "no sign of life for 5 s")
        wait_whole(proxy)
    assert pids(proxy)[1] != stopped


def test_nobody_waits_while_all_workers_are_gone(proxy: ProxyProcess) -> None:
    for pid in pids(proxy).values():
        os.kill(pid, signal.SIGKILL)
    with ExitStack() as stack:
        clients = [stack.enter_context(raw_client(proxy.port)) for _ in range(6)]
        for client in clients:
            client.send(GET)
        answers = Counter(client.read_response()[0] for client in clients)
    assert answers == {200: 6}


# --- the end --------------------------------------------------------------------------------------


def test_a_drain_loses_no_connection_and_ends_with_0(proxy: ProxyProcess, web: EchoBackend) -> None:
    web.release.clear()
    with connections(proxy, 4) as clients:
        left = list(pids(proxy).values())
        before = len(web.requests)
        for client in clients:
            client.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_until(lambda: len(web.requests) == before + 4, "all wait")
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_event("draining")
        assert admin(proxy, "/ready") == "DRAINING\n"
        assert all(alive(pid) for pid in left)
        web.release.set()
        for client in clients:
            code, fields, _ = client.read_response()
            assert (code, fields.get("connection")) == (200, "close")
        assert proxy.wait() == 0
    assert len(proxy.access) == 8
    assert [line for line in proxy.events if line["event"] == "worker_ended"] == []
    assert not any(alive(pid) for pid in left)


def test_the_second_signal_ends_all_of_them(proxy: ProxyProcess, web: EchoBackend) -> None:
    web.release.clear()
    with connections(proxy, 2) as clients:
        left = list(pids(proxy).values())
        for client in clients:
            client.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        proxy.signal(signal.SIGTERM)
        proxy.wait_for_event("draining")
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
    web.release.set()
    assert not any(alive(pid) for pid in left)


def test_workers_end_gracefully_without_their_supervisor(
    proxy: ProxyProcess, web: EchoBackend
) -> None:
    web.release.clear()
    with connections(proxy, 2) as clients:
        left = list(pids(proxy).values())
        before = len(web.requests)
        for client in clients:
            client.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_until(lambda: len(web.requests) == before + 2, "both wait")
        proxy.process.kill()
        proxy.wait_until(lambda: gone(proxy) == {1, 2})
        web.release.set()
        assert [client.read_response()[0] for client in clients] == [200, 200]
    wait_until(lambda: not any(alive(pid) for pid in left), "they end")


def gone(proxy: ProxyProcess) -> set[int]:
    """The workers that noticed that nobody leads them."""
    return {line["worker"] for line in proxy.events if line.get("event") == "supervisor_gone"}


def test_an_interrupt_from_the_terminal_is_the_supervisors_to_handle(proxy: ProxyProcess) -> None:
    """A terminal sends it to every process in front."""
    for pid in pids(proxy).values():
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    with connections(proxy, 2):
        assert has(proxy, (1, 1))
    proxy.signal(signal.SIGINT)
    assert proxy.wait() == 0
    assert [line for line in proxy.events if line["event"] == "worker_ended"] == []


# --- what nobody else may see ---------------------------------------------------------------------


def test_workers_speak_tls_and_no_key_stands_where_others_can_read_it(
    web: EchoBackend, tmp_path: Path
) -> None:
    authority = Authority.make(tmp_path)
    secret = authority.key_file.read_text().splitlines()[1]
    with (
        running_crew("--backend", f"http://{web.address}", *authority.proxy_flags) as proxy,
        ExitStack() as stack,
    ):
        trust = authority.client_context("http/1.1")
        clients = []
        for _ in range(4):
            sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
            secured = trust.wrap_socket(sock, server_hostname="127.0.0.1")
            clients.append(RawClient(stack.enter_context(secured)))
        assert [get(client)[0] for client in clients] == [200] * 4
        assert has(proxy, (2, 2))
        for pid in pids(proxy).values():
            for page in ("cmdline", "environ"):
                told = Path(f"/proc/{pid}/{page}").read_text()
                assert secret not in told
                assert str(authority.key_file) not in told


def test_workers_that_cannot_begin_are_told_in_one_line_and_the_code_is_2() -> None:
    """The command of a worker is replaced by one that fails."""
    script = (
        "import sys\n"
        "from stickyproxy.control.workers import hand\n"
        "hand.command = lambda: [sys.executable, '-c', 'raise SystemExit(3)']\n"
        "from stickyproxy.cli import main\n"
        "sys.exit(main(['run', '--backend', '127.0.0.1:1', '--bind', '127.0.0.1:0',"
        " '--admin', 'off', '--workers', '2']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert set(done.stderr.decode().splitlines()) == {"--workers: one could not begin: code 3"}
