"""The admin port of a running proxy: read by real clients, changed by POST only."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from support.http_backends import EchoBackend, echo_backends
from support.http_clients import curl, needs_curl
from support.http_lab import PATIENT, mappings
from support.proxy_process import ProxyProcess, command, running_proxy

SECRET = "s3cr3t-value"
PAGES = [
    *("/", "/help", "/ready", "/healthz", "/clusters", "/clusters?format=json", "/listeners"),
    *("/config_dump", "/stats", "/stats?format=json", "/stats/prometheus", "/metrics"),
    *("/server_info", "/memory", "/ambassador/v0/check_alive", "/ambassador/v0/check_ready"),
]
PROBES = ["/ready", "/healthz", "/metrics", "/stats/prometheus", "/ambassador/v0/check_alive"]
NOBODY = "127.0.0.1:1"
"""tcpmux: no machine of ours listens there."""
GOOD_TOKEN = "admin-token-of-the-test"
SERVING, NOT_SERVING = 1, 2


@pytest.fixture(scope="module")
def web() -> Iterator[EchoBackend]:
    with echo_backends() as [backend]:
        yield backend


@pytest.fixture(scope="module")
def proxy(web: EchoBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """Serves `/web/`, and `/broken/` where nobody is; has a health port."""
    config = tmp_path_factory.mktemp("admin") / "config.yaml"
    config.write_text(
        mappings(
            {"web": f"http://{web.address}", "broken": f"http://{NOBODY}"},
            PATIENT + f"add_request_headers:\n  x-upstream-auth: {SECRET}\n"
            f"headers:\n  x-tenant: one\nquery_parameters:\n  api_key: {SECRET}\n",
        )
    )
    with running_proxy(str(config), "--health", "127.0.0.1:0") as proxy:
        yield proxy


def health_port(proxy: ProxyProcess) -> int:
    return int(str(proxy.wait_for_event("health_listening")["bind"]).rpartition(":")[2])


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def page(proxy: ProxyProcess, path: str) -> str:
    status, text = ask(proxy.admin_port, path)
    assert status == 200, text
    return text


def get(proxy: ProxyProcess, path: str) -> int:
    return ask(proxy.port, f"{path}?api_key={SECRET}", headers={"x-tenant": "one"})[0]


# --- reading --------------------------------------------------------------------------------------


@needs_curl
@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_every_page_is_there_on_both_protocols(proxy: ProxyProcess, flag: str) -> None:
    for path in PAGES:
        answer = curl(f"http://127.0.0.1:{proxy.admin_port}{path}", flag)
        assert (path, answer.exit_code, answer.status) == (path, 0, 200)
        assert answer.version == ("HTTP/2" if "2" in flag else "HTTP/1.1")
        assert len(answer.body) == int(answer.values("content-length")[0]) > 0
        assert SECRET.encode() not in answer.body
    assert curl(f"http://127.0.0.1:{proxy.admin_port}/nothing", flag).status == 404


def test_config_dump_shows_routes_and_blots_out_what_is_added(proxy: ProxyProcess) -> None:
    text = page(proxy, "/config_dump")
    dump = json.loads(text)
    assert {route["name"] for route in dump["routes"]} == {"web", "broken"}
    assert "x-upstream-auth" in text
    assert SECRET not in text


def test_clusters_tell_a_broken_endpoint_from_a_good_one(
    proxy: ProxyProcess, web: EchoBackend
) -> None:
    assert get(proxy, "/web/") == 200
    assert get(proxy, "/broken/") == 503
    states = {
        host["address"]["socket_address"]["port_value"]: host["health_status"]
        for cluster in json.loads(page(proxy, "/clusters?format=json"))["cluster_statuses"]
        for host in cluster["host_statuses"]
    }
    assert states[web.port] == {"eds_health_status": "HEALTHY"}
    assert states[1] == {"eds_health_status": "UNHEALTHY", "reason": "cannot be connected to"}
    assert re.search(
        rf"::{NOBODY}::health_flags::/connect_failed$", page(proxy, "/clusters"), re.MULTILINE
    )


def test_metrics_are_prometheus_and_count_what_was_served(proxy: ProxyProcess) -> None:
    def counted() -> float:
        families = text_string_to_metric_families(page(proxy, "/metrics"))
        samples = [sample for family in families for sample in family.samples]
        names = {(s.name, *sorted(s.labels.items())) for s in samples}
        assert len(names) == len(samples), "a name and labels appear once"
        return next(s.value for s in samples if s.name == "stickyproxy_downstream_streams_total")

    before = counted()
    assert [get(proxy, "/web/") for _ in range(3)] == [200] * 3
    assert counted() == before + 3, "admin requests are not counted among them"


def test_grpc_health_is_answered_on_both_ports(proxy: ProxyProcess) -> None:
    for port in (proxy.admin_port, health_port(proxy)):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest
            assert stub.Check(request(), timeout=20).status == SERVING
            with pytest.raises(grpc.RpcError) as refused:
                stub.Check(request(service="other"), timeout=20)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.Watch(request(), timeout=20))
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def as_it_is(message: bytes) -> bytes:
    return message


def said_by(event: threading.Event) -> Iterator[None]:
    event.wait()
    yield


def test_a_grpc_stream_that_stays_open_is_refused_at_once(proxy: ProxyProcess) -> None:
    """As grpcurl asks for reflection: it sends nothing more until it is answered."""
    method = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    for port in (proxy.admin_port, health_port(proxy)):
        said = threading.Event()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask_all = channel.stream_stream(method, as_it_is, as_it_is)
            call = ask_all((b"" for _ in said_by(said)), timeout=30)
            try:
                with pytest.raises(grpc.RpcError):
                    next(iter(call))
            finally:
                said.set()
            assert call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_port_shows_probes_and_takes_no_orders(proxy: ProxyProcess) -> None:
    port = health_port(proxy)
    assert [ask(port, path)[0] for path in PROBES] == [200] * len(PROBES)
    for path in set(PAGES) - {*PROBES, "/ambassador/v0/check_ready"}:
        assert ask(port, path)[0] == 404
    for path in ("/drain_listeners", "/healthcheck/fail"):
        assert ask(port, path, "POST")[0] == 404
    assert ask(proxy.admin_port, "/ready") == (200, "LIVE\n")


# --- changing -------------------------------------------------------------------------------------


def test_only_a_post_changes_anything_and_no_web_page_can(proxy: ProxyProcess) -> None:
    port = proxy.admin_port
    for path in ("/drain_listeners", "/healthcheck/fail", "/healthcheck/ok"):
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
            assert (method, ask(port, path, method)[0]) == (method, 405)
        assert ask(port, path, "POST", {"origin": "http://evil.example"})[0] == 403
    assert ask(port, "/ready") == (200, "LIVE\n")
    assert ask(port, "/healthcheck/fail", "POST")[0] == 200
    assert ask(port, "/ready")[0] == ask(health_port(proxy), "/ready")[0] == 503
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=20
        )
        assert answer.status == NOT_SERVING
    assert get(proxy, "/web/") == 200, "not ready is not closed"
    assert ask(port, "/healthcheck/ok", "POST")[0] == 200
    assert ask(port, "/ready") == (200, "LIVE\n")


def test_a_name_that_was_made_to_lead_here_reads_and_does_nothing(proxy: ProxyProcess) -> None:
    """DNS rebinding: a page of that name would have our answers as its own."""
    port, named = proxy.admin_port, {"host": "evil.example"}
    for path in ("/", "/help", "/clusters", "/config_dump", "/stats", "/server_info", "/listeners"):
        assert (path, ask(port, path, headers=named)[0]) == (path, 403)
    assert ask(port, "/healthcheck/fail", "POST", named)[0] == 403
    assert ask(port, "/metrics", headers=named)[0] == 200, "a scraper may call us as it likes"
    assert ask(port, "/ready", headers=named) == (200, "LIVE\n")
    assert ask(port, "/clusters", headers={"host": "localhost"})[0] == 200


def test_the_live_pages_are_for_reading_too(proxy: ProxyProcess) -> None:
    for path in ("/live", "/explain", "/shares.svg"):
        for method in ("POST", "PUT", "DELETE"):
            assert (path, ask(proxy.admin_port, path, method)[0]) == (path, 405)


def own_address() -> str:
    """An address of this machine that is no loopback one; what is sent to it stays here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # TEST-NET: nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(sock.getsockname()[0])


