"""The other end of the live feed: what `top` watches."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from stickyproxy.model import Bind

CONNECT_WITHIN = 5.0
"""Seconds for the connection, and for its handshake."""


class NoFeedError(Exception):
    """What answers is something else."""


Lost = (
    *(NoFeedError, ConnectionClosed, HandshakeError, OSError),
    *(trio.BrokenResourceError, trio.TooSlowError),
)
"""How a feed that is not there, or not any more, shows; several may come as a group."""


@asynccontextmanager
async def feed(admin: Bind) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Accounts as they come, one a second. Raises groups of `Lost`."""
    connection = None
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_WITHIN):
                stream = await _connect(admin)
                connection = await _shake_hands(nursery, stream, admin)
            try:
                yield _accounts(connection)
            finally:
                nursery.cancel_scope.cancel()
                await trio.aclose_forcefully(stream)
    except* Lost:
        raise
    except* Exception:  # of the library, which trips over an answer that is no HTTP/1.1
        if connection is not None:
            raise
        raise NoFeedError("what answers there speaks no HTTP/1.1") from None


def in_words(group: BaseExceptionGroup[BaseException]) -> str:
    """Why there is no feed."""
    error: BaseException | None = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        if isinstance(error.__cause__, (OSError, BaseExceptionGroup)):
            error = error.__cause__  # trio tells of all attempts, and the reason is behind it
    if isinstance(error, ConnectionRejected):
        said = " ".join((error.body or b"").decode("utf-8", "replace").split())
        return f"it said {error.status_code}: {said[:200]}".rstrip(": ")
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__


async def _shake_hands(
    nursery: trio.Nursery, stream: trio.SocketStream, admin: Bind
) -> WebSocketConnection:
    host = f"{admin.host}:{admin.port}" if admin.kind == "tcp" else "localhost"
    return await wrap_client_stream(nursery, stream, host, "/live")


async def _connect(admin: Bind) -> trio.SocketStream:
    if admin.kind == "unix":
        return await trio.open_unix_socket(admin.path)
    return await trio.open_tcp_stream(admin.host, admin.port)


async def _accounts(connection: WebSocketConnection) -> AsyncIterator[dict[str, Any]]:
    while True:
        account: dict[str, Any] = json.loads(await connection.get_message())
        yield account
