"""Endpoints that are not well, end to end: who is walked past, whose sessions move, who comes back."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from support.health_backends import SERVICE, WHO, HealthBackend, health_backends
from support.http_backends import EchoBackend, echo_backends
from support.proxy_process import ProxyProcess, running_proxy

USERS = [f"user-{number}" for number in range(60)]
STICKY = "load_balancer: {policy: maglev, header: x-user}\n"
CHECKED = (
    f"---\nkind: Mapping\nname: cart\nprefix: /{SERVICE}/\ngrpc: true\nservice: cart\n{STICKY}"
    f"health_checks: [{{health_check: {{grpc: {{upstream_name: {SERVICE}}}}}, interval: 250ms}}]\n"
)
ANSWERED = (
    f"---\nkind: Mapping\nname: web\nprefix: /web/\nservice: web\n{STICKY}"
    "outlier_detection: base_ejection_time=1s, max_ejection_time=1s, max_ejection_time_jitter=0\n"
)
LIMITED = (
    "---\nkind: Mapping\nname: web\nprefix: /web/\nservice: web\ntimeout_ms: 30000\n"
    "circuit_breakers: [{max_requests: 1}]\n"
)


@pytest.fixture
def carts() -> Iterator[dict[str, HealthBackend]]:
    with health_backends(3) as backends:
        yield backends


@pytest.fixture
def webs() -> Iterator[dict[str, EchoBackend]]:
    with echo_backends(3) as backends:
        yield {backend.name: backend for backend in backends}


def start(folder: Path, mapping: str, name: str, places: list[str], *flags: str) -> list[str]:
    config = folder / "config.yaml"
    config.write_text(mapping.replace("---\n", "---\napiVersion: getambassador.io/v3alpha1\n"))
    return [str(config), "--service", f"{name}={','.join(places)}", *flags]


def homes(proxy: ProxyProcess) -> dict[str, str]:
    """Which backend each user's calls go to, over one connection."""
    with grpc.insecure_channel(proxy.target) as channel:
        call: Any = getattr(channel, "unary_unary")(WHO)  # noqa: B009 - its stubs want serializers
        return {
            user: call(b"", metadata=(("x-user", user),), timeout=30).decode() for user in USERS
        }


