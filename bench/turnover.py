"""The case `endpoints`: 1,000 of them, one leaving or joining each second, under load.

Only peers whose endpoints can change while they run without new processes: stickyproxy reads its
Mapping anew, Envoy its EDS file. Every endpoint is a port of the one backend process.
"""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

from bench import envoy, sticky, turns
from bench.accounting import totals
from bench.cases import Case, Figure, Plan, Sample
from bench.figures import quantile
from bench.job import Job
from bench.load import LoadError
from bench.peers import ENVOY, OURS, Peer, find
from bench.scene import Scene, Subject

ENDPOINTS_AT_ONCE = 1000
CHANGING = 20
"""How many of them take turns in leaving and coming back."""
SECONDS = 12
QUICK_SECONDS = 5
EVERY = 1.0  # seconds from one change to the next
RATE = 10.0  # messages a second on each stream; 100 of them in turn see a stall of a millisecond
STREAMS = 100

Publish = Callable[[Sequence[int], int], None]
"""Make these ports the endpoints; the number is the version."""


def rounds(scene: Scene, case: Case, plan: Plan) -> list[Sample]:
    ports = scene.backends(ENDPOINTS_AT_ONCE, "echo", 12)
    job = replace(scene.job, backends=ports, timeout=0.0)
    seconds = SECONDS if plan.pace.budget >= 1 else QUICK_SECONDS
    running: list[tuple[Subject, Publish]] = []
    for peer in plan.peers:
        plan.say(f"starting {peer.name}")
        changeable = peer if peer.ours else discovering(peer)
        if peer.name == OURS:
            changeable = with_clock(peer)
        subject = scene.bring_up_one(changeable, job, log=True)
        if subject and subject.proxy:
            running.append((subject, publisher(peer, subject.proxy.job)))
    samples = []
    for number in range(plan.pace.rounds):
        for subject, publish in running:
            plan.say(f"round {number + 1}, {subject.name}")
            sample = Sample(case.name, subject.name, subject.log, number)
            with Turnover(publish, ports):
                _fill(sample, scene, subject, seconds)
            samples.append(sample)
    return samples


def with_clock(peer: Peer) -> Peer:
    """Stickyproxy on a loop whose long turns are written down."""

    def prepare(job: Job) -> list[str]:
        command = peer.prepare(job)
        start = command.index("run")
        clock = [sys.executable, "-m", "bench.turns", str(job.folder / "turns")]
        return [*clock, *command[start:]]

    return replace(peer, prepare=prepare)


def discovering(peer: Peer) -> Peer:
    """Envoy with endpoints from a file."""

    def prepare(job: Job) -> list[str]:
        (job.folder / "envoy.json").write_text(envoy.config(job, discovered=True))
        Path(envoy.members_path(job)).write_text(envoy.members_file(job.backends, 0))
        return envoy.argv(find(ENVOY) or ENVOY, job)

    return replace(peer, prepare=prepare)


def publisher(peer: Peer, job: Job) -> Publish:
    """Files are replaced whole, which both proxies notice."""

    def publish(ports: Sequence[int], version: int) -> None:
        if peer.ours:
            path, text = job.folder / "bench.yaml", sticky.document(job, ports)
        else:
            path, text = Path(envoy.members_path(job)), envoy.members_file(ports, version)
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)

    return publish


class Turnover:
    """Takes one endpoint out, puts it back, takes out the next: a change every second."""

    def __init__(self, publish: Publish, ports: Sequence[int]) -> None:
        self._publish = publish
        self._ports = ports
        self._over = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        version = int(time.time() * 10)  # grows from block to block
        while not self._over.wait(EVERY):
            leaving = version // 2 % CHANGING
            away = version % 2 == 0
            kept = [port for at, port in enumerate(self._ports) if not (away and at == leaving)]
            self._publish(kept, version)
            version += 1


def _fill(sample: Sample, scene: Scene, subject: Subject, seconds: int) -> None:
    """One block while endpoints come and go: its figures, or why it does not count."""
    proxy = subject.proxy
    if not proxy:
        return
    argv = [f"--streams={STREAMS}", f"--messages={round(seconds * RATE)}", f"--rate={RATE:g}"]
    seen, began = changes_seen(proxy.job), time.monotonic()
    block = scene.block(subject, scene.replay("streams", subject.port, *argv))
    seen = changes_seen(proxy.job) - seen
    if block.void or not block.load.latencies or not seen:
        sample.void = block.void or "no change of endpoints arrived"
        return
    ordered = sorted(block.load.latencies)
    sample.figures = {
        "stall_ms": ordered[-1] / 1e3,
        "p999_ms": quantile(ordered, 0.999) / 1e3,
        "broken": block.load.extra["broken"],
        "changes": seen,
    }
    clock = proxy.job.folder / "turns"
    if clock.exists():
        sample.figures["turn_ms"] = turns.longest(clock.read_text(), began) * 1e3


def changes_seen(job: Job) -> float:
    """How often the proxy took a new set of endpoints, by its own count."""
    for path in ("/metrics", "/stats/prometheus"):
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{job.admin}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                sums = totals(answer.read().decode())
            for name in ("stickyproxy_config_reloads_total", "envoy_cluster_update_success"):
                if name in sums:
                    return sums[name]
    raise LoadError("the admin port does not tell how often endpoints changed")


ENDPOINTS = Case(
    "endpoints",
    "1,000 endpoints, one leaving or joining each second; 100 streams, 10 messages/s each",
    (
        Figure("stall_ms", "longest stall ms", compared=True),
        Figure("p999_ms", "p99.9 ms"),
        Figure("turn_ms", "longest loop turn, CPU ms", limit=10.0),
        Figure("changes", "changes", 0),
        Figure("broken", "streams broken", 0),
    ),
    alone=rounds,
    only=(OURS, ENVOY),
)
