"""Signs of life of one link to a backend: when something was heard, and who waits for a response's head.

Written by the link and its streams as things happen, at a few dozen nanoseconds each, and read by
whoever judges the link. There is no timer here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ProxyError, Retry

if TYPE_CHECKING:
    from stickyproxy.wire.link import Link
    from stickyproxy.wire.stream import Stream

ASKING = b"alive?\0\0"
"""The payload of a PING that asks whether the peer lives."""


class Pulse:
    """Times in seconds (trio's clock).

    `heard`: when bytes last came; `proof`: when HEADERS or DATA last did that the peer said after all our
    PINGs had reached it (its answers tell), for so long it counts them. `waiting`: the streams whose
    request is out and whose response has no head yet, longest first, and since when. `answered` is told
    how long each head took. `roused` is called when a stream begins while nobody looks (`watched`).
    """

    __slots__ = (
        "_now",
        "answered",
        "asked",
        "heard",
        "open",
        "pong",
        "proof",
        "roused",
        "waiting",
        "watched",
    )

    def __init__(self, answered: Callable[[float], None], roused: Callable[[], None]) -> None:
        self._now = trio.lowlevel.current_clock().current_time
        self.heard = self.proof = self._now()
        self.waiting: dict[Stream, float] = {}
        self.answered = answered
        self.roused = roused
        self.watched = False
        self.asked = 0.0
        self.open = 0
        """PINGs that are not answered yet."""
        self.pong = 0.0
        """What the answer to the last PING took; 0 while there was none since the last look."""

    def begin(self, stream: Stream, *, complete: bool) -> None:
        """It was opened, with the whole of its request or not."""
        if complete:
            self.waiting[stream] = self._now()
        if not self.watched:
            self.watched = True
            self.roused()

    def await_head(self, stream: Stream) -> None:
        """The request of `stream` is complete."""
        self.waiting[stream] = self._now()

    def prove(self) -> None:
        """HEADERS or DATA came."""
        if not self.open:
            self.proof = self.heard

    def head(self, stream: Stream) -> None:
        self.prove()
        since = self.waiting.pop(stream, None)
        if since is not None:
            self.answered(self.heard - since)

    def forget(self, stream: Stream) -> None:
        """It is over."""
        if not stream.headed:
            self.waiting.pop(stream, None)

    def answer(self) -> None:
        """A PING's answer came."""
        self.open -= self.open > 0
        self.pong = self.heard - self.asked

    def oldest(self) -> float | None:
        """Since when the longest waiting stream waits."""
        return next(iter(self.waiting.values())) if self.waiting else None


def ask(link: Link, *, again: bool = False) -> None:
    """Send a PING, which the peer answers if it lives.

    `again`: one is on its way, and since answers look alike time counts from that.
    """
    if link.pulse is not None:
        if not again:
            link.pulse.asked = trio.current_time()
        link.pulse.open += 1
        link.codec.ping(ASKING)
        link.flush()


def doubt(link: Link) -> None:
    """It is suspect: its streams that have no response's head yet may look elsewhere."""
    for stream in list(link.streams.values()):
        stream.doubt()


def abandon(link: Link, error: ProxyError, unsent_from: float) -> None:
    """It is dead. What begins at or after byte `unsent_from` has never left this machine.

    That says nothing of the endpoint, whose other connections may be well: each error is an echo.
    """
    error = link.failure = replace(error, echo=True)
    unsent = replace(error, retry=Retry.SAME_ENDPOINT)
    for stream in list(link.streams.values()):
        stream.fail(unsent if stream.at >= unsent_from else error)
    link.tear()
