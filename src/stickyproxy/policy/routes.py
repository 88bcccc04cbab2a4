"""Which route a request takes, and what becomes of its path and authority.

Routes are tried in one fixed order and the first that matches is taken. The order is Emissary's,
made total so that the order of files never matters:

1. higher `precedence`;
2. longer path text, in bytes (a regular expression counts by its text, as in Emissary);
3. exact before prefix before regular expression;
4. more conditions (headers, query parameters, method, a hostname other than `*`);
5. the more special hostname: exact, longer glob, shorter glob, regular expression, `*`;
6. path, hostname, method, name: only to have an order.

Matching is Envoy's: a prefix is a plain string prefix (`/foo/` does not match `/foo`), the path is
taken without its query and the host without its port, hosts compare without case, and a regular
expression (RE2) has to match the whole value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import re2

from stickyproxy.model import HeaderMatch, Headers, Route, RouteMatch, Target

MEMO_SIZE = 4096  # distinct (host, path, method) of a busy gRPC edge are some hundreds
MEMO_KEY_BYTES = 512  # bounds the memo at some MB whatever paths a client makes up

_KIND_ORDER = {"exact": 0, "prefix": 1, "regex": 2}
_CACHED_PATTERNS = 1024  # per use; a configuration with more merely compiles again

_NOT_MET = Route("", RouteMatch(), ())

_Head = tuple[bytes, bytes, bytes, bytes, Headers]
_Test = Callable[[_Head], bool]


class Routes:
    """Routes in match order, compiled once. Implements `model.RouteTable`.

    Raises `ValueError` for a regular expression that RE2 does not take.
    """

    __slots__ = ("_compiled", "_memo", "routes")

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes: tuple[Route, ...] = tuple(sorted(routes, key=match_order))
        self._compiled = [(tuple(_tests(route.match)), route) for route in self.routes]
        looks_deeper = any(r.match.headers or r.match.query_parameters for r in routes)
        self._memo: dict[tuple[bytes, bytes, bytes], Route | None] | None = (
            None if looks_deeper else {}
        )

    def match(self, headers: Headers, fields: Mapping[bytes, bytes] | None = None) -> Route | None:
        """The first route that matches a request head (pseudo-headers first), or None.

        `fields` are the headers by name, if they are known already.
        """
        found = (dict(headers) if fields is None else fields).get
        # RFC 9113 §8.3.1: a request from an HTTP/1.1 hop may carry Host instead
        authority = found(b":authority") or found(b"host", b"")
        path, query, method = found(b":path", b""), b"", found(b":method", b"")
        if b"?" in path:
            path, _, query = path.partition(b"?")
        memo = self._memo
        if memo is None:
            return self._search(authority, path, query, method, headers)
        key = (authority, path, method)
        route = memo.get(key, _NOT_MET)
        if route is not _NOT_MET:
            return route
        route = self._search(authority, path, query, method, headers)
        if len(authority) + len(path) + len(method) <= MEMO_KEY_BYTES:
            if len(memo) >= MEMO_SIZE:
                memo.clear()
            memo[key] = route
        return route

    def _search(
        self, authority: bytes, path: bytes, query: bytes, method: bytes, headers: Headers
    ) -> Route | None:
        head = (host_of(authority), path, query, method, headers)
        for tests, route in self._compiled:
            if all(test(head) for test in tests):
                return route
        return None


def match_order(route: Route) -> tuple[object, ...]:
    """Sort key of a route; the module's text says which rule each element is."""
    match = route.match
    named_host = match.hostname != "*"
    conditions = (
        len(match.headers) + len(match.query_parameters) + (match.method is not None) + named_host
    )
    return (
        -match.precedence,
        -len(match.path.encode()),
        _KIND_ORDER[match.path_kind],
        -conditions,
        _host_order(match),
        match.path,
        match.hostname,
        match.method or "",
        route.name,
    )


def _host_order(match: RouteMatch) -> tuple[int, int]:
    if match.hostname == "*":
        return (3, 0)
    if match.hostname_regex:
        return (2, -len(match.hostname))
    return (1 if "*" in match.hostname else 0, -len(match.hostname))


def host_of(authority: bytes) -> bytes:
    """The host of an authority: lower case, without port; an IPv6 literal keeps its brackets."""
    if authority.startswith(b"["):
        return authority[: authority.find(b"]") + 1].lower() or authority.lower()
    return authority.partition(b":")[0].lower()


def rewrite_path(target: Target, match: RouteMatch, path: bytes) -> bytes:
    """The path (with its query) as the backend gets it.

    `regex_rewrite` replaces every match in the path without the query, and leaves a path that would
    become empty as it was, as Envoy 1.40 does; `rewrite` replaces as many
    bytes as the matched prefix has, literally, as Envoy does: prefix `/a` and rewrite `/` turn
    `/a/b` into `//b`. A route that matched by regular expression has no prefix to replace.
    """
    if target.regex_rewrite is not None:
        plain, mark, query = path.partition(b"?")
        return regex_rewriter(*target.regex_rewrite)(plain) + mark + query
    if target.rewrite is None or match.path_kind == "regex":
        return path
    return target.rewrite.encode() + path[len(match.path.encode()) :]


