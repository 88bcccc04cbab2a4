"""Outlier detection: who is ejected, for how long, and that enough are always left."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.health.book import HealthBook
from stickyproxy.health.changes import Change, What
from stickyproxy.health.outcome import Outcome
from stickyproxy.health.outlier import low_rates, may_eject
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, LoadBalancer, UpstreamProtocol
from stickyproxy.policy.balance import Balancer
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.ring_hash import RingHash
from stickyproxy.rules import OutlierDetection, Upkeep

GATEWAY, SERVER, LOCAL = Outcome.FAILURE_GATEWAY, Outcome.FAILURE_5XX, Outcome.FAILURE_LOCAL
LIMITS = OutlierDetection(max_ejection_time_jitter=0.0)


class World:
    """A cluster `c` of hosts `0`, `1`, … and what the book says of it."""

    def __init__(
        self, hosts: int, limits: OutlierDetection | None = LIMITS, panic: int = 30
    ) -> None:
        self.told: list[Change] = []
        self.draws: list[float] = []
        self.book = HealthBook(self.told.append, self._draw, outlier=limits, panic=panic)
        self.hosts = [Endpoint(str(n), ()) for n in range(hosts)]
        self.completed: dict[str, int] = {}
        self.join(*self.hosts)

    def _draw(self) -> float:
        return self.draws.pop() if self.draws else 0.0

    def join(self, *hosts: Endpoint, out: frozenset[str] = frozenset()) -> None:
        spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, ())
        self.book.keep({"c": Cluster(spec, tuple(hosts), inadmissible=out)})

    def end(self, host: int, *outcomes: Outcome, now: float = 0.0) -> None:
        """Calls end, a second apart from each other."""
        for n, outcome in enumerate(outcomes):
            self.book.outcome("c", self.hosts[host], outcome, now + n)

    def sweep(self, now: float) -> None:
        self.book.sweep(now, lambda _, key: self.completed.get(key, 0))

    def admitted(self, now: float = 10.0) -> list[str]:
        return [e.key for e in self.hosts if self.book.admits("c", e, now)]

    def said(self) -> list[tuple[What, str]]:
        return [(change.what, change.endpoint) for change in self.told]


# --- in a row -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "times"),
    [
        (GATEWAY, LIMITS.consecutive_gateway_failure),
        (SERVER, LIMITS.consecutive_5xx),
        (LOCAL, LIMITS.consecutive_local_origin_failure),
    ],
)
def test_so_many_in_a_row_eject_and_one_less_does_not(outcome: Outcome, times: int) -> None:
    world = World(3)
    world.end(0, *[outcome] * (times - 1))
    assert world.admitted() == ["0", "1", "2"]
    world.end(0, outcome, now=50.0)
    assert world.admitted() == ["1", "2"]
    assert world.said() == [(What.EJECTED, "0")]


@pytest.mark.parametrize("outcome", [GATEWAY, SERVER, LOCAL])
def test_one_good_answer_between_begins_the_row_anew(outcome: Outcome) -> None:
    world = World(3)
    for _ in range(10):
        world.end(0, *[outcome] * 4, Outcome.SUCCESS)
    assert not world.told


@pytest.mark.parametrize("outcome", [Outcome.NEUTRAL, Outcome.FAILURE_CONNECT])
def test_what_says_nothing_of_the_calls_changes_nothing(outcome: Outcome) -> None:
    world = World(3)
    world.end(0, *[outcome] * 100)
    assert world.admitted() == ["0", "1", "2"]
    assert not world.book.suspected


def test_other_5xx_interrupt_gateway_failures_but_gateway_failures_are_5xx() -> None:
    world = World(3)
    world.end(0, *[GATEWAY, GATEWAY, GATEWAY, SERVER] * 4)
    assert not world.told
    world.end(0, GATEWAY, GATEWAY, GATEWAY, SERVER, now=20.0)
    assert [change.cause for change in world.told] == ["consecutive_5xx"]


def test_one_row_can_be_long_enough_for_two_causes() -> None:
    world = World(1)
    world.end(0, *[GATEWAY] * 21)
    said = [change.cause for change in world.told]
    assert said == ["consecutive_gateway_failure"] * 4 + ["consecutive_5xx"]


def test_a_bad_answer_is_an_answer_and_local_failures_do_not_add_to_it() -> None:
    world = World(3)
    world.end(0, *[LOCAL, LOCAL, GATEWAY] * 4)
    assert not world.told
    world.end(0, GATEWAY, now=20.0)
    assert [change.cause for change in world.told] == ["consecutive_gateway_failure"]


def test_a_link_that_breaks_with_all_its_streams_is_one_piece_of_news() -> None:
    world = World(3)
    for second in range(4):
        for stream in range(100):
            world.book.outcome("c", world.hosts[0], LOCAL, second + stream / 10_000)
    assert not world.told


def test_one_hosts_failures_are_not_anothers() -> None:
    world = World(10)
    for host in range(10):
        world.end(host, *[GATEWAY] * 4)
    assert not world.told


# --- switched off ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("consecutive_gateway_failure", GATEWAY),
        ("consecutive_5xx", SERVER),
        ("consecutive_local_origin_failure", LOCAL),
    ],
)
def test_each_detector_can_be_switched_off(name: str, outcome: Outcome) -> None:
    off = OutlierDetection(**{"consecutive_5xx": 0, name: 0})  # type: ignore[arg-type]
    world = World(3, off)
    world.end(0, *[outcome] * 60)
    assert not world.told


def test_what_is_not_enforced_is_detected_all_the_same() -> None:
    world = World(3, replace(LIMITS, enforcing_consecutive_gateway_failure=40))
    world.draws = [0.4]
    world.end(0, *[GATEWAY] * 5)
    assert world.said() == [(What.DETECTED, "0")]
    assert world.admitted() == ["0", "1", "2"]
    world.draws = [0.0, 0.39]  # the second is for the jitter
    world.end(0, *[GATEWAY] * 5)
    assert world.admitted() == ["1", "2"]


def test_a_cluster_without_detection_keeps_no_page() -> None:
    world = World(3, None)
    world.end(0, *[GATEWAY] * 50)
    world.sweep(100.0)
    assert not world.told


def test_a_clusters_own_limits_come_before_those_of_the_process() -> None:
    world = World(3, None)
    own = Upkeep(outlier_detection=replace(LIMITS, consecutive_gateway_failure=2))
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), upkeep=own)
    world.book.keep({"c": Cluster(spec, tuple(world.hosts))})
    world.end(0, GATEWAY, GATEWAY)
    assert world.admitted() == ["1", "2"]


# --- who is left ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "ejectable"), [(1, 0), (2, 1), (3, 1), (6, 1), (7, 2), (10, 3), (100, 30)]
)
def test_at_least_one_may_go_and_never_the_last(hosts: int, ejectable: int) -> None:
    world = World(hosts)
    for host in range(hosts):
        world.end(host, *[GATEWAY] * 5)
    assert len(world.admitted()) == hosts - ejectable
    assert sum(what is What.SPARED for what, _ in world.said()) == hosts - ejectable


@given(members=st.integers(1, 200), percent=st.integers(1, 100))
def test_some_can_always_go_but_for_the_last(members: int, percent: int) -> None:
    gone = 0
    while may_eject(members, gone, percent):
        gone += 1
    assert gone < members
    assert gone >= min(1, members - 1)
    assert gone <= max(1, members * percent // 100)


def test_no_percent_switches_ejection_off() -> None:
    world = World(3, replace(LIMITS, max_ejection_percent=0))
    world.end(0, *[GATEWAY] * 50)
    assert world.admitted() == ["0", "1", "2"]


def test_who_cannot_be_connected_to_is_not_counted_as_left() -> None:
    world = World(2)
    world.book.connect_failed("c", world.hosts[1], 0.0)
    world.end(0, *[GATEWAY] * 5)
    assert world.said() == [(What.SPARED, "0")]


def test_a_pod_that_is_not_ready_is_not_counted_as_left() -> None:
    world = World(2)
    world.join(*world.hosts, out=frozenset({"1"}))
    world.end(0, *[GATEWAY] * 5)
    assert world.said() == [(What.SPARED, "0")]


def test_with_too_few_left_everybody_is_admitted_until_enough_are_back() -> None:
    world = World(4)
    for host in range(3):
        world.book.check_failed("c", str(host), "503")
    assert world.admitted() == ["0", "1", "2", "3"]
    world.book.check_passed("c", "0")
    assert world.admitted() == ["0", "3"]
    said = [what for what, endpoint in world.said() if not endpoint]
    assert said == [What.PANIC, What.CALM]


def test_as_many_as_the_threshold_are_enough() -> None:
    world = World(10)
    for host in range(7):
        world.book.check_failed("c", str(host), "503")
    assert not world.book.panicking
    world.book.check_failed("c", "7", "503")
    assert world.book.panicking == {"c"}


def test_one_of_three_carries_alone() -> None:
    world = World(3)
    world.book.check_failed("c", "0", "503")
    world.book.check_failed("c", "1", "503")
    assert world.admitted() == ["2"]


def test_panic_does_not_open_a_breaker() -> None:
    world = World(4)
    for host in range(4):
        world.book.check_failed("c", str(host), "timeout")
    world.book.connect_failed("c", world.hosts[0], 10.0)
    assert world.admitted(10.5) == ["1", "2", "3"]


def test_without_a_panic_threshold_there_is_no_panic() -> None:
    world = World(4, panic=0)
    for host in range(3):
        world.book.check_failed("c", str(host), "503")
    assert world.admitted() == ["3"]


def test_members_that_leave_can_bring_panic_and_end_it() -> None:
    world = World(4)
    world.book.check_failed("c", "0", "503")
    world.join(world.hosts[0])
    assert world.book.panicking == {"c"}
    world.join(*world.hosts[1:])
    assert not world.book.panicking
    assert not world.book.suspected


def test_no_link_makes_up_for_an_ejection() -> None:
    world = World(3)
    world.end(0, *[GATEWAY] * 5)
    assert not world.book.admits("c", world.hosts[0], 10.0, linked=True)
    world.book.connect_failed("c", world.hosts[1], 10.0)
    assert world.book.admits("c", world.hosts[1], 10.0, linked=True)


def test_a_check_that_passes_opens_the_breaker() -> None:
    world = World(3)
    world.book.connect_failed("c", world.hosts[0], 10.0)
    world.book.check_passed("c", "0")
    assert world.admitted(10.0) == ["0", "1", "2"]
    assert world.said() == [(What.REACHABLE, "0")]
    assert not world.book.suspected


# --- for how long ---------------------------------------------------------------------------------


def test_each_ejection_is_longer_than_the_last_up_to_the_cap() -> None:
    world = World(2, replace(LIMITS, base_ejection_time=30.0, max_ejection_time=70.0))
    now, lasted = 0.0, []
    for _ in range(4):
        world.end(0, *[GATEWAY] * 5, now=now)
        lasted.append(world.told[-1].seconds)
        now += 4 + lasted[-1]
        world.sweep(now)
    assert lasted == [30.0, 60.0, 70.0, 70.0]


def test_quiet_intervals_forgive() -> None:
    world = World(2)
    for round_ in range(2):
        world.end(0, *[GATEWAY] * 5, now=round_ * 100.0)
        world.sweep(round_ * 100.0 + 70)
    for quiet in range(10):
        world.sweep(200.0 + 10 * quiet)
    world.end(0, *[GATEWAY] * 5, now=300.0)
    assert world.told[-1].seconds == 30.0


def test_jitter_adds_its_part() -> None:
    world = World(2, replace(LIMITS, max_ejection_time_jitter=10.0))
    world.draws = [0.5, 0.0]  # the last one first: whether, then how long
    world.end(0, *[GATEWAY] * 5)
    assert world.told[0].seconds == 35.0


def test_it_returns_at_its_time_with_a_clean_page() -> None:
    world = World(2)
    world.end(0, *[GATEWAY] * 5)
    world.sweep(33.9)
    assert world.admitted() == ["1"]
    world.sweep(34.0)
    assert world.admitted() == ["0", "1"]
    assert not world.book.suspected
    world.end(0, *[GATEWAY] * 4, now=35.0)
    assert world.said() == [(What.EJECTED, "0"), (What.RETURNED, "0")]


def test_calls_still_under_way_at_the_ejection_do_not_prolong_it() -> None:
    world = World(2)
    world.end(0, *[GATEWAY] * 50)
    world.sweep(34.0)
    assert world.said() == [(What.EJECTED, "0"), (What.RETURNED, "0")]


def test_a_passing_check_ends_an_ejection_only_where_told_to() -> None:
    for ends in (True, False):
        limits = replace(LIMITS, successful_active_health_check_uneject_host=ends)
        world = World(2, limits)
        world.end(0, *[GATEWAY] * 5)
        world.book.check_passed("c", "0")
        assert world.admitted() == (["0", "1"] if ends else ["1"])


def test_a_flapping_host_is_out_for_most_of_the_time() -> None:
    """Bad for a second, good for a second, for ten minutes."""
    world = World(3)
    used = 0
    for second in range(600):
        world.sweep(float(second))
        if "0" in world.admitted(second):
            used += 1
            outcome = GATEWAY if second % 2 else Outcome.SUCCESS
            for _ in range(10):
                world.book.outcome("c", world.hosts[0], outcome, float(second))
    assert used < 60


def test_a_snapshot_made_anew_of_the_same_members_changes_nothing() -> None:
    """As each answer of DNS makes one."""
    world = World(3)
    world.end(0, *[GATEWAY] * 5)
    for _ in range(3):
        world.join(*[Endpoint(host.key, ()) for host in world.hosts])
    assert world.admitted() == ["1", "2"]
    world.sweep(34.0)
    assert world.said() == [(What.EJECTED, "0"), (What.RETURNED, "0")]


def test_who_left_and_came_back_has_a_clean_page() -> None:
    world = World(3)
    world.end(0, *[GATEWAY] * 5)
    world.join(*world.hosts[1:])
    world.join(*world.hosts)
    assert world.admitted() == ["0", "1", "2"]
    world.sweep(100.0)
    assert world.said() == [(What.EJECTED, "0")]


# --- rates ----------------------------------------------------------------------------------------


def test_envoys_published_example() -> None:
    """outlier.rst: rates of 50 and four times 100, factor 1.9: the threshold is 52."""
    rates = {"a": (100, 50), **dict.fromkeys("bcde", (100, 100))}
    assert dict(low_rates(rates, LIMITS)) == {"a": 50.0}
    assert not dict(
        low_rates({**rates, "a": (100, 53)}, replace(LIMITS, success_rate_stdev_factor=2001))
    )


@pytest.mark.parametrize(
    "rates",
    [
        {"a": (100, 0), "b": (100, 100), "c": (100, 100), "d": (100, 100)},
        {"a": (99, 0), **dict.fromkeys("bcde", (100, 100))},
        dict.fromkeys("abcdefgh", (100, 50)),
        {},
    ],
    ids=["four hosts", "too few calls", "all alike", "none"],
)
def test_no_outlier_by_rate(rates: dict[str, tuple[int, int]]) -> None:
    assert not list(low_rates(rates, LIMITS))


@pytest.mark.parametrize(
    ("outcome", "cause"), [(SERVER, "success_rate"), (LOCAL, "local_origin_success_rate")]
)
def test_who_is_much_worse_than_the_others_is_ejected(outcome: Outcome, cause: str) -> None:
    world = World(6)
    world.sweep(0.0)
    world.completed = {str(n): 200 for n in range(6)}
    for call in range(100):
        world.book.outcome("c", world.hosts[2], outcome, call / 20)
        world.book.outcome("c", world.hosts[2], Outcome.SUCCESS, call / 20)
    world.sweep(9.0)
    assert not world.told
    world.sweep(10.0)
    assert [(c.endpoint, c.cause) for c in world.told] == [("2", cause)]


def test_a_first_interval_ends_anywhere_so_that_clusters_are_judged_apart() -> None:
    world = World(6)
    world.draws = [0.5]
    world.sweep(0.0)
    world.completed = {str(n): 200 for n in range(6)}
    for call in range(100):
        world.book.outcome("c", world.hosts[2], SERVER, call / 40)
        world.book.outcome("c", world.hosts[2], Outcome.SUCCESS, call / 40)
    world.sweep(4.9)
    assert not world.told
    world.sweep(5.0)
    assert world.said() == [(What.EJECTED, "2")]


def test_calls_of_the_last_interval_are_not_those_of_this_one() -> None:
    world = World(6)
    world.completed = {str(n): 200 for n in range(6)}
    world.sweep(0.0)
    for call in range(99):
        world.book.outcome("c", world.hosts[2], SERVER, call / 20)
        world.book.outcome("c", world.hosts[2], Outcome.SUCCESS, call / 20)
    world.completed = {str(n): 299 for n in range(6)}
    world.sweep(10.0)
    assert not world.told


def test_what_was_held_against_a_host_is_forgotten_when_nothing_is() -> None:
    world = World(3)
    world.end(0, GATEWAY, Outcome.SUCCESS)
    world.sweep(100.0)
    world.sweep(200.0)
    assert not world.book._suspects


# --- what another worker found out ----------------------------------------------------------------


def both(hosts: int) -> tuple[World, World]:
    """Two workers' books of one cluster; what the first says the second learns."""
    one, other = World(hosts), World(hosts)
    heard = one.book._told

    def tell(change: Change) -> None:
        heard(change)
        other.book.learn(change, 4.0)

    one.book._told = tell
    return one, other


