"""One reflector between the project's API server and a sink that keeps what it is told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_reflector import Reflector
from stickyproxy.control.discovery.kube_slices import Object, object_key
from support.fake_kube import FakeKube
from support.fake_kube_store import SLICES
from support.kube_entry import GivenAccess
from support.kube_objects import slice_of

PATH = "/apis/discovery.k8s.io/v1/endpointslices"
PATIENCE = 3000.0  # seconds of trio's clock


class Mirror:
    """A sink that keeps what it is told. `replaced` counts complete lists."""

    def __init__(self) -> None:
        self.known: dict[str, Object] = {}
        self.replaced = 0
        self.told = 0
        self._changed = trio.Event()

    def replace(self, objects: list[Object]) -> None:
        self.known = {object_key(one).name: one for one in objects}
        self.replaced += 1
        self._tell()

    def put(self, found: Object) -> None:
        self.known[object_key(found).name] = found
        self._tell()

    def delete(self, found: Object) -> None:
        self.known.pop(object_key(found).name, None)
        self._tell()

    def _tell(self) -> None:
        self.told += 1
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition():
                await self._changed.wait()


class World:
    """The server, a client of it, and one reflector of its slices."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.kube = FakeKube()
        self.access = GivenAccess()
        self.mirror = Mirror()
        self.client = KubeClient(self.access, self.kube.connector)
        self.reflector = Reflector(self.client, PATH, self.mirror, rng=random.Random(7))
        self._nursery = nursery

    def put(self, name: str, *addresses: str) -> None:
        self.kube.store.put(SLICES, slice_of("qotm", name, *addresses))

    def delete(self, name: str) -> None:
        self.kube.store.delete(SLICES, "default", name)

    def start(self) -> None:
        self._nursery.start_soon(self.reflector.run)

    async def knows(self, *names: str) -> None:
        await self.mirror.until(lambda: set(self.mirror.known) == set(names))

    async def watching(self, count: int = 1) -> None:
        """Until so many watches were asked for and all is quiet."""
        with trio.fail_after(PATIENCE):
            while len(self.kube.watches("endpointslices")) < count:
                await self.kube.arrived.wait()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def mirrored() -> AsyncIterator[World]:
    """A server, a client and a reflector that was not started yet."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        async with world.kube.running():
            await nursery.start(world.client.run)
            yield world
            nursery.cancel_scope.cancel()
