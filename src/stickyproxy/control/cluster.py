"""Configuration from the cluster: objects change, files change, and both lead to one Settings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import trio

from stickyproxy import logs
from stickyproxy.config.cluster.load import combine_steps
from stickyproxy.config.cluster.status import Combined, Memory, Status
from stickyproxy.config.load import Files
from stickyproxy.control.discovery.kube_resources import KubeResources
from stickyproxy.control.discovery.kube_status import StatusWriter, Subject, Wish

MERGE = 0.05
"""Seconds after a change in which others join it: who shifts weights by one `kubectl apply` of two
Mappings should not be told in between that they add up to 140."""
SLICE = 0.002  # seconds the loop may be held while a thousand objects are read
AT_START = 2.0
"""Seconds that the API server may hold up the start; we are not ready before it has answered."""

WRITTEN_KINDS = frozenset(("Mapping",))
"""Kinds whose status is ours to write; a Host's is its certificate manager's."""

Adopt = Callable[[Combined], Awaitable[None]]


class ClusterConfig:
    """`adopt` takes each new state of things. The client must run."""

    def __init__(
        self, files: Files, resources: KubeResources, writer: StatusWriter, adopt: Adopt
    ) -> None:
        self.loaded = False
        self._files = files
        self._resources = resources
        self._writer = writer
        self._adopt = adopt
        self._memory = Memory()
        self._now: Combined | None = None
        self._changed = trio.Event()
        self._first = trio.Event()
        resources.listen(self._touched)

    def use(self, files: Files) -> None:
        """New files; they act together with the cluster's objects, a moment later."""
        self._files = files
        self._touched()

    def _touched(self) -> None:
        self._changed.set()

    @property
    def statuses(self) -> tuple[Status, ...]:
        return self._now.statuses if self._now is not None else ()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when the cluster's configuration is in effect, or is late."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resources.run)
            nursery.start_soon(self._writer.run)
            nursery.start_soon(self._announce, task_status)
            await self._resources.wait_settled()
            while True:
                self._changed = trio.Event()
                try:
                    await self._load()
                except Exception as bug:  # noqa: BLE001 - whatever an object does to us, we go on
                    logs.bug("bug_in_configuration", bug)
                await self._changed.wait()
                await trio.sleep(MERGE)

    async def _announce(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.move_on_after(AT_START) as waited:
            await self._first.wait()
        if waited.cancelled_caught:
            logs.warning("kubernetes_waiting", problem="no complete answer yet", goes_on="without")
        task_status.started()

    async def _load(self) -> None:
        combined = await self._combined()
        self._memory = combined.memory
        self._tell(combined)
        self._now = combined
        await self._adopt(combined)
        self.loaded = True
        self._first.set()
        self._writer.wish(_wishes(combined.statuses))

    async def _combined(self) -> Combined:
        """In slices: reading a thousand annotations takes a second."""
        steps = combine_steps(self._files, list(self._resources.objects()), self._memory)
        until = time.perf_counter() + SLICE
        while True:
            try:
                next(steps)
            except StopIteration as done:
                combined: Combined = done.value
                return combined
            if time.perf_counter() >= until:
                await trio.lowlevel.checkpoint()
                until = time.perf_counter() + SLICE

    def _tell(self, combined: Combined) -> None:
        """Each problem once, and when it is gone."""
        before = set(self._now.problems) if self._now is not None else set()
        for problem in combined.problems:
            if problem not in before:
                logs.error("configuration_refused", problem=problem)
        known = set(self._now.settings.warnings) if self._now is not None else set()
        for warning in combined.settings.warnings:
            if warning not in known:
                logs.warning("configuration", problem=warning)
        for problem in before - set(combined.problems):
            logs.info("configuration_mended", problem=problem)


def _wishes(statuses: tuple[Status, ...]) -> Mapping[Subject, Wish]:
    """Of objects that are a Mapping; those in an annotation have no status to write to."""
    return {
        Subject(*status.key.owner): Wish(status.state, status.reason)
        for status in statuses
        if status.key.owner is not None and status.key.owner.kind in WRITTEN_KINDS
    }
