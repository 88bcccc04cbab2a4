"""Cross-origin requests (the Fetch standard), decided as Envoy's CORS filter decides them.

A request with an `origin` that is allowed gets the fields that let a browser show the response to its
page; a preflight (OPTIONS with `access-control-request-method`) of such an origin is answered here. Any
other request passes untouched, a preflight of a stranger too: the backend may know better. gRPC-Web is
nothing else: `x-grpc-web` and the like stand in `headers`, `grpc-status` in `exposed_headers`.

Unlike Envoy we say `vary: origin`, for a cache must not show one origin's response to another, and what
it may keep of a stranger's request says it too.
"""

from __future__ import annotations

from stickyproxy.model import Headers
from stickyproxy.rules import Cors

EXPOSES_ALL = (b"access-control-expose-headers", b"*")
_VARY = (b"vary", b"origin")
_CACHED = frozenset({b"GET", b"HEAD"})
_NOT_EXPOSED = frozenset(
    b"cache-control content-language content-length content-type expires last-modified pragma"
    b" set-cookie".split()
)
"""What every page may read, and what none may."""
_REQUESTED_METHOD = b"access-control-request-method"
_REQUESTED_HEADERS = b"access-control-request-headers"


class CorsPlan:
    """One `Cors`, compiled."""

    __slots__ = ("_any", "_credentials", "_exposed", "_headers", "_max_age", "_methods", "_origins")

    def __init__(self, cors: Cors) -> None:
        self._origins = frozenset(origin.encode() for origin in cors.origins)
        self._any = b"*" in self._origins
        self._methods = cors.methods.encode()
        self._headers = cors.headers.encode()
        self._max_age = cors.max_age.encode()
        self._credentials = cors.credentials
        self._exposed = cors.exposed_headers.encode()

    def added(self, headers: Headers) -> Headers | None:
        """What every response to this request gets; None for nothing."""
        origin = _value(headers, b"origin")
        if not origin or not (self._any or origin in self._origins):
            return [_VARY] if _value(headers, b":method") in _CACHED else None
        out = self._allowed(origin)
        if self._exposed:
            out.append((b"access-control-expose-headers", self._exposed))
        out.append(_VARY)
        return out

    def preflight(self, headers: Headers) -> Headers | None:
        """The whole answer to a preflight of an allowed origin, without a body; else None."""
        if _value(headers, b":method") != b"OPTIONS":
            return None
        wanted, origin = _value(headers, _REQUESTED_METHOD), _value(headers, b"origin")
        if not wanted or not origin or not (self._any or origin in self._origins):
            return None
        out = [(b":status", b"200"), *self._allowed(origin)]
        methods = wanted if self._methods == b"*" else self._methods
        names = _value(headers, _REQUESTED_HEADERS) if self._headers == b"*" else self._headers
        for name, value in (
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", names),
            (b"access-control-max-age", self._max_age),
        ):
            if value:
                out.append((name, value))
        return [*out, _VARY, (b"content-length", b"0")]

    def _allowed(self, origin: bytes) -> Headers:
        """The origin itself, never `*`, which browsers refuse beside credentials."""
        out = [(b"access-control-allow-origin", origin)]
        if self._credentials:
            out.append((b"access-control-allow-credentials", b"true"))
        return out


def by_name(headers: Headers) -> Headers:
    """A response head that exposes all there is: `*` would be a mere name beside credentials."""
    names = dict.fromkeys(name for name, _ in headers if _is_to_be_exposed(name))
    named = [(EXPOSES_ALL[0], b", ".join(names))] if names else []
    return [field for field in headers if field != EXPOSES_ALL] + named


def _is_to_be_exposed(name: bytes) -> bool:
    hidden = name in _NOT_EXPOSED or name.startswith((b":", b"access-control-"))
    return not hidden and name != _VARY[0]


def _value(headers: Headers, name: bytes) -> bytes:
    return next((value for key, value in headers if key == name), b"")
