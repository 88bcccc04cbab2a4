"""Several workers, each a process: who gets which connection, and what all of them have to know.

The supervisor accepts, for only so is every worker given as much as the others, however few connections
there are, and only so is nothing lost that waits in the queue of a worker that died. The worker with the
fewest connections gets the next one; among equals they take turns.
"""

from __future__ import annotations

import mmap
import os
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import trio

from stickyproxy import logs
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.doors import Listening
from stickyproxy.control.keys import default_pair, load_certificates
from stickyproxy.control.limits import limits_of
from stickyproxy.control.worker import serve_pages
from stickyproxy.control.workers import orders
from stickyproxy.control.workers.bus import packed
from stickyproxy.control.workers.entry import Entry
from stickyproxy.control.workers.gossip import Gossip
from stickyproxy.control.workers.hand import Hand, start
from stickyproxy.control.workers.publication import Publisher
from stickyproxy.control.workers.spread import Spread
from stickyproxy.control.workers.tally import Tally
from stickyproxy.errors import ConfigError
from stickyproxy.model import Connection, Snapshot
from stickyproxy.proxy.server import ServeStream
from stickyproxy.upstream.loads import clear, size
from stickyproxy.wire.certificates import Certificates
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.watch import LinkWatch

FIRST_PATIENCE = 60.0
"""Seconds until every worker has to serve at the start."""
LAST_PATIENCE = 5.0
"""Seconds after the end of a drain: a link's farewell takes 1, the last log lines 2."""
STEADY = 10.0
"""Seconds after which a worker that ends is replaced at once again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between the end of a worker that was not steady and the next one; it doubles each time."""


