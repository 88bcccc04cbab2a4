"""Requests to the API server over our own links: HTTP/2 where ALPN says so, else HTTP/1.1.

One HTTP/2 link carries all watches; an HTTP/1.1 link one request at a time.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec
import trio

from stickyproxy import __version__
from stickyproxy.codec.api import CodecLimits
from stickyproxy.control.discovery.kube_server import Access, ApiServer
from stickyproxy.control.discovery.kube_transport import (
    Connector,
    Heard,
    connect,
    listen_for_life,
)
from stickyproxy.errors import ProxyError
from stickyproxy.events import DataReceived, HeadReceived, InformationalReceived
from stickyproxy.model import Headers
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream

CONNECT_LIMIT = 10.0  # seconds for TCP, TLS and the server's SETTINGS
HEAD_LIMIT = 60.0  # seconds to a response head: the API server's own --request-timeout
LARGEST_ERROR = 65_536
LARGEST_BODY = 256 << 20  # bytes: about 50,000 slices in one answer


class ApiUnreachable(Exception):  # noqa: N818 (it names a state of the world)
    """No answer: no connection, no sign of life, or the stream broke."""


class ApiError(Exception):
    """The server said no. `retry_after` in seconds, None if it did not say."""

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}".replace(" :", ":"))
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


def error_of(status: Any, code: int = 0, header: str = "") -> ApiError:
    """From a `Status` object (an answer's body or a watch's ERROR) and a Retry-After field."""
    found = status if isinstance(status, dict) else {}
    details = found.get("details")
    seconds = (details or {}).get("retryAfterSeconds") if isinstance(details, dict) else None
    if header.isascii() and header.isdigit():
        seconds = int(header)
    return ApiError(
        int(found.get("code") or code),
        str(found.get("reason") or ""),
        str(found.get("message") or "no reason given"),
        float(seconds) if seconds else None,
    )


@dataclass(slots=True)
class Answer:
    """A response whose head has come; `receive` gives its body piece by piece, b"" at the end."""

    stream: Stream
    status: int
    headers: dict[bytes, bytes]
    ended: bool

    async def receive(self) -> bytes:
        """Raises `ApiUnreachable` when it breaks off."""
        while not self.ended:
            try:
                event = await self.stream.receive()
            except ProxyError as error:
                raise ApiUnreachable(error.detail) from None
            if not isinstance(event, DataReceived):
                self.ended = not isinstance(event, InformationalReceived)
                continue
            self.ended = event.end_stream
            self.stream.grant(event.credit)
            if event.data:
                return event.data
        return b""

    async def body(self, largest: int = LARGEST_BODY) -> bytes:
        parts, size = [], 0
        while part := await self.receive():
            size += len(part)
            if size > largest:
                raise ApiUnreachable(f"its answer is larger than {largest} bytes")
            parts.append(part)
        return b"".join(parts)

    async def error(self) -> ApiError:
        """What the body of a response that is no success says."""
        text = await self.body(LARGEST_ERROR)
        header = self.headers.get(b"retry-after", b"").decode("latin-1")
        try:
            status = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            message = text[:200].decode("utf-8", "replace").strip()
            status = {"message": message or "no body"}
        return error_of(status, self.status, header)


class KubeClient:
    """`run` must have started before `request`; its links live in it."""

    def __init__(self, access: Access, connector: Connector | None = None) -> None:
        self.access = access
        self._connector = connector or connect
        self._codecs = Codecs("reference", CodecLimits())
        self._links: dict[Link, Heard] = {}
        self._dialling = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The decoded answer. Raises `ApiError`, `ApiUnreachable`, `AccessError`."""
        return await self.send("GET", path, query)

    async def send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Any:
        """As `get`, with an object to write."""
        async with self.request(method, path, query, body) as answer:
            text = await answer.body()
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ApiUnreachable(f"its answer is no JSON ({error})") from None

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> AsyncIterator[Answer]:
        """A successful answer, to be read inside. A 401 is tried once more with a new token."""
        authorization = await self.access.authorization()
        stream, answer = await self._ask(method, path, query, body, authorization)
        try:
            if answer.status == 401:
                stream.close()
                authorization = await self.access.authorization(renew=True)
                stream, answer = await self._ask(method, path, query, body, authorization)
            if not 200 <= answer.status < 300:
                raise await answer.error()
            yield answer
        finally:
            stream.close()

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        authorization: str | None,
    ) -> tuple[Stream, Answer]:
        server = await self.access.server()
        target = server.prefix + path + (f"?{urlencode(query)}" if query else "")
        headers = _head(method, server, target, authorization, body is not None)
        link = await self._link(server)
        stream: Stream | None = None
        try:
            with trio.fail_after(HEAD_LIMIT):
                stream = link.open_stream(headers, body is None)
                if body is not None:
                    await stream.send_data(json.dumps(body).encode(), end_stream=True)
                return stream, await _answer(stream)
        except BaseException as error:
            if stream is not None:
                stream.close()
            if isinstance(error, ProxyError):
                raise ApiUnreachable(error.detail) from None
            if isinstance(error, trio.TooSlowError):
                raise ApiUnreachable(f"no response within {HEAD_LIMIT:g} s") from None
            raise

    # --- links ---

    async def _link(self, server: ApiServer) -> Link:
        """One that can take a request. No checkpoint between here and its use."""
        async with self._dialling:
            for link in self._links:
                if not link.over and link.goaway is None and link.codec.capacity() > 0:
                    return link
            return await self._dial(server)

    async def _dial(self, server: ApiServer) -> Link:
        if self._nursery is None:
            raise RuntimeError("the client does not run")
        try:
            with trio.fail_after(CONNECT_LIMIT):
                transport, protocol = await self._connector(server)
                return await self._start(transport, protocol, tls=server.tls is not None)
        except trio.TooSlowError:
            reason = f"timed out after {CONNECT_LIMIT:g} s"
        except ssl.SSLError as error:
            reason = f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
        except OSError as error:
            reason = str(error.strerror or error).lower()
        raise ApiUnreachable(f"{server.authority}: {reason}")

    async def _start(self, transport: trio.abc.Stream, protocol: str, *, tls: bool) -> Link:
        heard = Heard(transport)
        codec = self._codecs.client(multiplexed=protocol == "h2", tls=tls)
        ready = trio.Event()

        def changed(link: Link) -> None:
            if link.over or link.codec.capacity() > 0:
                ready.set()

        link = Link(heard, codec, changed=changed)
        self._links[link] = heard
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, link, heard)
        changed(link)
        try:
            await ready.wait()
        except BaseException:
            link.close()
            raise
        if link.over or link.codec.capacity() <= 0:
            raise ApiUnreachable(link.failure.detail if link.failure else "the connection was lost")
        return link

    async def _keep(self, link: Link, heard: Heard) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen_for_life, link, heard)
                await link.run()
                nursery.cancel_scope.cancel()
        finally:
            self._links.pop(link, None)


async def _answer(stream: Stream) -> Answer:
    while True:
        event = await stream.receive()
        if isinstance(event, HeadReceived):
            fields = dict(event.headers)
            return Answer(stream, int(fields[b":status"]), fields, event.end_stream)


def _head(
    method: str, server: ApiServer, target: str, authorization: str | None, body: bool
) -> Headers:
    headers = [
        (b":method", method.encode()),
        (b":scheme", b"https" if server.tls else b"http"),
        (b":authority", server.authority.encode()),
        (b":path", target.encode()),
        (b"accept", b"application/json"),
        (b"user-agent", f"stickyproxy/{__version__}".encode()),
    ]
    if authorization:
        headers.append((b"authorization", authorization.encode()))
    if body:
        headers.append((b"content-type", b"application/json"))
    return headers
