"""What is known of the endpoints of each cluster, and who is to be left alone for it.

Three things speak against an endpoint, each with its own proof:

* a connect failed: a `Breaker` walks past it until its time to be tried again. It is about dials;
  an endpoint to which a link exists is reachable, whatever the last dial said, and a session should
  not leave it (`linked`);
* its calls end badly: outlier detection ejects it for a time (`outlier`);
* its active check fails: it is out until the check passes (`checks`).

Only endpoints with something against them are in `suspected`: while all is well it is an empty
dict, and asking costs one truth test. It is kept by cluster and endpoint key, because the same
address may be reached with TLS in one cluster and without in another, and fail in one only.

Never all: the last admitted one of a cluster is not ejected. And where checks and ejections leave
less than `panic` percent of a cluster's members, they are believed no more: all are admitted but for
their breakers (Envoy's panic), because those that are left would not carry the load of all, and a
wrong suspicion of everybody must not become an outage. When breakers keep *all* candidates of a
request out, the Exchange tries the first in order all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from stickyproxy.health.breaker import Breaker
from stickyproxy.health.changes import Change, Seen, What
from stickyproxy.health.outcome import NEUTRAL, SUCCESS, Outcome
from stickyproxy.health.outlier import Cause, Suspect, enforced, low_rates, may_eject
from stickyproxy.health.standing import Standing
from stickyproxy.model import Cluster, Endpoint
from stickyproxy.rules import OutlierDetection

PANIC = 30
"""Percent. Envoy's 50 would send two thirds of the calls of a cluster of three to the two that fail;
one of three can carry alone for a while, one of four hardly."""

Place = tuple[str, str]
"""Cluster name and endpoint key."""

Completed = Callable[[str, str], int]
"""How many calls of a cluster's endpoint have ended so far."""


