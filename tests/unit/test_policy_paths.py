"""`.` and `..` in paths are settled before a route is looked for."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.model import Route, RouteMatch, Target
from stickyproxy.policy.paths import may_have_dots, settle, unambiguous, without_dots
from stickyproxy.policy.routes import Routes

SEGMENTS = ["", ".", "..", "...", "%2e", "%2E.", ".%2e", "%2f", "a", ".a", "a."]


@pytest.mark.parametrize(
    ("path", "settled"),
    [
        ("/public/../admin", "/admin"),
        ("/public/%2e%2E/admin", "/admin"),
        ("/public/.%2e/admin", "/admin"),
        ("/a/./b", "/a/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/../../x", "/x"),
        ("/..", "/"),
        ("/a//../b", "/a/b"),
        ("/a/../b?next=/x/../y", "/b?next=/x/../y"),
    ],
)
def test_dot_segments_are_settled_in_the_path_and_not_in_the_query(path: str, settled: str) -> None:
    assert settle(path.encode()) == settled.encode()
    assert may_have_dots(path.encode())


@pytest.mark.parametrize(
    "path",
    ["/", "/.well-known/x", "/a.b/c..d", "/.../x", "//a", "/%2fa", "*", "", "/p.S/M", "/a/?q=/../"],
)
def test_what_only_looks_like_one_stays(path: str) -> None:
    head = [(b":method", b"GET"), (b":path", path.encode())]

    assert without_dots(head) is head


@pytest.mark.parametrize(
    ("path", "goes_on_as"),
    [
        ("/public/../admin", "/admin"),
        ("/public/../x", "/x"),
        ("/x/../public/a", "/public/a"),
        ("/public/a/../b", "/public/a/../b"),
        ("/x/./y", "/x/./y"),
    ],
)
def test_a_path_is_settled_only_where_it_would_lead_elsewhere(path: str, goes_on_as: str) -> None:
    targets = (Target("c", "c"),)
    routes = Routes([Route(p, RouteMatch(path=p), targets) for p in ("/public/", "/admin", "/")])

    (told,) = unambiguous(routes, [(b":path", path.encode())])

    assert told == (b":path", goes_on_as.encode())


@given(st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=8))
def test_a_settled_path_has_no_dots_left_and_stays_below_the_root(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    settled = settle(path.encode()).decode()

    plain = settled.replace("%2e", ".").replace("%2E", ".")
    assert not {".", ".."} & set(plain.split("/"))
    assert settle(settled.encode()).decode() == settled
    assert may_have_dots(path.encode()) or settled == path
    if "" not in segments:  # posixpath merges slashes too
        decoded = path.replace("%2e", ".").replace("%2E", ".")
        assert plain.rstrip("/") == posixpath.normpath(decoded).rstrip("/")
