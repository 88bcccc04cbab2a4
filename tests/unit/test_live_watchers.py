"""Who watches the live page: how many may, and what becomes of one who does not read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import trio

from stickyproxy.control.admin.app import AdminApp
from stickyproxy.control.admin.live import MOST_WATCHERS, PATIENCE, AdminLive
from stickyproxy.control.admin.server import admin_server
from stickyproxy.control.live.feed import LiveFeed
from stickyproxy.events import HeadReceived
from stickyproxy.model import Connection, Endpoint, Headers, Snapshot
from stickyproxy.wire.stream import Stream
from support.adminview import CLUSTER, ROUTE, Routes, View
from support.clock import on_jumping_clock
from support.links import Joined, joined
from support.peers import Call

WATCH: Headers = [
    (b":method", b"GET"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"localhost:9901"),
    (b":path", b"/live?as=html"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


class Port:
    """The admin port of a proxy with a large cluster."""

    def __init__(self, nursery: trio.Nursery) -> None:
        view = View()
        many = tuple(Endpoint(f"10.0.1.{n}:80", ((f"10.0.1.{n}", 80),)) for n in range(200))
        large = replace(CLUSTER, endpoints=many, table=None)
        view.current = Snapshot(7, Routes([ROUTE]), {"greeters": large})
        self.feed = LiveFeed(view)
        self._serve = admin_server(AdminApp(view), None, AdminLive(view, self.feed))(Connection())
        nursery.start_soon(self.feed.run)

    async def serve(self, stream: Stream, head: HeadReceived) -> None:
        waiting = self._serve(stream, head)
        assert waiting is not None
        await waiting


async def watching(both: Joined) -> Call:
    return await both.peer.request(WATCH).headed()


@pytest.mark.parametrize("reads", [True, False])
@on_jumping_clock
async def test_who_reads_is_told_for_ever_and_who_does_not_is_let_go(reads: bool) -> None:
    async with trio.open_nursery() as nursery:
        port = Port(nursery)
        async with joined(serve=port.serve, protocol="http1") as both:
            assert (await watching(both)).status == b"101"
            both.peer.reading = reads
            await trio.sleep(3)
            assert port.feed.watchers == 1
            await trio.sleep(5 * PATIENCE)
            assert port.feed.watchers == reads
        nursery.cancel_scope.cancel()


@on_jumping_clock
async def test_more_than_a_team_with_a_page_on_the_wall_is_refused_until_one_leaves() -> None:
    async with trio.open_nursery() as nursery:
        port = Port(nursery)
        with ExitStack() as others:
            for _ in range(MOST_WATCHERS - 1):
                others.enter_context(port.feed.watching())
            with port.feed.watching():
                async with joined(serve=port.serve, protocol="http1") as both:
                    assert (await watching(both)).status == b"503"
            async with joined(serve=port.serve, protocol="http1") as both:
                assert (await watching(both)).status == b"101"
        nursery.cancel_scope.cancel()
