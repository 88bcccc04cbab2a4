"""Ambassador's resources from an API server that may not have them, or take them away."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_resources import ASK_AGAIN, KubeResources
from support.cluster_objects import annotated, mapping_object, resource
from support.fake_kube import FakeKube, Fault
from support.fake_kube_store import HOSTS, INGRESSES, MAPPINGS, MODULES, SECRETS, SERVICES
from support.kube_entry import GivenAccess
from support.kube_objects import service

LONG = ASK_AGAIN * 1.5 + 1  # with the jitter


class Watched:
    """The fake API server and what is known of it; `changes` counts what was told."""

    def __init__(self, namespace: str | None = "default", *, secrets: bool = True) -> None:
        self.server = FakeKube()
        self.client = KubeClient(GivenAccess(), self.server.connector)
        self.resources = KubeResources(
            self.client, namespace, secrets=secrets, rng=random.Random(5)
        )
        self.changes = 0
        self.resources.listen(self._changed)
        self._heard = trio.Event()

    def _changed(self) -> None:
        self.changes += 1
        self._heard.set()
        self._heard = trio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watched]:
        async with self.server.running(), trio.open_nursery() as nursery:
            await nursery.start(self.client.run)
            await nursery.start(self.resources.run)
            await self.resources.wait_settled()
            yield self
            nursery.cancel_scope.cancel()

    def names(self) -> set[str]:
        return {found["metadata"]["name"] for found in self.resources.objects()}

    async def until_names(self, *names: str) -> None:
        while self.names() != set(names):
            await self._heard.wait()


@pytest.fixture
def patience(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


async def test_objects_of_all_kinds_are_known_once_settled(patience: MockClock) -> None:
    world = Watched()
    world.server.install()
    store = world.server.store
    store.put(MAPPINGS, mapping_object())
    store.put(MODULES, resource("Module", "ambassador", {"config": {}}))
    store.put(SERVICES, annotated("web", "kind: Mapping\n"))
    store.put(INGRESSES, annotated("in", "kind: Mapping\n", kind="Ingress"))
    async with world.running():
        kinds = {found["metadata"]["name"]: found["kind"] for found in world.resources.objects()}

    assert kinds == {"qotm": "Mapping", "ambassador": "Module", "web": "Service", "in": "Ingress"}


async def test_services_without_annotation_and_other_secrets_are_not_kept(
    patience: MockClock,
) -> None:
    world = Watched()
    store = world.server.store
    store.put(SERVICES, service("plain"))
    store.put(SECRETS, {"metadata": {"name": "release"}, "data": {"release": "H4sI"}})
    store.put(SECRETS, {"metadata": {"name": "cert"}, "data": {"tls.crt": "x", "tls.key": "y"}})
    async with world.running():
        assert world.names() == {"cert"}


async def test_secrets_are_not_asked_for_where_they_are_off(patience: MockClock) -> None:
    async with Watched(secrets=False).running() as world:
        assert world.server.lists("services")
        assert not world.server.lists("secrets")


async def test_cluster_without_the_group_is_settled_and_asked_again(patience: MockClock) -> None:
    world = Watched()
    world.server.store.put(SERVICES, annotated("web", "kind: Mapping\n"))
    async with world.running():
        assert world.names() == {"web"}

        world.server.install()
        world.server.store.put(MAPPINGS, mapping_object())
        await world.until_names("web", "qotm")


async def test_group_that_is_not_there_is_told_once(
    patience: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    async with Watched().running() as world:
        await trio.sleep(10 * LONG)

        asked = [one for one in world.server.asked if one.path == "/apis/getambassador.io"]
        assert len(asked) > 5
    assert capfd.readouterr().err.count("kubernetes_not_installed") == 1


async def test_kind_that_is_not_there_holds_up_no_other(patience: MockClock) -> None:
    world = Watched()
    world.server.install("mappings")
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        assert world.names() == {"qotm"}

        world.server.install("hosts")
        world.server.store.put(HOSTS, resource("Host", "h", {"hostname": "*"}))
        await world.until_names("qotm", "h")


@pytest.mark.parametrize(
    ("served", "watched"),
    [
        (("v1", "v2", "v3alpha1"), "v3alpha1"),
        (("v1", "v2"), "v2"),
        (("v1",), "v1"),
        (("v2", "v9"), "v2"),
    ],
)
async def test_newest_version_that_we_know_is_watched(
    patience: MockClock, served: tuple[str, ...], watched: str
) -> None:
    world = Watched()
    world.server.install(versions=served)
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        (found,) = world.resources.objects()

        assert found["apiVersion"] == f"getambassador.io/{watched}"


async def test_version_that_is_no_longer_served_gives_way_to_another_without_a_gap(
    patience: MockClock,
) -> None:
    world = Watched()
    world.server.install(versions=("v2",))
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        sizes: list[int] = []
        world.resources.listen(lambda: sizes.append(len(world.names())))
        world.server.install(versions=("v3alpha1",))
        await world.server.drop_connections()
        await trio.sleep(4 * LONG)

        (found,) = world.resources.objects()
        assert found["apiVersion"] == "getambassador.io/v3alpha1"
        assert set(sizes) == {1}


async def test_kind_that_is_missing_for_a_moment_loses_nothing(patience: MockClock) -> None:
    world = Watched()
    world.server.install()
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        versions, world.server.versions = world.server.versions, {}
        await world.server.drop_connections()
        await trio.sleep(1.2 * ASK_AGAIN)
        assert world.names() == {"qotm"}

        world.server.versions = versions
        world.server.store.put(MAPPINGS, mapping_object("more"))
        await world.until_names("qotm", "more")


async def test_kind_that_is_gone_for_good_takes_its_objects_along(patience: MockClock) -> None:
    world = Watched()
    world.server.install()
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        world.server.versions = {}
        await world.server.drop_connections()
        await world.until_names()


async def test_readiness_waits_for_the_first_list_of_what_is_there(patience: MockClock) -> None:
    world = Watched()
    world.server.install()
    world.server.faults.append(Fault("status", match="/mappings", status=500, times=3))
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.server.running(), trio.open_nursery() as nursery:
        await nursery.start(world.client.run)
        await nursery.start(world.resources.run)
        while world.server.faults:
            assert not world.resources.settled
            await world.server.arrived.wait()
        await world.resources.wait_settled()

        assert world.names() == {"qotm"}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("plural", ["mappings", "services"])
async def test_what_must_be_read_and_may_not_be_holds_readiness_and_says_which(
    patience: MockClock, plural: str
) -> None:
    world = Watched("shop")
    world.server.install()
    world.server.forbidden.add(plural)
    async with world.server.running(), trio.open_nursery() as nursery:
        await nursery.start(world.client.run)
        await nursery.start(world.resources.run)
        await trio.sleep(LONG)
        assert not world.resources.settled
        (problem,) = (s.problem for s in world.resources.states().values() if s.problem)
        assert f'cannot list resource "{plural}"' in problem
        assert 'in the namespace "shop"' in problem

        world.server.forbidden.clear()
        await world.resources.wait_settled()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("plural", ["secrets", "ingresses"])
async def test_what_is_only_a_help_may_be_forbidden(patience: MockClock, plural: str) -> None:
    world = Watched()
    world.server.forbidden.add(plural)
    async with world.running():
        (problem,) = (s.problem for s in world.resources.states().values() if s.refused)

        assert f'cannot list resource "{plural}"' in problem


async def test_missing_right_is_told_once(
    patience: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    world = Watched()
    world.server.forbidden.add("secrets")
    async with world.running():
        await trio.sleep(600)
    assert capfd.readouterr().err.count("cannot list resource") == 1


async def test_users_who_may_not_see_what_is_installed_are_served_all_the_same(
    patience: MockClock,
) -> None:
    world = Watched()
    world.server.install()
    fault = Fault("status", match="/apis/getambassador.io", status=403, times=1)
    world.server.faults.append(fault)
    world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        assert world.names() == {"qotm"}


async def test_status_and_bookkeeping_are_no_changes(patience: MockClock) -> None:
    world = Watched()
    world.server.install()
    found = world.server.store.put(MAPPINGS, mapping_object())
    async with world.running():
        (before,) = world.resources.objects()
        told = world.changes
        world.server.store.replace_status(MAPPINGS, {**found, "status": {"state": "Running"}})
        await trio.sleep(1)
        (after,) = world.resources.objects()

        live = world.resources.live("Mapping", "default", "qotm") or {}
        assert live["status"] == {"state": "Running"}
        assert after is before
        assert world.changes == told


async def test_one_namespace_or_all_of_them(patience: MockClock) -> None:
    for namespace, names in (("shop", {"b"}), (None, {"a", "b"})):
        world = Watched(namespace)
        world.server.install()
        world.server.store.put(MAPPINGS, mapping_object("a"))
        world.server.store.put(MAPPINGS, mapping_object("b", namespace="shop"))
        async with world.running():
            assert world.names() == names
