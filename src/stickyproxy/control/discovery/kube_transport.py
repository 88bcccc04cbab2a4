"""Connections to the API server, and what tells a frozen or vanished server from a quiet one.

After 30 s in which nothing was heard a PING, and without a sign of life 15 s later the link is given
up (client-go's ReadIdleTimeout and PingTimeout). HTTP/1.1 has no PING; there the kernel's keepalive
finds a vanished machine, and the time limit of the watch a frozen one.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio

from stickyproxy.control.discovery.kube_server import ApiServer
from stickyproxy.wire.link import Link

SILENCE = 30.0
PONG_LIMIT = 15.0
IDLE_LIMIT = 60.0  # seconds that a link without requests is kept
KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 9))  # as client-go

Connector = Callable[[ApiServer], Awaitable[tuple[trio.abc.Stream, str]]]
"""A stream to the server and what is spoken on it: `h2` or `http/1.1`."""


class Heard(trio.abc.Stream):
    """A stream that knows when something last came through it."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self._below = below
        self.heard_at = trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._below.receive_some(max_bytes)
        self.heard_at = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._below.aclose()


async def listen_for_life(link: Link, heard: Heard) -> None:
    """Close the link when nothing answers, or when nobody needs it."""
    while True:
        await trio.sleep_until(heard.heard_at + SILENCE)
        if trio.current_time() < heard.heard_at + SILENCE:
            continue
        if not link.streams:
            if trio.current_time() >= link.idle_since + IDLE_LIMIT:
                link.close()
            await trio.sleep(SILENCE)
        elif link.codec.protocol == "HTTP/2":
            await _ask_for_life(link, heard)
        else:
            await trio.sleep(SILENCE)


async def _ask_for_life(link: Link, heard: Heard) -> None:
    asked_at = trio.current_time()
    link.codec.ping(b"kubelive")
    link.flush()
    await trio.sleep(PONG_LIMIT)
    if heard.heard_at < asked_at:
        link.close()


async def connect(server: ApiServer) -> tuple[trio.abc.Stream, str]:
    """TCP with the kernel's keepalive, TLS where the server has it. Raises `OSError`, `SSLError`."""
    stream = await trio.open_tcp_stream(server.host, server.port)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if server.tls is None:
            return stream, "http/1.1"
        secured = trio.SSLStream(
            stream, server.tls, server_hostname=server.name or server.host, https_compatible=True
        )
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise (
            error.__cause__
            if isinstance(error.__cause__, OSError)
            else OSError("it closed the connection")
        ) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured, secured.selected_alpn_protocol() or "http/1.1"
