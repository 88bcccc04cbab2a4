"""One socket with one codec: a reader, a writer, and (server role) the tasks of its streams.

The reader waits for the socket or for the link's room, never for a stream: every event is dispatched
synchronously into an inbox whose size credit bounds. The writer sends what the codec has, once per
wake-up; it yields once after waking so that the frames of one tick travel together.

How a link ends (RFC 9113 §6.8; the kernel resets a socket that is closed with unread input, and then
the peer loses our last words): streams fall first, the writer gets a bounded last flush, then the
sending side is shut and what still arrives is read away for a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from stickyproxy.codec.api import MAX_STREAM_ID, Codec
from stickyproxy.codec.limits import FloodGuard
from stickyproxy.errors import H2Code, ProxyError
from stickyproxy.events import (
    CapacityChanged,
    CodecFailed,
    DataReceived,
    Event,
    GoawayReceived,
    HeadReceived,
    InformationalReceived,
    PongReceived,
    RequestRejected,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from stickyproxy.model import Headers
from stickyproxy.wire import bounds
from stickyproxy.wire.beginnings import Beginnings, Serve, started_at_last
from stickyproxy.wire.direct import flow_of, size_of_next
from stickyproxy.wire.failures import broken, fail_all, is_reset, lost, reason_of, reset_error
from stickyproxy.wire.farewell import linger, tear
from stickyproxy.wire.outbound import Outbound
from stickyproxy.wire.pulse import ASKING, Pulse
from stickyproxy.wire.stream import Stream

if TYPE_CHECKING:
    from trio.abc import Stream as Transport


class Link(Outbound):
    """`serve(stream, head)` is called for each request (server role); None towards a backend.

    `rejected(event)` hears of requests that never became a stream. `changed(link)` hears, towards a
    backend, that capacity changed or that the link is closing or gone. `allowed`: what it may hold and cost.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        *,
        serve: Serve | None = None,
        rejected: Callable[[RequestRejected], None] | None = None,
        changed: Callable[[Link], None] | None = None,
        hung_up: Callable[[], bool] | None = None,
        allowed: bounds.Allowance = bounds.DEFAULT,
    ) -> None:
        super().__init__(transport, codec)
        self.requests = 0
        """Taken so far (server role)."""
        self.pulse: Pulse | None = None
        self.first_bytes = b""
        self.goaway: GoawayReceived | None = None
        self.over = False
        self.now = trio.lowlevel.current_clock().current_time
        """As `trio.current_time`, without looking for the clock of this run each time."""
        self.began = self.idle_since = self.now()
        self.left = False
        """The peer closed or reset the connection."""
        self.beginnings = Beginnings(serve)
        self._changed = changed
        self._hung_up = hung_up
        self._allowed = allowed
        self._guard, self._cost = FloodGuard(allowed.work, allowed.work_rate), 0
        self._drain_since: float | None = None
        self._torn = False
        self._dispatch: dict[type, Callable[..., None]] = {
            HeadReceived: self._on_head,
            DataReceived: self._on_data,
            TrailersReceived: self._on_fields,
            InformationalReceived: self._on_fields,
            StreamReset: self._on_reset,
            RequestRejected: rejected or (lambda _: None),
            WindowOpened: self._on_window,
            CapacityChanged: self._on_capacity,
            PongReceived: self._on_pong,
            GoawayReceived: self._on_goaway,
            CodecFailed: self._on_codec_failed,
        }

    # --- life ---

    async def run(self, initial: bytes = b"") -> None:
        """Until the connection is over. `initial` was read before the codec was chosen."""
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._write)
                try:
                    async with trio.open_nursery() as nursery:
                        self.beginnings.nursery = nursery
                        with started_at_last(self.streams):
                            await self._read(initial)
                        self._end()  # so that the tasks that fall know why
                        nursery.cancel_scope.cancel()
                finally:
                    self.beginnings.nursery = None
                    await self._finish()
        finally:
            self._end()
            await trio.aclose_forcefully(self.transport)

    def close(self) -> None:
        """End the link now; what is queued is still flushed, briefly."""
        self.over = True
        self._read_scope.cancel()

    def tear(self) -> None:
        """End it now, with a reset."""
        self._torn = True
        self.close()

    async def _finish(self) -> None:
        """The bounded last flush. Shielded: it runs when everything around is cancelled."""
        self._end()
        self._finishing = True
        self._wake_writer()
        with trio.move_on_after(bounds.LAST_FLUSH, shield=True):
            await self._written.wait()
            self._write_scope.cancel()
            if self._torn:
                tear(self.transport)
            elif not self._peer_done:
                await linger(self.transport, whole=not (self._in_flight or self._backlog))
        self._write_scope.cancel()

    def tells(self, changed: Callable[[Link], None]) -> None:
        """From now on `changed` hears."""
        self._changed = changed

    def _end(self) -> None:
        """Sync, and again harmless: no stream outlives its link."""
        self.over = True
        fail_all(self.streams.values(), self._failing())
        self._tell()

    def _failing(self) -> ProxyError:
        return self.failure or lost(self.codec, "the connection was lost")

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(self)

    # --- reading ---

    async def _read(self, initial: bytes) -> None:
        with self._read_scope:
            try:
                if initial:
                    self._take(initial)
                await self._read_all()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._peer_done = True
                self.left = is_reset(error)
                self.failure = self.failure or lost(self.codec, reason_of(error))

    async def _read_all(self) -> None:
        flow = flow_of(self.transport, self._hub, self.codec.bite, self._read_one, self._aside)
        while not self.over:
            if self._must_wait():
                await self._wait_for_room()
            else:
                await flow()
                if self._peer_done:
                    return

    def _must_wait(self) -> bool:
        return self.codec.paused or self.unsent() > self._allowed.unsent

    def _read_one(self, data: bytes) -> int:
        """How much to read next; 0: look first whether to read at all."""
        if not data:
            self._peer_done = self.left = True
        size = size_of_next(len(data), self._take(data), self.codec)
        if not data:
            self.failure = self.failure or lost(self.codec, "the connection was closed")
        return 0 if not data or self.over or self._must_wait() else size

    def _aside(self, spent: float) -> bool:
        """TLS was busy with itself for so many seconds, and may have something to say of it."""
        self._wake_writer()
        self._charge(spent * 1e6)
        return not self.over and not self._must_wait()

    def _take(self, data: bytes) -> int:
        """How many events it made."""
        if not self.first_bytes:
            self.first_bytes = data[:16]
        if self.pulse is not None:
            self.pulse.heard = self.now()
        events = self.codec.feed(data)
        if self.codec.passed:
            self._push_on()
        self.hear(events)
        cost = self.codec.cost
        if cost != self._cost:
            self._charge(cost - self._cost)
            self._cost = cost
        self.beginnings.serve(self._failing() if self.over else None)
        self._flush_answers()
        return len(events) + self.codec.passed

    def _push_on(self) -> None:
        """DATA went straight on to other links."""
        if self.pulse is not None:
            self.pulse.prove()
        for link in self.codec.take_stirred():
            link.push()

    def _flush_answers(self) -> None:
        """What the codec itself had to say to the input. Mostly nothing: then nobody is woken."""
        codec = self.codec
        if codec.has_output or codec.closing or codec.buffered:
            self.flush()

    def _charge(self, cost: float) -> None:
        if not self._guard.charge(cost, trio.current_time()) and not self.over:
            self.give_up("the peer makes more work than it asks for")

    def give_up(self, detail: str) -> None:
        """End a link whose peer asks too much of us."""
        self.codec.goaway(self.codec.last_peer_stream, H2Code.ENHANCE_YOUR_CALM)
        self.failure = self.failure or lost(self.codec, detail)
        self.close()

    async def _wait_for_room(self) -> None:
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._leave_reading)

    def _leave_reading(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    # --- events ---

    def hear(self, events: Sequence[Event]) -> None:
        for event in events:
            self._dispatch[type(event)](event)
        self.beginnings.all_is_read()

    def _on_head(self, event: HeadReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self._accept(event)
            return
        stream.remote_done = event.end_stream
        stream.headed = True
        if self.pulse is not None:
            self.pulse.head(stream)
        stream.deliver(event)

    def _accept(self, head: HeadReceived) -> None:
        if self.over or self.codec.client or self.beginnings.nursery is None:
            return
        self.requests += 1
        stream = self.streams[head.stream_id] = Stream(self, head.stream_id)
        stream.remote_done = head.end_stream
        self.beginnings.accept(stream, head)

    def _on_data(self, event: DataReceived) -> None:
        if self.pulse is not None:
            self.pulse.prove()
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.remote_done = event.end_stream
            stream.deliver(event)

    def _on_fields(self, event: TrailersReceived | InformationalReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.remote_done = isinstance(event, TrailersReceived)
            stream.deliver(event)

    def _on_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.local_done = stream.remote_done = True
            if self.pulse is not None:
                self.pulse.forget(stream)
            stream.fail(reset_error(self.codec, event))

    def _on_window(self, event: WindowOpened) -> None:
        if not event.stream_id:
            self.pass_turn()
            self._tell()
            return
        waiting = self.streams.get(event.stream_id)
        if waiting is not None and waiting not in self.turns:
            waiting.wake_sender()

    def _on_capacity(self, _: CapacityChanged) -> None:
        # New SETTINGS may have opened the window of every stream (RFC 9113 §6.9.2).
        for stream in [s for s in self.streams.values() if s not in self.turns]:
            stream.wake_sender()
        self._tell()

    def _on_goaway(self, event: GoawayReceived) -> None:
        self.goaway = event
        self._tell()

    def _on_codec_failed(self, event: CodecFailed) -> None:
        self.failure = broken(self.codec, event)
        self.close()

    # --- writing ---

    def flush(self) -> None:
        """Something may be in the codec's output. Sync; the writer does the rest."""
        if self._writer is not None:
            self._wake_writer()
        if self.codec.buffered:
            self.hear(self.codec.resume())
            self.beginnings.serve_later()

    # --- streams ---

    def open_stream(self, headers: Headers, end_stream: bool, body: bytes = b"") -> Stream:
        """Client role, only with capacity. `body` is all of it, and goes along if there is room for it

        now: then the stream is `local_done`. If not, none of it is sent.
        """
        codec, size = self.codec, len(body)
        stream_id = codec.open_stream(headers, end_stream)
        stream = self.streams[stream_id] = Stream(self, stream_id)
        stream.local_done = end_stream
        if size and self.uncrowded(size) and codec.window(stream_id) >= size:
            codec.send_data(stream_id, body, end_stream=True)
            stream.local_done = True
            self.room -= size
        if self.pulse is not None:
            self.pulse.begin(stream, complete=stream.local_done)
        self.flush()
        return stream

    def grant(self, stream_id: int, credit: int) -> None:
        self.codec.grant(stream_id, credit)
        self.flush()
        if self._reader is not None and not self.codec.paused:
            self._wake_reader()

    def release(self, stream: Stream, code: int) -> None:
        if self.streams.pop(stream.stream_id, None) is None:
            return
        if self.pulse is not None and not stream.headed:
            self.pulse.forget(stream)
        unfinished = not (stream.local_done and stream.remote_done)
        if unfinished:
            self._torn |= not stream.local_done and self.codec.protocol == "HTTP/1.0"
            self.codec.reset(stream.stream_id, code)
        if not self.streams:
            self.idle_since = self.now()
        if unfinished or self.codec.buffered or self.codec.closing:
            self.flush()  # the reset, the next request, or the writer's look whether all is done
        if self._reader is not None:
            self._wake_reader()
        if self._changed is not None:
            self._changed(self)

    # --- drain and time ---

    def drain(self) -> None:
        """GOAWAY with the largest id, one round trip, GOAWAY with the real one, wait, close."""
        if self.draining or self.over:
            return
        self.draining = True
        self._drain_since = trio.current_time()
        self.codec.goaway(MAX_STREAM_ID, H2Code.NO_ERROR)
        self.codec.ping(bounds.DRAIN_PING)
        self.flush()

    def _on_pong(self, event: PongReceived) -> None:
        if event.payload == bounds.DRAIN_PING and self._drain_since is not None:
            self._last_goaway()
        elif event.payload == ASKING and self.pulse is not None:
            self.pulse.answer()

    def _last_goaway(self) -> None:
        self._drain_since = None
        self.codec.goaway(self.codec.last_peer_stream, H2Code.NO_ERROR)
        self.flush()

    def tick(self, now: float, idle_timeout: float) -> None:
        """Once a second, from the worker's watch: what only time can tell."""
        if now - self._writing_since > self._allowed.write_stall:
            self.failure = lost(self.codec, "the peer does not read")
            self._write_scope.cancel()
            self.close()
        elif self.codec.paused and self._hung_up is not None and self._hung_up():
            self.failure = lost(self.codec, "the peer hung up")
            self.close()
        elif self._drain_since is not None and now - self._drain_since > 1:
            self._last_goaway()  # the peer owes us the PING's answer for a second: go on without
        elif not self.streams and now - self.idle_since > idle_timeout:
            self._end_idle()

    def _end_idle(self) -> None:
        if self.codec.client or self.codec.protocol != "HTTP/2":  # HTTP/1.1 has no goodbye to say
            self.close()
        else:
            self.drain()
