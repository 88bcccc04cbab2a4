"""Status written back: once, by whoever comes first, and never at the cost of anything else."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_resources import KubeResources
from stickyproxy.control.discovery.kube_status import (
    PACE,
    REFUSED_AGAIN,
    SETTLE,
    StatusWriter,
    Subject,
    Wish,
)
from support.cluster_objects import mapping_object
from support.fake_kube import Asked, FakeKube, Fault
from support.fake_kube_store import MAPPINGS, Object
from support.kube_entry import GivenAccess

RUNNING = Wish("Running", "")
BROKEN = Wish("Error", "spec.weight: must be a number")
WHILE = 30.0  # virtual seconds, more than any write needs


class Replica:
    """One writer of the server's statuses."""

    def __init__(self, server: FakeKube, number: int = 0) -> None:
        self.client = KubeClient(GivenAccess(), server.connector)
        self.resources = KubeResources(self.client, "default", rng=random.Random(5))
        self.writer = StatusWriter(self.client, self.resources, random.Random(number))

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.client.run)
            await nursery.start(self.resources.run)
            await self.resources.wait_settled()
            nursery.start_soon(self.writer.run)
            task_status.started()


class World:
    def __init__(self, replicas: int = 1) -> None:
        self.server = FakeKube()
        self.server.install()
        self.replicas = [Replica(self.server, number) for number in range(replicas)]
        self.writer = self.replicas[0].writer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with self.server.running(), trio.open_nursery() as nursery:
            for one in self.replicas:
                await nursery.start(one.run)
            yield self
            nursery.cancel_scope.cancel()

    def put(self, name: str = "qotm", **spec: Any) -> Subject:
        found = self.server.store.put(MAPPINGS, mapping_object(name, **spec))
        return Subject("Mapping", "default", name, found["metadata"]["uid"])

    def found(self, name: str = "qotm") -> Object:
        return self.server.store.get(MAPPINGS, "default", name)

    def status(self, name: str = "qotm") -> Any:
        return self.found(name).get("status")

    def writes(self) -> list[Asked]:
        return [one for one in self.server.asked if one.method == "PUT"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.running():
        yield made


async def test_status_says_what_was_wished_and_leaves_the_rest_alone(
    world: World, autojump_clock: MockClock
) -> None:
    subject = world.put(timeout_ms=5)
    before = world.found()
    world.writer.wish({subject: BROKEN})
    await trio.sleep(WHILE)

    assert world.status() == {"state": "Error", "reason": BROKEN.reason}
    assert world.found()["spec"] == before["spec"]
    assert world.found()["metadata"]["generation"] == before["metadata"]["generation"]


async def test_nothing_is_written_that_is_there_already(
    world: World, autojump_clock: MockClock
) -> None:
    subject = world.put()
    for _ in range(3):
        world.writer.wish({subject: RUNNING})
        await trio.sleep(WHILE)

    assert len(world.writes()) == 1


async def test_other_fields_of_a_status_stay(world: World, autojump_clock: MockClock) -> None:
    subject = world.put()
    world.server.store.replace_status(MAPPINGS, {**world.found(), "status": {"other": "kept"}})
    world.writer.wish({subject: RUNNING})
    await trio.sleep(WHILE)

    assert world.status() == {"other": "kept", "state": "Running", "reason": ""}


async def test_replicas_that_say_the_same_write_it_once(autojump_clock: MockClock) -> None:
    world = World(replicas=3)
    async with world.running():
        subject = world.put()
        for one in world.replicas:
            one.writer.wish({subject: BROKEN})
        await trio.sleep(WHILE)

        assert len(world.writes()) == 1


async def test_what_somebody_else_writes_over_it_stays(
    world: World, autojump_clock: MockClock
) -> None:
    subject = world.put()
    world.writer.wish({subject: RUNNING})
    await trio.sleep(WHILE)
    world.server.store.replace_status(MAPPINGS, {**world.found(), "status": {"state": "Mine"}})
    await trio.sleep(WHILE)
    world.writer.wish({subject: RUNNING})
    await trio.sleep(WHILE)

    assert world.status() == {"state": "Mine"}


async def test_only_the_outcome_of_quick_changes_is_written(
    world: World, autojump_clock: MockClock
) -> None:
    subject = world.put()
    for wish in (RUNNING, BROKEN, RUNNING, BROKEN):
        world.writer.wish({subject: wish})
        await trio.sleep(SETTLE / 10)
    await trio.sleep(WHILE)

    assert world.status()["state"] == "Error"
    assert len(world.writes()) == 1


async def test_object_that_changed_meanwhile_is_read_again(
    world: World, autojump_clock: MockClock
) -> None:
    subject = world.put()
    await trio.sleep(1)
    world.server.faults.append(Fault("freeze", match="mappings?", times=99))
    await world.server.drop_connections()  # so that the watch will not tell
    world.put(timeout_ms=7)
    world.writer.wish({subject: RUNNING})
    await trio.sleep(WHILE)

    assert world.status() == {"state": "Running", "reason": ""}
    assert world.found()["spec"]["timeout_ms"] == 7
    assert len(world.writes()) == 2


async def test_object_of_the_same_name_made_anew_is_another(
    world: World, autojump_clock: MockClock
) -> None:
    subject = world.put()
    world.server.store.delete(MAPPINGS, "default", "qotm")
    world.put()
    world.writer.wish({subject: BROKEN})
    await trio.sleep(WHILE)

    assert world.status() is None


async def test_object_that_is_gone_is_no_trouble(
    world: World, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    gone, subject = world.put("gone"), world.put()
    await trio.sleep(1)
    world.server.faults.append(Fault("silent", match="mappings?watch", times=99))
    world.server.store.delete(MAPPINGS, "default", "gone")
    world.writer.wish({gone: RUNNING, subject: RUNNING})
    await trio.sleep(WHILE)

    assert world.status() == {"state": "Running", "reason": ""}
    assert "kubernetes_status" not in capfd.readouterr().err


async def test_definition_that_knows_no_error_is_told_inactive(
    world: World, autojump_clock: MockClock
) -> None:
    world.server.states = {"", "Running", "Inactive"}  # Emissary's
    subject = world.put()
    world.writer.wish({subject: BROKEN})
    await trio.sleep(WHILE)

    assert world.status() == {"state": "Inactive", "reason": BROKEN.reason}

    other = world.put("other")
    world.writer.wish({subject: BROKEN, other: BROKEN})
    await trio.sleep(WHILE)
    assert world.status("other")["state"] == "Inactive"
    assert len(world.writes()) == 3


@pytest.mark.parametrize("trouble", ["forbidden", "absent"])
async def test_status_that_may_not_be_written_is_told_once_and_tried_later(
    world: World, autojump_clock: MockClock, trouble: str, capfd: pytest.CaptureFixture[str]
) -> None:
    getattr(world.server, trouble).add("mappings/status")
    subjects = [world.put(name) for name in ("a", "b", "c")]
    world.writer.wish(dict.fromkeys(subjects, RUNNING))
    await trio.sleep(REFUSED_AGAIN / 2)

    assert len(world.writes()) == 1
    err = capfd.readouterr().err
    assert err.count("kubernetes_status") == 1
    assert "needs the verb update on mappings/status" in err
    assert "mappings/status" in world.writer.problem

    getattr(world.server, trouble).clear()
    await trio.sleep(REFUSED_AGAIN)
    assert [world.status(name)["state"] for name in ("a", "b", "c")] == ["Running"] * 3
    assert world.writer.problem == ""


async def test_server_that_is_away_is_asked_again(world: World, autojump_clock: MockClock) -> None:
    subject = world.put()
    world.server.faults.append(Fault("status", match="/status", status=500, times=3))
    world.server.faults.append(Fault("close", match="/status", times=2))
    world.writer.wish({subject: RUNNING})
    await trio.sleep(200)

    assert world.status() == {"state": "Running", "reason": ""}


async def test_writes_keep_their_distance(world: World, autojump_clock: MockClock) -> None:
    subjects = [world.put(f"m{number}") for number in range(20)]
    began = trio.current_time()
    world.writer.wish(dict.fromkeys(subjects, RUNNING))
    while len(world.writes()) < len(subjects):
        await world.server.arrived.wait()

    assert trio.current_time() - began >= SETTLE + (len(subjects) - 1) * PACE


async def test_long_reasons_are_cut(world: World, autojump_clock: MockClock) -> None:
    subject = world.put()
    world.writer.wish({subject: Wish("Error", "x" * 5_000)})
    await trio.sleep(WHILE)

    assert len(world.status()["reason"]) == 1024
