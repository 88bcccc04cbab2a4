"""All sockets of a process: one look a turn at who has something to read, one round of writes.

Trio's way is a task for each reader and each writer, woken one by one: 30 us for what comes and goes on
one connection in one turn of the loop, as much as five messages cost in all else. Here one task waits
for an epoll of its own, reads whatever is ready and hands it to the links, whose work on it is
synchronous; what they then have to say leaves before anything else runs. What tasks have to say leaves
in the next round. A socket that does not take all at once is the business of its link's own writer.
Who was alone in a look is mostly the next too: that is waited for here, where nobody else is (`wire.linger`).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Protocol

import trio

from stickyproxy.wire.linger import LINGER, linger_of_run
from stickyproxy.wire.secured import below
from stickyproxy.wire.waking import wake

Take = Callable[[bytes], int]
"""Called with what was read, b"" at the end; how much to read next, or 0 to stop."""


class Writer(Protocol):
    """Who has something to write."""

    def write_now(self) -> None:
        """Write what can be written without waiting. Sync."""

    def fail(self, bug: Exception) -> None:
        """`write_now` raised that, which it never should."""


class Tap:
    """The reading end of a socket. `flow` as long as it is to be read."""

    __slots__ = ("_error", "_fd", "_hub", "_size", "_take", "_task")

    def __init__(self, hub: Hub, fd: int, size: int, take: Take) -> None:
        self._hub = hub
        self._fd = fd
        self._size = size
        self._take = take
        self._task: trio.lowlevel.Task | None = None
        self._error: BaseException | None = None

    async def flow(self) -> None:
        """Read until it is enough. Raises BrokenResourceError, and what `take` raises."""
        self._hub.begin(self._fd, self)
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._leave)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        self._hub.end(self._fd)
        return trio.lowlevel.Abort.SUCCEEDED

    def ready(self) -> None:
        """There may be something. Sync, from the hub."""
        try:
            data = os.read(self._fd, self._size)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = trio.BrokenResourceError()
            self._error.__cause__ = error
            self._stop()
            return
        try:
            size = self._take(data)
        except Exception as bug:  # noqa: BLE001 - it ends the reader's link, not the hub
            self._error = bug
            size = 0
        if size:
            self._size = size
        else:
            self._stop()

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:  # else `take` itself had it cancelled
            self._hub.end(self._fd)
            wake(task)


class Hub:
    """`begin` and `end` are for taps; `mark` says that a writer has something."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._taps: dict[int, Tap] = {}
        self._marked: list[Writer] = []
        self._reading = False
        self._flusher: trio.lowlevel.Task | None = None
        self._linger = linger_of_run()

    def begin(self, fd: int, tap: Tap) -> None:
        self._taps[fd] = tap
        self._epoll.register(fd, select.EPOLLIN)

    def end(self, fd: int) -> None:
        if self._taps.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def mark(self, writer: Writer) -> None:
        """Have `write_now` called, once for each time."""
        self._marked.append(writer)
        task = self._flusher
        if task is not None and not self._reading:
            self._flusher = None
            wake(task)

    async def read(self) -> None:
        """For ever, as a task."""
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._linger.begin()
                ready = self._epoll.poll(0)
                while ready:
                    self._serve(ready)
                    ready = self._ready_soon() if len(ready) == 1 else []

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        self._reading = True
        for fd, _ in ready:
            tap = self._taps.get(fd)
            if tap is not None:  # an earlier one's data may have ended it
                tap.ready()
        self._reading = False
        self._write_marked()

    def _ready_soon(self) -> list[tuple[int, int]]:
        """What is ready in a moment, where trio need not be asked."""
        if not self._linger.allowed():
            return []
        ready = self._epoll.poll(LINGER)
        self._linger.note(vain=not ready)
        return ready

    async def write(self) -> None:
        """For ever, as a task: what was marked by others than readers."""
        while True:
            if not self._marked:  # as there may be before its first turn, or by who wrote
                self._flusher = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._leave)
            await trio.lowlevel.checkpoint()  # what is said in one turn travels together
            self._write_marked()

    def _write_marked(self) -> None:
        marked, self._marked = self._marked, []
        for writer in marked:
            try:
                writer.write_now()
            except Exception as bug:  # noqa: BLE001 - it ends one link
                writer.fail(bug)

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._flusher = None
        return trio.lowlevel.Abort.SUCCEEDED


_HUB: trio.lowlevel.RunVar[Hub] = trio.lowlevel.RunVar("_HUB")


def hub_of(transport: trio.abc.Stream) -> Hub | None:
    """The hub of this run, for a socket, TLS or not; None for what has none, and where there is no epoll."""
    if not isinstance(below(transport), trio.SocketStream) or not hasattr(select, "epoll"):
        return None
    try:
        return _HUB.get()
    except LookupError:
        hub = Hub()
        _HUB.set(hub)
        trio.lowlevel.spawn_system_task(hub.read, name="hub reads")
        trio.lowlevel.spawn_system_task(hub.write, name="hub writes")
        return hub
