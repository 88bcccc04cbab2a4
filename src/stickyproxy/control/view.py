"""What admin port and live page may ask of a process; `control.state` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from stickyproxy.config.cluster.status import Status
from stickyproxy.config.load import Settings
from stickyproxy.control.discovery.kube_reflector import ReflectorState
from stickyproxy.edge import Front
from stickyproxy.health.changes import Seen
from stickyproxy.metrics import Metrics
from stickyproxy.model import Snapshot


class AdminView(Protocol):
    """What the pages need to know, and the few things they may do."""

    def ready(self) -> bool:
        """True while new traffic is welcome: configured, not draining, not told to fail."""
        ...

    def draining(self) -> bool: ...

    def uptime(self) -> float:
        """Seconds since the start."""
        ...

    def snapshot(self) -> Snapshot | None: ...

    def settings(self) -> Any:
        """The process's settings as mappings, sequences, dataclasses or structs of plain values."""
        ...

    def loaded(self) -> Settings:
        """All that people wrote, as it is in effect."""
        ...

    def front(self) -> Front:
        """Hosts, Listeners and certificates."""
        ...

    def listeners(self) -> Sequence[tuple[str, str]]:
        """(protocol, address) as bound, with the real port."""
        ...

    def endpoint_health(self, cluster: str, key: str) -> Seen:
        """`healthy`, or flags and words for why not."""
        ...

    def panics(self, cluster: str) -> bool:
        """Whether so few endpoints are left that all are used."""
        ...

    def problem(self, cluster: str) -> str:
        """Why the cluster has no members, or not all; "" if there is nothing to say."""
        ...

    def kubernetes(self) -> Mapping[str, ReflectorState]:
        """What is watched in the cluster we live in, by its path; nothing without Kubernetes."""
        ...

    def objects(self) -> Sequence[Status]:
        """What became of each document of the cluster."""
        ...

    def metrics(self) -> Metrics:
        """All workers' counters added up."""
        ...

    def workers(self) -> Sequence[Mapping[str, Any]]:
        """The other processes, if the traffic is theirs."""
        ...

    def drain(self) -> None:
        """Begin the graceful end; once begun, nothing."""
        ...

    def fail_health(self, failed: bool) -> None:
        """From now on say "not ready" (true) or what is the case (false)."""
        ...


def state(view: AdminView) -> str:
    """Envoy's words for `/ready` and `/server_info`, and one for "told to fail"."""
    if view.draining():
        return "DRAINING"
    if view.ready():
        return "LIVE"
    return "PRE_INITIALIZING" if view.snapshot() is None else "NOT_READY"
