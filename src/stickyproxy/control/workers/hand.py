"""One worker process, as the supervisor sees it: what it is told, what it said, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from stickyproxy.control.workers import handover, orders
from stickyproxy.control.workers.bus import Bus
from stickyproxy.control.workers.handover import Given, Giver

STOP_PATIENCE = 3.0
"""Seconds that a worker may take to end when it is told to end now: its log lines have two."""
LAST_WORDS = 1.0
"""Seconds to read what a worker that ended has said."""
ASK_PATIENCE = 1.0
"""Seconds that an admin page waits for a worker's figures before it shows the last known ones."""

NOTHING = orders.Report(0, {}, {})


class Hand:
    """A running process. `number` counts from 0; `report` is the last it sent."""

    def __init__(
        self,
        number: int,
        process: trio.Process,
        bus: Bus,
        giver: Giver,
        *,
        applied: Callable[[int, orders.Applied], None],
        news: Callable[[int, orders.News], None],
    ) -> None:
        self.number = number
        self.process = process
        self.bus = bus
        self.giver = giver
        self.started = trio.Event()
        self.ended = False
        self.hung = False
        self.version = 0
        self.report = NOTHING
        self._applied = applied
        self._news = news
        self._heard = trio.current_time()
        self._serial = 0
        self._reported = trio.Event()

    @property
    def takes(self) -> bool:
        """Whether a connection may be given to it now."""
        return self.started.is_set() and not self.ended and self.giver.room

    @property
    def load(self) -> tuple[bool, int]:
        """Whether it is slow to take what it was given, and how many connections it has."""
        return self.giver.slow, self.giver.connections

    @property
    def give(self) -> Callable[[Given], bool]:
        return self.giver.give

    @property
    def waits_for(self) -> Callable[[int], bool]:
        return self.giver.waits_for

    async def run(self) -> None:
        """Until it has ended, and all that it said was heard."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.bus.write)
            nursery.start_soon(self._watch)
            async with trio.open_nursery() as listening:
                listening.start_soon(self._hear)
                listening.start_soon(self.giver.hear)
                try:
                    await self.process.wait()
                except trio.Cancelled:
                    await self._stop()
                    raise
                self.ended = True
                listening.cancel_scope.deadline = trio.current_time() + LAST_WORDS
            nursery.cancel_scope.cancel()

    async def _stop(self) -> None:
        with trio.move_on_after(STOP_PATIENCE) as patience:
            patience.shield = True
            async with trio.open_nursery() as nursery:
                self.bus.send(orders.Stop())
                nursery.start_soon(self.bus.write)
                await self.process.wait()
                nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            self.process.kill()
            with trio.CancelScope(shield=True):
                await self.process.wait()

    async def _hear(self) -> None:
        while messages := await self.bus.receive():
            self._heard = trio.current_time()
            for message in messages:
                self._note(message)

    def _note(self, message: object) -> None:
        match message:
            case orders.Started():
                self.started.set()
            case orders.Applied():
                self.version = message.version
                self._applied(self.number, message)
            case orders.News():
                self._news(self.number, message)
            case orders.Report():
                self.report = message
                self._reported.set()
                self._reported = trio.Event()

    async def _watch(self) -> None:
        """Before it serves it may take its time: a machine that starts many processes is slow."""
        await self.started.wait()
        turn = trio.current_time()
        while True:
            await trio.sleep(orders.BEAT)
            now = trio.current_time()
            if now - turn > 2 * orders.BEAT:  # it was we who did not run (a paused container)
                self._heard = now
            elif now - self._heard > orders.HUNG:
                self.hung = True
                self.process.kill()
                return
            turn = now

    async def fresh_report(self) -> None:
        """Have one that is made from now on, if it answers in time."""
        self._serial += 1
        serial = self._serial
        self.bus.send(orders.Ask(serial))
        with trio.move_on_after(ASK_PATIENCE):
            while self.report.serial < serial and not self.ended:
                await self._reported.wait()

    def why(self) -> Mapping[str, object]:
        """Why it ended, for a log line."""
        code = self.process.returncode or 0
        if self.hung:
            return {"reason": f"no sign of life for {orders.HUNG:g} s"}
        if code < 0:
            return {"signal": signal.Signals(-code).name}
        return {"code": code}


async def start(
    number: int,
    loads: int,
    changed: Callable[[list[Given]], None],
    applied: Callable[[int, orders.Applied], None],
    news: Callable[[int, orders.News], None],
) -> Hand:
    """A new process; `loads` is the descriptor of the shared memory. Raises `OSError`."""
    here, there = socket.socketpair()
    give, take = handover.pair()
    with there, take:
        fds = (there.fileno(), take.fileno(), loads)
        try:
            process = await trio.lowlevel.open_process(
                [*command(), *(str(fd) for fd in fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                env=environment(),
            )
        except BaseException:
            here.close()
            give.close()
            raise
    here.setblocking(False)
    bus = Bus(trio.SocketStream(trio.socket.from_stdlib_socket(here)))
    return Hand(number, process, bus, Giver(give, changed), applied=applied, news=news)


def command() -> list[str]:
    """The same interpreter; the folder we were called from is none to import from."""
    isolated = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, isolated, "-m", "stickyproxy.control.workers.process"]


def environment() -> dict[str, str]:
    """Ours, and where this package is, however we found it."""
    root = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root}
