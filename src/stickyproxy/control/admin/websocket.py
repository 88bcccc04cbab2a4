"""A WebSocket on the admin port: the library's side of one, on a stream of our own HTTP stack.

The library wants a connection from its first byte, and the head was read already. So it is said to it
once more, and the head that it answers with is turned back into ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_server_stream

from stickyproxy.errors import H2Code, ProxyError
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.model import Headers
from stickyproxy.wire.stream import Stream

Gone = (
    *(ConnectionClosed, HandshakeError),
    *(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError),
)
"""How it shows that whoever watched is gone, or does not read."""

MOST_SAID = 4096
"""Bytes of a message to us; nobody has anything to say."""
_FRAMING = frozenset((b"connection", b"upgrade"))
_HEAD_END = b"\r\n\r\n"


def is_websocket(head: HeadReceived) -> bool:
    fields = head.fields
    return fields.get(b":protocol") == b"websocket" and fields.get(b":method") == b"GET"


@asynccontextmanager
async def websocket(stream: Stream, head: HeadReceived) -> AsyncIterator[WebSocketConnection]:
    """Accepted. What comes from the other side is read and dropped; raises one of `Gone`."""
    async with trio.open_nursery() as nursery:
        tunnel = _Tunnel(stream, head)
        request = await wrap_server_stream(nursery, tunnel, 0, MOST_SAID)
        connection = await request.accept()
        nursery.start_soon(_drop, connection)
        yield connection
        nursery.cancel_scope.cancel()


async def _drop(connection: WebSocketConnection) -> None:
    try:
        while True:
            await connection.get_message()
    except ConnectionClosed:
        return


class _Tunnel(trio.abc.Stream):
    """Errors of ours become trio's."""

    def __init__(self, stream: Stream, head: HeadReceived) -> None:
        self._stream = stream
        self._unread = _as_bytes(head.headers)
        self._answer = b""
        self._answered = False
        self._ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._unread and not self._ended:
            self._take(await self._event())
        size = len(self._unread) if max_bytes is None else max_bytes
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    async def _event(self) -> object:
        try:
            return await self._stream.receive()
        except ProxyError as error:
            raise trio.BrokenResourceError(error.detail) from None

    def _take(self, event: object) -> None:
        if isinstance(event, DataReceived):
            self._unread = event.data
            self._ended = event.end_stream
            self._stream.grant(event.credit)
        else:
            self._ended = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            rest = bytes(data) if self._answered else self._say_head(bytes(data))
            if rest:
                await self._stream.send_data(rest, end_stream=False)
        except ProxyError as error:
            raise trio.BrokenResourceError(error.detail) from None

    def _say_head(self, data: bytes) -> bytes:
        """What is left behind it."""
        self._answer += data
        if _HEAD_END not in self._answer:
            return b""
        head, _, rest = self._answer.partition(_HEAD_END)
        self._answered = True
        self._stream.send_headers(_as_headers(head), end_stream=False)
        return rest

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._stream.close(H2Code.NO_ERROR)
        await trio.lowlevel.checkpoint()


def _as_bytes(headers: Headers) -> bytes:
    fields = dict(headers)
    lines = [b"GET %s HTTP/1.1" % fields[b":path"], b"host: " + fields.get(b":authority", b"")]
    lines += [b"connection: upgrade", b"upgrade: websocket"]
    left_out = (*_FRAMING, b"host")
    lines += [b"%s: %s" % one for one in headers if one[0][:1] != b":" and one[0] not in left_out]
    return b"\r\n".join(lines) + _HEAD_END


def _as_headers(head: bytes) -> Headers:
    first, *lines = head.split(b"\r\n")
    cut = (line.partition(b":") for line in lines)
    fields = [(name.strip().lower(), value.strip()) for name, _, value in cut]
    status = (b":status", first.split(b" ")[1])
    return [status, *(field for field in fields if field[0] not in _FRAMING)]
