"""Answers that no backend gives: redirects and preflights; and what CORS adds to those of backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asking import Site, running_site
from support.grpc_calls import access_line
from support.http_clients import h2_request, raw_h2_client

DOCUMENTS = """
---
{apiVersion: ambassador/v1, kind: Module, name: ambassador, config: {
  cors: {origins: "https://default.example", exposed_headers: grpc-status}}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: host, prefix: /host/, host_redirect: true,
 service: www.example.com}
---
{apiVersion: ambassador/v1, kind: Mapping, name: path, prefix: /path/, host_redirect: true,
 service: "https://www.example.com:8443", path_redirect: /new, redirect_response_code: 302,
 add_response_headers: {x-from: us}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: prefix, prefix: /prefix/, host_redirect: true,
 service: www.example.com, prefix_redirect: /new/, redirect_response_code: 307}
---
{apiVersion: ambassador/v1, kind: Mapping, name: regex, prefix: /regex/, host_redirect: true,
 service: www.example.com, redirect_response_code: 308,
 regex_redirect: {pattern: "/regex/([0-9]+)", substitution: '/n/\\1'}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: plain, prefix: /plain/, service: one}
---
{apiVersion: ambassador/v1, kind: Mapping, name: cors, prefix: /cors/, service: one, cors: {
  origins: [https://app.example], methods: [GET, POST], headers: "content-type,x-grpc-web",
  exposed_headers: [grpc-status, grpc-message], credentials: true, max_age: "600"},
  load_balancer: {policy: maglev, cookie: {name: sid, ttl: 60s}}}
---
{apiVersion: ambassador/v1, kind: Mapping, name: dead, prefix: /dead/, service: "127.0.0.1:1",
 cors: {origins: "*"}}
"""

PAGE = "https://app.example"
ASKS = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-grpc-web")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("answers"), DOCUMENTS) as running:
        yield running


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/host/a/b?q=1&r=/x", 301, "http://www.example.com/host/a/b?q=1&r=/x"),
        ("/path/a?q=1", 302, "https://www.example.com:8443/new?q=1"),
        ("/prefix/a?q=1", 307, "http://www.example.com/new/a?q=1"),
        ("/regex/12/x?q=1", 308, "http://www.example.com/n/12/x?q=1"),
    ],
)
def test_a_redirect_needs_no_backend(site: Site, path: str, status: int, location: str) -> None:
    before = len(site.backends[0].requests)
    told = site.ask(path)

    assert (told.status, told.fields["location"], told.body) == (status, location, b"")
    assert len(site.backends[0].requests) == before


def test_a_redirect_has_the_mappings_response_headers(site: Site) -> None:
    assert site.ask("/path/").fields["x-from"] == "us"


def test_a_connection_outlives_its_redirects(site: Site) -> None:
    with raw_h2_client(site.proxy.port) as client:
        for stream in (1, 3, 5):
            client.request(stream, h2_request(b"/host/x"))
            fields, body, _ = client.response(stream)
            assert (fields[b":status"], body) == (b"301", b"")


def test_a_body_that_still_comes_does_not_stop_the_redirect(site: Site) -> None:
    told = site.ask("/host/x", "Content-Length: 100000", method="POST")

    assert told.status == 301


def test_a_redirected_grpc_call_is_told_where_to(site: Site) -> None:
    head = h2_request(b"/host/Call", (b"content-type", b"application/grpc"), method=b"POST")
    with raw_h2_client(site.proxy.port) as client:
        client.request(1, head)
        fields, _, _ = client.response(1)

    assert (fields[b":status"], fields[b"grpc-status"]) == (b"200", b"2")
    assert b"http://www.example.com/host/Call" in fields[b"grpc-message"]


def test_a_redirect_is_in_the_access_log_with_its_route_and_no_cluster(site: Site) -> None:
    site.ask("/host/logged", "X-Request-Id: redirected")
    line = access_line(site.proxy, "redirected")

    assert (line["http_status"], line["route"], line["attempts"]) == (301, "host", 0)
    assert not line["cluster"]
    assert line["session"] is None


# --- cors -----------------------------------------------------------------------------------------


def test_a_preflight_is_answered_without_the_backend(site: Site) -> None:
    before = len(site.backends[0].requests)
    told = site.ask("/cors/x", f"Origin: {PAGE}", *ASKS, method="OPTIONS")

    assert (told.status, told.body) == (200, b"")
    said = {k: v for k, v in told.fields.items() if k.startswith("access-control-")}
    assert said == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "content-type, x-grpc-web",
        "access-control-max-age": "600",
    }
    assert told.fields["vary"] == "origin"
    assert "set-cookie" not in told.fields
    assert len(site.backends[0].requests) == before


def test_the_response_to_an_allowed_origin_may_be_read(site: Site) -> None:
    told = site.ask("/cors/x", f"Origin: {PAGE}")

    assert told.pod == "pod-1"
    assert told.fields["access-control-allow-origin"] == PAGE
    assert told.fields["access-control-allow-credentials"] == "true"
    assert told.fields["access-control-expose-headers"] == "grpc-status, grpc-message"
    assert "sid=" in told.fields["set-cookie"]


@pytest.mark.parametrize("lines", [(), ("Origin: https://evil.example",)])
def test_others_get_the_response_as_it_is(site: Site, lines: tuple[str, ...]) -> None:
    told = site.ask("/cors/x", *lines)

    assert told.pod == "pod-1"
    assert not [name for name in told.fields if name.startswith("access-control-")]
    assert told.fields["vary"] == "origin"


def test_a_strangers_preflight_is_the_backends_to_answer(site: Site) -> None:
    told = site.ask("/cors/x", "Origin: https://evil.example", *ASKS, method="OPTIONS")

    assert told.seen is not None
    assert told.seen["method"] == "OPTIONS"


def test_mappings_without_their_own_have_the_modules(site: Site) -> None:
    told = site.ask("/plain/x", "Origin: https://default.example")

    assert told.fields["access-control-allow-origin"] == "https://default.example"
    assert told.fields["access-control-expose-headers"] == "grpc-status"


def test_a_page_may_read_our_errors_too(site: Site) -> None:
    told = site.ask("/dead/x", "Origin: https://any.example")

    assert told.status == 503
    assert told.fields["access-control-allow-origin"] == "https://any.example"