def test_off_loopback_drain_needs_the_token_and_the_command_shows_it() -> None:
    address = own_address()
    token = {"STICKYPROXY_ADMIN_TOKEN": GOOD_TOKEN}
    flags = ("--backend", NOBODY, "--drain-delay", "0")
    with running_proxy(*flags, admin="0.0.0.0:0", environment=token) as proxy:
        drain = command("drain", "--admin", f"{address}:{proxy.admin_port}", "--wait")
        refused = subprocess.run(drain, capture_output=True, check=False, timeout=30, env={})
        assert refused.returncode == 1
        assert b"status 403" in refused.stderr
        wrong = {"STICKYPROXY_ADMIN_TOKEN": "wrong"}
        assert subprocess.run(drain, env=wrong, check=False, timeout=30).returncode == 1
        assert page(proxy, "/ready") == "LIVE\n"
        assert subprocess.run(drain, env=token, check=False, timeout=30).returncode == 0
        assert proxy.wait() == 0


# --- where it listens -----------------------------------------------------------------------------


def refusal(*flags: str) -> str:
    """The one line that a start ends with, exit code 2."""
    done = subprocess.run(
        command("run", "--bind", "127.0.0.1:0", "--backend", NOBODY, *flags),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2, done
    (line,) = done.stderr.decode().splitlines()
    return line


@pytest.mark.parametrize("flag", ["--admin", "--health"])
def test_taken_port_is_told_by_the_flag_it_came_from(proxy: ProxyProcess, flag: str) -> None:
    taken = f"127.0.0.1:{proxy.admin_port}"
    line = refusal("--admin", "127.0.0.1:0", flag, taken)
    assert line.startswith(f"{flag} {taken}: address already in use")
    assert f"choose another {flag}" in line
    assert "--bind" not in line


def test_admin_can_be_off(web: EchoBackend) -> None:
    with running_proxy("--backend", f"http://{web.address}", admin="off") as proxy:
        assert ask(proxy.port, "/")[0] == 200
        assert proxy.admin_port == 0
        assert [line for line in proxy.events if line["event"] == "admin_listening"] == []


def test_admin_on_a_unix_socket_is_as_near_as_loopback(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    flags = ("--backend", NOBODY, "--drain-delay", "0")
    with running_proxy(*flags, admin=f"unix:{path}") as proxy:
        drain = command("drain", "--admin", f"unix:{path}", "--wait")
        assert subprocess.run(drain, check=False, timeout=30).returncode == 0
        assert proxy.wait() == 0
    with running_proxy(*flags, admin=f"unix:{path}"):
        assert path.is_socket(), "what the first one left behind is replaced"
