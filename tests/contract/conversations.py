"""What one side of a whole connection says: a valid conversation, one with wrong turns, or one that was

changed on its way; in pieces, with pauses, and with one of the ways to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import trio
from hypothesis import strategies as st

from contract.test_contract_differential import EDITS, edited
from contract.test_contract_splits import CUTS, pieces
from contract.wild import ORDINARY, WILD, Step, Writer, steps
from support import rawframes as raw
from support.wires import Wire

STREAMS = (1, 3, 5)
"""Those that a backend finds open: so many calls come to it."""
ENDS = ("close", "close", "half close", "break", "stay")
STAY = 20.0
"""Seconds (of the test's clock) that one stays who says nothing more: longer than all idle timeouts."""


class Said(NamedTuple):
    """`opening` comes first and as it should be; `rest` is anything, cut into pieces.

    `pause` seconds go by between two of them. `reads`: whether it reads what it is told.
    """

    opening: bytes
    rest: list[bytes]
    pause: float
    end: str
    reads: bool

    def halves(self) -> Iterator[list[bytes]]:
        middle = len(self.rest) // 2
        yield [self.opening, *self.rest[:middle]]
        yield self.rest[middle:]


Edits = list[tuple[int, str, int]]


class Manner(NamedTuple):
    """How it is said. `stop`: after so many bytes, 0 for all."""

    pause: float
    end: str
    reads: bool
    stop: int


MANNERS = st.builds(
    Manner,
    st.sampled_from((0.0, 0.0, 0.01, 1.0)),
    st.sampled_from(ENDS),
    st.booleans(),
    st.just(0) | st.integers(1, 10_000),
)


def _said(opening: bytes, valid: bytes, edits: Edits, cuts: list[int], manner: Manner) -> Said:
    whole = edited(valid, edits)
    if manner.stop:
        whole = whole[: manner.stop % (len(whole) + 1)]
    return Said(opening, pieces(whole, cuts), manner.pause, manner.end, manner.reads)


def _conversations(
    opening: st.SearchStrategy[bytes], valid: st.SearchStrategy[bytes]
) -> st.SearchStrategy[Said]:
    """As it is, or changed, or cut off somewhere."""
    return st.builds(_said, opening, valid, st.just([]) | EDITS, CUTS, MANNERS)


def _frames(steps: list[Step], *, server: bool) -> bytes:
    writer = Writer(server=server)
    if server:
        writer.open, writer.next = dict.fromkeys(STREAMS, False), STREAMS[-1] + 2
    return b"".join(writer.write(step) for step in steps)


def _http2(opening: bytes, *, server: bool) -> st.SearchStrategy[Said]:
    some = steps(ORDINARY, server=server) | steps(ORDINARY * 2 + WILD, server=server)
    frames = some.map(lambda steps: _frames(steps, server=server))
    whole = _conversations(st.just(opening), frames)
    return whole | _conversations(st.just(b""), frames.map(lambda rest: opening + rest))


_BODY = st.tuples(
    st.sampled_from(("none", "length", "chunked", "trailers")),
    st.lists(st.binary(min_size=1, max_size=60) | st.just(bytes(20_000)), max_size=4),
)


def _body(framing: str, parts: list[bytes]) -> bytes:
    """From the last lines of the head to the end of the message."""
    whole = b"".join(parts)
    if framing == "none":
        return b"\r\n"
    if framing == "length":
        return b"Content-Length: %d\r\n\r\n" % len(whole) + whole
    chunks = b"".join(b"%x;x=1\r\n%s\r\n" % (len(part), part) for part in parts)
    trailers = b"x-sum: 1\r\nx-b: c\r\n" if framing == "trailers" else b""
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


REQUEST_HEADS = (
    b"GET /a?b=c HTTP/1.1\r\nHost: svc.example\r\nCookie: a=1; b=2\r\n",
    b"POST / HTTP/1.1\r\nHost: svc.example\r\nContent-Type: application/grpc\r\nTE: trailers\r\n",
    b"POST / HTTP/1.1\r\nHost: svc.example\r\nExpect: 100-continue\r\n",
    b"PUT / HTTP/1.1\r\nHost: svc.example\r\nConnection: close\r\n",
    b"HEAD / HTTP/1.1\r\nHost: svc.example\r\n",
    b"POST / HTTP/1.0\r\nHost: svc.example\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: svc.example\r\n",
    (
        b"GET / HTTP/1.1\r\nHost: svc.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ),
)
RESPONSE_HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 0\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Slow Down\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
)


def _http1(heads: tuple[bytes, ...]) -> st.SearchStrategy[Said]:
    message = st.builds(lambda head, body: head + _body(*body), st.sampled_from(heads), _BODY)
    whole = st.lists(message, min_size=1, max_size=4).map(b"".join)
    return _conversations(st.just(b""), whole)


CLIENTS = {
    "HTTP/2": _http2(raw.PREFACE + raw.settings(), server=False),
    "HTTP/1.1": _http1(REQUEST_HEADS),
}
BACKENDS = {"h2c": _http2(raw.settings(), server=True), "http": _http1(RESPONSE_HEADS)}


class Speaker:
    """Says it on a wire. `over` once it has left, or the other side has."""

    def __init__(self, wire: Wire, said: Said) -> None:
        self.over = trio.Event()
        self._wire = wire
        self._said = said

    async def run(self, halfway: trio.Event | None = None) -> None:
        async with trio.open_nursery() as nursery:
            if self._said.reads:
                nursery.start_soon(self._read)
            for half in self._said.halves():
                await self._say(half)
                if halfway is not None:
                    halfway.set()
            await self._leave()
            nursery.cancel_scope.cancel()
        self.over.set()

    async def _say(self, parts: list[bytes]) -> None:
        """Who is not listened to any more, or not for long, gives up."""
        with trio.move_on_after(STAY):
            for part in parts:
                try:
                    await self._wire.send_all(part)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                await trio.sleep(self._said.pause)

    async def _leave(self) -> None:
        if self._said.end == "break":
            self._wire.break_off()
        elif self._said.end != "close":
            if self._said.end == "half close":
                await self._wire.send_eof()
            await trio.sleep(STAY)
        self._wire.close()

    async def _read(self) -> None:
        try:
            while await self._wire.receive_some():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