def ask(port: int, path: str, **headers: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:
            return response.status, response.read().decode()


def get(proxy: ProxyProcess, path: str, user: str) -> tuple[int, str]:
    """Status, and who answered."""
    status, body = ask(proxy.port, path, **{"x-user": user})
    return status, json.loads(body)["backend"] if status == 200 else ""


def page(proxy: ProxyProcess, path: str) -> str:
    return ask(proxy.admin_port, path)[1]


def health_of(proxy: ProxyProcess, key: str) -> Mapping[str, object]:
    port = int(key.rpartition(":")[2])
    for cluster in json.loads(page(proxy, "/clusters?format=json"))["cluster_statuses"]:
        for host in cluster["host_statuses"]:
            if host["address"]["socket_address"]["port_value"] == port:
                found: Mapping[str, object] = host["health_status"]
                return found
    raise AssertionError(key)


# --- active checks --------------------------------------------------------------------------------


def test_users_of_a_service_that_does_not_serve_move_and_come_back_and_nobody_else_does(
    carts: dict[str, HealthBackend], tmp_path: Path
) -> None:
    with running_proxy(*start(tmp_path, CHECKED, "cart", list(carts))) as proxy:
        before = homes(proxy)
        sick = before[USERS[0]]
        carts[sick].serves(False)
        event = proxy.wait_for_event("health_check_failed")
        assert (event["endpoint"], event["reason"]) == (sick, "NOT_SERVING")

        during = homes(proxy)
        assert sick not in during.values()
        assert all(during[user] == home for user, home in before.items() if home != sick)
        assert health_of(proxy, sick) == {
            "eds_health_status": "UNHEALTHY",
            "failed_active_health_check": True,
            "reason": "health check: NOT_SERVING",
        }

        carts[sick].serves(True)
        assert proxy.wait_for_event("health_check_passed")["endpoint"] == sick
        assert homes(proxy) == before
        assert health_of(proxy, sick) == {"eds_health_status": "HEALTHY"}


def test_servers_without_the_health_service_are_used_as_if_nobody_asked(tmp_path: Path) -> None:
    with (
        health_backends(2, checked=False) as backends,
        running_proxy(*start(tmp_path, CHECKED, "cart", list(backends))) as proxy,
    ):

        def asked() -> bool:
            found = re.findall(r"health_check_attempt\{[^}]*\} (\d+)", page(proxy, "/metrics"))
            return int(found[0]) >= 6

        proxy.wait_until(asked)
        assert set(homes(proxy).values()) == set(backends)
        assert not [e for e in proxy.events if e["event"].startswith("health_check")]


def test_checks_speak_tls_where_the_service_does(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    key, chain = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_server_credentials([(key, chain)])
    mapping = CHECKED.replace("service: cart", "service: https://cart")
    with (
        health_backends(2, credentials=credentials) as backends,
        running_proxy(*start(tmp_path, mapping, "cart", list(backends))) as proxy,
    ):
        before = homes(proxy)
        sick = before[USERS[0]]
        backends[sick].serves(False)
        assert proxy.wait_for_event("health_check_failed")["reason"] == "NOT_SERVING"
        assert sick not in homes(proxy).values()
        backends[sick].serves(True)
        proxy.wait_for_event("health_check_passed")
        assert homes(proxy) == before


# --- outlier detection ----------------------------------------------------------------------------


def test_a_backend_that_answers_503_is_left_alone_and_comes_back_with_its_users(
    webs: dict[str, EchoBackend], tmp_path: Path
) -> None:
    places = [backend.address for backend in webs.values()]
    with running_proxy(*start(tmp_path, ANSWERED, "web", places)) as proxy:
        before = {user: get(proxy, "/web/", user)[1] for user in USERS}
        user = USERS[0]
        sick = webs[before[user]]
        said = [get(proxy, "/web/status?code=503", user)[0] for _ in range(5)]
        assert said == [503] * 5, "what a backend answers is what the client gets"
        event = proxy.wait_for_event("endpoint_ejected")
        assert event["endpoint"] == sick.address
        assert event["reason"] == "consecutive_gateway_failure"

        proxy.wait_for_event("endpoint_returned")
        after = {user: get(proxy, "/web/", user)[1] for user in USERS}
        assert after == before
        metrics = page(proxy, "/metrics")
        for name in ("total", "consecutive_gateway_failure"):
            assert re.search(
                rf"_ejections_enforced_{name}\{{[^}}]*\}} 1\.0$", metrics, re.MULTILINE
            )


def test_while_it_is_ejected_its_users_are_elsewhere_and_it_says_why(
    webs: dict[str, EchoBackend], tmp_path: Path
) -> None:
    mapping = ANSWERED.replace("=1s", "=300s")
    places = [backend.address for backend in webs.values()]
    with running_proxy(*start(tmp_path, mapping, "web", places)) as proxy:
        before = {user: get(proxy, "/web/", user)[1] for user in USERS}
        sick = webs[before[USERS[0]]]
        for _ in range(5):
            get(proxy, "/web/status?code=503", USERS[0])
        proxy.wait_for_event("endpoint_ejected")

        during = {user: get(proxy, "/web/", user)[1] for user in USERS}
        assert sick.name not in during.values()
        assert all(during[user] == home for user, home in before.items() if home != sick.name)
        text = page(proxy, "/clusters")
        assert f"::{sick.address}::health_flags::/failed_outlier_check\n" in text
        assert f"::{sick.address}::health_reason::ejected: consecutive_gateway_failure\n" in text


def test_a_single_backend_is_never_ejected(tmp_path: Path) -> None:
    with (
        echo_backends(1) as [web],
        running_proxy(*start(tmp_path, ANSWERED, "web", [web.address])) as proxy,
    ):
        for _ in range(20):
            assert get(proxy, "/web/status?code=503", "a")[0] == 503
        assert get(proxy, "/web/", "a") == (200, web.name)
        assert re.search(
            r"_ejections_overflow\{[^}]*\} 4\.0$", page(proxy, "/metrics"), re.MULTILINE
        )


# --- several workers ------------------------------------------------------------------------------


def test_all_workers_leave_alone_what_one_of_them_found_out(
    webs: dict[str, EchoBackend], tmp_path: Path
) -> None:
    mapping = ANSWERED.replace("=1s", "=300s")
    places = [backend.address for backend in webs.values()]
    with running_proxy(*start(tmp_path, mapping, "web", places, "--workers", "2")) as proxy:
        before = {user: get(proxy, "/web/", user)[1] for user in USERS}
        sick = webs[before[USERS[0]]]
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)) as one:
            for _ in range(5):  # one connection, hence one worker
                one.request("GET", "/web/status?code=503", headers={"x-user": USERS[0]})
                with one.getresponse() as response:
                    response.read()
        proxy.wait_for_event("endpoint_ejected")

        def known() -> bool:
            return "(worker" not in str(health_of(proxy, sick.address).get("reason", "(worker"))

        proxy.wait_until(known)
        for user, home in before.items():  # each on a connection of its own: both workers
            now = get(proxy, "/web/", user)[1]
            assert now != sick.name
            assert home in {sick.name, now}
        assert len([e for e in proxy.events if e["event"] == "endpoint_ejected"]) == 1


def test_one_worker_checks_for_all_and_who_begins_later_is_told(
    carts: dict[str, HealthBackend], tmp_path: Path
) -> None:
    with running_proxy(*start(tmp_path, CHECKED, "cart", list(carts), "--workers", "2")) as proxy:
        before = homes(proxy)
        sick = before[USERS[0]]
        carts[sick].serves(False)
        proxy.wait_for_event("health_check_failed")
        started = [e for e in proxy.events if e["event"] == "worker_started"]
        os.kill(started[0]["pid"], signal.SIGKILL)
        proxy.wait_for_event("worker_started", 3)

        def known() -> bool:
            said = str(health_of(proxy, sick).get("reason", "(worker"))
            return "NOT_SERVING" in said and "(worker" not in said

        proxy.wait_until(known)
        assert sick not in homes(proxy).values()
        carts[sick].serves(True)
        proxy.wait_for_event("health_check_passed")
        proxy.wait_until(lambda: health_of(proxy, sick) == {"eds_health_status": "HEALTHY"})
        assert homes(proxy) == before
        assert len([e for e in proxy.events if e["event"] == "health_check_failed"]) == 1


# --- circuit breakers -----------------------------------------------------------------------------


def test_a_request_over_the_limit_is_told_at_once_and_logged_as_overload(tmp_path: Path) -> None:
    with (
        echo_backends(1) as [web],
        running_proxy(*start(tmp_path, LIMITED, "web", [web.address])) as proxy,
    ):
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)) as first:
            first.request("GET", "/web/wait")
            proxy.wait_until(lambda: bool(web.requests))
            assert get(proxy, "/web/", "a") == (503, "")
            assert proxy.wait_for_access(1)[0]["response_flags"] == "UO"
            web.release.set()
            with first.getresponse() as response:
                assert response.status == 200
        assert get(proxy, "/web/", "a") == (200, web.name)
