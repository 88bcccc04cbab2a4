"""Where a redirect leads, as Envoy builds it: what is not replaced is taken from the request.

The query is kept, unless the configured path has one of its own. The scheme is the client's: what a
believed hop says in `x-forwarded-proto`, else that of the connection.
"""

from __future__ import annotations

from stickyproxy.model import Client, Headers, RouteMatch
from stickyproxy.policy.routes import regex_rewriter
from stickyproxy.rules import Redirect

_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


def location(redirect: Redirect, match: RouteMatch, headers: Headers, client: Client) -> bytes:
    """The value of `location` for a request that `match` took."""
    scheme = (redirect.scheme or "").encode() or scheme_of(headers, client)
    authority = (redirect.authority or "").encode() or authority_of(headers)
    path = _path(redirect, match, path_of(headers))
    if not path.startswith(b"/"):  # else `.evil.example` in a path would lengthen the host
        path = b"/" + path
    return scheme + b"://" + authority + path


def https_location(headers: Headers) -> bytes:
    """The same place over TLS; a port 80 that was said goes, as it would be wrong there."""
    authority = authority_of(headers).removesuffix(_DEFAULT_PORTS[b"http"])
    return b"https://" + authority + path_of(headers)


def scheme_of(headers: Headers, client: Client) -> bytes:
    """`http` or `https`, as the client sees it."""
    told = forwarded_proto(headers) if client.behind_trusted_hop else b""
    return told or (b"https" if client.connection.tls else b"http")


def forwarded_proto(headers: Headers) -> bytes:
    """What `x-forwarded-proto` says, whoever said it; b"" for neither http nor https."""
    for name, value in headers:
        if name == b"x-forwarded-proto":
            told = value.strip().lower()
            return told if told in _DEFAULT_PORTS else b""
    return b""


def authority_of(headers: Headers) -> bytes:
    """`:authority`, or `host` of a request that came without (RFC 9113 §8.3.1)."""
    fields = dict(headers)
    return fields.get(b":authority") or fields.get(b"host", b"")


def path_of(headers: Headers) -> bytes:
    return next(value for name, value in headers if name == b":path")


def _path(redirect: Redirect, match: RouteMatch, asked: bytes) -> bytes:
    plain, mark, query = asked.partition(b"?")
    if redirect.path is not None:
        path = redirect.path.encode()
        return path if b"?" in path else path + mark + query
    if redirect.prefix is not None and match.path_kind != "regex":
        return redirect.prefix.encode() + asked[len(match.path.encode()) :]
    if redirect.regex is not None:
        return regex_rewriter(*redirect.regex)(plain) + mark + query
    return asked
