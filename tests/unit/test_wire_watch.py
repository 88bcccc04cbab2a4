"""What only time can tell of a link, told by one task that looks at all of them."""

from __future__ import annotations

import trio

from stickyproxy.codec.api import CodecLimits
from stickyproxy.errors import ErrorKind, ProxyError
from stickyproxy.events import HeadReceived
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch
from support.clock import on_jumping_clock
from support.wires import Wire, wire_pair

UPLOAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"


async def refuse(stream: Stream, _: HeadReceived) -> None:
    stream.close()


@on_jumping_clock
async def test_a_hang_up_behind_an_upload_that_is_not_read_is_noticed() -> None:
    """HTTP/1.1 stops reading at its window, and with it would stop noticing."""
    heard: list[tuple[float, ErrorKind]] = []
    gone = False

    async def stall(stream: Stream, _: HeadReceived) -> None:
        try:
            while True:
                await stream.receive()
        except ProxyError as error:
            heard.append((trio.current_time(), error.kind))
        finally:
            stream.close()

    here, there = wire_pair()
    codec = Codecs("reference", CodecLimits()).server(multiplexed=False, tls=False)
    link = Link(here, codec, serve=stall, hung_up=lambda: gone)
    watch = LinkWatch()
    watch.add(link)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        nursery.start_soon(link.run)
        nursery.start_soon(pour, there)
        await trio.sleep(30)
        assert codec.paused
        assert heard == []
        gone, begun = True, trio.current_time()
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    ((when, kind),) = heard
    assert kind is ErrorKind.CLIENT_GONE
    assert when - begun <= 1


async def pour(wire: Wire) -> None:
    try:
        await wire.send_all(UPLOAD + bytes(1_000_000))
    except trio.BrokenResourceError:
        return


@on_jumping_clock
async def test_only_links_that_were_added_are_looked_at() -> None:
    watch = LinkWatch(idle_timeout=10)
    codecs = Codecs("reference", CodecLimits())
    links = [
        Link(wire_pair()[0], codecs.server(multiplexed=True, tls=False), serve=refuse)
        for _ in range(3)
    ]
    for link in links:
        watch.add(link)
    watch.discard(links[1])
    watch.discard(links[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(12)
        nursery.cancel_scope.cancel()
    assert [link.draining for link in links] == [True, False, True]
