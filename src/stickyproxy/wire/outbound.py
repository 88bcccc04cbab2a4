"""The writing half of a link: when what the codec has to say leaves, and who may say more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

import trio

from stickyproxy.codec.api import Codec
from stickyproxy.errors import ProxyError
from stickyproxy.wire import bounds
from stickyproxy.wire.direct import fd_of, pieces_of, sender_of, write_some
from stickyproxy.wire.failures import lost, reason_of
from stickyproxy.wire.hub import hub_of
from stickyproxy.wire.secured import Secured
from stickyproxy.wire.waking import wake

if TYPE_CHECKING:
    from trio.abc import Stream as Transport

    from stickyproxy.wire.stream import Stream


class Outbound(ABC):
    """`room` is what may be handed to the codec before senders wait, `turns` those who do.

    A socket is written by the hub, as long as it takes all; `_write` waits for all others, and for the
    rest. `handed`: bytes given to the socket so far, sealed where it is TLS.
    """

    def __init__(self, transport: Transport, codec: Codec) -> None:
        self.transport = transport
        self.codec = codec
        self.streams: dict[int, Stream] = {}
        self.room = bounds.ROOM + bounds.RESERVE
        self.turns: deque[Stream] = deque()
        self.handed = transport.written if isinstance(transport, Secured) else 0
        self.failure: ProxyError | None = None
        self.draining = False
        self._reserve = bounds.RESERVE
        self._hub = hub_of(transport)
        self._send_all = sender_of(transport, self._hub)
        self._pieces = pieces_of(transport, self._hub, codec)
        self._fd = fd_of(transport)
        self.taking = self._hub is not None
        self._marked = False
        self._bug: Exception | None = None
        self._read_scope = trio.CancelScope()
        self._write_scope = trio.CancelScope(shield=True)
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        self._writing_since = bounds.NEVER
        self._in_flight = 0
        self._backlog = bytearray()
        self._written = trio.Event()
        self._finishing = self._peer_done = False

    @abstractmethod
    def close(self) -> None:
        """End the link now; what is queued is still flushed, briefly."""

    def _wake_reader(self) -> None:
        task, self._reader = self._reader, None
        if task is not None:
            wake(task)

    # --- by whoever has something to say ---

    def _wake_writer(self) -> None:
        """Have the codec's output written, if nobody is at it."""
        if self._writer is None:
            return
        if self._hub is None or self._finishing:
            self._call_writer()
        elif not self._marked:
            self._marked = True
            self._hub.mark(self)

    def _call_writer(self) -> None:
        task, self._writer = self._writer, None
        if task is not None:
            wake(task)

    def push(self) -> None:
        """Something went straight into the codec's output. So much of it leaves at once that the next

        reader in this turn has room too; little of it travels together with theirs.
        """
        if self.taking and self.room < bounds.RESERVE:
            self.write_now()
        else:
            self._wake_writer()

    # --- by the hub ---

    def write_now(self) -> None:
        self._marked = False
        if self._writer is None:
            return
        pieces = self._pieces()
        if self._backlog:
            pieces.insert(0, bytes(self._backlog))
            self._backlog.clear()
        if pieces:
            sent, rest = write_some(self._fd, pieces)
            self.handed += sent
            if rest:
                self.taking = False
                self._backlog += rest
                self._call_writer()
                return
            self.room = bounds.ROOM + bounds.RESERVE
            self._all_sent()
        self._close_when_done()

    def fail(self, bug: Exception) -> None:
        self._bug = bug
        self._call_writer()

    # --- by the writer ---

    async def _write(self) -> None:
        try:
            with self._write_scope:
                await self._write_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.failure = self.failure or lost(self.codec, reason_of(error))
            self._peer_done = True
            if self.codec.client:
                self._hear_out()
            else:
                self.close()
        finally:
            self._written.set()

    def _hear_out(self) -> None:
        """A backend that no longer listens may have said why: a GOAWAY, an early response."""
        self.draining = True
        self._in_flight = 0
        self._read_scope.deadline = trio.current_time() + bounds.LAST_FLUSH
        self._wake_reader()

    async def _write_all(self) -> None:
        while True:
            data = self._said()
            if data:
                await self._send(data)
            elif self._finishing:
                return
            else:
                self._close_when_done()
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._leave_writing)
                if self._bug is not None:
                    raise self._bug
                if len(self.streams) > 1:  # frames of one tick travel together
                    await trio.lowlevel.checkpoint()

    def _said(self) -> bytes:
        """All that is to be sent."""
        data = b"".join(self._pieces())
        if self._backlog:
            data = bytes(self._backlog) + data
            self._backlog.clear()
        return data

    def unsent(self) -> int:
        """Bytes that the socket has not taken. Idle or about to run, the writer takes all at once."""
        if not self._in_flight:
            return 0
        self._backlog += b"".join(self._pieces())
        return self._in_flight + len(self._backlog)

    async def _send(self, data: bytes) -> None:
        self._in_flight, self.room, self._reserve = len(data), bounds.ROOM, 0
        self.taking = False
        self.handed += len(data)
        self._writing_since = trio.current_time()
        await self._send_all(data)
        self._writing_since, self._in_flight = bounds.NEVER, 0
        self.room += bounds.RESERVE
        self._all_sent()

    def _all_sent(self) -> None:
        self._reserve = bounds.RESERVE
        self.taking = self._hub is not None
        self.pass_turn()
        if self._reader is not None:
            self._wake_reader()

    def _leave_writing(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _close_when_done(self) -> None:
        """The writer is idle: nothing is left to say, perhaps nothing is left to do."""
        if not self.streams and self.codec.closing:
            self.close()

    # --- room: who may send next ---

    def uncrowded(self, more: int = 0) -> bool:
        """Whether there is room for more than `more` bytes. A socket that takes all is given what waits."""
        if self.turns:
            return False
        if self.room <= more + self._reserve and self.taking:
            self.write_now()
        return self.room > more + self._reserve

    def queue_for_turn(self, stream: Stream) -> None:
        self.turns.append(stream)
        self.pass_turn()

    def pass_turn(self) -> None:
        """Let the longest waiting stream send one chunk, if the link can take it."""
        if self.turns and self.room > self._reserve and self.codec.window(0) > 0:
            self.turns.popleft().wake_sender()

    def leave_turns(self, stream: Stream) -> None:
        if stream in self.turns:
            self.turns.remove(stream)
