"""Configuration from the cluster into the Snapshot: when it acts, what is told, what holds readiness."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from stickyproxy.config.cluster.status import Combined
from stickyproxy.config.load import Files, Settings, load
from stickyproxy.control.cluster import AT_START, MERGE, ClusterConfig
from stickyproxy.control.knowledge import Knowledge
from stickyproxy.control.kube import Kube
from stickyproxy.control.state import ProcessView
from stickyproxy.health.book import HealthBook
from stickyproxy.metrics import Metrics
from stickyproxy.model import Snapshot
from support.cluster_objects import mapping_object
from support.fake_kube import FakeKube
from support.fake_kube_store import MAPPINGS, SERVICES, SLICES
from support.kube_entry import GivenAccess
from support.kube_objects import service, slice_of

SOON = 5.0  # virtual seconds
BROKEN = {"weight": 700}


def from_flags(*services: str) -> Settings:
    return load([], {"kubernetes": ["on"], "service": list(services)})


class World:
    """A server, and all that a process has but its sockets."""

    def __init__(self) -> None:
        self.server = FakeKube()
        self.server.install()
        first = from_flags()
        self.published: list[Snapshot] = []
        self.adopted: list[Combined] = []
        self.kube = Kube(first.process, access=GivenAccess(), connector=self.server.connector)
        self.knowledge = Knowledge(first, self.published.append, self.kube)
        self.view = ProcessView(
            Metrics(), self.knowledge, HealthBook(), lambda: None, kube=self.kube
        )
        self.view.served = True
        self.files: Files | None = first.files
        self.config: ClusterConfig | None = None
        self.fails = 0

    async def adopt(self, combined: Combined) -> None:
        self.adopted.append(combined)
        if self.fails:
            self.fails -= 1
            raise ZeroDivisionError
        self.knowledge.configure(combined.settings)
        await self.knowledge.wait_caught_up()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with self.server.running(), trio.open_nursery() as nursery:
            await nursery.start(self.kube.run)
            await nursery.start(self.knowledge.run)
            assert self.files is not None
            self.config = self.kube.configuration(self.files, self.adopt)
            await nursery.start(self.config.run)
            yield self
            nursery.cancel_scope.cancel()

    def put(self, *names: str, **spec: object) -> None:
        for name in names:
            self.server.store.put(MAPPINGS, mapping_object(name, **spec))

    def routes(self) -> set[str]:
        return {route.name for route in self.published[-1].routes.routes}


@pytest.fixture
async def world() -> World:
    return World()


async def test_what_is_there_at_the_start_is_in_effect_when_started(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("qotm")
    world.server.store.put(SERVICES, service("qotm"))
    world.server.store.put(SLICES, slice_of("qotm", "qotm-1", "10.0.0.1", "10.0.0.2"))
    async with world.running():
        assert world.routes() == {"qotm"}
        keys = [one.key for one in world.published[-1].clusters["qotm"].endpoints]
        assert keys == ["10.0.0.1:8080", "10.0.0.2:8080"]
        assert world.view.ready()


async def test_change_acts_a_moment_later(world: World, autojump_clock: MockClock) -> None:
    async with world.running():
        world.put("qotm")
        await trio.sleep(SOON)
        assert world.routes() == {"qotm"}

        world.server.store.delete(MAPPINGS, "default", "qotm")
        await trio.sleep(SOON)
        assert world.routes() == set()


async def test_changes_of_one_moment_are_one(world: World, autojump_clock: MockClock) -> None:
    world.put("main", prefix="/q/", weight=90)
    world.put("canary", prefix="/q/", weight=10)
    async with world.running():
        before = len(world.adopted)
        world.put("canary", prefix="/q/", weight=60)
        await trio.sleep(MERGE / 2)
        world.put("main", prefix="/q/", weight=40)
        await trio.sleep(SOON)

        assert len(world.adopted) == before + 1
        assert world.adopted[-1].problems == ()


async def test_status_that_is_written_changes_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("qotm")
    async with world.running():
        await trio.sleep(SOON)
        status = world.server.store.get(MAPPINGS, "default", "qotm")["status"]

        assert status == {"state": "Running", "reason": ""}
        assert len(world.adopted) == 1


async def test_problem_is_told_once_and_so_is_its_end(
    world: World, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    world.put("broken", **BROKEN)
    async with world.running():
        for name in ("a", "b", "c"):
            world.put(name)
            await trio.sleep(SOON)
        world.put("broken")
        await trio.sleep(SOON)

    said = capfd.readouterr().err
    assert said.count("configuration_refused") == 1
    assert said.count("configuration_mended") == 1


async def test_last_good_version_is_served_from_load_to_load(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("qotm", timeout_ms=500)
    async with world.running():
        for weight in (700, 800):
            world.put("qotm", timeout_ms=900, weight=weight)
            await trio.sleep(SOON)
        (route,) = world.published[-1].routes.routes

        assert route.targets[0].timeout == 0.5
        assert [status.serves for status in world.kube.statuses()] == ["last good"]


async def test_new_files_act_together_with_the_cluster(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("qotm")
    async with world.running():
        files = from_flags("qotm=127.0.0.1:8001").files
        assert files is not None
        assert world.config is not None
        world.config.use(files)
        await trio.sleep(SOON)

        (spec,) = (cluster.spec for cluster in world.published[-1].clusters.values())
        assert (spec.kube, spec.targets) == (None, (("127.0.0.1", 8001),))


async def test_server_that_is_away_delays_the_start_a_little_and_readiness_until_it_is_back(
    world: World, autojump_clock: MockClock
) -> None:
    world.put("qotm")
    world.server.down = True
    began = trio.current_time()
    async with world.running():
        assert trio.current_time() - began == pytest.approx(AT_START)
        await trio.sleep(60)
        assert not world.view.ready()

        world.server.down = False
        await trio.sleep(60)
        assert world.view.ready()
        assert world.routes() == {"qotm"}


async def test_missing_group_does_not_hold_readiness(
    world: World, autojump_clock: MockClock
) -> None:
    world.server.versions = {}
    async with world.running():
        assert world.view.ready()


async def test_readiness_once_won_is_kept(world: World, autojump_clock: MockClock) -> None:
    async with world.running():
        assert world.view.ready()
        world.server.down = True
        await world.server.drop_connections()
        await trio.sleep(600)
        assert world.view.ready()


async def test_bug_of_ours_leaves_all_as_it_was_and_the_next_change_acts(
    world: World, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    world.put("a")
    async with world.running():
        world.fails = 1
        world.put("b")
        await trio.sleep(SOON)
        assert world.routes() == {"a"}
        assert "bug_in_configuration" in capfd.readouterr().err

        world.put("c")
        await trio.sleep(SOON)
        assert world.routes() == {"a", "b", "c"}
