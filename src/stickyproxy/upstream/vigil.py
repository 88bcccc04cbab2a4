"""Who watches the links to one endpoint: gathers what can be seen, and does what was decided.

The decisions are pure (`health.linkscore` of a link, `health.poolplan` of the endpoint). Here are their
eyes and hands: signs of life, TCP_INFO, PINGs, doubts told to streams, links ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from stickyproxy.errors import ErrorKind, H2Code, ProxyError, Side
from stickyproxy.events import GoawayReceived
from stickyproxy.health.headtimes import HeadTimes, RareTimes
from stickyproxy.health.linkscore import Act, Cause, Health, LinkScore, Sight, Terms
from stickyproxy.wire.pulse import Pulse, abandon, ask, doubt
from stickyproxy.wire.tcpinfo import TcpInfo, look, tcp_socket

if TYPE_CHECKING:
    from stickyproxy.wire.link import Link

LEAST_PONG = 0.01
"""Seconds that the answer to a PING may take at least: a busy scheduler's slice or two."""
LEARN = 0.3
"""Of the difference, with each answer: three make most of a change of path, one pause of a process little."""
FORGET = 0.9
"""Of the slowest recovery, with each that was faster."""
REPLACE_AFTER = 0.25
"""Seconds before a suspect is replaced as a spare: a lost segment is mostly there by then (the kernel sends
it again after 200 ms at the latest)."""
NEVER = 0.0
"""When a link of HTTP/1.1 was heard on which nothing came yet: the kernel may have taken it, nobody else."""
FULL_FROM = 1000
"""µs. Below that round trip a full window is empty again before another connection would help."""


LOSSY = 3
"""Losses that are noticed, half of them forgotten each second, from which on a path is one that loses: about
two a second. A queue that overflows once is none."""


class Told(Protocol):
    """Who hears of it."""

    def __call__(self, score: LinkScore, after: float) -> None:
        """A link became suspect, well again or dead, after so many seconds in the state before."""
        ...

    def pinged(self) -> None: ...

    def no_pings(self) -> None:
        """The peer forbade them."""
        ...

    def asked_in_vain(self) -> None:
        """Requests are answered, and `OPTIONS *` is not."""
        ...

    def doubted(self, doubted: bool) -> None:
        """The endpoint itself looks bad, or not any more."""
        ...


class Silent:
    """Nobody."""

    def __call__(self, score: LinkScore, after: float) -> None: ...

    def pinged(self) -> None: ...

    def no_pings(self) -> None: ...

    def asked_in_vain(self) -> None: ...

    def doubted(self, doubted: bool) -> None: ...


class _Watched:
    """One link and what was last seen of it."""

    __slots__ = (
        "began",
        "disordered",
        "fit",
        "gap",
        "holed_at",
        "info",
        "link",
        "losses",
        "pulse",
        "resent",
        "score",
        "sock",
    )

    def __init__(self, link: Link, pulse: Pulse, now: float) -> None:
        self.link = link
        self.pulse = pulse
        self.began = now
        self.score = LinkScore(now)
        self.sock = tcp_socket(link.transport)
        self.info: TcpInfo | None = None
        self.fit = True
        self.disordered = self.resent = self.losses = 0
        self.holed_at = 0.0
        self.gap: float | None = None

    def sight(self, now: float, *, closely: bool) -> Sight:
        """`closely`: with what TCP knows."""
        pulse = self.pulse
        info = None
        if closely and self.sock is not None:
            info = self.info = look(self.sock)
        if info is None:
            return Sight(pulse.oldest(), pulse.heard, pulse.proof)
        if info.disordered != self.disordered:
            self.disordered = info.disordered
            self.holed_at = now
            self.losses += 1
        if info.resent != self.resent:
            self.resent = info.resent
            self.losses += 1
        holed = info.lost + info.retrans + info.sacked > 0 or self.holed_at > pulse.heard
        self.gap = (self.gap or now) if holed else None
        times = pulse.oldest(), pulse.heard, pulse.proof
        return Sight(*times, info.expired, info.unacked, holed=holed, gap=self.gap)

    def in_words(self, now: float) -> str:
        score, streams = self.score, len(self.link.streams)
        state = score.state.value
        if score.state is Health.WELL and not self.fit:
            state = "full" if self.full() else "waits for lost segments"
        words = f"{state}, {streams} stream{'s' * (streams != 1)}"
        if score.reason:
            words += f", for {now - score.since:.1f} s: {score.reason}"
        return words

    def full(self) -> bool:
        info = self.info
        if info is None or info.min_rtt < FULL_FROM:
            return False
        return info.unsent > 0 or info.unacked >= info.cwnd

    def far(self) -> bool:
        return self.info is not None and self.info.min_rtt >= FULL_FROM

    def unsent_from(self) -> float:
        """Bytes that have left this machine; infinite where that is not known."""
        info = look(self.sock) if self.sock is not None else None
        return info.sent - info.resent if info is not None else float("inf")


