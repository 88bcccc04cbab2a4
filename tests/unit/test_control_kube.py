"""From the API server to the picks: what acts at once, what waits for a table, what is told."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stickyproxy import logs
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.admin import pages as admin_pages
from stickyproxy.control.knowledge import Knowledge
from stickyproxy.control.kube import FIRST_ANSWER, Kube
from stickyproxy.control.snapshots import MERGE
from stickyproxy.control.state import ProcessView
from stickyproxy.errors import ConfigError
from stickyproxy.health.book import HealthBook
from stickyproxy.logs import OperatorLog
from stickyproxy.metrics import Metrics
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Endpoint,
    HashPolicy,
    LoadBalancer,
    Route,
    RouteMatch,
    ServiceRef,
    Snapshot,
    Target,
    UpstreamProtocol,
)
from stickyproxy.policy.balance import Balancer
from support.fake_kube import FakeKube, Fault
from support.fake_kube_store import SERVICES, SLICES
from support.kube_entry import GivenAccess
from support.kube_objects import Object, endpoint, service, slice_of

ON = ProcessSettings(kubernetes=True)
MAGLEV = LoadBalancer("maglev", HashPolicy("header", "x-user"))
RNG = random.Random(9)
HASHES = [RNG.getrandbits(64) for _ in range(1_000)]
SOON = 3000.0


@pytest.fixture
def told() -> Iterator[list[bytes]]:
    """The operator log."""
    lines: list[bytes] = []
    logs.configure(OperatorLog(lines.append))
    yield lines
    logs.configure(OperatorLog(logs.to_stderr))


def spec(
    name: str = "qotm", balancer: LoadBalancer = MAGLEV, ref: ServiceRef | None = None
) -> ClusterSpec:
    kube = ref or ServiceRef("", name)
    return ClusterSpec(name, name, UpstreamProtocol.H2C, (), load_balancer=balancer, kube=kube)


def settings(*specs: ClusterSpec) -> Settings:
    routes = tuple(
        Route(s.name, RouteMatch(path=f"/{s.name}/"), (Target(s.name, s.name),)) for s in specs
    )
    return Settings(ON, routes, specs)


class World:
    """The project's API server, and a Knowledge that follows it; `published` is all it said."""

    def __init__(self, first: Settings) -> None:
        self.server = FakeKube()
        self.published: list[Snapshot] = []
        self.kube = Kube(first.process, access=GivenAccess(), connector=self.server.connector)
        self.knowledge = Knowledge(first, self._install, self.kube)
        self.view = ProcessView(
            Metrics(), self.knowledge, HealthBook(), lambda: None, kube=self.kube
        )
        self.view.served = True
        self._changed = trio.Event()

    def _install(self, snapshot: Snapshot) -> None:
        self.published.append(snapshot)
        self._changed.set()
        self._changed = trio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with self.server.running(), trio.open_nursery() as nursery:
            await nursery.start(self.kube.run)
            await nursery.start(self.knowledge.run)
            yield self
            nursery.cancel_scope.cancel()

    def service(self, name: str = "qotm", *ports: tuple[str, int]) -> None:
        self.server.store.put(SERVICES, service(name, *ports))

    def pods(self, *endpoints: str | Object, name: str = "qotm") -> None:
        """All pods of a Service, in one slice."""
        self.server.store.put(SLICES, slice_of(name, f"{name}-1", *endpoints))

    def cluster(self, name: str = "qotm") -> Cluster:
        return self.published[-1].clusters[name]

    def picks(self, name: str = "qotm") -> dict[int, str | None]:
        """Where each of `HASHES` goes now."""
        return where(self.cluster(name), HASHES)

    def admissible(self, name: str = "qotm") -> list[str]:
        cluster = self.cluster(name)
        shut = cluster.removed | cluster.inadmissible
        return [host(one.key) for one in cluster.endpoints if one.key not in shut]

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(SOON):
            while not condition():
                await self._changed.wait()


def where(cluster: Cluster, hashes: Iterable[int]) -> dict[int, str | None]:
    balancer = Balancer(random.Random(1))
    found: dict[int, str | None] = {}
    for one in hashes:
        picked = balancer.pick(cluster, one, everybody, lambda _: 0)
        found[one] = host(picked.key) if picked is not None else None
    return found


def everybody(_: Endpoint) -> bool:
    return True


def host(key: str) -> str:
    return key.removesuffix(":8080")