class Crew:
    """What the supervisor has in place of a `Worker` when there are several, with the same methods."""

    def __init__(self, settings: ProcessSettings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._phase = random.random()
        self._hands: dict[int, Hand] = {}
        self.tally = Tally(self._hands, count)
        self._spread = Spread(self._hands, count)
        self._gossip = Gossip(self._hands)
        self._entries: dict[trio.SocketListener, Entry] = {}
        self._numbers = 0
        self._publisher = Publisher()
        self._certificates = Certificates()
        self._keys = orders.Keys(None, ())
        self._loaded: dict[Certificates, orders.Keys] = {}
        self._file = _shared_file()
        self._file.truncate(size(count))
        self._memory = mmap.mmap(self._file.fileno(), 0)
        self._watch = LinkWatch()
        self._codecs = Codecs(settings.codec, limits_of(settings))
        self._doors: trio.Nursery | None = None
        self._drain = trio.Event()
        self._ending = trio.Event()
        self._until = float("inf")

    @property
    def health(self) -> Tally:
        return self.tally

    # --- what all have to know ---

    def install(self, snapshot: Snapshot) -> None:
        publication = self._publisher.publish(snapshot)
        self.tally.published(snapshot.version)
        self._gossip.keep(snapshot)
        self._tell(publication)

    def load_certificates(self, wanted: Settings) -> Certificates:
        """For `exchange`; for a thread, as it reads files and keys. Raises `ConfigError`."""
        found = load_certificates(wanted, self._settings, self._certificates)
        self._loaded = {found: orders.Keys(default_pair(self._settings), wanted.front.tls)}
        return found

    def exchange(self, certificates: Certificates) -> None:
        """Handshakes from now on are made with these; connections stay as they are."""
        self._certificates = certificates
        self._keys = self._loaded[certificates]
        self._tell(self._keys)

    def _tell(self, message: object) -> None:
        if self._hands:
            data = packed(message)
            for hand in self._hands.values():
                hand.bus.send_packed(data)

    # --- ports ---

    def open(self, listening: Listening) -> None:
        """Serve one more. While draining there is none more: it is closed."""
        if self._doors is None or self._drain.is_set():
            listening.shut()
            return
        entry = self._enter(listening)
        self._tell(orders.OpenDoor(entry.door))
        self._doors.start_soon(self._attend, entry)

    def change(self, there: Listening, fresh: Listening) -> None:
        """The same port serves otherwise; connections of before end as in a drain, but unhurried."""
        entry = self._entries.get(there.listener)
        if entry is not None:
            entry.door = orders.DoorSpec(entry.door.number, fresh.protocol, fresh.spec)
            self._tell(orders.ChangeDoor(entry.door))

    def close(self, listening: Listening, until: float) -> None:
        """Let nobody in any more; whatever still runs there at `until` (trio's clock) is ended."""
        entry = self._entries.get(listening.listener)
        if entry is not None:
            entry.close(until)

    def _enter(self, listening: Listening) -> Entry:
        self._numbers += 1
        door = orders.DoorSpec(self._numbers, listening.protocol, listening.spec)
        entry = self._entries[listening.listener] = Entry(listening.listener, door, self._spread)
        return entry

    async def _attend(self, entry: Entry) -> None:
        await entry.run()
        del self._entries[entry.listener]
        if not self._drain.is_set():
            left = max(0.0, entry.until - trio.current_time())
            self._tell(orders.CloseDoor(entry.door.number, left))

    # --- from the start to the end ---

    def drain(self, until: float) -> None:
        """Stop listening now; whatever still runs at `until` (trio's clock) is ended."""
        self._until = until
        self._drain.set()

    async def run(
        self,
        listening: Sequence[Listening],
        _snapshot: Snapshot,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Started when all workers serve. Raises `ConfigError` when one of them cannot."""
        async with trio.open_nursery() as root:
            root.start_soon(self._watch.run)
            for one in listening:
                self._enter(one)
            async with trio.open_nursery() as crew:
                await self._man_all(crew)
                async with trio.open_nursery() as self._doors:
                    for entry in list(self._entries.values()):
                        self._doors.start_soon(self._attend, entry)
                    task_status.started()
                    await self._drain.wait()
                    for entry in list(self._entries.values()):
                        entry.close(self._until)
                    self._doors.cancel_scope.deadline = self._until
                self._ending.set()
                self._tell(orders.Drain(max(0.0, self._until - trio.current_time())))
                crew.cancel_scope.deadline = self._until + LAST_PATIENCE
            root.cancel_scope.cancel()

    async def _man_all(self, crew: trio.Nursery) -> None:
        with trio.move_on_after(FIRST_PATIENCE) as patience:
            async with trio.open_nursery() as beginning:
                for number in range(self._count):
                    beginning.start_soon(crew.start, self._man, number)
        if patience.cancelled_caught:
            raise ConfigError([f"--workers: not all serve after {FIRST_PATIENCE:g} s"])

    async def _man(
        self, number: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One worker after the other at this place; started when the first one serves."""
        pause = 0.0
        told: trio.TaskStatus[None] | None = task_status
        while not self._ending.is_set():
            since = trio.current_time()
            try:
                hand = await self._begin(number)
            except OSError as error:
                why: Mapping[str, object] = {"reason": error.strerror}
                begun = False
            else:
                await self._live(hand, told)
                why, begun = hand.why(), hand.started.is_set()
            if self._ending.is_set():
                return
            if told is not None and not begun:
                raise ConfigError([f"--workers: one could not begin: {_words(why)}"])
            told = None
            pause = _next_pause(pause, trio.current_time() - since)
            logs.error("worker_ended", worker=number + 1, replaced_after_s=pause, **why)
            self.tally.restarts[number] += 1
            with trio.move_on_after(pause):
                await self._ending.wait()

    async def _begin(self, number: int) -> Hand:
        hand = await start(
            number,
            self._file.fileno(),
            self._spread.heard,
            self.tally.applied,
            self._gossip.heard,
        )
        hand.bus.send(
            orders.Begin(
                settings=self._settings,
                number=number,
                workers=self._count,
                phase=(self._phase + number / self._count) % 1,
                keys=self._keys,
                publication=self._publisher.whole(),
                doors=tuple(entry.door for entry in self._entries.values()),
            )
        )
        self._hands[number] = hand
        self._gossip.tell_all(hand)
        return hand

    async def _live(self, hand: Hand, told: trio.TaskStatus[None] | None) -> None:
        """From its first message to what it leaves behind."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._welcome, hand, told)
                await hand.run()
                nursery.cancel_scope.cancel()
        finally:
            del self._hands[hand.number]
            hand.bus.close()
            clear(memoryview(self._memory), self._count, hand.number)
            self.tally.parted(hand)
            self._spread.again(hand.giver.take_back())

    async def _welcome(self, hand: Hand, told: trio.TaskStatus[None] | None) -> None:
        await hand.started.wait()
        logs.info("worker_started", worker=hand.number + 1, pid=hand.process.pid)
        self._spread.pump()
        if told is not None:
            told.started()
        else:
            self._level()

    def _level(self) -> None:
        """Who came back to the others, when the worker before this one ended, comes here."""
        for number, count in self._spread.surplus().items():
            self._hands[number].bus.send(orders.SendAway(count))
            logs.info("connections_levelled", worker=number + 1, connections=count)

    # --- beside the traffic ---

    async def serve_beside(
        self, listening: Sequence[Listening], serve: Callable[[Connection], ServeStream]
    ) -> None:
        """The admin pages, until cancelled."""
        await serve_pages(listening, serve, self._codecs, self._watch)

    async def collect(self) -> None:
        """Have every worker's figures as they are now; of one that hangs, the last known ones."""
        async with trio.open_nursery() as nursery:
            for hand in self._hands.values():
                nursery.start_soon(hand.fresh_report)


def _shared_file() -> IO[bytes]:
    """Without a name. In memory where that can be: a container may have nowhere to write."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("loads", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def _next_pause(pause: float, lived: float) -> float:
    """Seconds until the next one: none after a worker that was steady."""
    if lived >= STEADY:
        return 0.0
    return min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)


def _words(why: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in why.items())
