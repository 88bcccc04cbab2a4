"""Where redirects lead."""

from __future__ import annotations

import pytest

from stickyproxy.model import Client, Connection, Headers, RouteMatch
from stickyproxy.policy.answers import redirected, with_added
from stickyproxy.policy.redirect import https_location, location
from stickyproxy.rules import Redirect

CLEAR = Client("192.0.2.1", Connection(), behind_trusted_hop=False)
SECURE = Client("192.0.2.1", Connection(tls_version="TLSv1.3"), behind_trusted_hop=False)
AT_HOP = Client("192.0.2.1", Connection(), behind_trusted_hop=True)


def head(path: str, *more: tuple[bytes, bytes], authority: bytes = b"old.example:8080") -> Headers:
    return [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", authority),
        (b":path", path.encode()),
        *more,
    ]


@pytest.mark.parametrize(
    ("redirect", "asked", "expected"),
    [
        (Redirect("new.example"), "/a/b?q=1", "http://new.example/a/b?q=1"),
        (Redirect("new.example:81"), "/a", "http://new.example:81/a"),
        (Redirect(), "/a?", "http://old.example:8080/a?"),
        (Redirect("n", "https"), "/a/b", "https://n/a/b"),
        (Redirect("n", path="/p"), "/a/b", "http://n/p"),
        (Redirect("n", path="/p"), "/a/b?q=1", "http://n/p?q=1"),
        (Redirect("n", path="/p?own=1"), "/a/b?q=1", "http://n/p?own=1"),
        (Redirect("n", prefix="/z/"), "/a/b?q=/a/", "http://n/z/b?q=/a/"),
        (Redirect("n", prefix=""), "/a/.evil.example", "http://n/.evil.example"),
        (Redirect("n", path="p"), "/a/b", "http://n/p"),
        (Redirect("n", regex=("^/a/", "")), "/a/@evil.example", "http://n/@evil.example"),
        (Redirect("n", regex=("/a/([a-z]+)", r"/x/\1/y")), "/a/b?q", "http://n/x/b/y?q"),
        (Redirect("n", regex=("^/c/", "/x/")), "/a/b", "http://n/a/b"),
        (Redirect("n", regex=("^/a/.*", "")), "/a/b?q", "http://n/a/b?q"),
    ],
)
def test_what_is_not_replaced_is_the_requests(
    redirect: Redirect, asked: str, expected: str
) -> None:
    assert location(redirect, RouteMatch("/a/"), head(asked), CLEAR) == expected.encode()


def test_a_prefix_is_replaced_by_its_bytes() -> None:
    found = location(Redirect("n", prefix="/ü/"), RouteMatch("/ä/"), head("/ä/x"), CLEAR)

    assert found == "http://n/ü/x".encode()


def test_a_route_by_regular_expression_has_no_prefix_to_replace() -> None:
    match = RouteMatch("/[a-z]+/", path_kind="regex")

    assert location(Redirect("n", prefix="/z/"), match, head("/a/"), CLEAR) == b"http://n/a/"


@pytest.mark.parametrize(
    ("client", "told", "scheme"),
    [
        (CLEAR, b"https", b"http"),
        (SECURE, b"http", b"https"),
        (AT_HOP, b"https", b"https"),
        (AT_HOP, b"HTTPS ", b"https"),
        (AT_HOP, b"ftp", b"http"),
        (AT_HOP, b"", b"http"),
    ],
)
def test_only_a_trusted_hop_is_believed_about_the_scheme(
    client: Client, told: bytes, scheme: bytes
) -> None:
    headers = head("/", (b"x-forwarded-proto", told))

    assert location(Redirect("n"), RouteMatch("/"), headers, client) == scheme + b"://n/"


def test_a_request_without_authority_is_redirected_by_its_host() -> None:
    headers = [(b":method", b"GET"), (b":path", b"/a"), (b"host", b"h.example")]

    assert location(Redirect(), RouteMatch("/"), headers, CLEAR) == b"http://h.example/a"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"a.example", b"https://a.example/p?q"),
        (b"a.example:80", b"https://a.example/p?q"),
        (b"a.example:8080", b"https://a.example:8080/p?q"),
        (b"[::1]:80", b"https://[::1]/p?q"),
    ],
)
def test_https_is_the_same_place_without_the_port_of_http(
    authority: bytes, expected: bytes
) -> None:
    assert https_location(head("/p?q", authority=authority)) == expected


def test_an_http_client_is_redirected_by_status_and_location() -> None:
    assert redirected(308, b"https://n/", grpc=False) == [
        (b":status", b"308"),
        (b"location", b"https://n/"),
        (b"content-length", b"0"),
    ]


def test_a_grpc_client_is_told_in_its_own_words() -> None:
    answer = dict(redirected(301, b"https://n/", grpc=True))

    assert answer[b":status"] == b"200"
    assert answer[b"grpc-status"] == b"2"
    assert b"https://n/" in answer[b"grpc-message"]
    assert answer[b"location"] == b"https://n/"


def test_added_fields_take_the_place_of_those_with_their_names() -> None:
    headers = [(b":status", b"200"), (b"server", b"theirs"), (b"vary", b"accept"), (b"x", b"1")]

    assert with_added(headers, [(b"server", b"ours"), (b"vary", b"origin")]) == [
        (b":status", b"200"),
        (b"vary", b"accept"),
        (b"x", b"1"),
        (b"server", b"ours"),
        (b"vary", b"origin"),
    ]