def test_what_one_worker_ejects_the_other_leaves_alone_and_says_nothing() -> None:
    one, other = both(3)
    one.end(0, *[GATEWAY] * 5)
    assert other.admitted() == ["1", "2"]
    one.sweep(34.0)
    assert other.admitted() == ["0", "1", "2"]
    assert not other.book.suspected
    assert not other.told


def test_a_learned_ejection_ends_at_its_time_whatever_is_heard() -> None:
    one, other = both(3)
    one.end(0, *[GATEWAY] * 5)
    other.sweep(34.0)
    assert other.admitted() == ["0", "1", "2"]
    assert not other.told
    one.sweep(34.0)
    assert other.admitted() == ["0", "1", "2"]


def test_two_workers_that_eject_another_host_each_leave_the_last_one() -> None:
    one, other = both(2)
    other.end(1, *[GATEWAY] * 5)
    one.end(0, *[GATEWAY] * 5)
    assert one.admitted() == ["1"]
    assert other.admitted() == ["0"]


def test_a_check_that_another_worker_makes_counts_here_too() -> None:
    one, other = both(3)
    one.book.check_failed("c", "0", "503")
    assert other.admitted() == ["1", "2"]
    one.book.check_passed("c", "0")
    assert other.admitted() == ["0", "1", "2"]
    assert not other.told


