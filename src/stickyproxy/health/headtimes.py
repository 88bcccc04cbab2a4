"""How long an endpoint takes to the head of a response, and from when on one is late.

One number is kept, an estimate of the 75th percentile that moves a little with each sample. Not the
mean, which a few slow calls drag along, and not the 99th, which a service whose tail is heavy has
twenty times above its median: then nothing would ever be late. What is late is only asked after (a
PING), so a quarter of the calls may well come near it.
"""

from __future__ import annotations

LEARNT = 8
"""Samples that are sorted before the estimate begins: fewer say nothing of a quarter."""
FIRST_LATE = 0.25
"""Seconds until then: what is given to a SYN, too, of a peer of which nothing is known (RFC 8305)."""
FACTOR = 1.25
SLACK = 0.003
"""Seconds. A call a quarter slower than most is late; the slack is a loop's and a scheduler's jitter."""
SOON = 0.001
"""Seconds of slack where segments are known to get lost: asking is cheap, and mostly has a reason there."""
UP = 1.075
DOWN = 0.975
"""A step up is three times a step down, so it rests where a quarter is above. Ten times slower is
learnt in 32 calls, and the noise of a steady service stays under 10 %."""
RARE_UP = 1.5
RARE_DOWN = 0.998
"""A step up is 200 times a step down, so it rests where one in two hundred is above. That is rough, which
is enough of a thing that is doubled before it is used."""
LEAST_RARE = 0.05
"""Seconds. The question is a request in a backend's log, so no hiccup of a loop or a scheduler may be its
cause, and a twentieth of a second is still far from hurting anyone."""
LEAST = 1e-4
"""Seconds: an estimate near nothing could not grow by factors any more."""


class HeadTimes:
    """Times in seconds from a request's last byte to the head of its response."""

    __slots__ = ("_first", "q75")

    def __init__(self) -> None:
        self.q75 = 0.0
        self._first: list[float] = []

    def note(self, seconds: float) -> None:
        q75 = self.q75
        if q75:
            self.q75 = q75 * UP if seconds > q75 else q75 * DOWN + LEAST * (1 - DOWN)
            return
        self._first.append(seconds)
        if len(self._first) == LEARNT:
            self.q75 = max(sorted(self._first)[LEARNT * 3 // 4], LEAST)
            self._first.clear()

    @property
    def late(self) -> float:
        """Seconds after which a head is late."""
        return FACTOR * self.q75 + SLACK if self.q75 else FIRST_LATE

    @property
    def soon(self) -> float:
        """Seconds after which a head may have been lost, on a path that loses."""
        return self.q75 + SOON if self.q75 else FIRST_LATE


class RareTimes(HeadTimes):
    """Where asking is dear (HTTP/1.1 has no PING): late is what takes twice as long as the slowest in two

    hundred, and at least `LEAST_RARE`. `rare` in seconds, 0 until enough is known.
    """

    __slots__ = ("_longest", "rare")

    def __init__(self) -> None:
        super().__init__()
        self.rare = self._longest = 0.0

    def note(self, seconds: float) -> None:
        super().note(seconds)
        rare = self.rare
        if rare:
            self.rare = rare * RARE_UP if seconds > rare else max(rare * RARE_DOWN, LEAST)
            return
        self._longest = max(self._longest, seconds)
        if self.q75:
            self.rare = max(self._longest, LEAST)

    @property
    def late(self) -> float:
        return max(2 * self.rare, LEAST_RARE) if self.rare else FIRST_LATE

    @property
    def soon(self) -> float:
        return self.late
