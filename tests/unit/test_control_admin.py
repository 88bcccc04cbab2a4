"""The admin port: who may see what, who may do what, and that no secret leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from stickyproxy.control.admin.app import PROBES, AdminApp, AdminResponse
from stickyproxy.control.admin.pages import REDACTED, plain
from stickyproxy.model import Headers
from stickyproxy.rules import HealthCheck, HttpCheck
from support.adminview import SECRET, View

ACTIONS = ["/drain_listeners", "/healthcheck/fail", "/healthcheck/ok"]
PAGES = [
    "/", "/help", "/ready", "/healthz", "/clusters", "/clusters?format=json", "/listeners",
    "/listeners?format=json", "/config_dump", "/stats", "/stats?format=json",
    "/stats?format=prometheus", "/stats/prometheus", "/metrics", "/server_info", "/memory",
    "/ambassador/v0/check_alive", "/ambassador/v0/check_ready",
]  # fmt: skip


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def app(view: View) -> AdminApp:
    return AdminApp(view)


def ask(
    app: AdminApp,
    path: str,
    method: str = "GET",
    headers: Headers | None = None,
    *,
    loopback: bool = True,
) -> AdminResponse:
    return app.respond(method, path, headers or [], b"", loopback=loopback)


def page(app: AdminApp, path: str) -> Any:
    response = ask(app, path)
    assert response.status == 200
    return json.loads(response.body)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_get_and_head_alike(app: AdminApp, path: str) -> None:
    got, head = ask(app, path), ask(app, path, "HEAD")

    assert got.status == head.status == 200
    assert head.body == b""
    length = dict(got.headers)[b"content-length"]
    assert int(length) == len(got.body) > 0
    assert [name for name, _ in head.headers] == [name for name, _ in got.headers]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", ""])
def test_pages_are_for_reading(app: AdminApp, path: str, method: str) -> None:
    response = ask(app, path, method)

    assert response.status == 405
    assert (b"allow", b"GET, HEAD") in response.headers


@pytest.mark.parametrize("path", PAGES)
def test_no_page_tells_a_secret(app: AdminApp, path: str) -> None:
    assert SECRET.encode() not in ask(app, path).body


def test_the_help_lists_every_page_and_action(app: AdminApp) -> None:
    text = ask(app, "/help").body.decode()

    for path in [*PAGES, *ACTIONS]:
        assert f"  {path.partition('?')[0]}" in text


@pytest.mark.parametrize("path", ["/nothing", "", "*", "/ready/", "/READY", "//ready", "/%72eady"])
def test_other_paths_are_not_found(app: AdminApp, path: str) -> None:
    assert ask(app, path).status == 404


# --- ready ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ready", "/ambassador/v0/check_ready"])
def test_ready_says_no_and_why(app: AdminApp, view: View, path: str) -> None:
    assert (ask(app, path).status, ask(app, path).body) == (200, b"LIVE\n")
    view.is_ready = False
    assert (ask(app, path).status, ask(app, path).body) == (503, b"NOT_READY\n")
    view.is_draining = True
    assert (ask(app, path).status, ask(app, path).body) == (503, b"DRAINING\n")
    view.is_draining, view.current = False, None
    assert (ask(app, path).status, ask(app, path).body) == (503, b"PRE_INITIALIZING\n")


@pytest.mark.parametrize("path", ["/healthz", "/ambassador/v0/check_alive"])
def test_a_draining_proxy_is_alive(app: AdminApp, view: View, path: str) -> None:
    view.is_ready, view.is_draining = False, True

    assert ask(app, path).status == 200


@pytest.mark.parametrize("path", PAGES)
def test_every_page_but_ready_answers_before_the_first_configuration(path: str) -> None:
    view = View()
    view.current = None

    assert ask(AdminApp(view), path).status == 200


# --- changing something -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    list(zip(ACTIONS, [(1, []), (0, [True]), (0, [False])], strict=True)),
)
def test_an_action_is_done_once_per_post(
    app: AdminApp, view: View, path: str, expected: tuple[int, list[bool]]
) -> None:
    assert ask(app, path + "?graceful", "POST").status == 200
    assert view.done() == expected


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "post", "DELETE"])
def test_an_action_needs_post(app: AdminApp, view: View, path: str, method: str) -> None:
    response = ask(app, path, method)

    assert response.status == 405
    assert (b"allow", b"POST") in response.headers
    assert view.done() == (0, [])


@pytest.mark.parametrize("origin", [b"http://evil.example", b"null", b"", b"http://127.0.0.1:9901"])
@pytest.mark.parametrize("path", ACTIONS)
def test_no_web_page_can_act(view: View, path: str, origin: bytes) -> None:
    app = AdminApp(view, token="t")
    headers = [(b"origin", origin), (b"x-stickyproxy-token", b"t")]

    assert ask(app, path, "POST", headers).status == 403
    assert view.done() == (0, [])


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        ("", [], 403),
        ("", [(b"x-stickyproxy-token", b"")], 403),
        ("", [(b"authorization", b"Bearer ")], 403),
        ("t0ken", [], 403),
        ("t0ken", [(b"x-stickyproxy-token", b"t0ke")], 403),
        ("t0ken", [(b"x-stickyproxy-token", b"\xff\x00")], 403),
        ("t0ken", [(b"authorization", b"Basic t0ken")], 403),
        ("t0ken", [(b"authorization", b"t0ken")], 403),
        ("t0ken", [(b"x-stickyproxy-token", b"t0ken")], 200),
        ("t0ken", [(b"authorization", b"Bearer t0ken")], 200),
        ("t0ken", [(b"authorization", b"bearer  t0ken")], 200),
    ],
)
def test_off_loopback_an_action_needs_the_token(
    view: View, token: str, headers: Headers, status: int
) -> None:
    app = AdminApp(view, token=token)

    assert ask(app, "/drain_listeners", "POST", headers, loopback=False).status == status
    assert view.drains == (status == 200)


# --- the part that --health shows ---------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_the_read_only_part_is_probes_and_metrics(view: View, path: str) -> None:
    app = AdminApp(view, read_only=True)

    assert (ask(app, path, loopback=False).status == 200) == (path in PROBES)


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("loopback", [True, False])
def test_the_read_only_part_changes_nothing(view: View, path: str, loopback: bool) -> None:
    app = AdminApp(view, read_only=True, token="t")
    headers = [(b"x-stickyproxy-token", b"t")]

    assert ask(app, path, "POST", headers, loopback=loopback).status == 404
    assert view.done() == (0, [])


# --- pages ------------------------------------------------------------------------------------


def test_clusters_read_as_envoys(app: AdminApp, view: View) -> None:
    view.counted.endpoint("greeters", "10.0.0.1:80").rq_total = 5
    lines = ask(app, "/clusters").body.decode().splitlines()

    assert "greeters::10.0.0.1:80::rq_total::5" in lines
    assert "greeters::10.0.0.1:80::health_flags::healthy" in lines
    assert "greeters::10.0.0.1:80::hostname::greeter-0" in lines
    assert "greeters::[::1]:80::health_flags::/failed_outlier_check" in lines
    assert "greeters::[::1]:80::weight::3" in lines
    assert not [line for line in lines if "10.0.0.2" in line]


def test_clusters_as_json_have_envoys_shape(app: AdminApp, view: View) -> None:
    view.counted.endpoint("greeters", "[::1]:80").rq_active = 2
    (cluster,) = page(app, "/clusters?format=json")["cluster_statuses"]
    one, two = cluster["host_statuses"]

    assert cluster["name"] == "greeters"
    assert one["address"] == {"socket_address": {"address": "10.0.0.1", "port_value": 80}}
    assert one["health_status"] == {"eds_health_status": "HEALTHY"}
    assert two["address"] == {"socket_address": {"address": "::1", "port_value": 80}}
    assert two["health_status"] == {
        "eds_health_status": "UNHEALTHY",
        "failed_outlier_check": True,
        "reason": "ejected: consecutive_5xx",
    }
    assert {"name": "rq_active", "value": "2", "type": "GAUGE"} in two["stats"]


def test_the_dump_shows_routes_and_clusters_without_their_secrets(app: AdminApp) -> None:
    dump = page(app, "/config_dump")
    (route,) = dump["routes"]
    (cluster,) = dump["clusters"]

    assert dump["snapshot_version"] == 7
    assert route["match"]["headers"] == [
        {"name": "authorization", "value": REDACTED, "regex": False},
        {"name": "x-team", "value": "blue", "regex": False},
    ]
    assert route["targets"][0]["add_request_headers"] == ["x-upstream-auth"]
    assert route["targets"][0]["idle_timeout"] == "inf"
    assert cluster["spec"]["protocol"] == "h2c"
    assert cluster["spec"]["load_balancer"]["hash"]["name"] == "sticky-cookie"
    assert cluster["table"] == "Table"


def test_the_dump_shows_where_secrets_lie_and_not_what_they_are(app: AdminApp) -> None:
    settings = page(app, "/config_dump")["settings"]
    (mapping,) = settings["mappings"]

    assert settings["tls_key"] == "/tls/tls.key"
    assert settings["token_file"] == "/run/token"
    assert settings["admin_token"] == REDACTED
    assert settings["backends"] == [f"https://{REDACTED}@backend.example"]
    assert mapping["add_request_headers"] == {"X-Key": REDACTED}
    assert mapping["headers"] == {"cookie": REDACTED, "x-api-key": REDACTED, "x-team": "blue"}
    assert mapping["query_parameters"] == [{"name": "access_token", "value": REDACTED}]
    assert mapping["load_balancer"] == {"cookie": {"name": "sticky-cookie", "ttl": "60s"}}


def test_the_dump_shows_hosts_listeners_and_which_certificate_is_met(app: AdminApp) -> None:
    dump = page(app, "/config_dump")
    shop, other = dump["hosts"]
    assert shop == {
        "name": "Host shop.prod",
        "hostname": "*.example",
        "insecure": "Route",
        "mapping_selector": {"team": "shop"},
        "certificate": "Host shop.prod",
    }
    assert (other["insecure"], other["mapping_selector"]) == ("Redirect", None)
    assert other["certificate"] is None
    (listener,) = dump["listeners"]
    assert (listener["port"], listener["protocol"], listener["l7_depth"]) == (8443, "HTTPS", 1)
    assert listener["hosts"] == ["Host shop.prod"]
    (certificate,) = dump["certificates"]
    assert (certificate["hosts"], certificate["of_clients"]) == (["*.example"], "verified")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=10,
))  # fmt: skip
def test_whatever_the_settings_hold_becomes_json(value: Any) -> None:
    json.dumps(plain(value), allow_nan=False)


def test_metrics_are_prometheus_text(app: AdminApp, view: View) -> None:
    view.counted.process.downstream_connections = 4
    response = ask(app, "/metrics")
    families = list(text_string_to_metric_families(response.body.decode()))

    assert (b"content-type", b"text/plain; version=0.0.4; charset=utf-8") in response.headers
    found = [s.value for f in families for s in f.samples if f.name.endswith("_connections")]
    assert 4 in found
    assert ask(app, "/stats/prometheus") == ask(app, "/stats?format=prometheus") == response


def test_stats_are_counters_by_dotted_name(app: AdminApp, view: View) -> None:
    view.counted.cluster("greeters").upstream_rq_total = 9
    lines = ask(app, "/stats").body.decode().splitlines()
    rows = page(app, "/stats?format=json")["stats"]

    assert "cluster.greeters.upstream_rq_total: 9" in lines
    assert {"name": "cluster.greeters.upstream_rq_total", "value": 9} in rows
    for name in (
        "outlier_detection.ejections_enforced_total",
        "outlier_detection.ejections_detected_consecutive_5xx",
        "health_check.network_failure",
        "circuit_breakers.default.rq_open",
    ):
        assert f"cluster.greeters.{name}: 0" in lines, "as Envoy groups them"


def test_server_info_listeners_and_memory_say_what_runs(app: AdminApp, view: View) -> None:
    info = page(app, "/server_info")
    view.is_draining = True

    assert (info["state"], info["uptime_current_epoch"]) == ("LIVE", "12s")
    assert info["snapshot_version"] == 7
    assert page(app, "/server_info")["state"] == "DRAINING"
    assert ask(app, "/listeners").body == b"auto::127.0.0.1:41234\n"
    assert page(app, "/listeners?format=json") == {
        "listener_statuses": [{"name": "auto", "local_address": "127.0.0.1:41234"}]
    }
    assert page(app, "/memory")["resident_bytes"] > 1_000_000


def test_a_probes_headers_are_not_told() -> None:
    check = HealthCheck(HttpCheck("/h", add_request_headers=(("x-key", "hunter2", True),)))

    assert "hunter2" not in str(plain(check))
    assert "/h" in str(plain(check))
