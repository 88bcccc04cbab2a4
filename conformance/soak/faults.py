"""What goes wrong during a soak, one thing after the other, and when it did."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from conformance.soak.load import Load
from support import rawframes as raw
from support.http_clients import h2_request
from support.http_lab import mappings
from support.proxy_process import ProxyProcess

HERE = Path(__file__).parent
BACKENDS = 4
DOWN = 1.0
"""Seconds that a backend is away between its end and its return."""
KINDS = {
    "client cut off": 6,
    "slow reader": 4,
    "backend killed": 3,
    "backend restarted": 3,
    "reload": 3,
    "endpoints changed": 4,
    "worker killed": 1,
}
"""How often each, of their sum."""
SLOW_SECONDS = 8.0
SLOW_SIZE = 4_000_000


class Backend:
    """A process that ends as it is told, and returns to the same port."""

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.name = name
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE / "backend.py"), str(self.port), self.name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101 - it was asked for
        if not process.stdout.readline():
            raise RuntimeError(f"backend {self.name} did not begin")
        return process

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait()

    def kill(self) -> None:
        self.process.kill()

    def begin(self) -> None:
        self.process = self._begin()


@dataclass
class Events:
    """`abrupt`: moments (monotonic) at which calls under way may be lost, by who was killed."""

    happened: list[tuple[float, str]] = field(default_factory=list)
    abrupt: dict[str, list[float]] = field(default_factory=lambda: {"backend": [], "worker": []})

    def note(self, what: str) -> None:
        self.happened.append((time.monotonic(), what))


class Faults:
    """`config` is the file that the proxy reads. `slow` names the calls of slow readers."""

    def __init__(
        self, proxy: ProxyProcess, backends: Sequence[Backend], config: Path, load: Load, seed: int
    ) -> None:
        self.events = Events()
        self.slow: list[str] = []
        self._proxy = proxy
        self._backends = backends
        self._config = config
        self._load = load
        self._rng = random.Random(seed)
        self._do: dict[str, Callable[[trio.Nursery], object]] = {
            "client cut off": lambda _: self._rng.choice(load.clients).cut(),
            "slow reader": lambda nursery: nursery.start_soon(self._read_slowly),
            "reload": lambda _: proxy.signal(signal.SIGHUP),
            "endpoints changed": lambda _: write(config, self._some()),
            "worker killed": lambda _: self._kill_worker(),
        }

    async def run(self, seconds: float) -> None:
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            while trio.current_time() < end:
                await trio.sleep(self._rng.uniform(0.5, 4.0))
                [what] = self._rng.choices(list(KINDS), list(KINDS.values()))
                self.events.note(what)
                if what.startswith("backend"):
                    await self._end_backend(kill=what == "backend killed")
                else:
                    self._do[what](nursery)

    async def _end_backend(self, *, kill: bool) -> None:
        """One at a time; the others take its calls."""
        backend = self._rng.choice(self._backends)
        if kill:
            self.events.abrupt["backend"].append(time.monotonic())
        number = signal.SIGKILL if kill else signal.SIGTERM
        await trio.to_thread.run_sync(backend.end, number)
        await trio.sleep(DOWN)
        await trio.to_thread.run_sync(backend.begin)

    def _some(self) -> Sequence[Backend]:
        return self._rng.sample(list(self._backends), self._rng.randint(2, BACKENDS))

    def _kill_worker(self) -> None:
        started = [line for line in self._proxy.events if line["event"] == "worker_started"]
        alive = {line["worker"]: line["pid"] for line in started}
        with suppress(ProcessLookupError):
            pid = int(self._rng.choice(list(alive.values())))
            self.events.abrupt["worker"].append(time.monotonic())
            os.kill(pid, signal.SIGKILL)

    async def _read_slowly(self) -> None:
        """A few kilobytes a second of megabytes, and then it is gone."""
        name = f"slow-{len(self.slow)}"
        self.slow.append(name)
        size = f"/calls?size={SLOW_SIZE}".encode()
        head = h2_request(size, (b"x-request-id", name.encode()))
        with suppress(OSError, trio.BrokenResourceError):
            stream = await trio.open_tcp_stream("127.0.0.1", self._proxy.port)
            async with stream:
                begin = raw.PREFACE + raw.settings() + raw.RawCoder().headers(1, head, end=True)
                await stream.send_all(begin)
                with trio.move_on_after(SLOW_SECONDS):
                    while await stream.receive_some(512):
                        await trio.sleep(0.1)


def write(config: Path, backends: Sequence[Backend]) -> None:
    """Whole, or not at all."""
    endpoints = ", ".join(f"'127.0.0.1:{backend.port}'" for backend in backends)
    text = mappings({"calls": "h2c://calls"}, f"timeout_ms: 10000\nendpoints: [{endpoints}]\n")
    fresh = config.with_suffix(".new")
    fresh.write_text(text.replace("prefix: /calls/", "prefix: /calls"))
    fresh.replace(config)
