"""One worker of several: a process that the supervisor started, and that ends with it.

`python -m stickyproxy.control.workers.process BUS HANDOVER LOADS`, three descriptors that it inherited.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import trio

from stickyproxy import logs
from stickyproxy.accesslog import Record, render_json, render_text, shorten
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control import garbage
from stickyproxy.control.worker import Worker
from stickyproxy.control.workers import orders
from stickyproxy.control.workers.bus import Bus
from stickyproxy.control.workers.handed import Handed
from stickyproxy.control.workers.handover import Taker
from stickyproxy.control.workers.publication import Publication, apply
from stickyproxy.counters import ProcessStats
from stickyproxy.edge import ServerTls
from stickyproxy.errors import ConfigError
from stickyproxy.logs import ATOMIC, OperatorLog, Output
from stickyproxy.metrics import Metrics
from stickyproxy.model import Snapshot
from stickyproxy.upstream.loads import Loads
from stickyproxy.wire.certificates import Certificates, make_certificates
from stickyproxy.wire.tls import server_context

FLUSH = 2.0
"""Seconds that the last log lines may take, and the last report."""
SHORTER = (256, 48)
"""Octets of each value of a line that is too long: the second fits even if all is escaped."""


def main() -> int:
    """The exit code, 0 after a graceful end.

    Signals of a terminal or a service manager reach us too; what they mean is the supervisor's to say.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    access = Output(1, batch=logs.shared_batch(1), complain=logs.access_log_lost)
    operator = Output(2, batch=logs.shared_batch(2))
    logs.configure(OperatorLog(operator.write))
    garbage.pause()
    try:
        bus, handover, loads = (int(word) for word in sys.argv[1:4])
        trio.run(_main, bus, handover, loads, access, operator)
    finally:
        access.close(FLUSH)
        operator.close(FLUSH)
        logs.configure(OperatorLog(logs.to_stderr))
    return 0


async def _main(
    bus_fd: int, handover_fd: int, loads_fd: int, access: Output, operator: Output
) -> None:
    bus = Bus(trio.SocketStream(trio.socket.from_stdlib_socket(_inherited(bus_fd))))
    memory = mmap.mmap(loads_fd, 0)
    os.close(loads_fd)
    match await bus.receive():
        case [orders.Begin() as begin, *later]:
            about = {"worker": begin.number + 1}
            style = begin.settings.log_format
            logs.configure(OperatorLog(operator.write, style, about=about, limit=ATOMIC))
            process = WorkerProcess(bus, _inherited(handover_fd), memory, begin, access)
            process.metrics.before_reading.append(
                partial(_count_lost, process.metrics.process, access, operator)
            )
            await process.run(later)


