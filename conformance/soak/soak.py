"""The soak itself: the load, what goes wrong, and what the proxy is like at rest before and after."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import trio

from conformance.soak import books, faults, picture
from conformance.soak.load import Load
from support.edge_clients import free_port
from support.exposed import Exposed
from support.leftovers import left_over
from support.proxy_process import ProxyProcess, running_proxy

SHARE = 0.6
PROBE = 8.0
"""Seconds for which capacity is looked for."""
SAMPLE = 2.0
REST = 4.0
SPARE_TASKS, SPARE_FILES = 40, 20
"""What links to backends that come and go may differ by between two rests: five of them."""
SPARE_MEMORY = 60 << 20
"""Of three processes: Python looks for cycles when there are some 20 MB of them (`control.garbage`), and
each connection leaves one. With connections alone each worker settles at 16 MB above its start.
"""


class Sample(NamedTuple):
    """A moment; memory in bytes, of all processes."""

    at: float
    memory: float
    tasks: float
    files: float
    connections: float
    under_way: float


def sample(proxy: ProxyProcess, zero: float) -> Sample:
    now = Exposed(proxy)
    return Sample(
        time.monotonic() - zero,
        now.total("process_resident_memory_bytes"),
        now.total("stickyproxy_tasks"),
        now.total("process_open_fds"),
        now.total("stickyproxy_downstream_connections"),
        now.total("stickyproxy_upstream_streams"),
    )


class Soak:
    def __init__(self, folder: Path, minutes: float, seed: int) -> None:
        self.samples: list[Sample] = []
        self.zero = 0.0
        self.rate = 0.0
        self._folder = folder
        self._seconds = minutes * 60
        self._seed = seed

    def run(self) -> int:
        with ExitStack() as stack:
            backends = [faults.Backend(free_port(), f"b{n}") for n in range(faults.BACKENDS)]
            for backend in backends:
                stack.callback(backend.kill)
            config = self._folder / "soak.yaml"
            faults.write(config, backends)
            flags = (str(config), "--workers", "2", "--drain-delay", "0")
            proxy = stack.enter_context(running_proxy(*flags, stuck=True))
            assert proxy.process.stdout is not None  # noqa: S101 - the proxy's is a pipe
            log = books.Log(proxy.process.stdout)
            load = Load(proxy.port, self._seed)
            going = faults.Faults(proxy, backends, config, load, self._seed)
            before, after = trio.run(self._all, proxy, load, going)
            proxy.process.terminate()
            proxy.process.wait()
            log.close()
            bugs = [line for line in proxy.events if str(line["event"]).startswith("bug")]
        verdict = books.judge(load.calls, going.slow, going.events, log)
        return self._tell(verdict, going.events, before, after, bugs)

    async def _all(
        self, proxy: ProxyProcess, load: Load, going: faults.Faults
    ) -> tuple[Sample, Sample]:
        async with trio.open_nursery() as clients:
            await load.connect(clients)
            capacity = await load.capacity(PROBE)
            clients.cancel_scope.cancel()
        before = await self._rest(proxy)
        self.rate = SHARE * capacity
        print(f"capacity {capacity:.0f} calls/s, running at {self.rate:.0f}", flush=True)
        self.zero = time.monotonic()
        async with trio.open_nursery() as clients:
            await load.connect(clients)
            async with trio.open_nursery() as calls:
                calls.start_soon(self._sample, proxy)
                calls.start_soon(going.run, self._seconds)
                await load.at(self.rate, self._seconds, calls)
                while load.under_way:
                    await trio.sleep(0.05)
                await trio.sleep(faults.SLOW_SECONDS)
                calls.cancel_scope.cancel()
            clients.cancel_scope.cancel()
        return before, await self._rest(proxy)

    async def _rest(self, proxy: ProxyProcess) -> Sample:
        """Nobody is connected; what belongs to a call is gone, or is never going to be."""
        await trio.sleep(REST)
        with trio.move_on_after(15):
            while await trio.to_thread.run_sync(left_over, proxy):
                await trio.sleep(0.2)
        return await trio.to_thread.run_sync(sample, proxy, self.zero)

    async def _sample(self, proxy: ProxyProcess) -> None:
        while True:
            await trio.sleep(SAMPLE)
            try:
                found = await trio.to_thread.run_sync(sample, proxy, self.zero)
            except OSError:  # a worker was killed while it was asked
                continue
            self.samples.append(found)

    def _tell(
        self,
        verdict: books.Verdict,
        events: faults.Events,
        before: Sample,
        after: Sample,
        bugs: list[dict[str, object]],
    ) -> int:
        wrong = [*verdict.complaints, *left(before, after)]
        wrong += [f"a bug of the proxy: {bugs[0]}"] if bugs else []
        what = [what for _, what in events.happened]
        lines = [
            f"{self._seconds / 60:g} minutes, {self.rate:.0f} calls/s ({SHARE:.0%} of capacity)",
            ", ".join(f"{what.count(one)} x {one}" for one in faults.KINDS),
            f"calls: {verdict.calls}, good {verdict.good}, their own fault {verdict.own_fault}",
            f"never processed and made again: {verdict.again}",
            f"lost with who was killed: {verdict.excused}",
            f"failed without a fault: {len(verdict.failed)}, stuck: {len(verdict.stuck)}",
            f"in the log: missing {len(verdict.missing)}, twice {len(verdict.doubled)}",
            f"at rest, before: {_at_rest(before)}",
            f"at rest, after: {_at_rest(after)}",
            *wrong,
            *([] if wrong else ["nothing lost, nothing left"]),
        ]
        print("\n".join(lines))
        (self._folder / "soak.txt").write_text("\n".join(lines) + "\n")
        (self._folder / "soak.json").write_text(
            json.dumps(
                {
                    "samples": self.samples,
                    "verdict": asdict(verdict),
                    "events": [(at - self.zero, what) for at, what in events.happened],
                }
            )
        )
        moments = [(at - self.zero, one) for at, one in events.happened]
        (self._folder / "soak.svg").write_text(picture.draw(self.samples, moments))
        print(f"figures and pictures: {self._folder}")
        return 1 if wrong else 0


def _at_rest(one: Sample) -> str:
    return f"{one.tasks:.0f} tasks, {one.files:.0f} files, {one.memory / 1e6:.0f} MB"


def left(before: Sample, after: Sample) -> list[str]:
    """What one rest has that the one before had not."""
    found = []
    if after.under_way or after.connections:
        found.append(
            f"at rest: {after.under_way:.0f} under way, {after.connections:.0f} connections"
        )
    if after.tasks > before.tasks + SPARE_TASKS:
        found.append(f"tasks grew from {before.tasks:.0f} to {after.tasks:.0f}")
    if after.files > before.files + SPARE_FILES:
        found.append(f"open files grew from {before.files:.0f} to {after.files:.0f}")
    if after.memory > before.memory + SPARE_MEMORY:
        found.append(f"memory grew from {before.memory / 1e6:.0f} to {after.memory / 1e6:.0f} MB")
    return found
