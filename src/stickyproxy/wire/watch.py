"""What only time can tell of links: one task a worker looks at all of them once a second.

A cancel scope per send or per idle wait would cost 10 µs each; a look at a link costs a fraction of
one, once a second.
"""

from __future__ import annotations

from typing import Protocol

import trio

from stickyproxy.wire.link import Link

LINK_IDLE_TIMEOUT = 3600.0
"""Seconds without a stream; Envoy's idle_timeout."""


class Life(Protocol):
    """What happens to one link as time goes by."""

    def tick(self, link: Link, now: float) -> None: ...


class Limit(Protocol):
    """What links may live: `wire.age`, `wire.conduct` for clients, `upstream.dial` for backends."""

    def begin(self, now: float) -> Life: ...


class LinkWatch:
    """The live links of a worker. `run` belongs in the worker's upstream nursery."""

    def __init__(self, idle_timeout: float = LINK_IDLE_TIMEOUT) -> None:
        self.links: dict[Link, None] = {}
        """In the order in which they began."""
        self._lives: dict[Link, list[Life]] = {}
        self._idle_timeouts: dict[Link, float] = {}
        self._idle_timeout = idle_timeout

    def add(self, link: Link, *limits: Limit, idle_timeout: float | None = None) -> None:
        """`idle_timeout` in seconds; None: that of all."""
        self.links[link] = None
        if idle_timeout is not None:
            self._idle_timeouts[link] = idle_timeout
        if limits:
            self._lives[link] = [limit.begin(trio.current_time()) for limit in limits]

    def discard(self, link: Link) -> None:
        self.links.pop(link, None)
        self._lives.pop(link, None)
        self._idle_timeouts.pop(link, None)

    async def run(self) -> None:
        while True:
            await trio.sleep(1)
            now = trio.current_time()
            for link in list(self.links):
                link.tick(now, self._idle_timeouts.get(link, self._idle_timeout))
            for link, lives in list(self._lives.items()):
                for life in lives:
                    life.tick(link, now)
