"""The admin port: which request gets which page, and who may change anything.

Plain functions from request to response; sockets and HTTP are the caller's. Reading is open to
whoever reaches the port (bind it to loopback, decision of the operator). Changing anything needs
POST, no browser in between (no Origin header: a web page must not drain a proxy on the reader's own
machine), and off loopback a token. By loopback all but the probes are for who names this machine.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from stickyproxy import exposition
from stickyproxy.control.admin import pages
from stickyproxy.control.admin.callers import stranger
from stickyproxy.control.admin.health import is_grpc, respond_grpc
from stickyproxy.control.view import AdminView, state
from stickyproxy.model import Headers

TOKEN_ENV = "STICKYPROXY_ADMIN_TOKEN"  # noqa: S105 - the variable's name
_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json"

PROBES = frozenset(
    (
        "/ready",
        "/healthz",
        "/metrics",
        "/stats/prometheus",
        "/ambassador/v0/check_alive",
        "/ambassador/v0/check_ready",
    )
)
"""What `--health` shows to the network: enough for a kubelet and a scraper, nothing to misuse."""


LIVE_PAGES = {
    "/live": "a page to look at (so is / in a browser); by WebSocket what changes, each second",
    "/explain": "which endpoint a request gets now, and why (?path=/&header=x-user-id:alice)",
    "/shares.svg": "a cluster's hash table as a picture (?cluster=NAME)",
}
"""Which `admin.live` answers."""


class AdminResponse(NamedTuple):
    """`headers` without `:status`, lower case. `trailers` None: the response ends with its body."""

    status: int
    headers: Headers
    body: bytes
    trailers: Headers | None = None


class AdminApp:
    """`read_only` serves `PROBES` and the gRPC health service, nothing else.

    `token` is what a mutating call from off loopback must show; empty means none is accepted.
    """

    def __init__(self, view: AdminView, *, read_only: bool = False, token: str = "") -> None:
        self._view = view
        self._read_only = read_only
        self._token = token.encode("utf-8", "surrogateescape")  # as the environment gave it
        self._pages: dict[str, tuple[str, Callable[[str], _Page]]] = {
            "/": ("this list", self._help),
            "/help": ("this list", self._help),
            "/ready": ("200 LIVE, or 503 and why not", self._ready),
            "/healthz": ("200 while the event loop answers", lambda _: _Page(200, "ok\n")),
            "/clusters": ("endpoints and their counters (?format=json)", self._clusters),
            "/listeners": ("addresses listened on (?format=json)", self._listeners),
            "/config_dump": ("settings, routes, clusters, hosts; no secrets", self._config_dump),
            "/stats": ("counters (?format=json, ?format=prometheus)", self._stats),
            "/stats/prometheus": ("all metrics for Prometheus", self._metrics),
            "/metrics": ("the same", self._metrics),
            "/server_info": ("version, state, uptime", self._server_info),
            "/memory": ("memory of this process", lambda _: _json(pages.memory())),
            "/ambassador/v0/check_alive": ("as /healthz", lambda _: _Page(200, "ok\n")),
            "/ambassador/v0/check_ready": ("as /ready", self._ready),
        }
        self._actions: dict[str, tuple[str, Callable[[], None]]] = {
            "/drain_listeners": ("begin the graceful end", view.drain),
            "/healthcheck/fail": ("say not ready from now on", lambda: view.fail_health(True)),
            "/healthcheck/ok": ("take that back", lambda: view.fail_health(False)),
        }

    def respond(
        self, method: str, path: str, headers: Headers, body: bytes, *, loopback: bool
    ) -> AdminResponse:
        """Answer one request; `path` is the target with its query, `body` complete.

        `loopback`: the peer's own address is a loopback one (or the socket is a unix socket).
        """
        path, _, query = path.partition("?")
        if method == "POST" and is_grpc(headers):
            status, grpc_headers, message, trailers = respond_grpc(path, body, self._view.ready())
            return AdminResponse(status, grpc_headers, message, trailers)
        known = self._pages.keys() | self._actions.keys()
        if path in known - PROBES and (problem := stranger(dict(headers), loopback=loopback)):
            return _response(_Page(403, problem), method)
        if path in self._actions and not self._read_only:
            return _response(self._act(method, path, headers, loopback), method)
        found = None if self._read_only and path not in PROBES else self._pages.get(path)
        if found is None and (self._read_only or path not in LIVE_PAGES):
            return _response(_Page(404, f"no such page; {self._hint()}\n"), method)
        if found is None or method not in {"GET", "HEAD"}:  # a live page is read elsewhere
            return _response(_READ_ONLY, method)
        return _response(found[1](query), method)

    def _act(self, method: str, path: str, headers: Headers, loopback: bool) -> _Page:
        if method != "POST":
            return _Page(405, "this changes something: POST it\n", allow=b"POST")
        if any(name == b"origin" for name, _ in headers):
            return _Page(403, "not from a browser\n")
        if not loopback and not self._token:
            return _Page(403, f"off loopback this needs a token, and {TOKEN_ENV} is not set\n")
        if not loopback and not _shows(headers, self._token):
            return _Page(403, "off loopback this needs the token: x-stickyproxy-token\n")
        self._actions[path][1]()
        return _Page(200, "OK\n")

    def _hint(self) -> str:
        return "there are " + ", ".join(sorted(PROBES)) if self._read_only else "see /help"

    def _help(self, _query: str) -> _Page:
        pages = {path: what for path, (what, _) in self._pages.items()} | LIVE_PAGES
        lines = [f"  {path}: {what}\n" for path, what in sorted(pages.items())]
        lines += [f"  {path} (POST): {what}\n" for path, (what, _) in sorted(self._actions.items())]
        return _Page(200, "stickyproxy's admin pages:\n" + "".join(lines))

    def _ready(self, _query: str) -> _Page:
        ready = self._view.ready()
        return _Page(200 if ready else 503, state(self._view) + "\n")

    def _clusters(self, query: str) -> _Page:
        if _wants(query, "json"):
            return _json(pages.clusters_json(self._view))
        return _Page(200, pages.clusters_text(self._view))

    def _listeners(self, query: str) -> _Page:
        if _wants(query, "json"):
            return _json(pages.listeners_json(self._view))
        return _Page(200, pages.listeners_text(self._view))

    def _config_dump(self, _query: str) -> _Page:
        return _json(pages.config_dump(self._view))

    def _server_info(self, _query: str) -> _Page:
        return _json(pages.server_info(self._view))

    def _stats(self, query: str) -> _Page:
        if _wants(query, "prometheus"):
            return self._metrics(query)
        found = pages.stats(self._view)
        if _wants(query, "json"):
            return _json({"stats": [{"name": name, "value": n} for name, n in found.items()]})
        return _Page(200, "".join(f"{name}: {n}\n" for name, n in found.items()))

    def _metrics(self, _query: str) -> _Page:
        text = exposition.render(self._view.metrics())
        return _Page(200, text.decode(), exposition.CONTENT_TYPE)


class _Page(NamedTuple):
    status: int
    text: str
    content_type: bytes = _TEXT
    allow: bytes = b""


_READ_ONLY = _Page(405, "read with GET\n", allow=b"GET, HEAD")


def _json(value: Any) -> _Page:
    return _Page(200, json.dumps(value, indent=1) + "\n", _JSON)


def _wants(query: str, form: str) -> bool:
    return f"format={form}" in query.split("&")


def _shows(headers: Headers, token: bytes) -> bool:
    shown = [value for name, value in headers if name == b"x-stickyproxy-token"]
    for name, value in headers:
        scheme, _, credentials = value.partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer":
            shown.append(credentials.strip())
    return any(hmac.compare_digest(value, token) for value in shown)


def body_fields(content_type: bytes, body: bytes) -> Headers:
    """What every page says of its body: what it is, and that nobody keeps or guesses it."""
    return [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-cache, max-age=0"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _response(page: _Page, method: str) -> AdminResponse:
    body = page.text.encode("utf-8", "backslashreplace")
    headers = body_fields(page.content_type, body)
    if page.allow:
        headers.append((b"allow", page.allow))
    return AdminResponse(page.status, headers, b"" if method == "HEAD" else body)
