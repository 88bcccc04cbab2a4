"""The process: sockets, signals, the current Snapshot, reloads, the graceful end.

The supervisor only decides, the worker only serves. With one worker both are here; several are processes
of their own, and a `Crew` stands in the worker's place.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import trio

from stickyproxy import logs
from stickyproxy.accesslog import Record, render_json, render_text
from stickyproxy.config.cluster.status import Combined, Status
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control import garbage
from stickyproxy.control.admin.app import TOKEN_ENV, AdminApp
from stickyproxy.control.admin.live import AdminLive, run_feed
from stickyproxy.control.admin.server import admin_server
from stickyproxy.control.cluster import ClusterConfig
from stickyproxy.control.cores import cores
from stickyproxy.control.doors import Listening
from stickyproxy.control.files import FileWatch
from stickyproxy.control.knowledge import Knowledge
from stickyproxy.control.kube import Kube
from stickyproxy.control.live.feed import LiveFeed
from stickyproxy.control.ports import Ports, announce, open_bind
from stickyproxy.control.reaper import reap_orphans
from stickyproxy.control.state import ProcessView
from stickyproxy.control.worker import Worker
from stickyproxy.control.workers.crew import Crew
from stickyproxy.errors import ConfigError
from stickyproxy.logs import OperatorLog, Output
from stickyproxy.metrics import Metrics
from stickyproxy.model import Bind
from stickyproxy.wire.certificates import Certificates

FLUSH_LOGS = 2.0
"""Seconds that the last log lines may take; a stuck reader of our output must not keep us."""


def run(load: Callable[[], Settings]) -> int:
    """Serve until told to stop. `load` reads the configuration, now and for each reload.

    Returns the exit code, 0 after a graceful end.

    Raises:
        ConfigError: what prevents the start: the configuration, a key, an address that is taken.

    """
    settings = load()
    batch = logs.BATCH if _count(settings) == 1 else logs.shared_batch(2)
    access = Output(1, complain=logs.access_log_lost)
    operator = Output(2, batch=batch)
    logs.configure(OperatorLog(operator.write, settings.process.log_format))
    garbage.pause()
    try:
        trio.run(Supervisor(settings, load, access, operator).main)
    except* ConfigError as group:
        raise ConfigError(_problems(group)) from None
    finally:
        garbage.restore()
        access.close(FLUSH_LOGS)
        operator.close(FLUSH_LOGS)
        logs.configure(OperatorLog(logs.to_stderr, settings.process.log_format))
    return 0


def _problems(group: BaseExceptionGroup[ConfigError]) -> list[str]:
    problems: list[str] = []
    for error in group.exceptions:
        problems += _problems(error) if isinstance(error, BaseExceptionGroup) else error.problems
    return problems


class Supervisor:
    """Owns the listening sockets, discovery, the current Snapshot and the admin port."""

    def __init__(
        self, settings: Settings, load: Callable[[], Settings], access: Output, operator: Output
    ) -> None:
        self._settings = settings
        self._load = load
        self._access = access
        self._operator = operator
        self._metrics = Metrics()
        self._metrics.before_reading += [self._metrics.process.measure, self._count_rare]
        self._crew = Crew(settings.process, n) if (n := _count(settings)) > 1 else None
        self._worker = self._crew or Worker(settings.process, self._metrics, self._record_writer())
        self._kube = Kube(settings.process) if settings.process.kubernetes else None
        self._cluster: ClusterConfig | None = None
        self._certificates_due = False
        self._knowledge = Knowledge(settings, self._worker.install, self._kube)
        self._view = ProcessView(
            self._metrics,
            self._knowledge,
            self._worker.health,
            self._begin_drain,
            kube=self._kube,
            tally=self._crew.tally if self._crew is not None else None,
        )
        self._ports = Ports(self._worker, self._opened)
        self._drain_wanted = trio.Event()
        self._hurry = trio.Event()
        self._reload_wanted = trio.Event()
        self._files = FileWatch(self._sources, self._ask_reload)
        self._loader = trio.CapacityLimiter(1)

    async def main(self) -> None:
        """Raises `ConfigError` (in groups) for what prevents the start."""
        process = self._settings.process
        for warning in self._settings.warnings:
            logs.warning("configuration", problem=warning)
        self._worker.exchange(self._worker.load_certificates(self._settings))
        listening = await self._ports.first(self._settings)
        admin = await _open_beside("--admin", process.admin)
        health = await _open_beside("--health", process.health)
        async with trio.open_nursery() as root:
            await root.start(self._signals, root.cancel_scope)
            if os.getpid() == 1:
                root.start_soon(reap_orphans)
            root.start_soon(self._serve_admin, admin, False)
            root.start_soon(self._serve_admin, health, True)
            await self._serve(root, listening, _Beside(admin, health))
            root.cancel_scope.cancel()
        logs.info("stopped")

    def _opened(self, listening: Sequence[Listening]) -> None:
        self._view.listening = [(one.protocol, one.address) for one in listening]

    async def _serve(
        self, root: trio.Nursery, listening: Sequence[Listening], beside: _Beside
    ) -> None:
        if self._kube is not None:
            await root.start(self._kube.run)
        async with trio.open_nursery() as beginning:
            beginning.start_soon(root.start, self._knowledge.run)
            if self._kube is not None and self._settings.files is not None:
                self._cluster = self._kube.configuration(self._settings.files, self._adopt_whole)
                beginning.start_soon(root.start, self._cluster.run)
        garbage.settle()
        self._metrics.process.config_loaded(True, self._view.wall())
        root.start_soon(self._reload_on_request)
        root.start_soon(self._files.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._worker.run, listening, self._knowledge.snapshot())
            self._view.served = True
            _announce(listening, beside)
            nursery.start_soon(self._ports.run)
            await self._drain_wanted.wait()
            await self._drain()
            self._ports.stop()

    # --- the graceful end ---

    def _begin_drain(self) -> None:
        if not self._view.draining():
            self._view.drain_begun = True
            self._metrics.process.drain_state = 1
            self._drain_wanted.set()

    async def _drain(self) -> None:
        """`--drain-delay`, in which endpoints are taken out elsewhere, counts as part of it all."""
        process = self._settings.process
        until = trio.current_time() + process.drain_timeout
        delay = 0 if self._hurry.is_set() else process.drain_delay
        logs.info("draining", delay_s=delay, until_s=process.drain_timeout)
        with trio.move_on_after(delay):
            await self._hurry.wait()
        self._worker.drain(until)

    async def _signals(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """The second signal ends it now. A drain that was asked for by the admin port is none: a

        preStop hook asks so, and the SIGTERM behind it must not cut what it let finish.
        """
        told = False
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._ask_reload()
                elif told:
                    logs.warning("stopping_now", reason="second signal")
                    scope.cancel()
                else:
                    told = True
                    if number == signal.SIGINT:
                        # A person at a terminal: nothing has to be told elsewhere first.
                        self._hurry.set()
                    self._begin_drain()

    # --- reload ---

    def _sources(self) -> Iterable[Path]:
        return self._settings.sources

    def _ask_reload(self) -> None:
        self._reload_wanted.set()

    async def _reload_on_request(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted = trio.Event()
            self._files.look()  # who edited and sent a signal is answered once
            await self._reload()

    async def _reload(self) -> None:
        """Validate whole, swap at once; on error the old stays.

        Read in a thread: parsing 1,000 Mappings takes seconds, and a file system may hang.
        """
        try:
            wanted, certificates = await trio.to_thread.run_sync(
                self._load_all, abandon_on_cancel=True, limiter=self._loader
            )
            if self._cluster is None or not self._cluster.loaded:
                self._worker.exchange(certificates)
        except ConfigError as error:
            self._metrics.process.config_loaded(False, self._view.wall())
            for problem in error.problems:
                logs.error("reload_refused", problem=problem)
        except Exception as bug:  # noqa: BLE001 - whatever a file does to us, we go on as we were
            self._metrics.process.config_loaded(False, self._view.wall())
            logs.bug("bug_in_reload", bug)
        else:
            self._adopt_files(wanted)

    def _load_all(self) -> tuple[Settings, Certificates]:
        """For a thread; a thousand new keys take a second."""
        wanted = self._load()
        return wanted, self._worker.load_certificates(wanted)

    def _adopt_files(self, wanted: Settings) -> None:
        """With a cluster they act together with its objects, which they may concern."""
        process = in_effect(self._settings.process, wanted.process)
        if waiting := differing(process, wanted.process):
            logs.warning("restart_needed", settings=waiting, reason="they are read at start only")
        if self._cluster is not None and wanted.files is not None:
            self._certificates_due = True
            self._cluster.use(replace(wanted.files, process=process))
        if self._cluster is None or not self._cluster.loaded:
            for warning in wanted.warnings:
                logs.warning("configuration", problem=warning)
            self._adopt(replace(wanted, process=process))
        logs.info("reloaded", routes=len(wanted.routes), clusters=len(wanted.clusters))

    async def _adopt_whole(self, combined: Combined) -> None:
        """Files and cluster as one. Back when it is in effect."""
        wanted = combined.settings
        if self._certificates_due or wanted.front.tls != self._settings.front.tls:
            self._certificates_due = False
            await self._renew_certificates(wanted)
        self._adopt(wanted)
        await self._knowledge.wait_caught_up()

    async def _renew_certificates(self, wanted: Settings) -> None:
        try:
            certificates = await trio.to_thread.run_sync(
                self._worker.load_certificates, wanted, limiter=self._loader
            )
        except ConfigError as error:  # a file that was changed again since it was checked
            for problem in error.problems:
                logs.error("certificate_refused", problem=problem)
        else:
            self._worker.exchange(certificates)

    def _adopt(self, wanted: Settings) -> None:
        self._settings = wanted
        self._knowledge.configure(wanted)
        self._ports.configure(wanted)
        self._metrics.process.config_loaded(True, self._view.wall())

    # --- admin and logs ---

    async def _serve_admin(self, listening: Sequence[Listening], read_only: bool) -> None:
        app = AdminApp(self._view, read_only=read_only, token=os.environ.get(TOKEN_ENV, ""))
        prepare = self._crew.collect if self._crew is not None else None
        if read_only:
            await self._worker.serve_beside(listening, admin_server(app, prepare))
            return
        feed = LiveFeed(self._view, prepare)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_feed, feed, lambda bug, where: logs.bug(f"bug_in_{where}", bug))
            serve = admin_server(app, prepare, AdminLive(self._view, feed))
            await self._worker.serve_beside(listening, serve)
            nursery.cancel_scope.cancel()

    def _record_writer(self) -> Callable[[Record], None] | None:
        process = self._settings.process
        if not process.access_log:
            return None
        render = render_json if process.log_format == "json" else render_text
        write = self._access.write
        return lambda record: write(render(record))

    def _count_rare(self) -> None:
        """What is cheaper to ask when somebody reads than to keep."""
        self._metrics.process.access_log_lines_lost_total = self._access.lost
        self._metrics.process.log_lines_lost_total = self._operator.lost
        self._metrics.process.dns_names_failed = len(self._knowledge.dns.failed)
        self._metrics.process.dns_failures_total = self._knowledge.dns.failures
        if self._kube is not None:
            self._metrics.watches = self._kube.stats()
            self._metrics.objects = _by_state(self._kube.statuses())
        snapshot = self._view.snapshot()
        for name, cluster in (snapshot.clusters if snapshot is not None else {}).items():
            states = [self._view.endpoint_health(name, e.key).flags for e in cluster.endpoints]
            stats = self._metrics.cluster(name)
            stats.membership_total = len(states)
            stats.membership_healthy = states.count("healthy")
            stats.outlier_detection_ejections_active = sum(
                "outlier" in flags or "connect" in flags for flags in states
            )


def _count(settings: Settings) -> int:
    return settings.process.workers or cores()


def _by_state(statuses: Iterable[Status]) -> dict[tuple[str, str], int]:
    return dict(Counter((status.key.kind, status.state.lower()) for status in statuses))


async def _open_beside(flag: str, bind: Bind | None) -> list[Listening]:
    """The admin or health port; a complaint names the flag that it came by."""
    try:
        return [] if bind is None else await open_bind(bind)
    except ConfigError as error:
        named = [problem.replace("--bind", flag) for problem in error.problems]
        raise ConfigError(named) from None


LIVE = frozenset(
    ("drain_delay", "drain_timeout", "dns_refresh", "backend_ca", "backend_insecure", "idempotent")
)
"""Process settings that a reload changes; all others need a restart."""


def in_effect(running: ProcessSettings, wanted: ProcessSettings) -> ProcessSettings:
    """What a process that was started with `running` makes of `wanted`."""
    return replace(running, **{name: getattr(wanted, name) for name in LIVE})


def differing(one: ProcessSettings, other: ProcessSettings) -> list[str]:
    """The settings that are not the same, as people write them."""
    names = [
        field.name
        for field in fields(one)
        if getattr(one, field.name) != getattr(other, field.name)
    ]
    return [name.replace("_", "-") for name in names]


class _Beside(NamedTuple):
    """The listeners that serve no traffic."""

    admin: Sequence[Listening]
    health: Sequence[Listening]


def _announce(listening: Sequence[Listening], beside: _Beside) -> None:
    for one in beside.admin:
        logs.info("admin_listening", bind=one.address)
    for one in beside.health:
        logs.info("health_listening", bind=one.address)
    for one in listening:
        announce(one)
