"""Which route a request takes, in which order, and what becomes of its path and authority."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.model import HeaderMatch, Headers, Route, RouteMatch, Target
from stickyproxy.policy.routes import (
    MEMO_SIZE,
    Routes,
    host_of,
    rewrite_authority,
    rewrite_path,
)


def route(name: str, path: str = "/", **match: object) -> Route:
    return Route(name, RouteMatch(path, **match), (Target(name, name),))  # type: ignore[arg-type]


def head(
    path: str = "/", *fields: tuple[str, str], host: str = "example.com", method: str = "GET"
) -> Headers:
    pseudo = [
        (b":method", method.encode()),
        (b":scheme", b"http"),
        (b":authority", host.encode()),
        (b":path", path.encode()),
    ]
    return pseudo + [(name.encode(), value.encode()) for name, value in fields]


def taken(routes: Routes, headers: Headers) -> str | None:
    found = routes.match(headers)
    return found.name if found else None


def matches(request: Headers, path: str = "/", **match: object) -> bool:
    return taken(Routes([route("it", path, **match)]), request) == "it"


# --- order ----------------------------------------------------------------------------------------

IN_ORDER = [
    route("precedence", "/a", precedence=1),
    route("longest", "/a/b/c/d"),
    route("exact", "/a/b", path_kind="exact"),
    route("two conditions", "/a/b", headers=(HeaderMatch("x", "1"), HeaderMatch("y", "1"))),
    route("exact host", "/a/b", hostname="a.example.com"),
    route("long glob", "/a/b", hostname="*.example.com"),
    route("short glob", "/a/b", hostname="*.com"),
    route("regex host", "/a/b", hostname=".*", hostname_regex=True),
    route("condition", "/a/b", method="GET"),
    route("plain", "/a/b"),
    route("regex", "/.*b", path_kind="regex"),
    route("root", "/"),
    route("implicit", "/a/b/c/d/e", precedence=-1),
]


def test_routes_are_tried_in_the_documented_order() -> None:
    names = [found.name for found in IN_ORDER]

    assert [found.name for found in Routes(IN_ORDER[::-1]).routes] == names


@given(st.permutations(IN_ORDER))
def test_the_order_of_input_never_matters(routes: list[Route]) -> None:
    assert Routes(routes).routes == tuple(IN_ORDER)


def test_equal_matches_fall_back_to_the_name() -> None:
    assert taken(Routes([route("b"), route("a")]), head()) == "a"


def test_the_first_that_matches_is_taken_and_nothing_is_none() -> None:
    routes = Routes([route("short", "/a/"), route("long", "/a/b/")])

    assert taken(routes, head("/a/b/c")) == "long"
    assert taken(routes, head("/a/x")) == "short"
    assert taken(routes, head("/x")) is None


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        ({"path": "/foo/"}, "/foo/", True),
        ({"path": "/foo/"}, "/foo/bar", True),
        ({"path": "/foo/"}, "/foo", False),
        ({"path": "/foo"}, "/foobar", True),
        ({"path": "/foo"}, "/foo?x=/", True),
        ({"path": "/foo/"}, "/x?/foo/", False),
        ({"path": "/foo"}, "/FOO", False),
        ({"path": "/foo", "case_sensitive": False}, "/FOO/x", True),
        ({"path": "/foo", "path_kind": "exact"}, "/foo", True),
        ({"path": "/foo", "path_kind": "exact"}, "/foo?q", True),
        ({"path": "/foo", "path_kind": "exact"}, "/foo/", False),
        ({"path": "/foo", "path_kind": "exact", "case_sensitive": False}, "/Foo", True),
        ({"path": "/[a-z]+", "path_kind": "regex"}, "/foo", True),
        ({"path": "/[a-z]+", "path_kind": "regex"}, "/foo?q=1", True),
        ({"path": "/[a-z]+", "path_kind": "regex"}, "/foo/", False),
        ({"path": "/[a-z]+", "path_kind": "regex", "case_sensitive": False}, "/FOO", False),
        ({"path": "/ä/"}, "/ä/x", True),
    ],
)
def test_paths_match_as_in_envoy(match: dict[str, object], path: str, expected: bool) -> None:
    assert matches(head(path), **match) is expected  # type: ignore[arg-type]


def test_a_hostile_expression_ends() -> None:
    """A backtracking engine takes days: the time limit of every test is the judge."""
    routes = Routes([route("it", "/(a+)+b", path_kind="regex")])

    assert taken(routes, head("/" + "a" * 40)) is None


def test_an_expression_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="no regular expression of RE2"):
        Routes([route("it", "(", path_kind="regex")])


# --- hosts, methods, headers, query ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "host", "expected"),
    [
        ("*", "anything:1", True),
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com:8080", True),
        ("Example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com:1", True),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "example.com", False),
        ("example.*", "example.org", True),
        ("example.*", "example.", False),
        ("[::1]", "[::1]:80", True),
        ("[::1]", "[::2]:80", False),
    ],
)
def test_hosts_match_as_globs_without_case_and_port(glob: str, host: str, expected: bool) -> None:
    assert matches(head(host=host), hostname=glob) is expected


def test_a_host_may_be_a_regular_expression() -> None:
    expression = {"hostname": "(a|b)[.]com", "hostname_regex": True}

    assert matches(head(host="b.com:80"), **expression)  # type: ignore[arg-type]
    assert not matches(head(host="ab.com"), **expression)  # type: ignore[arg-type]


def test_the_host_field_stands_in_for_a_missing_authority() -> None:
    headers = [(b":method", b"GET"), (b":path", b"/"), (b"host", b"a.com")]

    assert matches(headers, hostname="a.com")
    assert not matches(headers, hostname="b.com")


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"A.com:80", b"a.com"),
        (b"a.com", b"a.com"),
        (b"[FE80::1]:80", b"[fe80::1]"),
        (b"[fe80::1]", b"[fe80::1]"),
        (b"[broken", b"[broken"),
        (b"", b""),
    ],
)
def test_the_host_of_an_authority(authority: bytes, host: bytes) -> None:
    assert host_of(authority) == host


def test_methods_match_exactly_or_by_expression() -> None:
    assert matches(head(method="POST"), method="POST")
    assert not matches(head(method="POSTED"), method="POST")
    assert matches(head(method="PUT"), method="P.*", method_regex=True)
    assert not matches(head(method="GET"), method="P.*", method_regex=True)


@pytest.mark.parametrize(
    ("wanted", "fields", "expected"),
    [
        (HeaderMatch("x", "1"), [("x", "1")], True),
        (HeaderMatch("X", "1"), [("x", "1")], True),
        (HeaderMatch("x", "1"), [("x", "2")], False),
        (HeaderMatch("x", "1"), [], False),
        (HeaderMatch("x", None), [("x", "")], True),
        (HeaderMatch("x", None), [("y", "")], False),
        (HeaderMatch("x", "1,2"), [("x", "1"), ("x", "2")], True),
        (HeaderMatch("x", "[0-9]+", regex=True), [("x", "12")], True),
        (HeaderMatch("x", "[0-9]+", regex=True), [("x", "12a")], False),
        (HeaderMatch("host", "example.com"), [], True),
        (HeaderMatch(":method", "GET"), [], True),
    ],
)
def test_headers_match_by_value_presence_or_expression(
    wanted: HeaderMatch, fields: list[tuple[str, str]], expected: bool
) -> None:
    assert matches(head("/", *fields), headers=(wanted,)) is expected


def test_all_headers_must_match() -> None:
    both = (HeaderMatch("x", "1"), HeaderMatch("y", "1"))

    assert matches(head("/", ("x", "1"), ("y", "1")), headers=both)
    assert not matches(head("/", ("x", "1")), headers=both)


@pytest.mark.parametrize(
    ("wanted", "query", "expected"),
    [
        (HeaderMatch("a", "1"), "?a=1", True),
        (HeaderMatch("a", "1"), "?b=2&a=1", True),
        (HeaderMatch("a", "1"), "?a=2&a=1", False),
        (HeaderMatch("a", "1"), "?A=1", False),
        (HeaderMatch("a", None), "?a", True),
        (HeaderMatch("a", None), "", False),
        (HeaderMatch("a", "[0-9]+", regex=True), "?a=12", True),
        (HeaderMatch("a", "%31"), "?a=%31", True),
    ],
)
def test_query_parameters_match_raw_and_the_first_counts(
    wanted: HeaderMatch, query: str, expected: bool
) -> None:
    assert matches(head("/x" + query), query_parameters=(wanted,)) is expected


# --- the memo -------------------------------------------------------------------------------------


def test_the_memo_never_grows_past_its_bound() -> None:
    routes = Routes([route("it", "/it/")])

    for number in range(2 * MEMO_SIZE):
        assert taken(routes, head(f"/it/{number}")) == "it"
        assert len(routes._memo or ()) <= MEMO_SIZE


def test_long_paths_are_not_remembered() -> None:
    routes = Routes([route("it")])

    assert taken(routes, head("/" + "x" * 10_000)) == "it"
    assert not routes._memo


def test_a_remembered_answer_is_the_searched_one() -> None:
    routes = Routes(
        [route("get", method="GET"), route("a", hostname="a.com"), route("x", "/x"), route("any")]
    )
    heads = [
        head(path, host=host, method=method)
        for path, host, method in itertools.product(
            ("/", "/x", "/x?q"), ("a.com", "b.com"), ("GET", "POST")
        )
    ]

    first = [taken(routes, one) for one in heads]

    assert [taken(routes, one) for one in heads] == first
    assert len(set(first)) > 2


def test_routes_that_look_at_headers_are_searched_each_time() -> None:
    routes = Routes([route("x", headers=(HeaderMatch("x", "1"),)), route("any")])

    assert taken(routes, head("/", ("x", "1"))) == "x"
    assert taken(routes, head("/")) == "any"
    assert taken(routes, head("/", ("x", "1"))) == "x"


# --- rewriting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "rewrite", "path", "expected"),
    [
        (RouteMatch("/qotm/"), "/", b"/qotm/quote?x=1", b"/quote?x=1"),
        (RouteMatch("/qotm/"), None, b"/qotm/quote", b"/qotm/quote"),
        (RouteMatch("/qotm"), "/", b"/qotm/quote", b"//quote"),
        (RouteMatch("/a/"), "/b/", b"/a/", b"/b/"),
        (RouteMatch("/a/", case_sensitive=False), "/b/", b"/A/x", b"/b/x"),
        (RouteMatch("/a", "exact"), "/b", b"/a?q", b"/b?q"),
        (RouteMatch("/a.*", "regex"), "/b", b"/abc", b"/abc"),
        (RouteMatch("/ä/"), "/", "/ä/x".encode(), b"/x"),
    ],
)
def test_the_matched_prefix_is_replaced(
    match: RouteMatch, rewrite: str | None, path: bytes, expected: bytes
) -> None:
    assert rewrite_path(Target("t", "c", rewrite=rewrite), match, path) == expected


@pytest.mark.parametrize(
    ("pattern", "substitution", "path", "expected"),
    [
        ("/v([0-9]+)/(.*)", r"/\2/\1", b"/v2/x?v1/y", b"/x/2?v1/y"),
        ("a", "b", b"/aa/a", b"/bb/b"),
        ("a", r"<\0>", b"/a", b"/<a>"),
        ("a", r"\\1", b"/a", rb"/\1"),
        ("(a)|(b)", r"[\2]", b"/ab", b"/[][b]"),
        ("x", "y", b"/a", b"/a"),
        ("a", "\\", b"/a", b"/\\"),
        ("^/", "/é/", b"/a", "/é/a".encode()),
        ("^/a/?", "", b"/a/b?q", b"b?q"),
        ("^/a/?", "", b"/a/?q", b"/a/?q"),  # nothing would be left: as it was, as in Envoy 1.40
    ],
)
def test_expressions_rewrite_the_path_and_keep_the_query(
    pattern: str, substitution: str, path: bytes, expected: bytes
) -> None:
    target = Target("t", "c", rewrite="/ignored", regex_rewrite=(pattern, substitution))

    assert rewrite_path(target, RouteMatch("/"), path) == expected


def test_the_authority_is_replaced_where_asked() -> None:
    assert rewrite_authority(Target("t", "c", host_rewrite="b.com"), b"a.com") == b"b.com"
    assert rewrite_authority(Target("t", "c"), b"a.com") == b"a.com"
