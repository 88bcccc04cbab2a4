"""Is this connection still worth new streams?

    WELL --quiet: a PING--> ASKED --no answer--> SUSPECT --proof--> DEAD
      ^                       |                     |
      +---- anything heard ---+---------------------+

* *Quiet*: the response that is waited for longest is late, and nothing at all was heard on the link
  since then. A service whose tail is heavy is not quiet, for its other streams go on.
* A late answer proves nothing, so the peer is asked by a PING: any HTTP/2 server answers that at once,
  however slow its service. Who answers is well. (A frozen process does not, though its kernel goes on
  to acknowledge.) What TCP knows is proof enough without: a retransmission timer that ran out.
* A suspect gets no new streams and is well again with the first byte heard. It is dead when it stays
  silent while the endpoint is well otherwise, or for so long that nobody should have to wait for it.

PINGs have a budget. Servers of gRPC end a connection for the fourth PING without data in between
(grpc-go and grpcio by default: two strikes, an interval of five minutes), so at most two are spent since
the last HEADERS or DATA came, and then none for five minutes.

HTTP/1.1 has no PING, and a connection no second stream that could go on. Its connections to an endpoint are
judged together: they are quiet when the longest waiting response is late and nothing was heard on any.
What asks then is a new connection (`poolplan`); while that is not answered either, all of them are suspect,
and well again with the first byte on any. Lateness never ends one: a server may work on one request at a
time, and for long.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

PINGS = 2
PING_PAUSE = 300.0
"""Seconds. See above: the fourth within it ends a connection."""
PATIENCE = 4
"""By which an answered PING multiplies what counts as quiet: the service is slow and the link fine."""
DEAD_AFTER = 0.6
"""Seconds of silence of a suspect while other connections to its endpoint are fine: a retransmission that is
lost too (200 + 400 ms) is not the end, and what was on it is told within a second in all."""
DEAD_IN_LOSS = 0.8
"""The same where segments are known to get lost: two in a row are nothing strange there, and the
retransmission after them comes 600 ms after the first."""
HOST_PATIENCE = 5.0
"""Seconds for an endpoint that is silent as a whole, and for a connection whose peer acknowledges all:
collectors of garbage and moves of virtual machines hold a process for seconds, and then it answers."""
MUTE = 1.0
"""Seconds of quiet of a link that may not be asked any more, before a new connection is to tell whether the
endpoint lives: a server that hangs and one that is slow look alike until then."""
PUSH_AFTER = 0.015
"""Seconds after which a suspect is asked once more. What TCP lost at the end of what it sent is missed only
when something follows, and so is a retransmission that was lost too; then a timer has to run out, 200 ms at
the peer's end. The first PING made both ends say something. RACK (RFC 8985) waits up to 8 ms before it sends
again, and what is said before that shows nothing."""
RECOVERY = 3
"""A link is not dead before three times what the slowest of late took to come back."""


class Health(enum.Enum):
    WELL = "well"
    ASKED = "asked"
    SUSPECT = "suspect"
    DEAD = "dead"


class Cause(enum.Enum):
    """What made a link suspect."""

    PING = "ping"
    TIMER = "timer"
    HOLE = "hole"
    COMPANY = "company"


class Act(enum.Enum):
    """What is to be done after a look."""

    NOTHING = "nothing"
    PING = "ping"
    PUSH = "push"
    DOUBT = "doubt"
    TRUST = "trust"
    END = "end"


class Sight(NamedTuple):
    """A link as it is seen now. Times on the caller's clock, in seconds.

    `oldest`: since when the longest waiting stream waits for its head, None if none does. `heard`: when
    bytes last came, `proof`: when HEADERS or DATA last did that are younger than all PINGs' answers. Of TCP:
    `expired` retransmission timers in a row, `unacked` segments (None where that is not known), `holed`:
    something was lost and is not there yet, in either direction; `gap` since when.
    """

    oldest: float | None
    heard: float
    proof: float
    expired: int = 0
    unacked: int | None = None
    holed: bool = False
    gap: float | None = None


class Terms(NamedTuple):
    """What holds for all links of an endpoint at this moment, in seconds.

    `late`: see `headtimes`. `pong`: what a PING's answer may take. `pings`: whether there may be any.
    `well`: when another link of the endpoint was last heard, or became ready; None if there is none.
    `recovery`: what the slowest suspect of late took to be well again. `silent`: since when nothing at
    all was heard of the endpoint though another link was asked or a new one is overdue; None if neither.
    `lossy`: segments get lost on the way these seconds. `together`: HTTP/1.1, see above.
    """

    late: float
    pong: float
    pings: bool = True
    well: float | None = None
    recovery: float = 0.0
    silent: float | None = None
    lossy: bool = False
    together: bool = False


class LinkScore:
    """Of one link. `since` is when it got into its `state`, `reason` why, in words.

    `cause` is that of the last suspicion.
    """

    __slots__ = ("_company_since", "_pings", "_pushed", "cause", "reason", "since", "state")

    def __init__(self, now: float) -> None:
        self.state = Health.WELL
        self.since = now
        self.reason = ""
        self.cause = Cause.PING
        self._pings: list[float] = []
        self._company_since: float | None = None
        """Of a suspect: since when the endpoint is known to be well otherwise."""
        self._pushed = False

    def look(self, now: float, sight: Sight, terms: Terms) -> Act:
        """What has to be done. Nothing is waited for, so a look costs a few comparisons."""
        if self.state is Health.WELL:
            return self._look_well(now, sight, terms)
        if self.state is Health.DEAD:
            return Act.NOTHING
        if sight.heard >= self.since and not (self.cause is Cause.TIMER and sight.expired):
            return self._trust(now)
        if self.state is Health.ASKED:
            if now - self.since <= terms.pong:
                return Act.NOTHING
            reason = f"no answer to a PING within {terms.pong * 1000:.0f} ms"
            return self._doubt(now, Cause.PING, reason)
        return self._look_suspect(now, sight, terms)

    def ask(self, now: float, sight: Sight, terms: Terms, *, urgent: bool = False) -> Act:
        """Another link of the endpoint is in question, or (`urgent`) suspect: is this one fine?

        For a mere question one PING of the budget stays for this link's own sake.
        """
        idle = self.state is Health.WELL and now - sight.heard > terms.late
        spare = urgent or self._asked(sight.proof) < PINGS - 1
        if idle and spare and self._may_ask(now, sight, terms):
            return self._ping(now)
        return Act.NOTHING

    def _look_well(self, now: float, sight: Sight, terms: Terms) -> Act:
        if evidence := _evidence(sight, terms):
            return self._doubt(now, *evidence)
        if sight.oldest is None:
            return Act.NOTHING
        quiet = now - max(sight.oldest, sight.heard)
        if quiet <= terms.late:
            return Act.NOTHING
        if not self._may_ask(now, sight, terms):
            return self._look_unasked(now, sight, terms)
        if sight.gap is not None and now - sight.gap > terms.pong:
            return self._doubt(now, Cause.HOLE, "lost segments, and nothing heard since")
        patience = 1 if _alone(sight, terms) else PATIENCE ** self._asked(sight.proof)
        return self._ping(now) if quiet > terms.late * patience else Act.NOTHING

    def _look_unasked(self, now: float, sight: Sight, terms: Terms) -> Act:
        """It is quiet, and there may be no PING: what else speaks against it?"""
        if sight.holed:
            return self._doubt(now, Cause.HOLE, "lost segments, and nothing heard since")
        if _alone(sight, terms):
            return self._doubt(now, Cause.COMPANY, "nothing else of the endpoint answers either")
        return Act.NOTHING

    def mute(self, now: float, sight: Sight, terms: Terms) -> bool:
        """Whether it is quiet for long and may not be asked."""
        if self.state is not Health.WELL or sight.oldest is None:
            return False
        quiet = now - max(sight.oldest, sight.heard)
        long = max(MUTE, terms.late * PATIENCE**PINGS)
        return quiet > long and not self._may_ask(now, sight, terms)

    def _look_suspect(self, now: float, sight: Sight, terms: Terms) -> Act:
        well = terms.well is not None and terms.well > self.since
        if well and self.cause is Cause.COMPANY:
            return self._trust(now)
        if terms.together and self.cause is Cause.COMPANY:
            return Act.NOTHING
        if self._company_since is None and well and sight.unacked != 0:
            self._company_since = now
        silent = now - self.since
        if self._pushes(silent, now, sight, terms):
            self._pushed = True
            self._spend(now)
            return Act.PUSH
        if silent < HOST_PATIENCE and not self._outlived(now, terms):
            return Act.NOTHING
        self._enter(Health.DEAD, now, f"{self.reason}, and silent for {silent:.1f} s")
        return Act.END

    def _pushes(self, silent: float, now: float, sight: Sight, terms: Terms) -> bool:
        """Whether it is asked (once more): who was not yet, at once."""
        due = {Cause.PING: PUSH_AFTER, Cause.HOLE: 0.0}.get(self.cause, math.inf)
        return silent >= due and not self._pushed and self._may_ask(now, sight, terms)

    def _outlived(self, now: float, terms: Terms) -> bool:
        """Whether it stays silent though the endpoint is well, after a time of silence perhaps.

        What a host missed while it was away is sent to it again: not at once, by TCP's timer.
        """
        least = DEAD_IN_LOSS if terms.lossy else DEAD_AFTER
        bound = max(least, RECOVERY * terms.recovery)
        return self._company_since is not None and now - self._company_since >= bound

    def _ping(self, now: float) -> Act:
        self._spend(now)
        self._enter(Health.ASKED, now, "late, and nothing heard since")
        return Act.PING

    def _spend(self, now: float) -> None:
        self._pings = [*self._pings[1 - PINGS :], now]

    def _may_ask(self, now: float, sight: Sight, terms: Terms) -> bool:
        spent = self._asked(sight.proof) >= PINGS and now - self._pings[-1] < PING_PAUSE
        return terms.pings and not spent

    def _asked(self, proof: float) -> int:
        """PINGs since the last HEADERS or DATA came."""
        return sum(ping > proof for ping in self._pings)

    def _doubt(self, now: float, cause: Cause, reason: str) -> Act:
        self.cause = cause
        self._enter(Health.SUSPECT, now, reason)
        return Act.DOUBT

    def _trust(self, now: float) -> Act:
        doubted = self.state is Health.SUSPECT
        self.cause = Cause.PING
        self._enter(Health.WELL, now, "")
        return Act.TRUST if doubted else Act.NOTHING

    def _enter(self, state: Health, now: float, reason: str) -> None:
        self.state, self.since, self.reason = state, now, reason
        self._company_since = None
        self._pushed = False


def _evidence(sight: Sight, terms: Terms) -> tuple[Cause, str] | None:
    """What makes a link suspect whether anything waits on it or not."""
    if sight.expired:
        return Cause.TIMER, "TCP's retransmission timer ran out"
    if terms.together and _alone(sight, terms):
        return Cause.COMPANY, "nothing of the endpoint answers"
    return None


def _alone(sight: Sight, terms: Terms) -> bool:
    """Whether nothing else of the endpoint answers, and this one was not heard since."""
    return terms.silent is not None and sight.heard <= terms.silent
