"""What is known of the world - settings and members - and the Snapshots made of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

import trio

from stickyproxy import logs
from stickyproxy.config.load import Settings
from stickyproxy.control.discovery.addresses import endpoints_of, names_of
from stickyproxy.control.discovery.dns import DnsResolver
from stickyproxy.control.kube import FIRST_ANSWER, Kube
from stickyproxy.control.members import NOBODY, ClusterMembers, following
from stickyproxy.control.snapshots import MERGE, SnapshotMaker
from stickyproxy.model import ClusterSpec, ServiceRef, Snapshot


class Knowledge:
    """`run` publishes until cancelled; its `started` comes with the first Snapshot.

    With `kube` the members of Services are its pods; it must run by then.
    """

    def __init__(
        self, settings: Settings, install: Callable[[Snapshot], None], kube: Kube | None = None
    ) -> None:
        self.settings = settings
        self.dns = DnsResolver(settings.process.dns_refresh, self._wake)
        self._maker = SnapshotMaker(install)
        self._changed = trio.Event()
        self._made_of: Settings | None = None
        self._published = trio.Event()
        self._kube = kube
        self._pods: dict[ServiceRef, ClusterMembers] = {}
        self._users: dict[ServiceRef, list[str]] = {}
        if kube is not None:
            kube.listen(self._heard)

    def snapshot(self) -> Snapshot:
        """The current one; only after `run` has started."""
        if self._maker.current is None:
            message = "no Snapshot was published yet"
            raise RuntimeError(message)
        return self._maker.current

    def published(self) -> Snapshot | None:
        return self._maker.current

    def problem(self, cluster: str) -> str:
        """Why a cluster has no members, or not all; "" if there is nothing to say."""
        snapshot = self._maker.current
        found = snapshot.clusters.get(cluster) if snapshot is not None else None
        if found is None:
            return ""
        if self._kube is not None and found.spec.kube is not None:
            return self._kube.problem(found.spec.kube)
        return self.dns.problem(names_of([found.spec]))

    def configure(self, settings: Settings) -> None:
        """New settings; they act with the next Snapshot, a moment later."""
        self.settings = settings
        self.dns.refresh = settings.process.dns_refresh
        self._wake()

    async def wait_caught_up(self) -> None:
        """Until a Snapshot was made of the newest settings."""
        while self._made_of is not self.settings:
            await self._published.wait()

    def _wake(self) -> None:
        self._changed.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.dns.run)
            await self._publish()
            task_status.started()
            while True:
                await self._changed.wait()
                await self._publish()
                await trio.sleep(MERGE)

    async def _publish(self) -> None:
        settings = self.settings
        if self._kube is not None:
            await self._follow(self._kube, settings.clusters)
        await self.dns.watch(names_of(settings.clusters))
        if settings is self.settings:  # whatever else has changed so far is in what follows
            self._changed = trio.Event()
        members = {spec.name: self._members(spec) for spec in settings.clusters}
        if await self._maker.publish(settings, members):
            self._wake()
        self._made_of = settings
        self._published.set()
        self._published = trio.Event()

    def _members(self, spec: ClusterSpec) -> ClusterMembers:
        if self._kube is not None and spec.kube is not None:
            return self._pods.get(self._kube.full(spec.kube), NOBODY)
        return ClusterMembers(endpoints_of(spec, self.dns.known))

    # --- pods ---

    async def _follow(self, kube: Kube, clusters: Collection[ClusterSpec]) -> None:
        """New Services may hold up a start or a reload for a moment, as new names of DNS may."""
        users = defaultdict(list)
        for spec in clusters:
            if spec.kube is not None:
                users[kube.full(spec.kube)].append(spec.name)
        fresh = users.keys() != self._users.keys()
        self._users = dict(users)
        if not fresh:
            return
        self._pods = {ref: self._pods.get(ref, NOBODY) for ref in users}
        kube.want(users)
        with trio.move_on_after(FIRST_ANSWER) as waited:
            await kube.wait_ready()
        if waited.cancelled_caught:
            logs.warning("kubernetes_waiting", problem="no complete answer yet", goes_on="without")

    def _heard(self, refs: Collection[ServiceRef]) -> None:
        """Who left or rests acts now; who came may need a table first."""
        kube = self._kube
        if kube is None:
            return
        changed: dict[str, ClusterMembers] = {}
        for ref in refs:
            found = following(self._pods.get(ref, NOBODY), kube.members(ref))
            if ref in self._users and found is not self._pods.get(ref):
                self._pods[ref] = found
                changed.update(dict.fromkeys(self._users[ref], found))
        if changed and self._maker.refresh(changed):
            self._wake()
