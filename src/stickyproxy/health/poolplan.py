"""How many connections an endpoint should have, and whether the endpoint itself looks bad.

One loaded connection and one warm spare: all on one, so that its streams keep each other's losses
short (a later segment shows that an earlier one is missing), and one in reserve, so that leaving a bad
one costs no handshake. More only while those there are full or wait for lost segments.
"""

from __future__ import annotations

from typing import NamedTuple

SPARES = 1
MOST = 16
"""Connections that are opened for room. A path that loses 3 % carries 1 MB/s on 12 (one: a tenth); on 16 a
loss stops two of the 30 calls that are under way then. HTTP/1.1 takes 78 for that."""
PRESSED = 2
"""Looks in a row with a stream put where there was no room, before a connection is added: a burst fills
a window for one round trip, and is over when another connection would be there."""
GRACE = 0.05
"""Seconds that a new connection to an endpoint whose others are suspect may take at least: until then its
requests wait for it (sessions stay), after that they go elsewhere, within a tenth of a second in all. Where
there are no sessions to keep (round robin, least requests) they go elsewhere at once."""
PROBE = 0.9
"""Seconds between dials to an endpoint that looks bad: back in use within a second of its healing."""
QUESTION_PAUSE = 1.0
"""Seconds between dials that ask for an endpoint of HTTP/1.1 whether it lives: of one whose every answer is
slow, a request a second is nothing."""
PROBING = 60.0
"""Seconds of that; what is gone for longer is asked for ever more seldom. And seconds between dials that only
tell whether a slow endpoint lives."""
GROWTH = 1.6
MOST_PAUSE = 30.0
"""As of a breaker (`breaker`)."""
ENOUGH = 10
"""Failures after which a pause does not grow: a float has no room for the power of some 1,500."""


class Census(NamedTuple):
    """Links of an endpoint at one look. `well` are not suspect, `young` suspects only just became so.

    `busy`: it has traffic. `pressed`: a stream had to go where there was no room. `mute`: a link is quiet
    and may not be asked. `usual`: what a dial takes, in seconds. `spares` are wanted.
    `question`: of HTTP/1.1, whether the endpoint is quiet and to be asked. `sessions`: requests belong to
    this endpoint, and to go elsewhere costs one.
    """

    well: int
    suspect: int
    dialling: int
    busy: bool
    pressed: bool
    usual: float
    spares: int = SPARES
    mute: bool = False
    young: int = 0
    question: bool = False
    sessions: bool = True


class Wanted(NamedTuple):
    dial: bool
    doubted: bool


class PoolPlan:
    """Of one endpoint. `bad_since`: when the last good connection turned bad, None while there is one."""

    __slots__ = (
        "_failures",
        "_next",
        "_next_mute",
        "_next_question",
        "_pressed",
        "_silent",
        "bad_since",
    )

    def __init__(self) -> None:
        self.bad_since: float | None = None
        self._failures = 0
        self._next = self._next_mute = self._next_question = 0.0
        self._pressed = 0
        self._silent = False
        """Whether suspects were all there was, at some look since `bad_since`."""

    def look(self, now: float, census: Census) -> Wanted:
        self._pressed = self._pressed + 1 if census.pressed else 0
        if census.well:
            self.bad_since = None
        elif census.suspect and self.bad_since is None:
            self.bad_since = now
        wants = not census.dialling and now >= self._next and self._wants(now, census)
        self._silent = self.bad_since is not None and (self._silent or census.suspect > 0)
        at_once = self._silent and not census.sessions
        return Wanted(wants, at_once or self._doubted(now, census.usual))

    def _wants(self, now: float, census: Census) -> bool:
        if not census.well:
            return self.bad_since is not None
        if census.question and now >= self._next_question:
            self._next_question = now + QUESTION_PAUSE
            return True
        if census.well + census.young <= census.spares and census.busy:
            return True
        if census.well + census.suspect >= MOST:
            return False
        if census.mute and now >= self._next_mute:
            self._next_mute = now + PROBING
            return True
        return self._pressed >= PRESSED

    def overdue(self, now: float, began: float, usual: float) -> bool:
        """Whether a dial that began then takes longer than it should."""
        return now - began >= max(GRACE, 2 * usual)

    def _doubted(self, now: float, usual: float) -> bool:
        return self.bad_since is not None and self.overdue(now, self.bad_since, usual)

    def lost(self, now: float) -> None:
        """The last connection broke, of an endpoint that has traffic."""
        if self.bad_since is None:
            self.bad_since = now

    def dialled(self) -> None:
        """A connection is ready."""
        self.bad_since = None
        self._silent = False
        self._failures = self._pressed = 0
        self._next = 0.0

    def failed(self, now: float, began: float) -> None:
        """A dial that began then came to nothing."""
        self._failures += 1
        pause = PROBE
        if self.bad_since is None or now - self.bad_since > PROBING:
            pause = min(PROBE * GROWTH ** min(self._failures, ENOUGH), MOST_PAUSE)
        self._next = began + pause
