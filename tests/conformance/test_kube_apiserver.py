"""The discovery on a real kube-apiserver that is killed, frozen, compacted and restarted.

Opt-in: `CONFORMANCE=kube python -m pytest tests/conformance`. The bounds in seconds are the issue's
for a machine that does nothing else.
"""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Collection, Iterator

import pytest
import trio

from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_discovery import KubeDiscovery
from stickyproxy.control.discovery.kube_server import with_alpn
from stickyproxy.model import ServiceRef
from support import kube_apiserver
from support.kube_apiserver import ADMIN, NOBODY, ApiServerProcess
from support.kube_entry import GivenAccess
from support.kube_objects import Object, service, slice_of

pytestmark = [
    pytest.mark.skipif(
        "kube" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=kube"
    ),
    pytest.mark.timeout(240),
]

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"
QOTM = ServiceRef("default", "qotm", 80)


@pytest.fixture(scope="module")
def real() -> Iterator[ApiServerProcess]:
    if reason := kube_apiserver.missing():
        pytest.fail(reason)
    with kube_apiserver.running() as server:
        yield server


class World:
    """A discovery of the real server, and a writer with connections of its own."""

    def __init__(self, server: ApiServerProcess) -> None:
        self.server = server
        self.discovery = KubeDiscovery(self.client(), self._changed)
        self.writer = self.client()
        self._event = trio.Event()

    def client(self, token: str = ADMIN) -> KubeClient:
        tls = with_alpn(ssl.create_default_context(cafile=str(self.server.ca)))
        return KubeClient(GivenAccess(token, port=self.server.port, tls=tls))

    def _changed(self, _: Collection[ServiceRef]) -> None:
        self._event.set()
        self._event = trio.Event()

    def picks(self) -> list[str]:
        return [one.addresses[0][0] for one in self.discovery.members(QOTM).pickable]

    async def picks_become(self, *addresses: str) -> None:
        with trio.fail_after(60):
            while self.picks() != list(addresses):
                await self._event.wait()

    async def write(self, name: str, *addresses: str) -> None:
        wanted = slice_of("qotm", name, *addresses)
        if any(one == name for one in await self.names()):
            await self.writer.send("PUT", f"{SLICES}/{name}", body=wanted)
        else:
            await self.writer.send("POST", SLICES, body=wanted)

    async def names(self) -> list[str]:
        listed: Object = await self.writer.get(SLICES)
        return [one["metadata"]["name"] for one in listed["items"]]

    async def restart(self) -> None:
        await trio.to_thread.run_sync(self.server.start)
        self.writer = self.client()  # its old connections are dead, which is not what is tested
        await self.nursery.start(self.writer.run)

    nursery: trio.Nursery


@pytest.fixture
async def world(real: ApiServerProcess) -> AsyncIterator[World]:
    world = World(real)
    async with trio.open_nursery() as nursery:
        world.nursery = nursery
        await nursery.start(world.writer.run)
        await nursery.start(world.discovery.run)
        listed = await world.writer.get(SERVICES)
        if all(one["metadata"]["name"] != "qotm" for one in listed["items"]):
            await world.writer.send("POST", SERVICES, body=service("qotm"))
        for name in await world.names():
            await world.writer.send("DELETE", f"{SLICES}/{name}")
        await world.write("a", "10.1.0.1")
        world.discovery.want([QOTM])
        await world.discovery.wait_synced()
        await world.picks_become("10.1.0.1")
        yield world
        nursery.cancel_scope.cancel()


async def test_changes_arrive_in_milliseconds(world: World) -> None:
    seen: list[float] = []
    for number in range(20):
        addresses = ["10.1.0.1"] + ["10.1.0.2"] * (number % 2)
        await world.write("a", *addresses)
        began = time.perf_counter()
        await world.picks_become(*addresses)
        seen.append(time.perf_counter() - began)
    assert sorted(seen)[len(seen) // 2] < 0.05


async def test_killed_server_takes_nothing_away_and_is_caught_up_with_in_seconds(
    world: World,
) -> None:
    world.server.kill()
    await trio.sleep(4)
    assert world.picks() == ["10.1.0.1"]
    await world.restart()
    await world.write("a", "10.1.0.2")
    began = trio.current_time()
    await world.picks_become("10.1.0.2")
    assert trio.current_time() - began < 16


async def test_version_that_expired_while_the_server_was_away_is_cured(world: World) -> None:
    world.server.kill()
    await world.restart()
    await world.write("b", "10.1.0.3")
    await world.picks_become("10.1.0.1", "10.1.0.3")
    await world.writer.send("DELETE", f"{SLICES}/b")
    await world.picks_become("10.1.0.1")


async def test_frozen_server_takes_nothing_away_and_goes_on_when_it_thaws(world: World) -> None:
    world.server.signal(signal.SIGSTOP)
    try:
        await trio.sleep(47)  # longer than the PING's patience: the connection is given up
        assert world.picks() == ["10.1.0.1"]
        assert world.discovery.synced
        problems = [state.problem for state in world.discovery.states().values()]
        assert all(problems)
    finally:
        world.server.signal(signal.SIGCONT)
    world.writer = world.client()
    await world.nursery.start(world.writer.run)
    await world.write("a", "10.1.0.2")
    await world.picks_become("10.1.0.2")


async def test_many_objects_come_in_pages_and_in_one_piece(world: World) -> None:
    """After an expired version the list is the newest one, which comes page by page."""
    for number in range(450):
        await world.writer.send("POST", SLICES, body=slice_of("other", f"o{number}", "10.2.0.1"))
    world.server.kill()
    await world.restart()
    await world.write("z", "10.1.0.9")
    await world.picks_become("10.1.0.1", "10.1.0.9")
    for number in range(450):
        await world.writer.send("DELETE", f"{SLICES}/o{number}")


async def test_missing_right_names_verb_and_resource(world: World) -> None:
    discovery = KubeDiscovery(world.client(NOBODY), lambda _: None)
    await world.nursery.start(discovery.run)
    discovery.want([QOTM])
    with trio.fail_after(20):
        while not all(s.problem for s in discovery.states().values()):  # noqa: ASYNC110 (no event)
            await trio.sleep(0.05)
    problems = " ".join(state.problem for state in discovery.states().values())
    assert 'cannot list resource "endpointslices" in API group "discovery.k8s.io"' in problems
    assert 'cannot list resource "services"' in problems
