"""The admin pages on our own HTTP stack: one task a request, bodies of a few KiB."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from stickyproxy.control.admin.app import AdminApp, AdminResponse
from stickyproxy.control.admin.health import reads_body
from stickyproxy.control.admin.live import AdminLive
from stickyproxy.control.admin.websocket import is_websocket
from stickyproxy.errors import H2Code, ProxyError
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.model import Connection, Headers
from stickyproxy.proxy.server import ServeStream
from stickyproxy.wire.stream import Stream

MAX_BODY = 65_536
"""Bytes of a request body: a health check has a few, nothing here takes more."""


def admin_server(
    app: AdminApp,
    prepare: Callable[[], Awaitable[None]] | None = None,
    live: AdminLive | None = None,
) -> Callable[[Connection], ServeStream]:
    """What `Server` runs for each request of an admin connection; `prepare` before it is answered."""

    def for_connection(connection: Connection) -> ServeStream:
        loopback = _is_loopback(connection)

        async def serve(stream: Stream, head: HeadReceived) -> None:
            try:
                if prepare is not None:
                    await prepare()
                await _respond(app, live, stream, head, loopback=loopback)
            except ProxyError:
                return
            finally:
                stream.close(H2Code.NO_ERROR if stream.local_done else H2Code.INTERNAL_ERROR)

        return serve

    return for_connection


async def _respond(
    app: AdminApp, live: AdminLive | None, stream: Stream, head: HeadReceived, *, loopback: bool
) -> None:
    answer = None
    if head.fault is not None:
        answer = AdminResponse(431, [(b"content-length", b"0")], b"")
    elif live is not None and is_websocket(head):
        answer = await live.watch(stream, head, loopback=loopback)
        if answer is None:
            return
    elif live is not None and head.fields[b":method"] in _READING:
        target = head.fields[b":path"].decode("latin-1")
        answer = await live.find(target, head.fields, loopback=loopback)
        if answer is not None and head.fields[b":method"] == b"HEAD":
            answer = answer._replace(body=b"")
    if answer is None:
        fields = dict(head.headers)
        method = fields.get(b":method", b"").decode("latin-1")
        path = fields.get(b":path", b"").decode("latin-1")
        body = await _body(stream, head) if reads_body(path, head.headers) else b""
        if body is None:
            answer = AdminResponse(413, [(b"content-length", b"0")], b"")
        else:
            answer = app.respond(method, path, head.headers, body, loopback=loopback)
    await _send(stream, answer)


_READING = frozenset((b"GET", b"HEAD"))


async def _body(stream: Stream, head: HeadReceived) -> bytes | None:
    """All of it, or None when it is longer than any of our pages reads."""
    parts = []
    size = 0
    ended = head.end_stream
    while not ended:
        event = await stream.receive()
        if not isinstance(event, DataReceived):
            break
        parts.append(event.data)
        size += len(event.data)
        if size > MAX_BODY:
            return None
        stream.grant(event.credit)
        ended = event.end_stream
    return b"".join(parts)


async def _send(stream: Stream, answer: AdminResponse) -> None:
    headers: Headers = [(b":status", b"%d" % answer.status), *answer.headers]
    ends = not answer.body and answer.trailers is None
    stream.send_headers(headers, end_stream=ends)
    if answer.body:
        await stream.send_data(answer.body, end_stream=answer.trailers is None)
    if answer.trailers is not None:
        stream.send_headers(answer.trailers, end_stream=True)


def _is_loopback(connection: Connection) -> bool:
    """A unix socket is as near as loopback: the file system says who may."""
    if not connection.remote_ip:
        return True
    return ipaddress.ip_address(connection.remote_ip).is_loopback
