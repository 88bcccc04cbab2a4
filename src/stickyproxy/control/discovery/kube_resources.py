"""Ambassador's resources in the cluster, kept in step: which kinds there are, and their objects.

The API group may not be installed, or come later, or in other versions than today. That is asked of the
server and never a reason to wait. What was once known stays until the server itself says that the kind
is gone: a 404 alone is also what a definition says that is just being replaced.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import trio

from stickyproxy import logs
from stickyproxy.control.discovery.kube_client import ApiError, ApiUnreachable, KubeClient
from stickyproxy.control.discovery.kube_objects import ObjectStore
from stickyproxy.control.discovery.kube_reflector import (
    Backoff,
    Reflector,
    ReflectorState,
    collection,
)
from stickyproxy.control.discovery.kube_server import AccessError
from stickyproxy.control.discovery.kube_slices import Object

GROUP = "getambassador.io"
VERSIONS = ("v3alpha1", "v2", "v1")  # the first of these that is served is watched
ASK_AGAIN = 30.0
"""Seconds between questions what is installed, while something is missing: somebody who has just applied
the definitions waits about as long for the first Mapping to act. Replicas ask at different times."""
ALL_THERE = 600.0  # seconds, while nothing is missing: definitions change with releases
CONFIRMED = 2  # answers in a row without a kind, until what it held is forgotten

GROUP_KINDS = {
    "mappings": "Mapping",
    "modules": "Module",
    "kubernetesendpointresolvers": "KubernetesEndpointResolver",
    "kubernetesserviceresolvers": "KubernetesServiceResolver",
    "consulresolvers": "ConsulResolver",
    "hosts": "Host",
    "listeners": "Listener",
    "tlscontexts": "TLSContext",
}


class Resource(NamedTuple):
    """A collection to follow. `optional`: being forbidden to read it holds nobody up."""

    kind: str
    plural: str
    api_version: str
    optional: bool = False


SERVICES = Resource("Service", "services", "v1")
INGRESSES = Resource("Ingress", "ingresses", "networking.k8s.io/v1", optional=True)
SECRETS = Resource("Secret", "secrets", "v1", optional=True)


class _Followed:
    """One resource: its objects, and the reflector that follows it now."""

    def __init__(self, resource: Resource, store: ObjectStore) -> None:
        self.resource = resource
        self.store = store
        self.scope = trio.CancelScope()
        self.reflector: Reflector | None = None
        self.missing = 0

    @property
    def settled(self) -> bool:
        """Known, or not to be known."""
        if self.store.listed or self.missing:
            return True
        state = self.reflector.state if self.reflector is not None else ReflectorState()
        return state.absent or (state.refused and self.resource.optional)


class KubeResources:
    """`namespace` None is all of them."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str | None,
        *,
        secrets: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._listeners: list[Callable[[], None]] = []
        self._rng = rng or random.Random()
        self._followed: dict[str, _Followed] = {}
        self._core = (SERVICES, INGRESSES, *((SECRETS,) if secrets else ()))
        self._asked = False
        self._problem = ""
        self._told: set[str] = set()
        self._ask_soon = trio.Event()
        self._progress = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; the client must run."""
        async with trio.open_nursery() as self._nursery:
            for resource in self._core:
                self._follow(resource)
            task_status.started()
            await self._ask_for_ever()

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, synchronously, when an object differs in what matters."""
        self._listeners.append(changed)

    async def wait_settled(self) -> None:
        """Until each kind that is there was listed once."""
        while not self.settled:
            await self._progress.wait()

    @property
    def settled(self) -> bool:
        return self._asked and all(one.settled for one in self._followed.values())

    def objects(self) -> Iterator[Object]:
        """All of them, each the same Python object as long as nothing that matters has changed."""
        for one in self._followed.values():
            yield from one.store.objects()

    def live(self, kind: str, namespace: str, name: str) -> Object | None:
        """The newest form of an object with its status and version; None when it is gone."""
        for one in self._followed.values():
            if one.resource.kind == kind:
                return one.store.live(namespace, name)
        return None

    def path_of(self, kind: str, namespace: str) -> str | None:
        """The collection that objects of a kind are written to."""
        for one in self._followed.values():
            if one.resource.kind == kind:
                return collection(one.resource.api_version, one.resource.plural, namespace)
        return None

    def states(self) -> dict[str, ReflectorState]:
        """Of each watched collection, by its path."""
        reflectors = (one.reflector for one in self._followed.values())
        return {one.path: one.state for one in reflectors if one is not None}

    @property
    def problem(self) -> str:
        """Why it is not known what is installed; "" if it is."""
        return self._problem

    # --- following ---

    def _follow(self, resource: Resource) -> None:
        known = self._followed.get(resource.plural)
        if known is not None and known.resource == resource and known.reflector is not None:
            known.missing = 0
            return
        store = ObjectStore(resource.kind, resource.api_version, self._took)
        if known is not None:
            known.scope.cancel()
            store = known.store
            store.api_version = resource.api_version
        followed = _Followed(resource, store)
        followed.reflector = Reflector(
            self._client,
            collection(resource.api_version, resource.plural, self._namespace),
            store,
            rng=self._rng,
            absent=self._absent,
            refused=self._advance,
        )
        self._followed[resource.plural] = followed
        if self._nursery is not None:
            self._nursery.start_soon(self._run, followed)

    async def _run(self, followed: _Followed) -> None:
        with followed.scope:
            if followed.reflector is not None:
                await followed.reflector.run()

    def _took(self, changed: bool) -> None:
        self._advance()
        for heard in self._listeners if changed else ():
            heard()

    def _absent(self) -> None:
        """A kind is not there (any more, or in this version): see what is."""
        self._ask_soon.set()
        self._advance()

    def _advance(self) -> None:
        progress, self._progress = self._progress, trio.Event()
        progress.set()

    # --- what is installed ---

    async def _ask_for_ever(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            try:
                served = await self._served()
            except (ApiError, ApiUnreachable, AccessError) as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    logs.warning("kubernetes_away", resource=f"/apis/{GROUP}", reason=self._problem)
                await trio.sleep(backoff.delay(getattr(error, "retry_after", None) or 0.0))
                continue
            backoff.reset()
            self._problem = ""
            self._take(served)
            await self._rest(complete=len(served) == len(GROUP_KINDS))

    async def _rest(self, *, complete: bool) -> None:
        """However soon it is wanted, the server is not asked more often than that."""
        await trio.sleep(ASK_AGAIN * (1 + self._rng.random() / 2))
        if complete:
            with trio.move_on_after(ALL_THERE):
                await self._ask_soon.wait()
        self._ask_soon = trio.Event()

    async def _served(self) -> Mapping[str, str]:
        """The version to watch of each kind that is there. 404 is an answer, too."""
        try:
            versions = _versions(await self._client.get(f"/apis/{GROUP}"))
        except ApiError as error:
            if error.status == 404:
                return {}
            if error.status == 403:  # some take discovery from their users; then try the newest
                return dict.fromkeys(GROUP_KINDS, VERSIONS[0])
            raise
        found: dict[str, str] = {}
        for version in versions:
            for plural in await self._plurals(version):
                found.setdefault(plural, version)
        return found

    async def _plurals(self, version: str) -> list[str]:
        try:
            listed = await self._client.get(f"/apis/{GROUP}/{version}")
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        names = {str(one.get("name")) for one in _items(listed, "resources")}
        return [plural for plural in GROUP_KINDS if plural in names]

    def _take(self, served: Mapping[str, str]) -> None:
        for plural, version in served.items():
            self._follow(Resource(GROUP_KINDS[plural], plural, f"{GROUP}/{version}"))
        missing = {plural for plural in GROUP_KINDS if plural not in served}
        for plural in missing & self._followed.keys():
            self._lose(self._followed[plural])
        for plural in self._told - missing:
            logs.info("kubernetes_installed", resource=f"{plural}.{GROUP}")
        if fresh := missing - self._told:
            which = GROUP if fresh == GROUP_KINDS.keys() else ", ".join(sorted(fresh))
            logs.info("kubernetes_not_installed", resource=which, asked_again_s=ASK_AGAIN)
        self._told = missing
        self._asked = True
        self._advance()

    def _lose(self, followed: _Followed) -> None:
        followed.missing += 1
        followed.scope.cancel()
        followed.reflector = None
        if followed.missing == CONFIRMED:
            followed.store.replace([])


def _versions(group: Any) -> list[str]:
    served = {str(one.get("version")) for one in _items(group, "versions")}
    return [version for version in VERSIONS if version in served]


def _items(found: Any, name: str) -> list[Mapping[str, Any]]:
    listed = found.get(name) if isinstance(found, Mapping) else None
    return [one for one in listed or () if isinstance(one, Mapping)]