class HealthBook:
    """`now` in seconds on one clock that does not go back.

    `told` hears of every change of an endpoint's state; `draw` gives numbers from 0 to below 1.
    `outlier` is for clusters without their own, None switches detection off there. `panic` in
    percent, 0 is never.
    """

    def __init__(
        self,
        told: Callable[[Change], None] | None = None,
        draw: Callable[[], float] = lambda: 0.0,
        *,
        outlier: OutlierDetection | None = None,
        panic: int = PANIC,
    ) -> None:
        self._standings: dict[Place, Standing] = {}
        self.suspected: Mapping[Place, Standing] = MappingProxyType(self._standings)
        """Everybody with something against them; the others are not in it."""
        self.panicking: set[str] = set()
        """Clusters of which too few are left, so that everybody is admitted."""
        self._suspects: dict[Place, Suspect] = {}
        self._clusters: Mapping[str, Cluster] = {}
        self._intervals: dict[str, _Interval] = {}
        self._told = told or _nobody
        self._draw = draw
        self._outlier = outlier
        self._panic = panic

    def seen(self, cluster: str, key: str) -> Seen | None:
        """What speaks against an endpoint; None if nothing does."""
        standing = self._standings.get((cluster, key))
        return standing.seen() if standing is not None else None

    def admits(self, cluster: str, endpoint: Endpoint, now: float, *, linked: bool = False) -> bool:
        """Whether `endpoint` may be used now; `linked`: there is a link to it. Changes nothing."""
        if not self._standings:
            return True
        standing = self._standings.get((cluster, endpoint.key))
        if standing is None:
            return True
        if standing.out and cluster not in self.panicking:
            return False
        return linked or standing.breaker is None or standing.breaker.admits(now)

    # --- connects ---

    def trying(self, cluster: str, endpoint: Endpoint, now: float) -> None:
        """Say that `endpoint` was chosen: if it is to be probed, this is the one probe."""
        if self._standings:
            standing = self._standings.get((cluster, endpoint.key))
            if standing is not None and standing.breaker is not None:
                standing.breaker.trying(now)

    def connect_failed(
        self, cluster: str, endpoint: Endpoint, now: float, jitter: float = 0.0
    ) -> float:
        """Note a failed connect; `jitter` from -1 to 1. Returns seconds until the next try."""
        standing = self._standing((cluster, endpoint.key))
        if standing.breaker is None:
            standing.breaker = Breaker()
        return standing.breaker.failed(now, jitter)

    def connected(self, cluster: str, endpoint: Endpoint) -> bool:
        """Note a connect that succeeded. True if the endpoint had been suspected for its connects."""
        place = (cluster, endpoint.key)
        standing = self._standings.get(place)
        if standing is None or standing.breaker is None:
            return False
        standing.breaker = None
        self._settle(place)
        return True

    # --- calls ---

    def outcome(self, cluster: str, endpoint: Endpoint, outcome: Outcome, now: float) -> None:
        """Note how an attempt ended; once for each that was made."""
        if outcome is SUCCESS:
            if self._suspects:
                suspect = self._suspects.get((cluster, endpoint.key))
                if suspect is not None:
                    suspect.succeeded()
        elif outcome is not NEUTRAL and outcome is not Outcome.FAILURE_CONNECT:
            self._failed((cluster, endpoint.key), outcome, now)

    def _failed(self, place: Place, outcome: Outcome, now: float) -> None:
        limits = self._limits(place[0])
        if limits is None:
            return
        suspect = self._suspects.setdefault(place, Suspect())
        cause = suspect.failed(outcome, now, limits)
        if cause is not None:
            self._detected(place, cause, now, limits)

    def _detected(self, place: Place, cause: Cause, now: float, limits: OutlierDetection) -> None:
        """Eject it, if that is enforced and enough are left."""
        suspect = self._suspects[place]
        if suspect.until:  # what was under way when it was ejected
            return
        what = What.EJECTED
        if not enforced(cause, limits, self._draw()):
            what = What.DETECTED
        elif not self._may_eject(place, limits):
            what = What.SPARED
        else:
            suspect.eject(now, limits, self._draw())
            self._standing(place).ejected = cause
        self._told(Change(*place, what, cause.value, max(0.0, suspect.until - now)))
        self._weigh(place[0])

    def _may_eject(self, place: Place, limits: OutlierDetection) -> bool:
        members = self._members(place[0])
        known = [self._standings.get((place[0], key)) for key in members]
        ejected = sum(one is not None and one.ejected is not None for one in known)
        # A breaker counts: who cannot be connected to carries nothing.
        left = sum(one is None for one in known) - (place not in self._standings)
        enough = left > 0 and may_eject(len(members), ejected, limits.max_ejection_percent)
        return place[1] in members and enough

    # --- active checks ---

    def check_failed(self, cluster: str, key: str, reason: str) -> None:
        """Its active check fails: it is out."""
        standing = self._standing((cluster, key))
        fresh, standing.check = not standing.check, reason
        if fresh:
            self._told(Change(cluster, key, What.CHECK_FAILED, reason, 0.0))
            self._weigh(cluster)

    def unchecked(self, cluster: str, key: str) -> None:
        """It is not checked any more, and nothing is held against it for that."""
        place = (cluster, key)
        if place in self._standings:
            self._standings[place].check = ""
            self._settle(place)
            self._weigh(cluster)

    def check_passed(self, cluster: str, key: str) -> None:
        """Its active check passes; an ejection ends by that too, unless a setting says no."""
        place = (cluster, key)
        standing = self._standings.get(place)
        if standing is None:
            return
        if standing.breaker is not None:  # whoever got through has the better proof
            standing.breaker = None
            self._told(Change(cluster, key, What.REACHABLE, "", 0.0))
        if standing.check:
            standing.check = ""
            self._told(Change(cluster, key, What.CHECK_PASSED, "", 0.0))
        limits = self._limits(cluster)
        if standing.ejected and limits and limits.successful_active_health_check_uneject_host:
            self._take_back(place)
        self._settle(place)
        self._weigh(cluster)

    # --- what others found out ---

    def learn(self, change: Change, now: float) -> None:
        """Another worker's news: believed, as far as enough are left here too, and not told again."""
        told, self._told = self._told, _nobody
        try:
            self._learn(change, now)
            self._weigh(change.cluster)
        finally:
            self._told = told

    def _learn(self, change: Change, now: float) -> None:
        place = (change.cluster, change.endpoint)
        match change.what:
            case What.EJECTED:
                self._learn_ejection(place, change, now)
            case What.RETURNED if place in self._standings and self._standings[place].ejected:
                self._take_back(place)
                self._settle(place)
            case What.CHECK_FAILED:
                self.check_failed(*place, change.cause)
            case What.CHECK_PASSED:
                self.check_passed(*place)

    def _learn_ejection(self, place: Place, change: Change, now: float) -> None:
        limits = self._limits(change.cluster)
        suspect = self._suspects.get(place)
        known = suspect is not None and suspect.until
        if limits is not None and not known and self._may_eject(place, limits):
            self._suspects.setdefault(place, Suspect()).learn(now + change.seconds)
            self._standing(place).ejected = Cause(change.cause)

    # --- time ---

    def sweep(self, now: float, completed: Completed) -> None:
        """About once a second: ejections end, intervals are judged."""
        for place, suspect in list(self._suspects.items()):
            if suspect.until and now >= suspect.until:
                self._take_back(place)
                self._settle(place)
                self._weigh(place[0])
        for name, interval in self._intervals.items():
            if now >= interval.due:
                self._judge(name, interval, now, completed)

    def _take_back(self, place: Place) -> None:
        """Whoever found it out says so."""
        suspect = self._suspects[place]
        told = _nobody if suspect.learned else self._told
        suspect.back()
        self._standings[place].ejected = None
        told(Change(*place, What.RETURNED, "", 0.0))

    def _judge(self, name: str, interval: _Interval, now: float, completed: Completed) -> None:
        limits = self._limits(name)
        if limits is None:
            return
        # The first one ends anywhere, so that a thousand clusters are not judged in one moment.
        interval.due = now + limits.interval * (1 if interval.due else 1 - self._draw())
        keys = self._members(name)
        suspects = {key: s for key in keys if (s := self._suspects.get((name, key))) is not None}
        if len(keys) >= limits.success_rate_minimum_hosts:
            calls = interval.calls({key: completed(name, key) for key in keys})
            for key, cause in _outliers(calls, suspects, limits) if suspects else ():
                self._detected((name, key), cause, now, limits)
        for key, suspect in suspects.items():
            suspect.interval()
            if suspect.clean and not suspect.until:
                del self._suspects[name, key]

    # --- members ---

    def keep(self, clusters: Mapping[str, Cluster]) -> None:
        """After a new Snapshot: forget what is no longer a member of its cluster."""
        self._clusters = clusters
        self._intervals = {name: self._intervals.get(name) or _Interval() for name in clusters}
        if self._standings or self._suspects:
            members = {(name, e.key) for name, c in clusters.items() for e in c.endpoints}
            for known in (self._standings, self._suspects):
                for gone in known.keys() - members:
                    del known[gone]
            for name in {name for name, _ in self._standings} | self.panicking:
                self._weigh(name)

    def _members(self, name: str) -> list[str]:
        """Keys of those that could be chosen for all that discovery knows."""
        cluster = self._clusters.get(name)
        if cluster is None:
            return []
        gone = cluster.removed | cluster.inadmissible
        return [endpoint.key for endpoint in cluster.endpoints if endpoint.key not in gone]

    def _limits(self, name: str) -> OutlierDetection | None:
        cluster = self._clusters.get(name)
        own = cluster.spec.upkeep.outlier_detection if cluster is not None else None
        limits = self._outlier if own is None else own
        return limits if limits is not None and limits.max_ejection_percent else None

    def _standing(self, place: Place) -> Standing:
        found = self._standings.get(place)
        if found is None:
            found = self._standings[place] = Standing()
        return found

    def _settle(self, place: Place) -> None:
        if self._standings[place].good:
            del self._standings[place]

    def _weigh(self, name: str) -> None:
        """Whether so few are left that all have to be admitted."""
        members = self._members(name)
        out = sum(self._is_out((name, key)) for key in members)
        panics = bool(out) and 100 * (len(members) - out) < self._panic * len(members)
        if panics != (name in self.panicking):
            (self.panicking.add if panics else self.panicking.discard)(name)
            what = What.PANIC if panics else What.CALM
            self._told(Change(name, "", what, f"{out} of {len(members)} are out", 0.0))

    def _is_out(self, place: Place) -> bool:
        standing = self._standings.get(place)
        return standing is not None and standing.out


