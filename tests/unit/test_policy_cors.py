"""Cross-origin requests: who is let in, and what browsers are told."""

from __future__ import annotations

import pytest

from stickyproxy.model import Headers
from stickyproxy.policy.answers import with_added
from stickyproxy.policy.cors import CorsPlan
from stickyproxy.rules import Cors

PAGE = b"https://app.example"
FULL = Cors(
    ("https://app.example", "https://two.example"),
    methods="GET, POST",
    headers="content-type, x-grpc-web",
    exposed_headers="grpc-status, grpc-message",
    credentials=True,
    max_age="600",
)
PREFLIGHT: Headers = [
    (b":method", b"OPTIONS"),
    (b":path", b"/"),
    (b"origin", PAGE),
    (b"access-control-request-method", b"PUT"),
    (b"access-control-request-headers", b"x-one,x-two"),
]


def asks(origin: bytes | None, method: bytes = b"GET") -> Headers:
    origins = [] if origin is None else [(b"origin", origin)]
    return [(b":method", method), (b":path", b"/"), *origins]


def test_an_allowed_origin_may_read_the_response() -> None:
    assert CorsPlan(FULL).added(asks(PAGE)) == [
        (b"access-control-allow-origin", PAGE),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"grpc-status, grpc-message"),
        (b"vary", b"origin"),
    ]


STRANGERS = pytest.mark.parametrize(
    "origin",
    [None, b"", b"https://evil.example", b"https://app.example.evil", b"https://APP.example"],
)


@STRANGERS
def test_any_other_request_gets_nothing(origin: bytes | None) -> None:
    assert CorsPlan(FULL).added(asks(origin, b"POST")) is None


@STRANGERS
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_cache_does_not_give_pages_what_others_got(origin: bytes | None, method: bytes) -> None:
    """The Fetch standard, "CORS protocol and HTTP caches"."""
    assert CorsPlan(FULL).added(asks(origin, method)) == [(b"vary", b"origin")]


@pytest.mark.parametrize("credentials", [False, True])
def test_a_star_exposes_all_there_is_by_name(credentials: bool) -> None:
    """Beside credentials browsers take `*` for a name."""
    cors = Cors(("*",), exposed_headers="*", credentials=credentials)
    added = CorsPlan(cors).added(asks(PAGE)) or []
    head: Headers = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc-web"),
        (b"x-more", b"1"),
        (b"x-more", b"2"),
        (b"grpc-status", b"0"),
        (b"set-cookie", b"a=b"),
    ]
    told = dict(with_added(head, added))
    assert told[b"access-control-expose-headers"] == b"x-more, grpc-status"
    assert b"access-control-expose-headers" not in dict(with_added(head[:2], added))


def test_a_star_lets_every_origin_in_and_names_it() -> None:
    added = CorsPlan(Cors(("*",))).added(asks(b"null"))

    assert added == [(b"access-control-allow-origin", b"null"), (b"vary", b"origin")]


def test_a_preflight_is_answered_whole() -> None:
    assert CorsPlan(FULL).preflight(PREFLIGHT) == [
        (b":status", b"200"),
        (b"access-control-allow-origin", PAGE),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"content-type, x-grpc-web"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"origin"),
        (b"content-length", b"0"),
    ]


def test_what_is_not_configured_is_not_said() -> None:
    answer = dict(CorsPlan(Cors(("*",))).preflight(PREFLIGHT) or [])

    assert set(answer) == {b":status", b"access-control-allow-origin", b"vary", b"content-length"}


def test_a_star_allows_what_the_preflight_asks_for() -> None:
    answer = dict(CorsPlan(Cors(("*",), methods="*", headers="*")).preflight(PREFLIGHT) or [])

    assert answer[b"access-control-allow-methods"] == b"PUT"
    assert answer[b"access-control-allow-headers"] == b"x-one,x-two"


@pytest.mark.parametrize("gone", [b":method", b"origin", b"access-control-request-method"])
def test_what_is_no_preflight_goes_to_the_backend(gone: bytes) -> None:
    headers = [field for field in PREFLIGHT if field[0] != gone]

    assert CorsPlan(FULL).preflight(headers) is None


def test_a_strangers_preflight_goes_to_the_backend() -> None:
    headers = [(n, b"https://evil.example" if n == b"origin" else v) for n, v in PREFLIGHT]

    assert CorsPlan(FULL).preflight(headers) is None
