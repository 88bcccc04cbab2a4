"""What the admin pages see of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from stickyproxy.config.cluster.status import Status
from stickyproxy.config.load import Settings
from stickyproxy.control.discovery.kube_reflector import ReflectorState
from stickyproxy.control.knowledge import Knowledge
from stickyproxy.control.kube import Kube
from stickyproxy.control.workers.tally import Tally
from stickyproxy.edge import Front
from stickyproxy.health.changes import HEALTHY, Seen
from stickyproxy.metrics import Metrics
from stickyproxy.model import Snapshot


class Suspects(Protocol):
    """What speaks against endpoints: a worker's book, or what all workers have told."""

    @property
    def panicking(self) -> Collection[str]: ...

    def seen(self, cluster: str, key: str) -> Seen | None: ...


class ProcessView:
    """`control.view.AdminView` of a process, and of its workers' if it has such (`tally`)."""

    def __init__(
        self,
        metrics: Metrics,
        knowledge: Knowledge,
        health: Suspects,
        begin_drain: Callable[[], None],
        *,
        kube: Kube | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.listening: Sequence[tuple[str, str]] = ()
        self.served = False
        self.drain_begun = False
        self._metrics = metrics
        self._knowledge = knowledge
        self._health = health
        self._begin_drain = begin_drain
        self._kube = kube
        self._tally = tally
        self._failed = False
        self._since = time.monotonic()

    def ready(self) -> bool:
        known = self._kube is None or self._kube.ready
        served = self.served and (self._tally is None or self._tally.serving)
        return served and known and not self.drain_begun and not self._failed

    def draining(self) -> bool:
        return self.drain_begun

    def uptime(self) -> float:
        return time.monotonic() - self._since

    def wall(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def snapshot(self) -> Snapshot | None:
        return self._knowledge.published()

    def settings(self) -> Any:
        return self._knowledge.settings.process

    def loaded(self) -> Settings:
        return self._knowledge.settings

    def front(self) -> Front:
        return self._knowledge.settings.front

    def listeners(self) -> Sequence[tuple[str, str]]:
        return self.listening

    def endpoint_health(self, cluster: str, key: str) -> Seen:
        seen = self._health.seen(cluster, key)
        snapshot = self.snapshot()
        known = snapshot.clusters.get(cluster) if snapshot is not None else None
        if known is None or key not in known.inadmissible:
            return seen or HEALTHY
        if seen is None:
            return Seen("/not_ready", "not ready")
        return Seen(f"{seen.flags}/not_ready", f"{seen.reason}; not ready")

    def panics(self, cluster: str) -> bool:
        return cluster in self._health.panicking

    def problem(self, cluster: str) -> str:
        problem = self._knowledge.problem(cluster)
        if self.panics(cluster):
            panic = "panic: too few endpoints are left, so all are used"
            return f"{problem}; {panic}" if problem else panic
        return problem

    def kubernetes(self) -> Mapping[str, ReflectorState]:
        return self._kube.states() if self._kube is not None else {}

    def objects(self) -> Sequence[Status]:
        return self._kube.statuses() if self._kube is not None else ()

    def metrics(self) -> Metrics:
        if self._tally is None:
            self._metrics.refresh()
            return self._metrics
        snapshot = self.snapshot()
        clusters = snapshot.clusters if snapshot is not None else {}
        members = {name: [e.key for e in one.endpoints] for name, one in clusters.items()}
        return self._tally.whole(self._metrics, members)

    def workers(self) -> Sequence[Mapping[str, Any]]:
        return self._tally.workers() if self._tally is not None else ()

    def drain(self) -> None:
        self._begin_drain()

    def fail_health(self, failed: bool) -> None:
        self._failed = failed
