"""The other end of the live feed: what `top` watches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from stickyproxy.model import Bind

CONNECT_WITHIN = 5.0
"""Seconds for the connection, and for its handshake."""

Lost = (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError, trio.TooSlowError)
"""How a feed that is not there, or not any more, shows; several may come as a group."""


@asynccontextmanager
async def feed(admin: Bind) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Accounts as they come, one a second. Raises one of `Lost`."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(CONNECT_WITHIN):
            stream = await _connect(admin)
            host = f"{admin.host}:{admin.port}" if admin.kind == "tcp" else "localhost"
            connection = await wrap_client_stream(nursery, stream, host, "/live")
        try:
            yield _accounts(connection)
        finally:
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(stream)


async def _connect(admin: Bind) -> trio.SocketStream:
    if admin.kind == "unix":
        return await trio.open_unix_socket(admin.path)
    return await trio.open_tcp_stream(admin.host, admin.port)


async def _accounts(connection: WebSocketConnection) -> AsyncIterator[dict[str, Any]]:
    while True:
        account: dict[str, Any] = json.loads(await connection.get_message())
        yield account
