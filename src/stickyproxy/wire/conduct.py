"""What a client may take its time for, and how much it may ask on one connection.

Looked at once a second with everything else that only time can tell, so that a call pays nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from stickyproxy.wire.link import Link

HEAD_TIMEOUT = 10.0
"""Seconds (Envoy's edge guide gives request_headers_timeout as long): a head is one packet or a few."""
FIRST_BYTE = 60.0
"""Seconds; browsers and balancers open connections ahead of need (nginx's client_header_timeout)."""
MOST_REQUESTS = 1_000_000
"""GOAWAY costs a client one handshake; what it holds on to by one connection is let go some time."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """`head_timeout` is seconds from the first byte of a request's head to its last, 0 for no limit.

    `most_requests` of one connection end it as its age does; 0 for no limit. `first_byte` is seconds that
    a client is silent at first, 0 for no limit.
    """

    head_timeout: float = HEAD_TIMEOUT
    most_requests: int = MOST_REQUESTS
    first_byte: float = FIRST_BYTE

    def begin(self, now: float) -> Behaviour:
        return Behaviour(self, now)


class Behaviour:
    """Of one link."""

    __slots__ = ("_allowed", "_begun", "_requests", "_since")

    def __init__(self, allowed: Conduct, now: float) -> None:
        self._allowed = allowed
        self._begun = now
        self._requests = 0
        self._since: float | None = None

    def tick(self, link: Link, now: float) -> None:
        allowed = self._allowed
        if 0 < allowed.most_requests <= link.requests and not link.draining:
            link.drain()
        if not link.first_bytes and now - self._begun >= allowed.first_byte > 0:
            link.close()
        if not link.codec.amid_head:
            self._since = None
        elif self._since is None or self._requests != link.requests:
            self._since, self._requests = now, link.requests
        elif now - self._since >= allowed.head_timeout > 0:
            link.hear(link.codec.refuse_head())
            link.give_up("the head of a request does not end")
