"""What becomes of a request head and a response head on their way through."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.http_clients import curl, h2_request, needs_curl, raw_client, raw_h2_client
from support.http_lab import UPSTREAMS, Lab

NEAR_LIMIT = [(b"x-fill-%02d" % number, b"v" * 1100) for number in range(50)]
"""With 32 bytes a field and the rest of the head some 58,000 of 61,440."""
OVER_LIMIT = [(b"x-fill-%02d" % number, b"v" * 1300) for number in range(50)]
TOO_MANY = [(b"x-%03d" % number, b"") for number in range(101)]

ODD_PATHS = [
    b"/http/a%2Fb/%2e%2e/%C3%A4",
    b"/http//double///slashes",
    b"/http/./dots/../kept",
    b"/http/%00%0d%0a",
    b"/http/;p=1/~!$&'()*+,=:@[]{}|^`\"<>\\",
    b"/http/?a=1&a=2&b=%26?c=/..//",
    b"/http/?",
]


def ask_h1(lab: Lab, path: bytes, *lines: bytes, method: bytes = b"GET") -> Any:
    """What the backend saw of an HTTP/1.1 request."""
    with raw_client(lab.clear.port) as client:
        head = [method + b" " + path + b" HTTP/1.1", b"Host: example.test", *lines]
        client.send(b"\r\n".join(head) + b"\r\n\r\n")
        status, _, body = client.read_response()
        assert status == 200
        return json.loads(body)


def ask_h2(lab: Lab, path: bytes, *fields: tuple[bytes, bytes], method: bytes = b"GET") -> Any:
    with raw_h2_client(lab.clear.port) as client:
        client.request(1, h2_request(path, *fields, method=method))
        head, body, _ = client.response(1)
        assert head[b":status"] == b"200"
        return json.loads(body)


def values(seen: Any, name: str) -> list[str]:
    return [value for key, value in seen["headers"] if key == name]


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: path.decode())
def test_a_path_is_not_touched_beyond_its_prefix(http_lab: Lab, path: bytes) -> None:
    expected = path.removeprefix(b"/http").decode()
    assert ask_h1(http_lab, path)["target"] == expected
    assert ask_h2(http_lab, path)["target"] == expected


@pytest.mark.parametrize("up", UPSTREAMS)
@pytest.mark.parametrize("method", [b"PROPFIND", b"X-OWN", b"DELETE", b"OPTIONS"])
def test_a_method_is_not_touched(http_lab: Lab, up: str, method: bytes) -> None:
    path = b"/" + up.encode() + b"/"
    assert ask_h1(http_lab, path, method=method)["method"] == method.decode()
    assert ask_h2(http_lab, path, method=method)["method"] == method.decode()


@pytest.mark.parametrize("up", UPSTREAMS)
def test_host_and_authority_reach_the_backend_as_sent(http_lab: Lab, up: str) -> None:
    path = b"/" + up.encode() + b"/"
    assert values(ask_h1(http_lab, path), "host") == ["example.test"]
    assert values(ask_h2(http_lab, path), "host") == ["example.test"]


def test_an_absolute_target_names_the_host(http_lab: Lab) -> None:
    seen = ask_h1(http_lab, b"http://other.test:81/http/x?y")
    assert seen["target"] == "/x?y"
    assert values(seen, "host") == ["other.test:81"]


@pytest.mark.parametrize("up", UPSTREAMS)
def test_split_cookies_are_one_field_for_http1(http_lab: Lab, up: str) -> None:
    crumbs = [
        (b"cookie", b"a=1"),
        (b"x-between", b"1"),
        (b"cookie", b"b=2; c=3"),
        (b"cookie", b"d="),
    ]
    seen = ask_h2(http_lab, b"/" + up.encode() + b"/", *crumbs)
    assert values(seen, "cookie") == ["a=1; b=2; c=3; d="]


@pytest.mark.parametrize("up", UPSTREAMS)
def test_repeated_request_fields_keep_apart_and_in_order(http_lab: Lab, up: str) -> None:
    path = b"/" + up.encode() + b"/"
    fields = [(b"x-a", b"1"), (b"x-b", b"1"), (b"x-a", b"2"), (b"x-a", b""), (b"x-a", b"2")]
    for seen in (
        ask_h2(http_lab, path, *fields),
        ask_h1(http_lab, path, *[name + b": " + value for name, value in fields]),
    ):
        assert values(seen, "x-a") == ["1", "2", "", "2"]


@pytest.mark.parametrize("up", UPSTREAMS)
def test_a_head_near_the_limit_passes(http_lab: Lab, up: str) -> None:
    path = b"/" + up.encode() + b"/"
    sent = {name.decode(): value.decode() for name, value in NEAR_LIMIT}
    seen = dict(ask_h2(http_lab, path, *NEAR_LIMIT)["headers"])  # some four CONTINUATION frames
    assert seen | sent == seen
    seen = dict(ask_h1(http_lab, path, *[n + b": " + v for n, v in NEAR_LIMIT])["headers"])
    assert seen | sent == seen


@pytest.mark.parametrize("fields", [OVER_LIMIT, TOO_MANY], ids=["bytes", "count"])
def test_a_head_over_the_limit_is_431(http_lab: Lab, fields: list[tuple[bytes, bytes]]) -> None:
    with raw_h2_client(http_lab.clear.port) as client:
        client.request(1, h2_request(b"/http/", *fields))
        client.request(3, h2_request(b"/http/"))
        assert client.response(1)[0][b":status"] == b"431"
        assert client.response(3)[0][b":status"] == b"200", "the other streams are not hurt"
    with raw_client(http_lab.clear.port) as other:
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        other.send(b"GET /http/ HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        assert other.read_response()[0] == 431


@pytest.mark.parametrize("up", UPSTREAMS)
def test_fields_of_one_hop_end_here(http_lab: Lab, up: str) -> None:
    seen = ask_h1(
        http_lab,
        b"/" + up.encode() + b"/",
        b"Connection: keep-alive, X-Private",
        b"X-Private: secret",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
        b"X-Public: kept",
    )
    names = {name for name, _ in seen["headers"]}
    assert names.isdisjoint(
        {"x-private", "keep-alive", "proxy-connection", "upgrade", "http2-settings"}
    )
    assert values(seen, "x-public") == ["kept"]


@pytest.mark.parametrize("up", UPSTREAMS)
def test_response_fields_of_one_hop_end_here(http_lab: Lab, up: str) -> None:
    with raw_h2_client(http_lab.clear.port) as client:
        client.request(1, h2_request(b"/" + up.encode() + b"/hops"))
        head, _, _ = client.response(1)
    assert head[b"x-public"] == b"kept"
    assert head.keys().isdisjoint({b"x-private", b"keep-alive", b"proxy-connection", b"connection"})


@pytest.mark.parametrize("up", UPSTREAMS)
def test_te_trailers_passes_and_no_other_te(http_lab: Lab, up: str) -> None:
    path = b"/" + up.encode() + b"/"
    assert values(ask_h2(http_lab, path, (b"te", b"trailers")), "te") == ["trailers"]
    assert values(ask_h1(http_lab, path, b"TE: trailers, deflate;q=0.5"), "te") == ["trailers"]
    assert values(ask_h1(http_lab, path, b"TE: deflate;q=0.5"), "te") == []


def test_where_it_came_from_is_told(http_lab: Lab) -> None:
    seen = ask_h1(http_lab, b"/http/", b"X-Forwarded-For: 10.9.9.9", b"X-Forwarded-Proto: https")
    assert values(seen, "x-forwarded-for") == ["10.9.9.9, 127.0.0.1"]
    assert values(seen, "x-forwarded-proto") == ["http"], "a stranger's word is not believed"
    [made] = values(seen, "x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)


@needs_curl
@pytest.mark.parametrize("down", ["h1-tls", "h2-tls"])
def test_that_it_came_by_tls_is_told(http_lab: Lab, down: str) -> None:
    seen = curl(http_lab.url(down, "http"), *http_lab.flags(down)).json()
    assert values(seen, "x-forwarded-proto") == ["https"]


def test_a_request_id_that_is_to_be_preserved_is(http_lab: Lab) -> None:
    seen = ask_h2(http_lab, b"/http/", (b"x-request-id", b"mine-1"))
    assert values(seen, "x-request-id") == ["mine-1"]


def test_no_route_is_404_and_says_so(http_lab: Lab) -> None:
    with raw_client(http_lab.clear.port) as client:
        client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        status, fields, body = client.read_response()
    assert status == 404
    assert fields["x-stickyproxy-error"] == "NR"
    assert b"no route" in body
