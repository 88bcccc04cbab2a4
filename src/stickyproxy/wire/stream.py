"""One request-response exchange on one Link: an inbox, a send side, a reset. No task of its own.

A Stream has at most one task that receives and at most one that sends. Transitions are synchronous
(`deliver`, `fail`, `interrupt`, `close`); the two waits are thin shells around them, and a wait that
is cancelled has changed nothing.

Three ways to end early, and what each means for a receiver:

* `fail` - the peer or the link ended the stream. What had arrived before is still received first.
* `interrupt` - our own side gave up (client gone, deadline). It overtakes what lies in the inbox.
* `close` - the owner is done with it; a stream that was not finished is reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from stickyproxy.codec.api import Counter, Straight
from stickyproxy.errors import H2Code, ProxyError
from stickyproxy.events import (
    DataReceived,
    HeadReceived,
    InformationalReceived,
    TrailersReceived,
    joined,
)
from stickyproxy.model import Headers
from stickyproxy.wire.waking import wake

if TYPE_CHECKING:
    from collections.abc import Callable

    from stickyproxy.wire.link import Link

Received = HeadReceived | InformationalReceived | DataReceived | TrailersReceived

DOUBTED = InformationalReceived(0, [])
"""In an inbox, and told by identity: from here on the link is suspect. No peer says it; only who asked
to be told (`on_doubt`) puts it there, to hear of it in the order of what was received."""
DROPPED_AT_ONCE = 256
"""Events that were read and still lie in an inbox, at the most."""
CHUNK = 16_384
"""What a stream sends in one turn when others wait: a default HTTP/2 frame (RFC 9113 §4.2)."""


class Stream:
    """`on_end` is told, synchronously, when the peer or the link ends the stream early.

    `starter` is called, once, when a receiver would be woken: for who does not wait in a task of its
    own. What came in one read is then in the inbox.

    `on_doubt` is told, at most once and never after the response's head, when the link that the
    stream is on has become suspect: who may send the request twice may do so elsewhere now. `headed`:
    the response's head is here. `at`: bytes that the link had given to its socket before this stream.
    `error` is why the peer or the link ended it.
    """

    __slots__ = (
        "_inbox",
        "_interrupted",
        "_read",
        "_receiver",
        "_sender",
        "at",
        "error",
        "headed",
        "link",
        "local_done",
        "on_doubt",
        "on_end",
        "onward",
        "remote_done",
        "starter",
        "stream_id",
    )

    def __init__(self, link: Link, stream_id: int) -> None:
        self.link = link
        self.stream_id = stream_id
        self.headed = False
        self.at = link.handed
        self.local_done = False
        self.remote_done = False
        self.on_doubt: Callable[[], None] | None = None
        self.on_end: Callable[[ProxyError], None] | None = None
        self.starter: Callable[[], None] | None = None
        self.onward: Straight | None = None
        self._inbox: list[Received] = []  # a deque takes 760 bytes, empty or not
        self._read = 0
        self._receiver: trio.lowlevel.Task | None = None
        self._sender: trio.lowlevel.Task | None = None
        self.error: ProxyError | None = None
        self._interrupted: ProxyError | None = None

    def take_over(self, other: Stream) -> None:
        """Be the link's stream in the place of `other`, on which nobody waits and nothing was sent."""
        self.local_done, self.remote_done = other.local_done, other.remote_done
        self._inbox, self._read = other._inbox, other._read
        self.error, self._interrupted = other.error, other._interrupted
        if self.stream_id in self.link.streams:
            self.link.streams[self.stream_id] = self

    @property
    def hears_resets(self) -> bool:
        """Whether the code of an RST_STREAM reaches whoever is at the other end."""
        return self.link.codec.protocol == "HTTP/2"

    # --- receiving ---

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for what the peer sends next."""
        return self._receiver is not None

    @property
    def lying(self) -> list[Received]:
        """What was received and not yet taken."""
        return self._inbox[self._read :] if self._read else self._inbox

    @property
    def held(self) -> int:
        """Bytes of body that were received and not yet taken."""
        return sum([len(event.data) for event in self.lying if isinstance(event, DataReceived)])

    def deliver(self, event: Received) -> None:
        """From the link's reader. Never waits: credit bounds what can lie here."""
        inbox = self._inbox
        if (
            inbox and type(event) is DataReceived
        ):  # nobody waits: it may lie there with what came before
            whole = joined(inbox[-1], event)
            if whole is not None:
                inbox[-1] = whole
                return
        inbox.append(event)
        if self._receiver is not None:
            self._wake_receiver()
        elif self.starter is not None and len(inbox) == 1:
            self.link.beginnings.when_read(self)

    def tell(self, event: Received) -> None:
        """As `deliver`, but from elsewhere than the link's reader."""
        self.deliver(event)
        self.start()

    def receive_nowait(self) -> Received | None:
        """The next event if there is one; errors as `receive`."""
        if self._interrupted is not None:
            raise self._interrupted
        inbox = self._inbox
        if inbox:
            at = self._read
            event = inbox[at]
            self._read = at = at + 1
            if at == len(inbox) or at >= DROPPED_AT_ONCE:  # in bulk, so that taking is O(1)
                del inbox[:at]
                self._read = 0
            return event
        if self.error is not None:
            raise self.error
        return None

    async def receive(self) -> Received:
        """The next event; raises the `ProxyError` that ended the stream."""
        while (event := self.receive_nowait()) is None:
            self._receiver = trio.lowlevel.current_task()
            if self.onward is not None:
                self.onward.open()
            await trio.lowlevel.wait_task_rescheduled(self._leave_receiving)
        return event

    async def arrived(self) -> None:
        """Until `receive` would return at once. Raises what it would raise."""
        while True:
            if self._interrupted is not None:
                raise self._interrupted
            if self._inbox:
                return
            if self.error is not None:
                raise self.error
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave_receiving)

    def _leave_receiving(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        if self.onward is not None:
            self.onward.close()
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_receiver(self) -> None:
        task, self._receiver = self._receiver, None
        if task is not None:
            if self.onward is not None:
                self.onward.close()
            wake(task)
        elif self.starter is not None:
            self.start()

    def start(self) -> None:
        """Call the `starter`, if there is one: its task is to go on, whether anything came or not."""
        starter, self.starter = self.starter, None
        if starter is not None:
            starter()

    @property
    def straight(self) -> int:
        """Bytes of body that went straight on."""
        return self.onward.passed if self.onward is not None else 0

    def go_straight(self, into: Stream, counter: Counter | None) -> None:
        """From now on DATA that comes while the receiver waits goes into `into`, as far as it may.

        Only for who hands all of it on, in order, and grants it. Nothing, where the codecs cannot.
        """
        if type(self) is not Stream or type(into) is not Stream:
            return
        codec, other = self.link.codec, into.link.codec
        self.onward = codec.straight(
            self.stream_id, other, into.stream_id, link=into.link, counter=counter
        )
        if self.onward is not None and self._receiver is not None and not self._inbox:
            self.onward.open()

    def grant(self, credit: int) -> None:
        """Give back credit for bytes that were handed on."""
        if credit and not self.remote_done:
            self.link.grant(self.stream_id, credit)

    # --- sending ---

    def send_headers(self, headers: Headers, end_stream: bool) -> None:
        if self.error is not None:
            raise self.error
        link = self.link
        link.codec.send_headers(self.stream_id, headers, end_stream)
        if end_stream:
            self._all_said()
        link.flush()

    def send_whole(self, headers: Headers, parts: list[bytes], trailers: Headers | None) -> None:
        """A head, a body for which there is room, and the end, by trailers or without."""
        if self.error is not None:
            raise self.error
        link = self.link
        link.codec.send_whole(self.stream_id, headers, parts, trailers)
        self._all_said()
        link.room -= sum(map(len, parts))
        link.flush()

    def _all_said(self) -> None:
        self.local_done = True
        pulse = self.link.pulse
        if pulse is not None and not self.headed:
            pulse.await_head(self)

    def can_send(self, amount: int) -> bool:
        """Whether `send_data_nowait` may be called with so much."""
        link = self.link
        return link.uncrowded() and link.codec.window(self.stream_id) >= amount

    def has_room_for(self, amount: int) -> bool:
        """Whether so much may be sent with `send_data_nowait`, in however many pieces."""
        link = self.link
        return link.uncrowded(amount) and link.codec.window(self.stream_id) >= amount

    def send_data_nowait(self, data: bytes, end_stream: bool) -> None:
        if self.error is not None:
            raise self.error
        link = self.link
        link.codec.send_data(self.stream_id, data, end_stream)
        if end_stream:
            self._all_said()
        link.room -= len(data)
        link.flush()

    async def send_data(self, data: bytes, end_stream: bool) -> None:
        """Returns when all of it was handed to the codec within window and room."""
        if not data or self.can_send(len(data)):
            self.send_data_nowait(data, end_stream)
        else:
            await self._send_in_turn(data, end_stream)

    async def _send_in_turn(self, data: bytes, end_stream: bool) -> None:
        """One chunk a turn, so that streams that share a full link share it evenly."""
        start = 0
        try:
            while start < len(data):
                await self._turn()
                allowed = min(self.link.codec.window(self.stream_id), CHUNK)
                if allowed <= 0:
                    continue
                chunk = data[start : start + allowed]
                start += len(chunk)
                self.send_data_nowait(chunk, end_stream and start >= len(data))
                self.link.pass_turn()
        finally:
            self.link.pass_turn()

    async def _turn(self) -> None:
        """Wait for the stream's own window, then for the link's room and window."""
        self._check_waiting()
        codec = self.link.codec
        if codec.window(self.stream_id) <= 0 < codec.window(0):
            self.link.pass_turn()
            await self._park_sender()
        elif not self.link.uncrowded() or codec.window(0) <= 0:
            self.link.queue_for_turn(self)
            await self._park_sender()
        self._check_waiting()

    async def _park_sender(self) -> None:
        self._sender = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._leave_sending)

    def _leave_sending(self, _: object) -> trio.lowlevel.Abort:
        self._sender = None
        self.link.leave_turns(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def wake_sender(self) -> None:
        """The window opened, or it is this stream's turn, or it is over."""
        task, self._sender = self._sender, None
        if task is not None:
            wake(task)

    # --- ending ---

    def fail(self, error: ProxyError) -> None:
        """The peer or the link ended it. Told once; the first reason stays."""
        if self.error is not None:
            return
        self.error = error
        self._wake_receiver()
        self.link.leave_turns(self)
        self.wake_sender()
        if self.on_end is not None:
            self.on_end(error)

    def interrupt(self, error: ProxyError) -> None:
        """Our side gave up: whoever waits here is woken with `error`. What is left to say may be said."""
        self._interrupted = self._interrupted or error
        self._wake_receiver()
        self.link.leave_turns(self)
        self.wake_sender()

    def doubt(self) -> None:
        """The link is suspect. Told once; a stream whose head is here has nothing to doubt."""
        doubted, self.on_doubt = self.on_doubt, None
        if doubted is not None and not self.headed:
            doubted()

    def close(self, code: int = H2Code.CANCEL) -> None:
        """Leave the link; reset with `code` unless both sides are done or the peer reset it."""
        self.on_doubt = self.on_end = None
        self.link.release(self, code)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _check_waiting(self) -> None:
        if self._interrupted is not None:
            raise self._interrupted
        self._check()
