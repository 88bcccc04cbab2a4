"""How long a client keeps one connection: long enough to be cheap, not for ever.

A client that never reconnects never meets a replica that was added after it, and HTTP/2 clients
reconnect only when they are told to. The rules are grpc-go's (`keepalive.ServerParameters`,
MaxConnectionAge and MaxConnectionAgeGrace): GOAWAY at the age, jitter of ±10 % so that clients that
came together do not come back together, an end at the grace, which is none by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from stickyproxy.errors import ErrorKind, ProxyError, Side
from stickyproxy.wire.link import Link

JITTER = 0.1
"""Of the age, both ways (grpc-go)."""
LAST_WORDS = 1.0
"""Seconds for streams that the grace has cut off to say so (Envoy's delayed_close is 1 s)."""


class AgeLimit:
    """`age` and `grace` in seconds; a grace of 0 is no limit, as in grpc-go.

    `retired` is told of each link that is sent away at its age, `cut` of each whose grace is over
    and that still had streams.
    """

    def __init__(
        self,
        age: float,
        grace: float,
        rng: Random,
        *,
        retired: Callable[[], None],
        cut: Callable[[], None],
    ) -> None:
        self.age = age
        self.grace = grace or math.inf
        self.retired = retired
        self.cut = cut
        self._rng = rng

    def begin(self, now: float) -> Life:
        """For a link that begins now (trio's clock)."""
        return Life(self, now + self.age * self._rng.uniform(1 - JITTER, 1 + JITTER))


class Life:
    """Of one link: retire, then cut, then close. `tick` looks whether the next is due."""

    __slots__ = ("_due", "_limit", "_step")

    def __init__(self, limit: AgeLimit, due: float) -> None:
        self._limit = limit
        self._due = due
        self._step: Callable[[Link, float], None] = self._retire

    def tick(self, link: Link, now: float) -> None:
        if now >= self._due:
            self._step(link, now)

    def _retire(self, link: Link, now: float) -> None:
        if link.draining:  # idle, or the whole proxy leaves: the end of that is known already
            self._due = math.inf
            return
        link.drain()
        self._limit.retired()
        self._due, self._step = now + self._limit.grace, self._cut

    def _cut(self, link: Link, now: float) -> None:
        """What still runs ends as when a drain ends: 503, UNAVAILABLE, or a reset."""
        if not link.streams:  # HTTP/1.1 between two requests
            link.close()
            return
        self._limit.cut()
        detail = "the grace after the connection's age is over"
        error = ProxyError(ErrorKind.OVERLOAD, Side.INTERNAL, detail)
        for stream in list(link.streams.values()):
            if stream.on_end is not None:
                stream.on_end(error)
        self._due, self._step = now + LAST_WORDS, lambda link, _: link.close()
