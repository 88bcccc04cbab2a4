"""Members of Services, from the project's API server, through everything it may do."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection

import pytest
import trio
from trio.testing import MockClock

from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_discovery import EMPTY_GRACE, KubeDiscovery
from stickyproxy.model import ServiceRef
from support.fake_kube import FakeKube, Fault
from support.fake_kube_store import ENDPOINTS, SERVICES, SLICES
from support.kube_entry import GivenAccess
from support.kube_objects import Object, endpoint, endpoints_of, service, slice_of

QOTM = ServiceRef("default", "qotm", 80)
OTHER = ServiceRef("default", "other", 80)
PROD = ServiceRef("prod", "qotm", 80)
PATIENCE = 3000.0


class World:
    """The server and a discovery; `changes` counts what it told."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.changes = 0
        self.discovery = self.make()
        self._changed = trio.Event()

    def make(self, *, cluster_wide: bool = False) -> KubeDiscovery:
        client = KubeClient(GivenAccess(), self.kube.connector)
        return KubeDiscovery(client, self.changed, rng=random.Random(5), cluster_wide=cluster_wide)

    def changed(self, _: Collection[ServiceRef]) -> None:
        self.changes += 1
        self._changed.set()
        self._changed = trio.Event()

    def service(self, name: str = "qotm", namespace: str = "default") -> None:
        self.kube.store.put(SERVICES, service(name, namespace=namespace))

    def slice(self, name: str, *endpoints: str | Object, service: str = "qotm") -> None:
        self.kube.store.put(SLICES, slice_of(service, name, *endpoints))

    def delete(self, name: str) -> None:
        self.kube.store.delete(SLICES, "default", name)

    def picks(self, wanted: ServiceRef = QOTM) -> list[str]:
        return [one.addresses[0][0] for one in self.discovery.members(wanted).pickable]

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._changed.wait()

    async def picks_become(self, *addresses: str) -> None:
        await self.until(lambda: self.picks() == list(addresses))

    async def want(self, *wanted: ServiceRef) -> None:
        self.discovery.want(wanted)
        with trio.fail_after(PATIENCE):
            await self.discovery.wait_synced()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.kube.running(), trio.open_nursery() as nursery:
        await nursery.start(world.discovery.run)
        yield world
        nursery.cancel_scope.cancel()


