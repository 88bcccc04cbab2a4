"""The request body on its way to whichever attempt is current.

What was received and not yet credited *is* the replay buffer: while an attempt may still turn out
never to have been processed, the client's credit for what we sent it is held back, so that the body
can be sent again. Half the stream's window is the most that is held (a sender that needs more room
must not be stalled by us); past that, or once response headers went on, the attempt is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from stickyproxy.errors import ProxyError
from stickyproxy.events import DataReceived, TrailersReceived, joined
from stickyproxy.policy.headers import clean_trailers
from stickyproxy.policy.messages import Counter, MessageCounter
from stickyproxy.wire.stream import Stream

if TYPE_CHECKING:
    from stickyproxy.proxy.shadow import Mirror

REPLAY_LIMIT = 32_768

Part = DataReceived | TrailersReceived


class Upload:
    """`ended` is true once the client's last part was received; `whole` while it can be replayed.

    `mirror` is given each part too, as it comes.
    """

    __slots__ = (
        "_downstream",
        "_due",
        "_kept",
        "_parts",
        "_sent",
        "_upstream",
        "ended",
        "messages",
        "mirror",
        "moved",
        "whole",
    )

    def __init__(self, downstream: Stream, *, ended: bool, grpc: bool) -> None:
        self.ended = ended
        self.whole = True
        self.moved = False
        self._parts = 0
        self._upstream: Stream | None = None
        self.messages: Counter | None = MessageCounter() if grpc else None
        self.mirror: Mirror | None = None
        self._downstream = downstream
        self._kept: list[Part] = []
        self._due: deque[Part] | None = None
        self._sent = 0

    @property
    def received(self) -> int:
        """Bytes of body."""
        return self._parts + self._downstream.straight

    def take_ready(self) -> None:
        """Take in what has already arrived; the common unary request is complete by now."""
        while not self.ended and (event := self._downstream.receive_nowait()) is not None:
            self._keep(event)

    @property
    def only(self) -> bytes:
        """The body of a complete request that is one part; b"" for any other."""
        if self.ended and self.whole and len(self._kept) == 1:
            part = self._kept[0]
            if type(part) is DataReceived:
                return part.data
        return b""

    def send_now(self, upstream: Stream) -> bool:
        """Send a complete body if it fits at once: no second task for a unary call."""
        if not self.ended or not self.whole or not upstream.can_send(self.received):
            return False
        for part in self._kept:
            if isinstance(part, DataReceived):
                upstream.send_data_nowait(part.data, part.end_stream)
            else:
                upstream.send_headers(clean_trailers(part.headers), end_stream=True)
        return True

    def begin(self) -> None:
        """An attempt starts: all that was received is due to it, from the first byte.

        Not left to `pump`: the response may begin, and `commit`, before that task's first turn.
        """
        self._due = deque(self._kept)
        self._sent = 0

    async def pump(self, upstream: Stream, on_end: Callable[[], None]) -> None:
        """Send what is due, then what comes. Raises the `ProxyError` of either side.

        `on_end` is told when the client's last part was received (not when it was sent).
        """
        self._upstream = upstream  # until it is settled whether DATA goes straight
        while self._due:
            await self._pass_on(self._due.popleft(), upstream)
        while not self.ended:
            if not self.whole:
                self._go_straight()
            part = self._keep(await self._downstream.receive())
            if isinstance(part, TrailersReceived) or part.end_stream:
                on_end()
            await self._pass_on(part, upstream)

    async def replay(self, upstream: Stream) -> None:
        """Send all that is kept on one more stream, beside whoever sends it too."""
        for part in list(self._kept):
            if isinstance(part, DataReceived):
                await upstream.send_data(part.data, part.end_stream)
            else:
                upstream.send_headers(clean_trailers(part.headers), end_stream=True)

    async def _pass_on(self, part: Part, upstream: Stream) -> None:
        """Only then its credit goes back: at once, or with all that is held when that is too much."""
        if not isinstance(part, DataReceived):
            upstream.send_headers(clean_trailers(part.headers), end_stream=True)
            return
        await upstream.send_data(part.data, part.end_stream)
        if not self.whole:
            self._downstream.grant(part.credit)
            return
        self._sent += part.credit
        if self._sent > REPLAY_LIMIT:
            self.commit()

    def commit(self) -> None:
        """No replay any more: give back what was held of what went on. What is due stays due."""
        if self.whole:
            self.whole = False
            self._kept.clear()
            if self._sent:
                self._downstream.grant(self._sent)
            if not self._due:
                self._go_straight()

    def _go_straight(self) -> None:
        """Nothing is kept any more: what comes need not come by here, if nobody else is told of it."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None and self.mirror is None:
            self._downstream.go_straight(upstream, self.messages)

    def _keep(self, part: object) -> Part:
        self.moved = True
        if isinstance(part, DataReceived):
            self.ended = part.end_stream
            self._parts += len(part.data)
            if self.messages is not None:
                self.messages.feed(part.data)
        elif isinstance(part, TrailersReceived):
            self.ended = True
        else:
            message = f"a request body has no {type(part).__name__}"
            raise TypeError(message)
        if self.mirror is not None:
            self.mirror.feed(part)
        if self.whole:
            if self._kept:
                self._retain(part)
            else:
                self._kept.append(part)
        return part

    def _retain(self, part: Part) -> None:
        """What was handed on stays as it was: a replay begins with the first byte."""
        kept = self._kept
        whole = joined(kept[-1], part)
        if whole is not None:
            kept[-1] = whole
        else:
            kept.append(part)


async def pump_quietly(upload: Upload, upstream: Stream, on_end: Callable[[], None]) -> None:
    """As a task beside the response pump, which hears of the same failure and decides."""
    try:
        await upload.pump(upstream, on_end)
    except ProxyError:
        return
