"""The admin port's live pages: what is asked for once, and what is watched.

Reading needs no token, as on every other page. `callers` says who may not read along.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

import trio

from stickyproxy.control.admin.app import LIVE_PAGES, AdminResponse, body_fields
from stickyproxy.control.admin.callers import foreign, stranger
from stickyproxy.control.admin.websocket import Gone, websocket
from stickyproxy.control.live import page
from stickyproxy.control.live.ask import Asked, answer_json, answer_lines
from stickyproxy.control.live.drawing import drawn
from stickyproxy.control.live.feed import LiveFeed, Told
from stickyproxy.control.view import AdminView
from stickyproxy.events import HeadReceived
from stickyproxy.model import Headers
from stickyproxy.wire.stream import Stream

MOST_WATCHERS = 64
"""At once: a team with a page on the wall; each is sent up to some 100 KB a second."""
PATIENCE = 10.0
"""Seconds in which a look must be on its way, or nobody reads at the other end."""


class Written:
    """What a look says is written once, for all who watch."""

    def __init__(self, write: Callable[[Told], str]) -> None:
        self._write = write
        self._of = 0
        self._text = ""

    def of(self, told: Told) -> str:
        if told.serial != self._of:
            self._of, self._text = told.serial, self._write(told)
        return self._text


class AdminLive:
    """`feed` must run."""

    def __init__(self, view: AdminView, feed: LiveFeed) -> None:
        self._view = view
        self._feed = feed
        self._html = Written(page.view)
        self._json = Written(_as_json)

    async def find(
        self, target: str, fields: Mapping[bytes, bytes], *, loopback: bool
    ) -> AdminResponse | None:
        """One of our pages; None when the request is for another one."""
        path, _, query = target.partition("?")
        if path == "/" and b"text/html" in fields.get(b"accept", b""):
            path = "/live"
        if path not in LIVE_PAGES:
            return None
        if problem := stranger(fields, loopback=loopback):
            return _text(403, problem)
        if path == "/shares.svg":
            return self._picture(query)
        return self._explain(query) if path == "/explain" else await self._page(query)

    async def watch(
        self, stream: Stream, head: HeadReceived, *, loopback: bool
    ) -> AdminResponse | None:
        """Over a WebSocket, until the other side is gone; or what there is to say instead of it."""
        path, _, query = head.fields.get(b":path", b"").decode("latin-1").partition("?")
        if path != "/live":
            return _text(404, "WebSocket: there is only /live\n")
        problem = stranger(head.fields, loopback=loopback) or foreign(head.fields)
        if problem:
            return _text(403, problem)
        if self._feed.watchers >= MOST_WATCHERS:
            return _text(503, f"{MOST_WATCHERS} watch already\n")
        written = self._html if parse_qs(query).get("as") == ["html"] else self._json
        try:
            await self._tell(stream, head, written)
        except* Gone:
            pass
        return None

    async def _tell(self, stream: Stream, head: HeadReceived, written: Written) -> None:
        with self._feed.watching():
            async with websocket(stream, head) as connection:
                serial = 0
                while True:
                    told = await self._feed.after(serial)
                    serial = told.serial
                    with trio.fail_after(PATIENCE):
                        await connection.send_message(written.of(told))

    # --- what is asked for once ---

    async def _page(self, query: str) -> AdminResponse:
        asked = Asked(query)
        lines = [] if asked.empty else answer_lines(self._view, asked)
        nonce = secrets.token_urlsafe(16)
        told = await self._feed.once()
        text = page.page(self._html.of(told), told, asked, lines, nonce)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return _found(200, text, b"text/html; charset=utf-8", [(_CSP, policy.encode())])

    def _explain(self, query: str) -> AdminResponse:
        status, text = answer_json(self._view, Asked(query))
        return _found(status, text, b"application/json")

    def _picture(self, query: str) -> AdminResponse:
        name = parse_qs(query).get("cluster", [""])[0]
        snapshot = self._view.snapshot()
        cluster = snapshot.clusters.get(name) if snapshot is not None else None
        svg = drawn(cluster) if cluster is not None else None
        if svg is None:
            return _text(404, "no such cluster, or one without a hash table\n")
        return _found(200, svg, b"image/svg+xml", [(_CSP, b"default-src 'none'")])


_CSP = b"content-security-policy"


def _as_json(told: Told) -> str:
    return json.dumps(told.account | {"changes": told.changes})


def _text(status: int, text: str) -> AdminResponse:
    return _found(status, text, b"text/plain; charset=utf-8")


def _found(status: int, text: str, kind: bytes, more: Headers | None = None) -> AdminResponse:
    body = text.encode("utf-8", "backslashreplace")
    headers = body_fields(kind, body) + (more or [])
    return AdminResponse(status, headers, body)


async def run_feed(feed: LiveFeed, bug: Callable[[BaseException, str], None]) -> None:
    """A look that fails is told to `bug`, and the next one is tried."""
    while True:
        try:
            await feed.run()
        except Exception as error:  # noqa: BLE001 - a page must not end the process
            bug(error, "live")
            await trio.sleep(1)