def rewrite_authority(target: Target, authority: bytes) -> bytes:
    """The authority as the backend gets it: the target's `host_rewrite`, else unchanged."""
    return authority if target.host_rewrite is None else target.host_rewrite.encode()


# --- compiling a match into tests, cheapest and most telling first ------------------------------


def _tests(match: RouteMatch) -> list[_Test]:
    tests = [_path_test(match)]
    if match.method is not None:
        tests.append(_method_test(match.method, regex=match.method_regex))
    if match.hostname != "*":
        tests.append(_host_test(match))
    tests.extend(_header_test(wanted) for wanted in match.headers)
    tests.extend(_query_test(wanted) for wanted in match.query_parameters)
    return tests


def _path_test(match: RouteMatch) -> _Test:
    if match.path_kind == "regex":
        fits = _whole(match.path)
        return lambda head: fits(head[1])
    wanted = match.path.encode()
    if match.case_sensitive:
        if match.path_kind == "exact":
            return lambda head: head[1] == wanted
        return lambda head: head[1].startswith(wanted)
    lowered = wanted.lower()
    if match.path_kind == "exact":
        return lambda head: head[1].lower() == lowered
    return lambda head: head[1].lower().startswith(lowered)


def _method_test(method: str, *, regex: bool) -> _Test:
    if regex:
        fits = _whole(method)
        return lambda head: fits(head[3])
    wanted = method.encode()
    return lambda head: head[3] == wanted


def _host_test(match: RouteMatch) -> _Test:
    if match.hostname_regex:
        fits = _whole(match.hostname)
        return lambda head: fits(head[0])
    wanted = match.hostname.lower().encode()
    if wanted.startswith(b"*"):
        tail = wanted[1:]  # Envoy: the star stands for at least one character
        return lambda head: len(head[0]) > len(tail) and head[0].endswith(tail)
    if wanted.endswith(b"*"):
        start = wanted[:-1]
        return lambda head: len(head[0]) > len(start) and head[0].startswith(start)
    return lambda head: head[0] == wanted


def _header_test(wanted: HeaderMatch) -> _Test:
    name, fits = wanted.name.lower().encode(), _value_test(wanted)
    if name == b"host":
        name = b":authority"  # the codecs give HTTP/1.1's Host so; Envoy knows it by both names

    def test(head: _Head) -> bool:
        values = [value for key, value in head[4] if key == name]
        return bool(values) and fits(b",".join(values))  # Envoy matches repeated fields joined

    return test


def _query_test(wanted: HeaderMatch) -> _Test:
    name, fits = wanted.name.encode(), _value_test(wanted)

    def test(head: _Head) -> bool:
        for part in head[2].split(b"&"):
            key, _, value = part.partition(b"=")
            if key == name:
                return fits(value)  # the first counts, and nothing is percent-decoded
        return False

    return test


def _value_test(wanted: HeaderMatch) -> Callable[[bytes], bool]:
    if wanted.value is None:
        return lambda _value: True
    if wanted.regex:
        return _whole(wanted.value)
    expected = wanted.value.encode()
    return lambda value: value == expected


def _whole(pattern: str) -> Callable[[bytes], bool]:
    fullmatch = _compile(pattern).fullmatch
    return lambda value: fullmatch(value) is not None


@lru_cache(_CACHED_PATTERNS)
def _compile(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False  # RE2 would write to stderr by itself
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        message = f"{pattern!r} is no regular expression of RE2: {exc}"
        raise ValueError(message) from None


@lru_cache(_CACHED_PATTERNS)
def regex_rewriter(pattern: str, substitution: str) -> Callable[[bytes], bytes]:
    """Replaces every match, unless nothing would be left; `substitution` is in RE2's syntax."""
    regex, parts = _compile(pattern), _substitution(substitution)

    def rewrite(path: bytes) -> bytes:
        out, end = [], 0
        for found in regex.finditer(path):
            out.append(path[end : found.start()])
            out.extend(p if isinstance(p, bytes) else found.group(p) or b"" for p in parts)
            end = found.end()
        out.append(path[end:])
        return b"".join(out) or path

    return rewrite


def _substitution(text: str) -> list[bytes | int]:
    r"""RE2's rewrite syntax: `\0` to `\9` are groups, `\\` a backslash, all else is itself."""
    parts: list[bytes | int] = []
    at = 0
    while at < len(text):
        following = text[at + 1 : at + 2]
        if text[at] == "\\" and following.isdecimal():
            parts.append(int(following))
        elif text[at] == "\\" and following == "\\":
            parts.append(b"\\")
        else:
            parts.append(text[at].encode())
            at -= 1
        at += 2
    return parts
