"""News of endpoints between workers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from stickyproxy.control.workers.gossip import Gossip
from stickyproxy.control.workers.hand import Hand
from stickyproxy.control.workers.orders import News
from stickyproxy.health.changes import Change, What
from stickyproxy.model import Cluster, ClusterSpec, Endpoint, Snapshot, UpstreamProtocol
from stickyproxy.policy.routes import Routes
from stickyproxy.rules import ConnectCheck, HealthCheck, Upkeep


class Heard:
    """A worker's bus that remembers."""

    def __init__(self) -> None:
        self.bus = self
        self.said: list[object] = []

    def send(self, message: object) -> None:
        self.said.append(message)


def news(what: What, endpoint: str = "a", cause: str = "503") -> News:
    return News(Change("c", endpoint, what, cause, 0.0))


def crew(count: int = 3) -> tuple[Gossip, list[Heard]]:
    heard = [Heard() for _ in range(count)]
    return Gossip({n: cast("Hand", one) for n, one in enumerate(heard)}), heard


def snapshot(*keys: str, checked: bool = True) -> Snapshot:
    upkeep = Upkeep(health_checks=(HealthCheck(ConnectCheck()),) if checked else ())
    spec = ClusterSpec("c", "c", UpstreamProtocol.H2C, (), upkeep=upkeep)
    cluster = Cluster(spec, tuple(Endpoint(key, ()) for key in keys))
    return Snapshot(1, Routes(()), {"c": cluster})


def late(gossip: Gossip) -> list[object]:
    """What a worker is told that begins now."""
    found = Heard()
    gossip.tell_all(cast("Hand", SimpleNamespace(bus=found)))
    return found.said


def test_news_go_to_all_but_who_brought_them() -> None:
    gossip, heard = crew()
    said = news(What.EJECTED)
    gossip.heard(1, said)
    assert [one.said for one in heard] == [[said], [], [said]]


def test_what_each_worker_concludes_by_itself_is_not_passed_on() -> None:
    gossip, heard = crew()
    for what in (What.DETECTED, What.SPARED, What.PANIC, What.CALM):
        gossip.heard(1, news(what))
    assert not any(one.said for one in heard)


def test_who_begins_later_is_told_which_checks_fail() -> None:
    gossip, _ = crew()
    gossip.heard(0, news(What.CHECK_FAILED, "a"))
    gossip.heard(0, news(What.CHECK_FAILED, "b"))
    gossip.heard(1, news(What.CHECK_PASSED, "a", ""))
    gossip.heard(1, news(What.EJECTED, "d"))
    assert late(gossip) == [news(What.CHECK_FAILED, "b")]


def test_who_is_not_checked_any_more_is_forgotten() -> None:
    gossip, _ = crew()
    gossip.heard(0, news(What.CHECK_FAILED, "a"))
    gossip.keep(snapshot("a", "b"))
    assert late(gossip) == [news(What.CHECK_FAILED, "a")]
    gossip.keep(snapshot("b"))
    assert late(gossip) == []
    gossip.heard(0, news(What.CHECK_FAILED, "b"))
    gossip.keep(snapshot("b", checked=False))
    assert late(gossip) == []
