"""What is watched in one namespace: its Services, and its EndpointSlices or, on old clusters, Endpoints."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import trio

from stickyproxy import logs
from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_members import EndpointStore, Read, ServiceStore
from stickyproxy.control.discovery.kube_reflector import Reflector, ReflectorState, collection
from stickyproxy.control.discovery.kube_slices import (
    SERVICE_LABEL,
    ServiceKey,
    Slice,
    parse_endpoints,
    parse_slice,
)

T = TypeVar("T")

Touched = Callable[[set[ServiceKey] | None, bool], None]
"""Hears which Services may have other members now (None: any), and whether by a deletion."""


class NamespaceWatch:
    """One namespace, or ("") all of them. `synced` once each resource in use was listed.

    `refused` hears that the server said no for the first time.
    """

    def __init__(
        self,
        name: str,
        client: KubeClient,
        rng: random.Random,
        touched: Touched,
        refused: Callable[[], None],
    ) -> None:
        self.scope = trio.CancelScope()
        self.synced = trio.Event()
        self.services = ServiceStore()
        self._slices = EndpointStore(parse_slice)
        self._endpoints = EndpointStore(parse_endpoints)
        self._touched = touched
        self._old_cluster = trio.Event()
        self._old_scope = trio.CancelScope()
        self._services_feed = _Feed(self.services, self._took)
        self._slices_feed = _Feed(self._slices, self._took)
        self._endpoints_feed = _Feed(self._endpoints, self._took)
        place = name or None
        self._service_reflector = Reflector(
            client,
            collection("v1", "services", place),
            self._services_feed,
            prepare=self.services.read,
            rng=rng,
            refused=refused,
        )
        self._slice_reflector = Reflector(
            client,
            collection("discovery.k8s.io/v1", "endpointslices", place),
            self._slices_feed,
            prepare=self._slices.read,
            rng=rng,
            selector=SERVICE_LABEL,  # a slice of no Service is nobody's
            absent=self._no_slices,
            refused=refused,
        )
        self._endpoints_reflector = Reflector(
            client,
            collection("v1", "endpoints", place),
            self._endpoints_feed,
            prepare=self._endpoints.read,
            rng=rng,
            refused=refused,
        )

    async def run(self) -> None:
        """Until `scope` is cancelled."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._service_reflector.run)
                nursery.start_soon(self._slice_reflector.run)
                nursery.start_soon(self._follow_endpoints)

    def slices_of(self, service: ServiceKey) -> list[Slice]:
        store = self._slices if self._slices_feed.listed else self._endpoints
        return store.of(service)

    def states(self) -> Mapping[str, ReflectorState]:
        """Of what is watched now, by the collection's path."""
        used = [self._service_reflector, self._slice_reflector]
        if self._old_cluster.is_set() and not self._slices_feed.listed:
            used.append(self._endpoints_reflector)
        return {one.path: one.state for one in used}

    @property
    def refused(self) -> bool:
        """Whether we may not read something here. RBAC may be mended: it is asked again."""
        return any(state.refused for state in self.states().values())

    @property
    def problem(self) -> str:
        """What stands between us and the first list; "" if nothing was said about it."""
        found = [state.problem for state in self.states().values() if not state.synced.is_set()]
        return "; ".join(dict.fromkeys(problem for problem in found if problem))

    def _no_slices(self) -> None:
        """Told each time; the reflector goes on asking, for a cluster may be upgraded under us."""
        if not self._slices_feed.listed:
            self._old_cluster.set()

    async def _follow_endpoints(self) -> None:
        await self._old_cluster.wait()
        logs.info("kubernetes_old", problem="no EndpointSlices, watching Endpoints instead")
        with self._old_scope:
            await self._endpoints_reflector.run()

    def _took(self, touched: set[ServiceKey] | None, deleted: bool) -> None:
        if self._slices_feed.listed:
            self._old_scope.cancel()
        if not self.synced.is_set():
            listed = self._slices_feed.listed or self._endpoints_feed.listed
            if not (listed and self._services_feed.listed):
                return
            self.synced.set()
            touched = None
        self._touched(touched, deleted)


class _Feed(Generic[T]):
    """From a reflector into a store."""

    def __init__(
        self, store: _Store[T], took: Callable[[set[ServiceKey] | None, bool], None]
    ) -> None:
        self.listed = False
        self._store = store
        self._took = took

    def replace(self, objects: list[Read[T]]) -> None:
        touched = self._store.replace(objects)
        first, self.listed = not self.listed, True
        self._took(None if first else touched, False)

    def put(self, found: Read[T]) -> None:
        self._took(self._store.put(found), False)

    def delete(self, found: Read[T]) -> None:
        self._took(self._store.delete(found), True)


class _Store(Protocol[T]):
    """Each change returns the Services that it may concern."""

    def replace(self, objects: list[Read[T]]) -> set[ServiceKey]: ...

    def put(self, found: Read[T]) -> set[ServiceKey]: ...

    def delete(self, found: Read[T]) -> set[ServiceKey]: ...
