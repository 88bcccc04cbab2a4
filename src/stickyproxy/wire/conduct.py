"""What a client may take its time for, and how much it may ask on one connection.

Looked at once a second with everything else that only time can tell, so that a call pays nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from stickyproxy.wire.link import Link

HEAD_TIMEOUT = 10.0
"""Seconds (Envoy's edge guide gives request_headers_timeout as long): a head is one packet or a few."""
MOST_REQUESTS = 1_000_000
"""GOAWAY costs a client one handshake; what it holds on to by one connection is let go some time."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """`head_timeout` is seconds from the first byte of a request's head to its last, 0 for no limit.

    `most_requests` of one connection end it as its age does; 0 for no limit.
    """

    head_timeout: float = HEAD_TIMEOUT
    most_requests: int = MOST_REQUESTS

    def begin(self, _now: float) -> Behaviour:
        return Behaviour(self)


class Behaviour:
    """Of one link."""

    __slots__ = ("_allowed", "_requests", "_since")

    def __init__(self, allowed: Conduct) -> None:
        self._allowed = allowed
        self._requests = 0
        self._since: float | None = None

    def tick(self, link: Link, now: float) -> None:
        allowed = self._allowed
        if 0 < allowed.most_requests <= link.requests and not link.draining:
            link.drain()
        if not link.codec.amid_head:
            self._since = None
        elif self._since is None or self._requests != link.requests:
            self._since, self._requests = now, link.requests
        elif now - self._since >= allowed.head_timeout > 0:
            link.give_up("the head of a request does not end")
