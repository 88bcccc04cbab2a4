"""The cluster we live in: one client to its API server, and what is read through it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import trio

from stickyproxy import logs
from stickyproxy.config.cluster.status import Status
from stickyproxy.config.load import Files
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.cluster import Adopt, ClusterConfig
from stickyproxy.control.discovery.kube_access import find_access
from stickyproxy.control.discovery.kube_client import KubeClient
from stickyproxy.control.discovery.kube_discovery import KubeDiscovery
from stickyproxy.control.discovery.kube_members import Members
from stickyproxy.control.discovery.kube_reflector import ReflectorState
from stickyproxy.control.discovery.kube_resources import KubeResources
from stickyproxy.control.discovery.kube_server import Access, AccessError
from stickyproxy.control.discovery.kube_status import StatusWriter
from stickyproxy.control.discovery.kube_transport import Connector
from stickyproxy.counters import WatchStats
from stickyproxy.errors import ConfigError
from stickyproxy.model import ServiceRef

ALL = "all"  # --kube-namespace for every namespace

FIRST_ANSWER = 2.0
"""Seconds that the API server may hold up a start; one that is there needs a fraction of it. What
comes later comes as a change, and we are not ready before."""

Changed = Callable[[Collection[ServiceRef]], None]


class Kube:
    """Made when Kubernetes is on; `run` must have started before anything is asked of it.

    References to Services with the namespace "" mean our own; what comes back in `changed` is full.
    """

    def __init__(
        self,
        process: ProcessSettings,
        *,
        environ: Mapping[str, str] | None = None,
        access: Access | None = None,
        connector: Connector | None = None,
    ) -> None:
        """`access` and `connector` stand in for what is found by `process` and `environ`."""
        self._process = process
        self._environ = os.environ if environ is None else environ
        self._access = access
        self._connector = connector
        self._client: KubeClient | None = None
        self._discovery: KubeDiscovery | None = None
        self._resources: KubeResources | None = None
        self._configuration: ClusterConfig | None = None
        self._listeners: list[Changed] = []
        self._ready = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises `ConfigError` when there is no way to an API server."""
        access = self._access or await self._find_access()
        self._access = access
        self._client = KubeClient(access, self._connector)
        self._discovery = KubeDiscovery(
            self._client, self._tell, cluster_wide=self.namespace == ALL
        )
        server = await _server(access)
        logs.info("kubernetes", server=server, namespace=self.namespace)
        await self._discovery.run(task_status)

    async def _find_access(self) -> Access:
        process = self._process
        try:
            return await find_access(self._environ, process.kubeconfig, process.kube_context)
        except AccessError as error:
            raise _no_access(error) from None

    # --- where we are ---

    @property
    def client(self) -> KubeClient:
        if self._client is None:
            raise RuntimeError("not started")
        return self._client

    @property
    def discovery(self) -> KubeDiscovery:
        if self._discovery is None:
            raise RuntimeError("not started")
        return self._discovery

    @property
    def own_namespace(self) -> str:
        """Where we live: the pod's, or that of the kubeconfig's context."""
        if self._access is None:
            raise RuntimeError("not started")
        return self._access.namespace

    @property
    def namespace(self) -> str:
        """Where resources are read from, or `all`."""
        return self._process.kube_namespace or self.own_namespace

    # --- configuration ---

    def configuration(self, files: Files, adopt: Adopt) -> ClusterConfig:
        """What Ambassador's resources say, together with files. Once; then `run` it."""
        self._resources = KubeResources(
            self.client,
            None if self.namespace == ALL else self.namespace,
            secrets=self._process.kube_secrets,
        )
        writer = StatusWriter(self.client, self._resources)
        self._configuration = ClusterConfig(files, self._resources, writer, adopt)
        return self._configuration

    def statuses(self) -> Sequence[Status]:
        """What became of each document of the cluster."""
        return self._configuration.statuses if self._configuration is not None else ()

    # --- members of Services ---

    def listen(self, changed: Changed) -> None:
        """Have `changed` told, synchronously, of which Services the members differ now."""
        self._listeners.append(changed)

    def _tell(self, refs: Collection[ServiceRef]) -> None:
        self._ready = self.ready  # noticed now: a Service that is asked for later takes it from us
        for changed in self._listeners:
            changed(refs)

    def full(self, ref: ServiceRef) -> ServiceRef:
        """With its namespace."""
        if ref.namespace:
            return ref
        chosen = self.namespace
        return replace(ref, namespace=self.own_namespace if chosen == ALL else chosen)

    def want(self, refs: Iterable[ServiceRef]) -> None:
        """Follow the pods of these and no others."""
        self.discovery.want(self.full(ref) for ref in refs)

    def members(self, ref: ServiceRef) -> Members:
        return self.discovery.members(self.full(ref))

    def problem(self, ref: ServiceRef) -> str:
        """Why it has no members, or not all; "" if there is nothing to say."""
        return self.discovery.problem(self.full(ref))

    # --- how it goes ---

    async def wait_ready(self) -> None:
        """Until all that is watched was listed once."""
        await self.discovery.wait_settled()
        self._ready = self.ready

    @property
    def ready(self) -> bool:
        """Once true it stays so, whatever becomes of the API server: what is known is kept."""
        configured = self._configuration is None or self._configuration.loaded
        settled = self._discovery is not None and self._discovery.settled
        self._ready = self._ready or (configured and settled)
        return self._ready

    def states(self) -> Mapping[str, ReflectorState]:
        """Of each watched collection, by its path."""
        watched = (self._resources, self._discovery)
        return {k: v for one in watched if one is not None for k, v in one.states().items()}

    def stats(self) -> dict[tuple[str, str], WatchStats]:
        """The same as counters: by resource and namespace ("" for all)."""
        now = trio.current_time()
        return {_place(path): _stats(state, now) for path, state in self.states().items()}


def _place(path: str) -> tuple[str, str]:
    """Plural and namespace of `/apis/GROUP/VERSION[/namespaces/NAME]/PLURAL`."""
    *_, before, name, plural = path.split("/")
    return plural, name if before == "namespaces" else ""


def _stats(state: ReflectorState, now: float) -> WatchStats:
    return WatchStats(
        synced=int(state.synced.is_set() or state.absent),
        watch_last_event_age_seconds=0.0 if state.heard_at is None else now - state.heard_at,
        watch_events_total=state.events,
        watch_errors_total=state.errors,
        relists_total=max(state.lists - 1, 0),
    )


async def _server(access: Access) -> str:
    try:
        return (await access.server()).authority
    except AccessError as error:
        raise _no_access(error) from None


def _no_access(error: AccessError) -> ConfigError:
    right = "right would be --kubeconfig FILE, or a pod with a service account"
    return ConfigError([f"--kubernetes: {error}; {right}"])