def pod(number: int, *, ready: bool = True, leaving: bool = False) -> Object:
    return endpoint(
        f"10.0.0.{number}", ready=ready, serving=ready, terminating=leaving, pod=f"qotm-{number}"
    )


def three() -> World:
    """Three ready pods of qotm."""
    world = World(settings(spec()))
    world.service()
    world.pods(pod(1), pod(2), pod(3))
    return world


# --- the first Snapshot ---------------------------------------------------------------------------


async def test_first_snapshot_has_the_pods_and_their_table(autojump_clock: MockClock) -> None:
    async with three().running() as world:
        assert len(world.published) == 1
        assert world.admissible() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        assert world.cluster().table is not None
        assert world.cluster().endpoints[0].pod == "qotm-1"
        assert world.view.ready()


async def test_api_server_that_is_away_holds_up_the_start_for_a_moment_and_readiness_for_as_long(
    autojump_clock: MockClock,
) -> None:
    world = three()
    world.server.down = True
    began = trio.current_time()
    async with world.running():
        assert trio.current_time() - began == pytest.approx(FIRST_ANSWER)
        assert world.admissible() == []
        assert not world.view.ready()
        assert "refused" in world.knowledge.problem("qotm")
        world.server.down = False
        await world.until(lambda: len(world.admissible()) == 3)
        assert world.view.ready()
        assert world.knowledge.problem("qotm") == ""


async def test_readiness_is_not_lost_when_the_api_server_goes(autojump_clock: MockClock) -> None:
    async with three().running() as world:
        world.server.down = True
        await world.server.drop_connections()
        await trio.sleep(3_600)
        assert world.view.ready()
        assert len(world.admissible()) == 3


async def test_new_service_in_a_namespace_not_read_yet_takes_no_readiness_away(
    autojump_clock: MockClock,
) -> None:
    async with three().running() as world:
        world.server.faults.append(Fault("silent", match="prod"))
        other = spec("other", ref=ServiceRef("prod", "other"))
        world.knowledge.configure(settings(spec(), other))
        await world.until(lambda: "other" in world.published[-1].clusters)
        assert world.view.ready()
        assert len(world.admissible()) == 3


async def test_namespace_that_we_may_not_read_keeps_nobody_else_from_being_ready(
    autojump_clock: MockClock,
) -> None:
    elsewhere = spec("other", ref=ServiceRef("secret", "other"))
    world = World(settings(spec(), elsewhere))
    world.service()
    world.pods(pod(1))
    world.server.faults.append(Fault("status", match="namespaces/secret", status=403, times=99))
    async with world.running():
        await world.until(world.view.ready)
        assert world.admissible() == ["10.0.0.1"]
        assert "403" in world.knowledge.problem("other")


async def test_without_any_right_it_is_not_ready_and_says_which_is_missing(
    autojump_clock: MockClock,
) -> None:
    world = three()
    world.server.forbidden = {"endpointslices"}
    async with world.running():
        assert not world.view.ready()
        problem = world.knowledge.problem("qotm")
        assert 'cannot list resource "endpointslices" in API group "discovery.k8s.io"' in problem
        world.server.forbidden = set()
        await world.until(lambda: len(world.admissible()) == 3)
        assert world.view.ready()


async def test_no_kubeconfig_where_there_is_no_cluster_says_what_would_be_right(
    tmp_path: Path,
) -> None:
    missing = replace(ON, kubeconfig=tmp_path / "none", kube_context="kind")
    with pytest.raises(ConfigError) as caught:
        await Kube(missing, environ={}).run()
    (problem,) = caught.value.problems
    assert problem.startswith("--kubernetes: kubeconfig: ")
    assert "right would be --kubeconfig FILE, or a pod with a service account" in problem


# --- changes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", ["vanishes", "terminates"])
async def test_pod_that_leaves_is_walked_past_before_the_clock_moves(
    autojump_clock: MockClock, leaves: str
) -> None:
    async with three().running() as world:
        before, first = world.picks(), len(world.published)
        now = trio.current_time()
        world.pods(pod(1), *([] if leaves == "vanishes" else [pod(2, leaving=True)]), pod(3))
        await world.until(lambda: world.admissible() == ["10.0.0.1", "10.0.0.3"])
        interim = where(world.published[first].clusters["qotm"], HASHES)
        await world.until(lambda: len(world.cluster().endpoints) == 2)
        assert trio.current_time() == now, "no change waits for others"
        for hash_, home in before.items():
            assert home in (interim[hash_], "10.0.0.2"), "only its own sessions moved"