class WorkerProcess:
    """A `Worker`, led by what comes over the bus."""

    def __init__(
        self,
        bus: Bus,
        handover: socket.socket,
        memory: mmap.mmap,
        begin: orders.Begin,
        access: Output,
    ) -> None:
        self.metrics = Metrics()
        self.metrics.before_reading.append(self.metrics.process.measure)
        self._bus = bus
        self._settings = begin.settings
        self._begin = begin
        self._taker = Taker(handover, self._take)
        self._loads = Loads(memoryview(memory), begin.workers, begin.number)
        self.metrics.new_endpoint = self._loads.stats
        self._worker = Worker(
            begin.settings,
            self.metrics,
            record_writer(begin.settings, access.write),
            loads=self._loads,
            phase=begin.phase,
            news=lambda change: bus.send(orders.News(change)),
        )
        self._keys = KeyRing()
        self._snapshot: Snapshot | None = None
        self._ways = {door.number: Handed(door, self._taker.ended) for door in begin.doors}
        self._early: dict[int, list[trio.SocketStream]] = {}
        self._all_taken = trio.Event()
        self._root = trio.CancelScope()

    async def run(self, later: Sequence[object]) -> None:
        """`later` is what was said after `begin`."""
        with self._root:
            async with trio.open_nursery() as root:
                root.start_soon(self._bus.write)
                root.start_soon(self._beat)
                await self._renew(self._begin.keys)
                snapshot = self._publish(self._begin.publication)
                async with trio.open_nursery() as working:
                    await working.start(self._worker.run, list(self._ways.values()), snapshot)
                    garbage.settle()
                    self._bus.send(orders.Started())
                    root.start_soon(self._obey, later)
                    root.start_soon(self._take_all)
                    root.start_soon(self._taker.tell_ended)
                self._report(0)
                with trio.move_on_after(FLUSH):
                    await self._bus.flush()
                root.cancel_scope.cancel()

    # --- what is said to us ---

    async def _obey(self, later: Sequence[object]) -> None:
        said = list(later)
        while True:
            for message in said:
                await self._do(message)
            said = await self._bus.receive()
            if not said:
                break
        logs.error("supervisor_gone", until_s=self._settings.drain_timeout)
        await self._all_taken.wait()
        self._worker.drain(trio.current_time() + self._settings.drain_timeout)

    async def _do(self, message: object) -> None:
        match message:
            case Publication():
                self._publish(message)
            case orders.Keys():
                await self._renew(message)
            case orders.OpenDoor() | orders.ChangeDoor() | orders.CloseDoor():
                self._do_with_door(message)
            case orders.News(change):
                self._worker.learn(change)
            case orders.Ask(serial):
                self._report(serial)
            case orders.SendAway(count):
                self._worker.send_away(count)
            case orders.Drain(seconds):
                self._worker.drain(trio.current_time() + seconds)
            case orders.Stop():
                self._root.cancel()

    def _do_with_door(
        self, message: orders.OpenDoor | orders.ChangeDoor | orders.CloseDoor
    ) -> None:
        match message:
            case orders.OpenDoor(door):
                self._open(door)
            case orders.ChangeDoor(door):
                before = self._ways[door.number]
                self._ways[door.number] = before.changed(door)
                self._worker.change(before, self._ways[door.number])
            case orders.CloseDoor(number, seconds):
                self._worker.close(self._ways.pop(number), trio.current_time() + seconds)

    def _publish(self, publication: Publication) -> Snapshot:
        self._snapshot = apply(self._snapshot, publication)
        self._loads.place(publication.rows, self.metrics.endpoints)
        self._worker.install(self._snapshot)
        self._bus.send(orders.Applied(publication.version, time.monotonic()))
        return self._snapshot

    async def _renew(self, keys: orders.Keys) -> None:
        """In a thread: a thousand new keys take a second. The supervisor has loaded them before us."""
        try:
            certificates = await trio.to_thread.run_sync(self._keys.load, keys)
        except ConfigError as error:
            for problem in error.problems:
                logs.error("certificate_refused", problem=problem)
        else:
            self._worker.exchange(certificates)

    def _open(self, door: orders.DoorSpec) -> None:
        way = self._ways[door.number] = Handed(door, self._taker.ended)
        self._worker.open(way)
        for stream in self._early.pop(door.number, ()):
            way.take(stream)

    # --- connections ---

    async def _take_all(self) -> None:
        await self._taker.run()
        self._all_taken.set()

    def _take(self, door: int, stream: trio.SocketStream) -> None:
        """The bus may be slower to tell of a new door than the first connection is."""
        way = self._ways.get(door)
        if way is None:
            self._early.setdefault(door, []).append(stream)
        else:
            way.take(stream)

    # --- what we say ---

    async def _beat(self) -> None:
        reported = trio.current_time()
        while True:
            self._bus.send(orders.Beat())
            await trio.sleep(orders.BEAT)
            if trio.current_time() - reported >= orders.REPORT_EVERY:
                reported = trio.current_time()
                self._report(0)

    def _report(self, serial: int) -> None:
        health = self._worker.health
        suspected = {place: standing.seen() for place, standing in health.suspected.items()}
        panicking = frozenset(health.panicking)
        self._bus.send(orders.Report(serial, self.metrics.as_dict(), suspected, panicking))


class KeyRing:
    """Contexts of what the supervisor sends; one whose content is known is kept."""

    def __init__(self) -> None:
        self._default: tuple[ServerTls, ssl.SSLContext] | None = None
        self._now: Certificates | None = None

    def load(self, keys: orders.Keys) -> Certificates:
        """Raises `ConfigError`."""
        default = self._default_context(keys)
        self._now = make_certificates(keys.tls, default, self._now, lambda _: None)
        return self._now

    def _default_context(self, keys: orders.Keys) -> ssl.SSLContext | None:
        if keys.default is None:
            return None
        tls = ServerTls("--tls-cert", (), *keys.default)
        if self._default is None or self._default[0] != tls:
            self._default = tls, server_context(tls)
        return self._default[1]


def record_writer(
    settings: ProcessSettings, write: Callable[[bytes], None]
) -> Callable[[Record], None] | None:
    """Lines that a pipe takes whole; one that is longer has its values cut."""
    if not settings.access_log:
        return None
    render = render_json if settings.log_format == "json" else render_text

    def write_record(record: Record) -> None:
        line = render(record)
        for longest in () if len(line) <= ATOMIC else SHORTER:
            shorten(record, longest)
            line = render(record)
            if len(line) <= ATOMIC:
                break
        write(line)

    return write_record


def _count_lost(stats: ProcessStats, access: Output, operator: Output) -> None:
    stats.access_log_lines_lost_total = access.lost
    stats.log_lines_lost_total = operator.lost


def _inherited(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


if __name__ == "__main__":
    sys.exit(main())