def test_panic_is_each_workers_own_conclusion_and_told_by_one() -> None:
    one, other = both(4)
    for host in range(3):
        one.book.check_failed("c", str(host), "503")
    assert other.book.panicking == {"c"}
    assert not other.told


# --- sessions -------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32), hosts=st.integers(2, 12), policy=st.sampled_from(["maglev", "ring"])
)
def test_an_ejection_moves_its_own_keys_only_and_they_come_back(
    seed: int, hosts: int, policy: str
) -> None:
    rng = Random(seed)
    world = World(hosts)
    weighted = [(host.key, 1.0) for host in world.hosts]
    table = MaglevTable.build(weighted, 1009) if policy == "maglev" else RingHash.build(weighted)
    balancer = LoadBalancer("maglev" if policy == "maglev" else "ring_hash")
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), load_balancer=balancer)
    cluster = Cluster(spec, tuple(world.hosts), table)
    balance = Balancer(rng)
    keys = [rng.getrandbits(64) for _ in range(200)]

    def where(now: float) -> list[Endpoint | None]:
        return [
            balance.pick(cluster, key, lambda e: world.book.admits("c", e, now), lambda _: 0)
            for key in keys
        ]

    before = where(0.0)
    ejected = world.hosts[rng.randrange(hosts)]
    world.end(int(ejected.key), *[GATEWAY] * 5)
    during = where(10.0)
    assert ejected not in during
    for home, now in zip(before, during, strict=True):
        assert home is ejected or now is home
    world.sweep(40.0)
    assert where(40.0) == before


@given(st.data())
def test_whatever_happens_somebody_is_admitted(data: st.DataObject) -> None:
    """Checks, calls and time in any order; breakers are the Exchange's to overrule."""
    world = World(data.draw(st.integers(1, 5)))
    now = 0.0
    steps = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60)
    for what, drawn in data.draw(steps):
        host = drawn % len(world.hosts)
        now += 1.0
        match what:
            case 0:
                world.end(host, *[GATEWAY] * 5, now=now)
            case 1:
                world.end(host, *[LOCAL] * 5, now=now)
            case 2:
                world.book.check_failed("c", str(host), "503")
            case 3:
                world.book.check_passed("c", str(host))
            case _:
                now += 20.0
                world.sweep(now)
        assert world.admitted(now)
