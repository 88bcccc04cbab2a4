"""What HTTP/1.1 has in the place of a PING: `OPTIONS *`, asked on a connection that is free.

RFC 9110 §9.3.7: it concerns the server and no resource, and is "only useful as a 'ping' or 'no-op' type
of method". Any answer will do, 404 and 501 included. `max-forwards: 0` (§7.6.2) keeps it from going
further than the server that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ProxyError

if TYPE_CHECKING:
    from stickyproxy.model import Endpoint, Headers
    from stickyproxy.upstream.vigil import Vigil
    from stickyproxy.wire.link import Link

AGENT = b"stickyproxy/alive"


def ask_alive(link: Link, endpoint: Endpoint, done: Callable[[Link, bool], None]) -> None:
    """`done` hears whether anything was answered, or the link failed instead. Its stream is closed then.

    What an answer takes says nothing of the service, so it is no time of a head.
    """
    stream = link.open_stream(_head(endpoint), end_stream=True)
    if link.pulse is not None:
        link.pulse.forget(stream)

    def started() -> None:
        try:
            answered = stream.receive_nowait() is not None
        except ProxyError:
            answered = False
        stream.close()
        done(link, answered)

    stream.starter = started


class Question:
    """Over a link of `endpoint` that is free, one at a time. `since` when one is out, None if none is."""

    __slots__ = ("_changed", "_endpoint", "_vigil", "since")

    def __init__(self, endpoint: Endpoint, vigil: Vigil, changed: Callable[[Link], None]) -> None:
        self.since: float | None = None
        self._endpoint = endpoint
        self._vigil = vigil
        self._changed = changed

    def ask(self, link: Link | None, now: float) -> bool:
        """False without a link."""
        if link is None:
            return False
        self.since = now
        ask_alive(link, self._endpoint, self._done)
        return True

    def _done(self, link: Link, answered: bool) -> None:
        self.since = None
        if answered:
            self._vigil.hear(trio.current_time())
        self._changed(link)


def _head(endpoint: Endpoint) -> Headers:
    return [
        (b":method", b"OPTIONS"),
        (b":scheme", b"http"),
        (b":authority", (endpoint.host or endpoint.key).encode()),
        (b":path", b"*"),
        (b"user-agent", AGENT),
        (b"max-forwards", b"0"),
    ]
