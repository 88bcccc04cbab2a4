"""Outlier detection: which endpoint is to be left alone for how its calls end.

Envoy's machine (source/common/upstream/outlier_detection_impl.cc), with what the endpoint answered and
what we saw ourselves always counted apart (`split_external_local_origin_errors`). Only endpoints that
failed lately have a `Suspect`; a call that ends well touches nothing else.

A link that breaks fails all of its streams in one moment. That is one piece of news about the
endpoint, and says more about the link; so of local-origin failures at most one in `NEWS` counts
towards the consecutive ones. Five in a row are then at least half a second of nothing but trouble.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping

from stickyproxy.health.outcome import Outcome
from stickyproxy.rules import OutlierDetection

NEWS = 0.1
"""Seconds: streams of a broken link are told within one turn of the loop, which takes less."""


class Cause(enum.Enum):
    """As Envoy's counters name them, after `ejections_enforced_`."""

    CONSECUTIVE_5XX = "consecutive_5xx"
    CONSECUTIVE_GATEWAY_FAILURE = "consecutive_gateway_failure"
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = "consecutive_local_origin_failure"
    SUCCESS_RATE = "success_rate"
    LOCAL_ORIGIN_SUCCESS_RATE = "local_origin_success_rate"


class Suspect:
    """What one endpoint did lately. `until` is when an ejection may end, 0 without one; `learned`: it

    was not found out here.
    `ejections` multiplies the time of the next one; it falls again with each interval in the ranks.
    `answered_badly` and `local_failures` count since the last interval began.
    """

    __slots__ = (
        "_gateway",
        "_local",
        "_local_at",
        "_returned",
        "_server",
        "answered_badly",
        "ejections",
        "learned",
        "local_failures",
        "until",
    )

    def __init__(self) -> None:
        self.until = 0.0
        self.learned = False
        self.ejections = 0
        self.answered_badly = 0
        self.local_failures = 0
        self._server = 0
        self._gateway = 0
        self._local = 0
        self._local_at = -math.inf
        self._returned = False

    @property
    def clean(self) -> bool:
        """Whether nothing is held against it any more."""
        held = self.ejections or self.answered_badly or self.local_failures
        return not (held or self._server or self._gateway or self._local)

    def succeeded(self) -> None:
        self._server = self._gateway = self._local = 0

    def failed(self, outcome: Outcome, now: float, limits: OutlierDetection) -> Cause | None:
        """Note a failure; the cause to eject for, if this makes one."""
        if outcome is Outcome.FAILURE_LOCAL:
            return self._failed_locally(now, limits.consecutive_local_origin_failure)
        self.answered_badly += 1
        self._local = 0  # it answered
        self._server += 1
        self._gateway = self._gateway + 1 if outcome is Outcome.FAILURE_GATEWAY else 0
        if self._gateway >= limits.consecutive_gateway_failure > 0:
            self._gateway = 0
            return Cause.CONSECUTIVE_GATEWAY_FAILURE
        if self._server >= limits.consecutive_5xx > 0:
            self._server = 0
            return Cause.CONSECUTIVE_5XX
        return None

    def _failed_locally(self, now: float, limit: int) -> Cause | None:
        self.local_failures += 1
        if now - self._local_at < NEWS:
            return None
        self._local_at = now
        self._local += 1
        if not self._local >= limit > 0:
            return None
        self._local = 0
        return Cause.CONSECUTIVE_LOCAL_ORIGIN_FAILURE

    def eject(self, now: float, limits: OutlierDetection, draw: float) -> None:
        """For the base time times the ejections; `draw` from 0 to 1 is its part of the jitter."""
        self.ejections += 1
        longest = max(limits.max_ejection_time, limits.base_ejection_time)
        length = min(limits.base_ejection_time * self.ejections, longest)
        self.until = now + length + limits.max_ejection_time_jitter * draw

    def learn(self, until: float) -> None:
        """Somebody else ejected it."""
        self.ejections += 1
        self.until, self.learned = until, True

    def back(self) -> None:
        """An ejection is over; it begins anew."""
        self.until, self.learned = 0.0, False
        self._returned = True
        self.succeeded()

    def interval(self) -> None:
        """An interval is over; one spent wholly in the ranks forgives one ejection."""
        self.answered_badly = self.local_failures = 0
        if self.ejections and not self.until and not self._returned:
            self.ejections -= 1
        self._returned = False


def may_eject(members: int, ejected: int, percent: int) -> bool:
    """Whether one more may go: of a small cluster at least one, the last one never."""
    if not percent:
        return False
    return ejected < min(max(1, members * percent // 100), members - 1)


def enforced(cause: Cause, limits: OutlierDetection, draw: float) -> bool:
    """Whether what was detected is acted on; `draw` from 0 to below 1."""
    percent: int = getattr(limits, f"enforcing_{cause.value}")
    return draw * 100 < percent


def low_rates(
    rates: Mapping[str, tuple[int, int]], limits: OutlierDetection
) -> Iterable[tuple[str, float]]:
    """Endpoints (and their rates in percent) that lie too far below the mean of all.

    `rates` are (calls, good ones) of an interval; those with too few calls are left out, and below
    `success_rate_minimum_hosts` there is no mean to speak of.
    """
    volume = max(1, limits.success_rate_request_volume)
    percents = {
        key: 100.0 * good / calls for key, (calls, good) in rates.items() if calls >= volume
    }
    if len(percents) < max(1, limits.success_rate_minimum_hosts):
        return ()
    mean = sum(percents.values()) / len(percents)
    variance = sum((percent - mean) ** 2 for percent in percents.values()) / len(percents)
    threshold = mean - math.sqrt(variance) * limits.success_rate_stdev_factor / 1000
    return [(key, percent) for key, percent in percents.items() if percent < threshold]
