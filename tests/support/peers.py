"""Clients and backends for tests that read as a conversation: a real codec, and no opinion.

A `Peer` is one connection. A `Call` is one of its streams and remembers all that was heard on it; a
test says what to send and waits for what it wants to hear:

    call = client.request(POST)                    got = await backend.request()
    got.reset(H2Code.CANCEL)                       assert (await call.end()).reset == H2Code.CANCEL

Sending is synchronous where it cannot wait. Credit is given back at once unless `granting` is False.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from stickyproxy.codec.api import Codec
from stickyproxy.events import (
    CodecFailed,
    DataReceived,
    Event,
    GoawayReceived,
    HeadReceived,
    InformationalReceived,
    PongReceived,
    StreamReset,
    TrailersReceived,
)
from stickyproxy.model import Headers
from support.wires import Wire

PATIENCE = 600.0
"""Seconds of the test's own clock, which jumps when nothing else can happen: for ever."""


class Call:
    """What was heard of one stream. `end_stream` once its peer finished, `reset` once it was reset.

    `lost`: the connection ended before either.
    """

    def __init__(self, peer: Peer, stream_id: int) -> None:
        self.peer = peer
        self.stream_id = stream_id
        self.head: Headers = []
        self.frames = 0
        self.informational: list[Headers] = []
        self.body = bytearray()
        self.trailers: Headers = []
        self.end_stream = False
        self.reset: int | None = None
        self.refused = False
        self.lost = False
        self.granting = peer.granting
        self._unread = 0

    # --- heard ---

    @property
    def over(self) -> bool:
        return self.end_stream or self.reset is not None or self.lost

    @property
    def _cut(self) -> bool:
        return self.reset is not None or self.lost

    @property
    def status(self) -> bytes:
        return dict(self.head).get(b":status", b"")

    @property
    def grpc_status(self) -> bytes:
        fields = dict(self.trailers or self.head)
        return fields.get(b"grpc-status", b"")

    def field(self, name: bytes) -> bytes:
        return dict(self.head).get(name, b"")

    async def until(self, heard: Callable[[Call], bool]) -> Call:
        await self.peer.until(lambda: heard(self))
        return self

    async def headed(self) -> Call:
        return await self.until(lambda call: bool(call.head))

    async def has(self, amount: int) -> Call:
        return await self.until(lambda call: len(call.body) >= amount)

    async def end(self) -> Call:
        """Until it is over, one way or the other."""
        return await self.until(lambda call: call.over)

    def hear(self, event: Event) -> None:
        if isinstance(event, HeadReceived):
            self.head = event.headers
            self.frames += 1
            self.end_stream = event.end_stream
        elif isinstance(event, InformationalReceived):
            self.informational.append(event.headers)
        elif isinstance(event, DataReceived):
            self.body += event.data
            self.frames += 1
            self.end_stream = event.end_stream
            self._unread += event.credit
            if self.granting:
                self._give_back()
        elif isinstance(event, TrailersReceived):
            self.trailers = event.headers
            self.frames += 1
            self.end_stream = True
        elif isinstance(event, StreamReset):
            self.reset = event.code
            self.refused = event.unprocessed

    def grant(self) -> None:
        """Read: give back the credit of all that came, and from now on at once."""
        self.granting = True
        self._give_back()
        self.peer.resume()

    def _give_back(self) -> None:
        self.peer.codec.grant(self.stream_id, self._unread)
        self._unread = 0

    # --- said ---

    def respond(self, headers: Headers, *, end: bool = False) -> None:
        self.peer.codec.send_headers(self.stream_id, headers, end)
        self.peer.kick()

    trailer = respond

    def say(self, data: bytes, *, end: bool = False) -> None:
        """Body bytes that fit into the window."""
        self.peer.codec.send_data(self.stream_id, data, end)
        self.peer.kick()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Body bytes of any number, as windows and the wire allow."""
        codec, rest = self.peer.codec, memoryview(data)
        while rest:
            await self.peer.until(lambda: self._cut or codec.window(self.stream_id) > 0)
            await self.peer.until(lambda: self._cut or not self.peer.sending)
            if self._cut:
                return
            size = min(codec.window(self.stream_id), 1 << 16)
            chunk, rest = bytes(rest[:size]), rest[size:]
            self.say(chunk, end=end and not rest)
        if not data:
            self.say(b"", end=end)

    def rst(self, code: int) -> None:
        self.peer.codec.reset(self.stream_id, code)
        self.peer.kick()


class Peer:
    """One end of a connection, with a real codec. `run` it in a nursery."""

    def __init__(self, wire: Wire, codec: Codec) -> None:
        self.wire = wire
        self.codec = codec
        self.calls: dict[int, Call] = {}
        self.arrived: list[Call] = []
        self.goaways: list[GoawayReceived] = []
        self.pongs: list[bytes] = []
        self.failed: CodecFailed | None = None
        self.eof = False
        """The other side closed properly."""
        self.broken = False
        """It did not."""
        self.granting = True
        self._reading = True
        self.answering = True
        """False keeps what the codec would say of itself (SETTINGS, acknowledgements) inside."""
        self.sending = False
        self._changed = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                self.kick()

    async def until(self, happened: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not happened():
                await self._changed.park()

    def kick(self) -> None:
        """Something changed, or something is to be sent."""
        self._changed.unpark_all()

    async def gone(self) -> None:
        """Until the other side has left, properly or not."""
        await self.until(lambda: self.eof or self.broken)

    @property
    def reading(self) -> bool:
        """False: what arrives stays in the wire, until that is full."""
        return self._reading

    @reading.setter
    def reading(self, reads: bool) -> None:
        self._reading = reads
        self.kick()

    # --- how it ends ---

    def close(self) -> None:
        self.wire.close()
        self._scope.cancel()

    def break_off(self) -> None:
        self.wire.break_off()
        self._scope.cancel()

    def goaway(self, last_id: int, code: int = 0) -> None:
        self.codec.goaway(last_id, code)
        self.kick()

    def ping(self, payload: bytes) -> None:
        self.codec.ping(payload)
        self.kick()

    def request(self, headers: Headers, *, end: bool = False) -> Call:
        call = self._call(self.codec.open_stream(headers, end))
        self.kick()
        return call

    # --- inside ---

    def _call(self, stream_id: int) -> Call:
        call = self.calls[stream_id] = Call(self, stream_id)
        return call

    async def _write(self) -> None:
        while True:
            data = self.codec.take_output() if self.answering else b""
            if not data:
                await self._changed.park()
                continue
            self.sending = True
            try:
                await self.wire.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            finally:
                self.sending = False
            self.kick()

    async def _read(self) -> None:
        while not (self.eof or self.broken):
            await self.until(lambda: self._reading and not self.codec.paused)
            try:
                data = await self.wire.receive_some()
                self.eof = not data
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.broken = True
                break
            self._hear(self.codec.feed(data))
            self.resume()
        for call in self.calls.values():
            call.lost = not call.over
        self.kick()

    def resume(self) -> None:
        """After credit was given back: HTTP/1.1 may hold more that was read already."""
        while self.codec.buffered:
            self._hear(self.codec.resume())
        self.kick()

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, GoawayReceived):
                self.goaways.append(event)
            elif isinstance(event, PongReceived):
                self.pongs.append(event.payload)
            elif isinstance(event, CodecFailed):
                self.failed = event
            elif getattr(event, "stream_id", 0):
                self._hear_on_stream(event)

    def _hear_on_stream(self, event: Event) -> None:
        stream_id = getattr(event, "stream_id", 0)
        call = self.calls.get(stream_id)
        if call is None and isinstance(event, HeadReceived):
            call = self._call(stream_id)
            self.arrived.append(call)
        if call is not None:
            call.hear(event)