async def test_pod_that_is_not_ready_for_a_while_moves_nobody_else_and_builds_no_table(
    autojump_clock: MockClock,
) -> None:
    async with three().running() as world:
        before, table = world.picks(), world.cluster().table
        now = trio.current_time()
        world.pods(pod(1), pod(2, ready=False), pod(3))
        await world.until(lambda: world.admissible() == ["10.0.0.1", "10.0.0.3"])
        resting = world.picks()
        assert world.cluster().inadmissible == {"10.0.0.2:8080"}
        assert {h: w for h, w in before.items() if w != "10.0.0.2"}.items() <= resting.items()
        assert "10.0.0.2" not in resting.values()
        world.pods(pod(1), pod(2), pod(3))
        await world.until(lambda: len(world.admissible()) == 3)
        assert world.picks() == before
        assert world.cluster().table is table
        assert trio.current_time() == now
        await trio.sleep(10 * MERGE)
        assert len(world.published) == 3, "one Snapshot for each change, and none behind it"


async def test_pod_that_was_never_ready_has_no_place_yet_and_takes_its_share_in_one_move(
    autojump_clock: MockClock,
) -> None:
    async with three().running() as world:
        before = world.picks()
        world.pods(pod(1), pod(2), pod(3), pod(4, ready=False))
        await trio.sleep(10 * MERGE)
        assert world.picks() == before
        world.pods(pod(1), pod(2), pod(3), pod(4))
        await world.until(lambda: len(world.cluster().endpoints) == 4)
        moved = [home for hash_, home in world.picks().items() if home != before[hash_]]
        assert moved.count("10.0.0.4") / len(moved) > 0.8  # the rest is Maglev's own


async def test_additions_in_a_row_are_merged(autojump_clock: MockClock) -> None:
    async with three().running() as world:
        before = len(world.published)
        for count in range(4, 24):
            world.pods(*[pod(number) for number in range(1, count + 1)])
            await wait_all_tasks_blocked()
        await trio.sleep(2 * MERGE)
        assert len(world.cluster().endpoints) == 23
        assert len(world.published) <= before + 3


async def test_round_robin_takes_new_pods_at_once_and_skips_those_that_rest(
    autojump_clock: MockClock,
) -> None:
    world = World(settings(spec(balancer=LoadBalancer("round_robin"))))
    world.service()
    world.pods(pod(1), pod(2))
    async with world.running():
        now = trio.current_time()
        world.pods(pod(1), pod(2, ready=False), pod(3))
        await world.until(lambda: world.admissible() == ["10.0.0.1", "10.0.0.3"])
        assert trio.current_time() == now
        assert set(world.picks().values()) == {"10.0.0.1", "10.0.0.3"}


async def test_with_all_pods_replaced_at_once_there_is_always_somewhere_to_go(
    autojump_clock: MockClock,
) -> None:
    async with three().running() as world:
        world.pods(*[pod(n, leaving=True) for n in (1, 2, 3)], *[pod(n) for n in (4, 5)])
        await world.until(lambda: world.admissible() == ["10.0.0.4", "10.0.0.5"])
        await trio.sleep(10 * MERGE)
        for snapshot in world.published:
            assert None not in where(snapshot.clusters["qotm"], HASHES[:50]).values()


async def test_with_none_ready_those_that_leave_still_serve(autojump_clock: MockClock) -> None:
    async with three().running() as world:
        leaving = [
            endpoint(f"10.0.0.{n}", ready=False, serving=True, terminating=True) for n in (1, 2)
        ]
        world.pods(*leaving, pod(3, ready=False))
        await world.until(lambda: world.admissible() == ["10.0.0.1", "10.0.0.2"])


async def test_pods_that_come_back_before_the_table_is_built_keep_the_old_one(
    autojump_clock: MockClock,
) -> None:
    async with three().running() as world:
        before, table = world.picks(), world.cluster().table
        world.pods(pod(1), pod(3))
        world.pods(pod(1), pod(2), pod(3))
        await trio.sleep(10 * MERGE)
        assert world.picks() == before
        assert len(world.cluster().endpoints) == 3
        assert table is not None


async def test_change_of_one_service_leaves_the_other_clusters_as_they_are(
    autojump_clock: MockClock,
) -> None:
    world = World(settings(spec(), spec("other")))
    for name in ("qotm", "other"):
        world.service(name)
        world.pods(pod(1), pod(2), name=name)
    async with world.running():
        other = world.cluster("other")
        world.pods(pod(1), pod(2), pod(3))
        await world.until(lambda: len(world.cluster().endpoints) == 3)
        assert world.cluster("other") is other