async def test_members_are_known_once_synced_and_follow_every_change(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    world.discovery.want([QOTM])
    assert not world.discovery.synced
    await world.discovery.wait_synced()
    assert world.picks() == ["10.0.0.1"]
    world.slice("b", endpoint("10.0.0.2", pod="qotm-2"))
    await world.picks_become("10.0.0.1", "10.0.0.2")
    assert world.discovery.members(QOTM).pickable[1].pod == "qotm-2"
    world.slice("a", endpoint("10.0.0.1", ready=False, serving=True, terminating=True))
    await world.picks_become("10.0.0.2")
    assert "10.0.0.1:8080" in world.discovery.members(QOTM).honoured


async def test_change_is_told_once_and_only_for_what_is_wanted(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.service("other")
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    changes = world.changes
    world.slice("o", "10.0.1.1", service="other")
    world.service()  # the same again
    fqdn = slice_of("qotm", "f", "db.example.com", family="FQDN")  # a problem, and no member
    world.kube.store.put(SLICES, fqdn)
    world.slice("a", "10.0.0.2")
    await world.picks_become("10.0.0.2")
    assert world.changes == changes + 1


async def test_removal_is_told_with_the_event_and_not_a_moment_later(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1", "10.0.0.2")
    await world.want(QOTM)
    began = trio.current_time()
    world.slice("a", "10.0.0.2")
    await world.picks_become("10.0.0.2")
    assert trio.current_time() == began


async def test_what_is_wanted_later_is_there_and_what_is_not_any_more_is_gone(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.service("other")
    world.slice("a", "10.0.0.1")
    world.slice("o", "10.0.1.1", service="other")
    await world.want(QOTM)
    await world.want(QOTM, OTHER)
    assert world.picks(OTHER) == ["10.0.1.1"], "at once: its namespace was watched already"
    await world.want(OTHER)
    assert world.picks(QOTM) == []


async def test_each_namespace_is_watched_by_itself_and_left_again(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.service(namespace="prod")
    world.kube.store.put(SLICES, slice_of("qotm", "a", "10.9.0.1", namespace="prod"))
    await world.want(QOTM, PROD)
    assert world.picks(PROD) == ["10.9.0.1"]
    assert world.picks(QOTM) == []
    paths = {one.path for one in world.kube.asked}
    assert "/api/v1/namespaces/prod/services" in paths
    assert not any(path == "/api/v1/services" for path in paths), "a Role is enough"
    await world.want(QOTM)
    assert {path.split("/")[-2] for path in world.discovery.states()} == {"default"}


async def test_cluster_wide_is_one_watch_for_all_namespaces(autojump_clock: MockClock) -> None:
    world = World()
    world.service(namespace="prod")
    world.kube.store.put(SLICES, slice_of("qotm", "a", "10.9.0.1", namespace="prod"))
    world.discovery = world.make(cluster_wide=True)
    async with world.kube.running(), trio.open_nursery() as nursery:
        await nursery.start(world.discovery.run)
        await world.want(QOTM, PROD)
        assert world.picks(PROD) == ["10.9.0.1"]
        assert {one.path for one in world.kube.asked} == {
            "/api/v1/services",
            "/apis/discovery.k8s.io/v1/endpointslices",
        }
        nursery.cancel_scope.cancel()


async def test_service_that_is_not_there_says_so_until_it_comes(
    world: World, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    assert "no Service qotm" in world.discovery.problem(QOTM)
    assert "no Service qotm" in capfd.readouterr().err
    world.service()
    await world.picks_become("10.0.0.1")
    assert world.discovery.problem(QOTM) == ""


# --- the gap of a rewritten slice ---


async def test_deletion_of_the_last_slice_is_believed_only_after_a_grace(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    began = trio.current_time()
    world.delete("a")
    await world.picks_become()
    assert trio.current_time() - began >= EMPTY_GRACE


async def test_slice_that_is_written_anew_in_time_leaves_no_gap(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    seen: list[list[str]] = []
    world.discovery._changed = lambda _: seen.append(world.picks())
    world.delete("a")
    await trio.sleep(1)
    world.slice("b", "10.0.0.1", "10.0.0.2")
    await trio.sleep(EMPTY_GRACE * 2)
    assert seen == [["10.0.0.1", "10.0.0.2"]]


async def test_slice_that_was_emptied_and_not_deleted_is_believed_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    began = trio.current_time()
    world.slice("a")
    await world.picks_become()
    assert trio.current_time() == began


async def test_with_its_service_gone_a_deleted_slice_is_believed_at_once(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    world.kube.store.delete(SERVICES, "default", "qotm")
    began = trio.current_time()
    await world.picks_become()
    assert trio.current_time() == began


# --- the API server's own life ---


@pytest.mark.parametrize("gone", ["down", "frozen", "compacted", "restarted"])
async def test_last_members_stay_whatever_becomes_of_the_api_server(
    world: World, autojump_clock: MockClock, gone: str
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    if gone == "frozen":
        world.kube.faults.append(Fault("silent", "", times=6))
    if gone == "compacted":
        world.kube.store.revision += 10
        world.kube.store.compact()
    world.kube.down = gone == "down"
    await world.kube.drop_connections()
    for _ in range(20):
        await trio.sleep(13)
        assert world.picks() == ["10.0.0.1"]
        assert world.discovery.synced
    world.kube.down = False
    world.slice("a", "10.0.0.2")
    await world.picks_become("10.0.0.2")


async def test_right_that_is_taken_away_takes_no_members_away(
    world: World, autojump_clock: MockClock
) -> None:
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    world.kube.forbidden = {"services", "endpointslices"}
    world.kube.store.compact()
    await world.kube.drop_connections()
    await trio.sleep(300)
    assert world.picks() == ["10.0.0.1"]
    problems = [state.problem for state in world.discovery.states().values()]
    assert all("forbidden" in problem for problem in problems)


async def test_slices_that_are_suddenly_not_installed_take_no_members_away(
    world: World, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    """An API server that is starting may answer 404 before it knows all its groups."""
    world.service()
    world.slice("a", "10.0.0.1")
    await world.want(QOTM)
    world.kube.absent = {"endpointslices"}
    await world.kube.drop_connections()
    await trio.sleep(300)
    assert world.picks() == ["10.0.0.1"]
    assert world.kube.lists("endpoints") == []
    assert "watching Endpoints" not in capfd.readouterr().err


# --- old clusters ---


async def test_old_cluster_is_served_from_endpoints_and_its_upgrade_is_noticed(
    world: World, autojump_clock: MockClock
) -> None:
    world.kube.absent = {"endpointslices"}
    world.service()
    world.kube.store.put(ENDPOINTS, endpoints_of("qotm", "10.0.0.1"))
    await world.want(QOTM)
    assert world.picks() == ["10.0.0.1"]
    world.kube.store.put(ENDPOINTS, endpoints_of("qotm", "10.0.0.1", "10.0.0.2"))
    await world.picks_become("10.0.0.1", "10.0.0.2")
    assert any(path.endswith("/endpoints") for path in world.discovery.states())
    world.kube.absent.clear()
    world.slice("a", "10.0.0.2", "10.0.0.3")
    await world.picks_become("10.0.0.2", "10.0.0.3")
    assert not any(path.endswith("/endpoints") for path in world.discovery.states())
    asked = [one for one in world.kube.asked if one.path.endswith("/endpoints")]
    await trio.sleep(1000)
    assert [one for one in world.kube.asked if one.path.endswith("/endpoints")] == asked


async def test_not_synced_before_every_resource_in_use_was_listed(
    world: World, autojump_clock: MockClock
) -> None:
    world.kube.forbidden = {"services"}
    world.slice("a", "10.0.0.1")
    world.discovery.want([QOTM])
    await trio.sleep(100)
    assert not world.discovery.synced
    assert world.picks() == []
    world.kube.forbidden.clear()
    world.service()
    with trio.fail_after(PATIENCE):
        await world.discovery.wait_synced()
    assert world.picks() == ["10.0.0.1"]