class Vigil:
    """Of one endpoint. `suspects` get no new streams, `fit` are those that may get any, in order.

    `pings` False: HTTP/1.1, or a peer that forbade them. `question`: the endpoint, of HTTP/1.1, is to be
    asked whether it lives. `roused` is called when a stream begins on a
    link while nobody looks. `told` hears of changes. `lossy`: segments get lost on the way to it these
    seconds.
    """

    def __init__(self, *, multiplexed: bool, roused: Callable[[], None], told: Told) -> None:
        self.times = HeadTimes() if multiplexed else RareTimes()
        self.fit: list[Link] = []
        self.suspects: set[Link] = set()
        self.pings = self._multiplexed = multiplexed
        self.mute = self.question = False
        self._heard = NEVER
        self._pong = 0.0
        self._recovery = 0.0
        self._losses = self._looked = 0.0
        self.lossy = self.far = False
        self._watched: dict[Link, _Watched] = {}
        self._roused = roused
        self._told = told

    # --- links come and go ---

    def begin(self, link: Link, now: float) -> None:
        """`link` is ready. What it took from connect to SETTINGS is a first idea of a PING's time."""
        pulse = link.pulse = Pulse(self.times.note, self._roused)
        self._pong = self._pong or now - link.idle_since
        if not (self._multiplexed or link.first_bytes):
            pulse.heard = pulse.proof = NEVER
        self._watched[link] = _Watched(link, pulse, now)
        self.fit.append(link)

    def hear(self, when: float) -> None:
        """An endpoint of HTTP/1.1 answered, on whichever link."""
        self._heard = max(self._heard, when)

    def heard(self) -> float:
        """When anything came from the endpoint last; `NEVER`."""
        on_links = self._heard_on_links()
        return self._heard if on_links is None else max(self._heard, on_links)

    def _heard_on_links(self) -> float | None:
        return max((one.pulse.heard for one in self._watched.values()), default=None)

    def end(self, link: Link) -> None:
        watched = self._watched.pop(link, None)
        if watched is not None:
            self.hear(watched.pulse.heard)
        self.suspects.discard(link)
        if link in self.fit:
            self.fit.remove(link)

    def unwatched(self) -> None:
        """The next stream rouses."""
        for watched in self._watched.values():
            watched.pulse.watched = False

    def hear_goaway(self, said: GoawayReceived) -> None:
        """One that forbids PINGs is no sign of illness, but we ask no more."""
        forbids = said.code == H2Code.ENHANCE_YOUR_CALM and b"too_many_pings" in said.debug
        if forbids and self.pings:
            self.pings = False
            self._told.no_pings()

    # --- the look ---

    @property
    def usual(self) -> float:
        """Seconds that a dial mostly takes: connect and SETTINGS, a round trip each.

        What asks by HTTP/1.1 may have to wait behind a request.
        """
        times = self.times
        return max(2 * self._pong, times.rare if isinstance(times, RareTimes) else 0.0)

    def look(self, now: float, excuse: float, overdue: float | None = None) -> bool:
        """At all links. `excuse` in seconds: how late the loop itself is. True if any state changed.

        `overdue`: when a dial began that is not ready yet and should be.
        """
        self._forget_losses(now)
        terms = self._terms(excuse, overdue)
        changed = self.mute = False
        nobody_doubts = not self._multiplexed and terms.silent is None
        for watched in list(self._watched.values()):
            if nobody_doubts and watched.fit and not watched.pulse.waiting:
                continue  # a WebSocket mostly, and there may be thousands
            score = watched.score
            sight = watched.sight(now, closely=self._worth(watched, now, terms.late))
            if watched.losses:
                self._losses += watched.losses
                watched.losses = 0
            before, since = score.state, score.since
            act = score.look(now, sight, terms)
            if watched.pulse.pong:
                self._learn_pong(watched.pulse, excuse, terms.pong)
            if act is not Act.NOTHING:
                self._do(watched, act, now, now - since, terms)
                changed = changed or act not in (Act.PING, Act.PUSH)
            self.mute = self.mute or score.mute(now, sight, terms)
            fit = score.state is Health.WELL and not sight.holed and not watched.full()
            if fit is not watched.fit or score.state is not before:
                watched.fit = fit
                self._refit()
        self.question = not self._multiplexed and self._is_quiet(now, terms)
        return changed

    def _is_quiet(self, now: float, terms: Terms) -> bool:
        """Of HTTP/1.1: all links together, as one link of HTTP/2 is."""
        waiting = [one.pulse.oldest() for one in self._watched.values() if one.pulse.waiting]
        if not (waiting and self.times.q75):
            return False
        return now - max(min(filter(None, waiting)), terms.well or NEVER) > terms.late

    def _forget_losses(self, now: float) -> None:
        """Half of them a second; what is counted is a path's loss of these seconds."""
        if self._losses:
            self._losses *= 0.5 ** (now - self._looked)
            self.lossy = self._losses >= LOSSY
            self.far = self.lossy and any(one.far() for one in self._watched.values())
        self._looked = now

    def asking(self) -> bool:
        """Whether the answer to a PING is awaited."""
        return any(one.score.state is Health.ASKED for one in self._watched.values())

    def in_words(self, now: float) -> list[str]:
        """Of each link its state, streams, and why and since when it is not well."""
        return [one.in_words(now) for one in self._watched.values()]

    def _worth(self, watched: _Watched, now: float, late: float) -> bool:
        """Whether to ask TCP. Of HTTP/1.1 there may be a thousand links, each with one stream."""
        if watched.score.state is not Health.WELL:
            return True
        if self._multiplexed:
            return bool(watched.link.streams)
        oldest = watched.pulse.oldest()
        return oldest is not None and now - oldest > late

    def _terms(self, excuse: float, overdue: float | None) -> Terms:
        heard = self._heard_on_links() if self._multiplexed else self.heard()
        return Terms(
            late=(self.times.soon if self.lossy else self.times.late) + excuse,
            pong=max(LEAST_PONG, 2 * self._pong) + excuse,
            pings=self.pings,
            well=heard,
            recovery=self._recovery,
            silent=self._silent(heard, overdue),
            lossy=self.lossy,
            together=not self._multiplexed,
        )

    def _silent(self, heard: float | None, overdue: float | None) -> float | None:
        """Since when nothing of the endpoint answers, a new connection included."""
        signs = [overdue] if overdue is not None else []
        suspects = self.suspects if self._multiplexed else ()
        signs += [one.score.since for one in self._watched.values() if one.link in suspects]
        return max((sign for sign in signs if heard is None or heard <= sign), default=None)

    def _learn_pong(self, pulse: Pulse, excuse: float, bound: float) -> None:
        """An answer that TCP had to send again says little: no more is made of it than of one twice late."""
        took = min(max(pulse.pong - excuse, 0.0), 2 * bound)
        self._pong += LEARN * (took - self._pong)
        pulse.pong = 0.0

    def _refit(self) -> None:
        self.fit = [link for link, one in self._watched.items() if one.fit]

    def young(self, now: float) -> int:
        """Suspects that may be well again in a moment."""
        scores = (one.score for one in self._watched.values() if one.link in self.suspects)
        return sum(now - score.since < REPLACE_AFTER for score in scores)

    # --- the deed ---

    def _do(self, watched: _Watched, act: Act, now: float, after: float, terms: Terms) -> None:
        link, score = watched.link, watched.score
        if act is Act.PING:
            self._ask(watched)
            self._ask_others(watched, now, terms, urgent=False)
            return
        if act is Act.PUSH:
            self._ask(watched, again=score.cause is Cause.PING)
        elif act is Act.DOUBT:
            self.suspects.add(link)
            watched.fit = False
            self._refit()
            self._told(score, after)
            self._ask_others(watched, now, terms, urgent=True)
            doubt(link)
        elif act is Act.TRUST:
            self.suspects.discard(link)
            self._recovery = max(after, self._recovery * FORGET)
            self._told(score, after)
        else:
            self._told(score, after)
            detail = f"the connection is dead: {score.reason}"
            error = ProxyError(ErrorKind.UPSTREAM_CLOSED, Side.UPSTREAM, detail)
            abandon(link, error, watched.unsent_from())

    def _ask(self, watched: _Watched, *, again: bool = False) -> None:
        self._told.pinged()
        ask(watched.link, again=again)

    def _ask_others(self, asked: _Watched, now: float, terms: Terms, *, urgent: bool) -> None:
        """Before streams go to a spare, that is asked as well: a frozen process has no good link."""
        for watched in self._watched.values():
            if watched is not asked:
                sight = watched.sight(now, closely=False)
                if watched.score.ask(now, sight, terms, urgent=urgent) is Act.PING:
                    watched.fit = False
                    self._ask(watched)
        self._refit()