async def test_many_services_are_known_without_holding_the_loop(
    autojump_clock: MockClock,
) -> None:
    names = [f"svc-{number}" for number in range(60)]
    world = World(settings(*[spec(name, LoadBalancer("round_robin")) for name in names]))
    for name in names:
        world.service(name)
        world.pods(pod(1), pod(2), name=name)
    async with world.running():
        assert world.view.ready()
        assert len(world.published) == 1
        assert all(len(world.admissible(name)) == 2 for name in names)
        await world.server.drop_connections()
        world.server.store.compact()
        for name in names:
            world.pods(pod(3), name=name)
        world.server.store.compact()
        await world.until(lambda: all(world.admissible(n) == ["10.0.0.3"] for n in names))


# --- what is told ---------------------------------------------------------------------------------


async def test_service_that_is_not_there_is_a_problem_until_it_is(
    autojump_clock: MockClock, told: list[bytes]
) -> None:
    world = World(settings(spec()))
    async with world.running():
        assert world.knowledge.problem("qotm") == "there is no Service qotm in default"
        assert world.view.ready(), "a Mapping that leads nowhere is no reason to serve nothing"
        assert admin_pages.config_dump(world.view)["problems"] == {
            "qotm": "there is no Service qotm in default"
        }
        assert "qotm::problem::there is no Service qotm" in admin_pages.clusters_text(world.view)
        assert b"".join(told).count(b"there is no Service") == 1
        world.pods(pod(1))
        world.service()
        await world.until(lambda: world.admissible() == ["10.0.0.1"])
        assert admin_pages.config_dump(world.view)["problems"] == {}


async def test_port_that_the_service_has_not_is_a_problem_that_lists_those_it_has(
    autojump_clock: MockClock,
) -> None:
    world = World(settings(spec(ref=ServiceRef("", "qotm", "grpc"))))
    world.service("qotm", ("web", 80), ("admin", 9000))
    world.pods(pod(1))
    async with world.running():
        assert world.knowledge.problem("qotm") == (
            "Service qotm in default has no port grpc; its TCP ports: 80 web, 9000 admin"
        )


async def test_pages_show_pods_and_who_rests(autojump_clock: MockClock) -> None:
    async with three().running() as world:
        world.pods(pod(1), pod(2, ready=False), pod(3))
        await world.until(lambda: bool(world.cluster().inadmissible))
        text = admin_pages.clusters_text(world.view)
        assert "qotm::10.0.0.2:8080::pod::qotm-2" in text
        assert "qotm::10.0.0.2:8080::health_flags::/not_ready" in text
        (row,) = admin_pages.clusters_json(world.view)["cluster_statuses"]
        health = {host["pod"]: host["health_status"] for host in row["host_statuses"]}
        assert health["qotm-1"] == {"eds_health_status": "HEALTHY"}
        assert health["qotm-2"] == {"eds_health_status": "UNHEALTHY", "reason": "not ready"}
        watched = admin_pages.config_dump(world.view)["kubernetes"]
        pods = [state for path, state in watched.items() if path.endswith("slices")]
        assert [state["synced"] for state in pods] == [True]


async def test_metrics_say_how_each_watch_goes(autojump_clock: MockClock) -> None:
    async with three().running() as world:
        await trio.sleep(20)
        slices = world.kube.stats()["endpointslices", "default"]
        assert (slices.synced, slices.relists_total, slices.watch_errors_total) == (1, 0, 0)
        assert slices.watch_last_event_age_seconds == pytest.approx(20)
        world.server.down = True
        await world.server.drop_connections()
        await trio.sleep(60)
        world.server.store.compact()
        world.server.down = False
        await trio.sleep(600)
        slices = world.kube.stats()["endpointslices", "default"]
        assert (slices.synced, slices.relists_total > 0) == (1, True)
        assert slices.watch_errors_total > 0


async def test_all_namespaces_are_one_watch(autojump_clock: MockClock) -> None:
    everywhere = replace(ON, kube_namespace="all")
    world = World(replace(settings(spec(ref=ServiceRef("prod", "qotm"))), process=everywhere))
    async with world.running():
        assert {("services", ""), ("endpointslices", "")} <= set(world.kube.stats())
