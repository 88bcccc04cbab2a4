"""The gate before one endpoint that could not be reached.

Why it is there: without it, each request for a dead endpoint pays its own failed connect (up to the
whole connect timeout for a machine that is off) before it goes to the next candidate. With it one
request pays, the others walk past, and the endpoint is tried again by and by.

Why only failed *connects* count here: a connect concerns no request, so its failure is proof about
the endpoint alone, one is enough, and nothing was processed. What an endpoint answers (5xx,
UNAVAILABLE) may be the fault of the request; shutting a gate for that would move sessions on the
word of one bad call. Judging answers needs counts and shares, which is outlier detection and no
part of this machine.

The machine, in the words of a gate (what others call an "open breaker" is `SHUT` here):

    OPEN --failed--> SHUT --its time is over, somebody tries--> PROBING --failed--> SHUT, longer
      ^                                                            |
      +-------------------------connected--------------------------+

* Asking changes nothing, for a balancer asks about many endpoints and takes one. *Trying* does: who
  tries first after the time of a SHUT gate is the probe, and nobody else is admitted meanwhile.
* A probe that is never heard of again (its request was cancelled) would keep the gate shut for
  ever; after `PATIENCE` the next one is admitted.
* Several dials may be under way when an endpoint dies, and in a panic (nobody is admitted) a shut
  endpoint is tried as well. Failures before the time is over are the same piece of news and change
  nothing; only a failure after it lengthens the wait.
* Success opens from anywhere: whoever got through has the better proof.

The waits are those of gRPC's connection backoff (1 s, times 1.6, ±20 %: grpc/grpc
doc/connection-backoff.md), so that many proxies do not knock at the same moment. Its cap of 120 s
is 30 s here (Envoy's first ejection): many clients wait behind one proxy, so a backend that came
back should be noticed within half a minute, and one connect every 30 s burdens nobody.
"""

from __future__ import annotations

import enum

BASE_DELAY = 1.0
GROWTH = 1.6
MAX_DELAY = 30.0
JITTER = 0.2

PATIENCE = 10.0
"""Seconds a probe may stay unheard of: three times the usual connect timeout."""


class Gate(enum.Enum):
    OPEN = "open"
    SHUT = "shut"
    PROBING = "probing"


class Breaker:
    """Times in seconds on the caller's clock. `state` is for people to look at."""

    __slots__ = ("_delay", "_until", "state")

    def __init__(self) -> None:
        self.state = Gate.OPEN
        self._delay = 0.0
        self._until = 0.0

    def admits(self, now: float) -> bool:
        """Whether a connect may be tried now. Asking changes nothing."""
        return self.state is Gate.OPEN or now >= self._until

    def trying(self, now: float) -> None:
        """A connect is about to be tried: at a shut gate whose time is over, it is the probe."""
        if self.state is not Gate.OPEN and now >= self._until:
            self.state = Gate.PROBING
            self._until = now + PATIENCE

    def failed(self, now: float, jitter: float = 0.0) -> float:
        """A connect failed; `jitter` is a random number from -1 to 1. Returns seconds to wait."""
        if self.state is Gate.OPEN:
            self._shut(BASE_DELAY, now, jitter)
        elif self.state is Gate.PROBING or now >= self._until:
            self._shut(min(self._delay * GROWTH, MAX_DELAY), now, jitter)
        return self._until - now

    def _shut(self, delay: float, now: float, jitter: float) -> None:
        self.state = Gate.SHUT
        self._delay = delay
        self._until = now + delay * (1 + JITTER * jitter)

    def connected(self) -> None:
        """A connect succeeded: the gate is open and the next failure waits the base delay."""
        self.state = Gate.OPEN