def _nobody(_: Change) -> None:
    pass


class _Interval:
    """When a cluster is judged next, and what its endpoints had ended when the last one began."""

    __slots__ = ("_before", "due")

    def __init__(self) -> None:
        self.due = 0.0
        self._before: dict[str, int] = {}

    def calls(self, completed: dict[str, int]) -> dict[str, int]:
        """Of this interval; an endpoint that is new has none yet."""
        before, self._before = self._before, completed
        return {key: n - before.get(key, n) for key, n in completed.items()}


def _outliers(
    calls: Mapping[str, int], suspects: Mapping[str, Suspect], limits: OutlierDetection
) -> Iterator[tuple[str, Cause]]:
    """By what they answered, of all that they answered; then by what we saw, of all calls."""
    nobody = Suspect()
    known = {key: suspects.get(key, nobody) for key in calls}
    answers = {key: n - known[key].local_failures for key, n in calls.items()}
    external = {key: (n, n - known[key].answered_badly) for key, n in answers.items()}
    local = {key: (n, n - known[key].local_failures) for key, n in calls.items()}
    for key, _ in low_rates(external, limits):
        yield key, Cause.SUCCESS_RATE
    for key, _ in low_rates(local, limits):
        yield key, Cause.LOCAL_ORIGIN_SUCCESS_RATE
