"""What HTTP/1.1 has in the place of a PING: `OPTIONS *`, asked on a connection that is free.

RFC 9110 §9.3.7: it concerns the server and no resource, and is "only useful as a 'ping' or 'no-op' type
of method". Any answer will do, 404, 501 and nonsense included, and so does a server that hangs up on it:
somebody read it. `max-forwards: 0` (§7.6.2) keeps it from going further than the server that is asked.

Its silence means something only where it was answered before. So an endpoint is asked once when all is
well; who answers requests and not this is asked again ten minutes later, and judged by TCP until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from stickyproxy.errors import ErrorKind, ProxyError

if TYPE_CHECKING:
    from stickyproxy.model import Endpoint, Headers
    from stickyproxy.upstream.vigil import Vigil
    from stickyproxy.wire.link import Link

AGENT = b"stickyproxy/alive"
IN_VAIN = 1.0
"""Seconds that a question may stay open once anything else was answered: who thaws comes to it sooner."""
AGAIN = 600.0
"""Seconds for which an endpoint that did not answer is not asked: its software may change."""

Heard = Callable[["Link", bool], None]
"""Whether the endpoint lives; False when the link failed instead."""


class _Open:
    """One question: on which link, since when (trio's clock), and who wants to know."""

    __slots__ = ("_question", "heard", "link", "since", "stream")

    def __init__(self, question: Question, link: Link, head: Headers, heard: Heard) -> None:
        self.link = link
        self.since = trio.current_time()
        self.heard = heard
        self._question = question
        self.stream = stream = link.open_stream(head, end_stream=True)
        if link.pulse is not None:
            link.pulse.forget(stream)  # what it takes says nothing of the service
        stream.starter = self._something_came

    def _something_came(self) -> None:
        try:
            lives = self.stream.receive_nowait() is not None
        except ProxyError as error:
            lives = self.link.left or error.kind is ErrorKind.UPSTREAM_PROTOCOL
        self._question.hear(self, lives=lives)


class Question:
    """Whether `endpoint` lives, asked over one link of it or more. `trusted`: it answered the last."""

    __slots__ = (
        "_again",
        "_changed",
        "_endpoint",
        "_free",
        "_in_vain",
        "_open",
        "_proved",
        "_vigil",
        "trusted",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        vigil: Vigil,
        free: Callable[[], Link | None],
        changed: Callable[[Link], None],
        in_vain: Callable[[], None],
    ) -> None:
        """`free`: a link to ask, if there is one; `changed` hears that it is free again, or over.

        `in_vain` hears that the endpoint is not asked for a while.
        """
        self.trusted = False
        self._free, self._changed = free, changed
        self._endpoint = endpoint
        self._vigil = vigil
        self._in_vain = in_vain
        self._open: list[_Open] = []
        """The oldest first."""
        self._proved = math.inf
        self._again = 0.0

    @property
    def since(self) -> float | None:
        """Since when it is open, of one that will be answered; None if it is not."""
        return self._open[0].since if self._open and self.trusted else None

    def tend(self, now: float) -> None:
        """Between looks at an endpoint of HTTP/1.1: ask while all is well, once its times are known."""
        self._follow_up(now)
        if not (self.trusted or self._open) and now >= self._again and self._vigil.times.q75:
            self.ask_free()

    def ask_free(self) -> bool:
        """False where no link is free."""
        link = self._free()
        if link is not None:
            self.ask(link, lambda link, _: self._changed(link))
        return link is not None

    def ask(self, link: Link, heard: Heard) -> None:
        """Over `link`, which is free."""
        self._open.append(_Open(self, link, _head(self._endpoint), heard))

    def hear(self, one: _Open, *, lives: bool) -> None:
        """The answer, or that `one` came to nothing. Sync."""
        self.trusted = self.trusted or lives
        self._close(one, lives=lives)

    def _close(self, one: _Open, *, lives: bool) -> None:
        self._open.remove(one)
        one.stream.close()
        if lives:
            self._vigil.hear(trio.current_time())
        one.heard(one.link, lives)

    def _follow_up(self, now: float) -> None:
        """Gives up what is asked in vain."""
        if not self._open or self._vigil.heard() <= self._open[0].since:
            self._proved = math.inf
            return
        self._proved = min(self._proved, now)
        if now - self._proved >= IN_VAIN:
            self._again, self._proved = now + AGAIN, math.inf
            self.trusted = False
            self._in_vain()
            self._give_up(list(self._open), lives=True)

    def leave(self, links: list[Link]) -> None:
        """The endpoint left its cluster: nobody tends what is open on `links`, which would keep them."""
        self._give_up([one for one in self._open if one.link in links], lives=False)

    def _give_up(self, vain: list[_Open], *, lives: bool) -> None:
        for one in vain:
            one.stream.starter = None
            self._close(one, lives=lives)


def _head(endpoint: Endpoint) -> Headers:
    return [
        (b":method", b"OPTIONS"),
        (b":scheme", b"http"),
        (b":authority", (endpoint.host or endpoint.key).encode()),
        (b":path", b"*"),
        (b"user-agent", AGENT),
        (b"max-forwards", b"0"),
    ]
