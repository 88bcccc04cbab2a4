"""The members of Services, from a cluster that may vanish: what was known last stays.

Each namespace in which something is wanted is watched by itself (a Role is enough then), or all at
once (`cluster_wide`, which needs a ClusterRole and is cheaper from a dozen namespaces on).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

import trio

from stickyproxy import logs
from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_members import Members, Resolved, resolve
from stickyproxy.control.discovery.kube_namespace import NamespaceWatch
from stickyproxy.control.discovery.kube_reflector import ReflectorState
from stickyproxy.control.discovery.kube_slices import ServiceKey
from stickyproxy.control.pace import Pace
from stickyproxy.model import ServiceRef

EMPTY_GRACE = 3.0
"""Seconds that the last members stay when only a slice's deletion took them away while their Service
is still there: a controller that rewrites its slices leaves such a gap."""

AT_ONCE = 16
"""Services whose members are found again in the very step that an event was read in (0.1 ms each
with 10 endpoints). More of them, after a list or a reload, are worked off in slices."""

_UNKNOWN = Resolved(Members())


class KubeDiscovery:
    """`changed` is told, synchronously, of which wanted Services the members differ now."""

    def __init__(
        self,
        client: KubeClient,
        changed: Callable[[Collection[ServiceRef]], None],
        *,
        rng: random.Random | None = None,
        cluster_wide: bool = False,
        family: str | None = None,
    ) -> None:
        """`family` (IPv4, IPv6) overrides the first one of each Service."""
        self._client = client
        self._changed = changed
        self._rng = rng or random.Random()
        self._cluster_wide = cluster_wide
        self._family = family
        self._wanted: dict[ServiceKey, set[ServiceRef]] = defaultdict(set)
        self._resolved: dict[ServiceRef, Resolved] = {}
        self._spaces: dict[str, NamespaceWatch] = {}
        self._backlog: dict[ServiceKey, None] = {}
        self._behind = False
        self._more = trio.Event()
        self._progress = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started at once; `wait_synced` tells when something is known."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._client.run)
            task_status.started()
            await self._work_off()

    def want(self, wanted: Iterable[ServiceRef]) -> None:
        """From now on these and no others. `run` must have started."""
        known = self._resolved
        self._resolved = {one: known.get(one, _UNKNOWN) for one in wanted}
        self._wanted = defaultdict(set)
        for one in self._resolved:
            self._wanted[_key(one)].add(one)
        spaces = {self._space_name(one.namespace) for one in self._resolved}
        for name in self._spaces.keys() - spaces:
            self._spaces.pop(name).scope.cancel()
        for name in sorted(spaces - self._spaces.keys()):
            self._watch(name)
        self._refresh_soon({_key(one) for one in self._resolved.keys() - known.keys()})

    async def wait_synced(self) -> None:
        """Until every resource that is watched and installed was listed once."""
        while not self.synced:
            await self._progress.wait()

    async def wait_settled(self) -> None:
        """As `wait_synced`, but a namespace that we may not read holds nobody up."""
        while not self.settled:
            await self._progress.wait()

    @property
    def synced(self) -> bool:
        known = all(space.synced.is_set() for space in self._spaces.values())
        return known and not self._behind

    @property
    def settled(self) -> bool:
        """Synced, or told no where not; a no to everything is none that one can live with."""
        spaces = self._spaces.values()
        answered = all(space.synced.is_set() or space.refused for space in spaces)
        served = not spaces or any(space.synced.is_set() for space in spaces)
        return answered and served and not self._behind

    def members(self, wanted: ServiceRef) -> Members:
        """What is known of it now; none of a Service that is not wanted or not known yet."""
        return self._resolved.get(wanted, _UNKNOWN).members

    def problem(self, wanted: ServiceRef) -> str:
        """Why it has no members, or not all; "" if there is nothing to say."""
        space = self._spaces.get(self._space_name(wanted.namespace))
        if space is not None and not space.synced.is_set():
            return space.problem or "the API server has not answered yet"
        return self._resolved.get(wanted, _UNKNOWN).problem

    def states(self) -> dict[str, ReflectorState]:
        """Of each watched collection, by its path, for metrics and people."""
        return {
            path: state for space in self._spaces.values() for path, state in space.states().items()
        }

    # --- inside ---

    def _space_name(self, namespace: str) -> str:
        return "" if self._cluster_wide else namespace

    def _watch(self, name: str) -> None:
        if self._nursery is None:
            raise RuntimeError("the discovery does not run")
        space = NamespaceWatch(name, self._client, self._rng, self._touched, self._advance)
        self._spaces[name] = space
        self._nursery.start_soon(space.run)

    def _advance(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    def _touched(self, services: set[ServiceKey] | None, deleted: bool) -> None:
        keys = set(self._wanted) if services is None else services & self._wanted.keys()
        if deleted:
            self._tell(self._refresh(keys, deleted=True))
        else:
            self._refresh_soon(keys)

    def _refresh_soon(self, keys: set[ServiceKey]) -> None:
        if len(keys) <= AT_ONCE:
            self._tell(self._refresh(keys))
        else:
            self._backlog.update(dict.fromkeys(keys))
            self._behind = True
            self._more.set()
        self._advance()

    async def _work_off(self) -> None:
        """What came at once and is too much for one turn of the loop."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            changed: list[ServiceRef] = []
            pace = Pace()
            while self._backlog:
                changed += self._refresh((self._backlog.popitem()[0],))
                await pace.turn()
            self._behind = False
            self._tell(changed)
            self._advance()

    def _tell(self, changed: Collection[ServiceRef]) -> None:
        if changed:
            self._changed(changed)

    def _refresh(
        self, keys: Iterable[ServiceKey], *, deleted: bool = False
    ) -> Collection[ServiceRef]:
        """Those of which the members differ now."""
        return [one for key in keys for one in self._refresh_one(key, deleted=deleted)]

    def _refresh_one(self, key: ServiceKey, *, deleted: bool) -> Iterable[ServiceRef]:
        space = self._spaces.get(self._space_name(key.namespace))
        if space is None or not space.synced.is_set():
            return
        service, slices = space.services.get(key), space.slices_of(key)
        for wanted in self._wanted.get(key, ()):
            fresh = resolve(wanted, service, slices, family=self._family)
            before = self._resolved[wanted]
            if deleted and service is not None and _is_emptied(before.members, fresh.members):
                self._refresh_later(key)
            elif fresh != before:
                self._install(wanted, fresh, before)
                if fresh.members != before.members:
                    yield wanted

    def _install(self, wanted: ServiceRef, fresh: Resolved, before: Resolved) -> None:
        self._resolved[wanted] = fresh
        if fresh.problem and fresh.problem != before.problem:
            logs.warning("kubernetes_service", service=wanted.service, problem=fresh.problem)

    def _refresh_later(self, key: ServiceKey) -> None:
        async def later() -> None:
            await trio.sleep(EMPTY_GRACE)
            self._tell(self._refresh((key,)))

        if self._nursery is not None:
            self._nursery.start_soon(later)


def _key(wanted: ServiceRef) -> ServiceKey:
    return ServiceKey(wanted.namespace, wanted.service)


def _is_emptied(before: Members, fresh: Members) -> bool:
    return bool(before.pickable) and not fresh.pickable
