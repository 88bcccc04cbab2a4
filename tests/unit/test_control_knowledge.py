"""Settings, files and DNS come together: what is published, how often, and how soon."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.knowledge import Knowledge
from stickyproxy.control.snapshots import MERGE
from stickyproxy.model import (
    ClusterSpec,
    LoadBalancer,
    Route,
    RouteMatch,
    Snapshot,
    Target,
    UpstreamProtocol,
)

SETTLED = 10 * MERGE


class Names(trio.abc.HostnameResolver):
    """Names with their addresses; one that is not there fails."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}

    async def getaddrinfo(self, host: bytes | None, *_: Any, **__: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        name = (host or b"").decode()
        if name not in self.addresses:
            raise trio.socket.gaierror(trio.socket.EAI_NONAME, "unknown")
        found = self.addresses[name]
        random.shuffle(found)  # as a resolver that rotates its answers
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def settings(*targets: tuple[str, int], prefix: str = "/") -> Settings:
    spec = ClusterSpec(
        "c", "svc", UpstreamProtocol.H2C, targets, load_balancer=LoadBalancer("maglev")
    )
    route = Route("r", RouteMatch(path=prefix), (Target("r", "c"),))
    return Settings(ProcessSettings(), (route,), (spec,))


class World:
    """A running Knowledge and all it has published."""

    def __init__(self, first: Settings) -> None:
        self.names = Names()
        self.published: list[Snapshot] = []
        self.knowledge = Knowledge(first, self.published.append)
        trio.socket.set_custom_hostname_resolver(self.names)

    def keys(self) -> list[str]:
        return [endpoint.key for endpoint in self.published[-1].clusters["c"].endpoints]


async def test_first_snapshot_is_there_when_run_has_started(nursery: trio.Nursery) -> None:
    world = World(settings(("svc", 80)))
    world.names.addresses["svc"] = ["10.0.0.2", "10.0.0.1"]
    await nursery.start(world.knowledge.run)
    assert world.knowledge.snapshot() is world.published[0]
    assert world.keys() == ["10.0.0.1:80", "10.0.0.2:80"]
    nursery.cancel_scope.cancel()


async def test_first_change_is_not_debounced_and_later_ones_are_merged(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(settings(("10.0.0.1", 80)))
    await nursery.start(world.knowledge.run)
    before = trio.current_time()
    world.knowledge.configure(settings(("10.0.0.1", 80), prefix="/one"))
    await trio.testing.wait_all_tasks_blocked()
    assert len(world.published) == 2
    assert trio.current_time() == before, "at once"
    for number in range(20):
        world.knowledge.configure(settings(("10.0.0.1", 80), prefix=f"/{number}"))
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(SETTLED)
    assert len(world.published) == 3, "one Snapshot for 20 changes"
    assert world.published[-1].routes.routes[0].match.path == "/19"
    assert trio.current_time() == before + SETTLED


async def test_empty_cluster_recovers_when_dns_comes_back(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(settings(("svc", 80)))
    await nursery.start(world.knowledge.run)
    assert world.keys() == []
    assert world.published[-1].clusters["c"].table is None
    world.names.addresses["svc"] = ["10.0.0.1"]
    await trio.sleep(ProcessSettings().dns_refresh + SETTLED)
    assert world.keys() == ["10.0.0.1:80"]
    assert world.published[-1].clusters["c"].table is not None


async def test_dns_that_goes_away_takes_no_endpoint_with_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(settings(("svc", 80)))
    world.names.addresses["svc"] = ["10.0.0.1"]
    await nursery.start(world.knowledge.run)
    del world.names.addresses["svc"]
    await trio.sleep(60)
    assert len(world.published) == 1
    world.knowledge.configure(settings(("svc", 80), prefix="/other"))
    await trio.sleep(SETTLED)
    assert world.keys() == ["10.0.0.1:80"], "a reload meanwhile keeps them too"


async def test_answers_in_another_order_change_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(settings(("svc", 80)))
    world.names.addresses["svc"] = [f"10.0.0.{n}" for n in range(20)]
    await nursery.start(world.knowledge.run)
    await trio.sleep(60)
    assert len(world.published) == 1


async def test_new_address_comes_with_a_table_that_moves_few_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(settings(("svc", 80)))
    world.names.addresses["svc"] = [f"10.0.0.{n}" for n in range(9)]
    await nursery.start(world.knowledge.run)
    world.names.addresses["svc"].append("10.0.0.9")
    await trio.sleep(ProcessSettings().dns_refresh + SETTLED)
    homes = []
    for snapshot in (world.published[0], world.published[-1]):
        cluster = snapshot.clusters["c"]
        assert cluster.table is not None
        homes.append([cluster.endpoints[cluster.table.lookup(h << 48)].key for h in range(2_000)])
    moved = [new for old, new in zip(*homes, strict=True) if new != old]
    assert 0 < len(moved) < 300
    assert moved.count("10.0.0.9:80") > len(moved) / 2


async def test_how_often_names_are_asked_is_changed_by_a_reload(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(settings(("svc", 80)))
    world.names.addresses["svc"] = ["10.0.0.1"]
    await nursery.start(world.knowledge.run)
    slow = settings(("svc", 80))
    world.knowledge.configure(replace(slow, process=replace(slow.process, dns_refresh=600.0)))
    await trio.sleep(ProcessSettings().dns_refresh + 1)
    world.names.addresses["svc"] = ["10.0.0.2"]
    await trio.sleep(500)
    assert world.keys() == ["10.0.0.1:80"]
    await trio.sleep(200)
    assert world.keys() == ["10.0.0.2:80"]
