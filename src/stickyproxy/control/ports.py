"""Where clients can come in: the binds for good, the ports of Listeners as those come and go.

A Listener whose port cannot be had is told, and tried again; it keeps no other from opening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from stickyproxy import __version__, logs
from stickyproxy.config.load import Settings
from stickyproxy.control.doors import Listening
from stickyproxy.edge import ListenerSpec
from stickyproxy.errors import ConfigError
from stickyproxy.model import Bind
from stickyproxy.wire.sockets import bound_address, listen

ANYWHERE = "0.0.0.0"  # noqa: S104 - a Listener names a port, and is for all
TRY_AGAIN = 10.0
"""Seconds until a port that could not be had is asked for again."""


class Doorkeeper(Protocol):
    """Who serves what comes in (`worker.Worker`, `crew.Crew`)."""

    def open(self, listening: Listening) -> None: ...

    def change(self, there: Listening, fresh: Listening) -> None: ...

    def close(self, listening: Listening, until: float) -> None: ...


class Ports:
    """Opens and closes; `changed` is told of all that is open, whenever it differs."""

    def __init__(self, worker: Doorkeeper, changed: Callable[[Sequence[Listening]], None]) -> None:
        self._worker = worker
        self._changed = changed
        self._fixed: list[Listening] = []
        self._open: dict[int, Listening] = {}
        self._wanted: dict[int, ListenerSpec | Bind] = {}
        self._refused: dict[int, str] = {}
        self._binds_given = True
        self._drain_timeout = 0.0
        self._settings_changed = trio.Event()
        self._running = trio.CancelScope()

    async def first(self, settings: Settings) -> list[Listening]:
        """What to begin with.

        Raises:
            ConfigError: a bind cannot be had, or no Listener's port where there are no binds.

        """
        self._binds_given = settings.front.binds_given
        for bind in settings.process.binds if self._binds_given else ():
            self._fixed += await open_bind(bind)
        self._take(settings)
        for port in self._wanted:
            await self._try(port)
        if self._refused and not (self._fixed or self._open):
            raise ConfigError(list(self._refused.values()))
        self._changed(self._all())
        return self._all()

    def configure(self, settings: Settings) -> None:
        """Listeners came, went or changed; `run` acts on it."""
        self._take(settings)
        self._settings_changed.set()

    async def run(self) -> None:
        """Until stopped."""
        for problem in self._refused.values():
            logs.error("listener_refused", problem=problem)
        with self._running:
            while True:
                with trio.move_on_after(TRY_AGAIN if self._refused else float("inf")):
                    await self._settings_changed.wait()
                self._settings_changed = trio.Event()
                await self._settle()

    def stop(self) -> None:
        """Nothing opens any more."""
        self._running.cancel()

    def _take(self, settings: Settings) -> None:
        """The default bind stands in where nobody said anything."""
        self._drain_timeout = settings.process.drain_timeout
        listeners = settings.front.listeners
        self._wanted = {}
        if not self._binds_given and all(spec.beside for spec in listeners):
            self._wanted.update((bind.port, bind) for bind in settings.process.binds)
        self._wanted.update((spec.port, spec) for spec in listeners)

    def _all(self) -> list[Listening]:
        return [*self._fixed, *self._open.values()]

    # --- coming and going ---

    async def _settle(self) -> None:
        before = self._all()
        for port in [port for port in self._open if port not in self._wanted]:
            self._close(self._open.pop(port))
        self._refused = {port: why for port, why in self._refused.items() if port in self._wanted}
        for port, wanted in list(self._wanted.items()):
            if (there := self._open.get(port)) is not None:
                self._open[port] = self._changed_into(there, wanted)
            else:
                await self._try_again(port)
        if self._all() != before:
            self._changed(self._all())

    def _close(self, listening: Listening) -> None:
        logs.info("listening_ended", bind=listening.address)
        self._worker.close(listening, trio.current_time() + self._drain_timeout)

    def _changed_into(self, there: Listening, wanted: ListenerSpec | Bind) -> Listening:
        fresh = _listening(there.listener, wanted)
        if _served_by(fresh) != _served_by(there):
            self._worker.change(there, fresh)
            announce(fresh)
        return fresh

    async def _try_again(self, port: int) -> None:
        told = self._refused.pop(port, "")
        await self._try(port)
        if port in self._open:
            self._worker.open(self._open[port])
            announce(self._open[port])
        elif self._refused[port] != told:
            logs.error("listener_refused", problem=self._refused[port])

    async def _try(self, port: int) -> None:
        wanted = self._wanted[port]
        bind = wanted if isinstance(wanted, Bind) else Bind("tcp", host=ANYWHERE, port=port)
        try:
            (listener,) = await listen(bind)
        except ConfigError as error:
            problem = error.problems[0]
            if isinstance(wanted, ListenerSpec):
                problem = problem.replace("--bind", f"{wanted.name}: port")
            self._refused[port] = problem
        else:
            self._open[port] = _listening(listener, wanted)


async def open_bind(bind: Bind) -> list[Listening]:
    """Raises `ConfigError`."""
    return [_listening(listener, bind) for listener in await listen(bind)]


def _listening(listener: trio.SocketListener, wanted: ListenerSpec | Bind) -> Listening:
    spec = wanted if isinstance(wanted, ListenerSpec) else None
    return Listening(listener, wanted.protocol, bound_address(listener), spec)


def _served_by(listening: Listening) -> tuple[object, ...]:
    """What a connection keeps of it; all else is asked for each request."""
    spec = listening.spec
    if spec is None:
        return (listening.protocol,)
    return listening.protocol, spec.name, spec.max_streams, spec.proxied


def announce(listening: Listening) -> None:
    spec = listening.spec
    named: dict[str, object] = {"listener": spec.name} if spec is not None else {}
    if spec is not None and spec.proxied:
        named["proxy_protocol"] = True
    logs.info(
        "listening",
        bind=listening.address,
        protocol=listening.protocol,
        version=__version__,
        **named,
    )
