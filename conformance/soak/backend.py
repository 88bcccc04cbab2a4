"""One backend of the soak, as a process that may be killed: `backend.py PORT NAME`.

It answers every call with as many octets as `size` in its query says, after the request's end. SIGTERM is
a graceful end: GOAWAY, and what is under way is still answered.
"""

from __future__ import annotations

import random
import signal
import sys
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trio

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from stickyproxy.codec.api import CodecLimits
from stickyproxy.codec.fast import FastCodec
from stickyproxy.errors import ProxyError
from stickyproxy.events import DataReceived, HeadReceived
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream

SLOWEST = 0.02
"""Seconds that an answer takes at the most, so that calls overlap with what goes wrong."""
LONGEST = 12.0
"""Seconds for what is under way when it is told to go: slow readers take eight."""
PIECE = bytes(16_384)


async def answer(name: str, stream: Stream, head: HeadReceived) -> None:
    try:
        ended = head.end_stream
        while not ended:
            event = await stream.receive()
            ended = not isinstance(event, DataReceived) or event.end_stream
            stream.grant(getattr(event, "credit", 0))
        query = parse_qs(urlsplit(head.fields[b":path"].decode()).query)
        await trio.sleep(random.uniform(0, SLOWEST))
        left = int(query.get("size", ["2"])[0])
        stream.send_headers([(b":status", b"200"), (b"x-backend", name.encode())], end_stream=False)
        while left > 0:
            piece = PIECE[:left]
            left -= len(piece)
            await stream.send_data(piece, end_stream=not left)
    except ProxyError:  # the call is over
        pass
    finally:
        stream.close()


async def main(port: int, name: str) -> None:
    links: set[Link] = set()

    async def serve(transport: trio.SocketStream) -> None:
        codec = FastCodec(False, CodecLimits(max_concurrent_streams=10_000))
        link = Link(transport, codec, serve=partial(answer, name))
        links.add(link)
        try:
            await link.run()
        finally:
            links.discard(link)

    async with trio.open_nursery() as nursery:
        listening = trio.CancelScope()

        async def listen(task_status: trio.TaskStatus[object]) -> None:
            with listening:
                await trio.serve_tcp(
                    serve,
                    port,
                    host="127.0.0.1",
                    handler_nursery=nursery,
                    task_status=task_status,
                )

        await nursery.start(listen)
        print("ready", flush=True)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        listening.cancel()
        for link in list(links):
            link.drain()
        with trio.move_on_after(LONGEST):
            while links:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])
