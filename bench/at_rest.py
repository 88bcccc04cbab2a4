"""The case `idle`: what connections cost that do nothing. A fresh proxy for every block."""

from __future__ import annotations

import subprocess
import time

from bench.accounting import cpu_seconds, memory
from bench.cases import Case, Figure, Plan, Sample
from bench.limits import affordable, open_files
from bench.load import LoadError
from bench.scene import Scene, Subject, read_line

CONNECTIONS = 10_000
QUICK_CONNECTIONS = 1_000
REST = 3.0  # seconds at rest over which CPU is counted


def rounds(scene: Scene, case: Case, plan: Plan) -> list[Sample]:
    wanted = CONNECTIONS if plan.pace.budget >= 1 else QUICK_CONNECTIONS
    connections = affordable(wanted, open_files())
    if connections < wanted:
        note = f"{connections:,} connections instead of {wanted:,}: ulimit -n is {open_files():,}"
        scene.notes.append(note)
    samples = []
    for number in range(plan.pace.rounds):
        for peer in plan.peers:
            plan.say(f"round {number + 1}, {peer.name}")
            subject = scene.bring_up_one(peer, scene.job, log=True)
            if subject:
                samples.append(_sample(scene, case, subject, number, connections))
                scene.take_down(subject)
    return samples


def _sample(scene: Scene, case: Case, subject: Subject, number: int, connections: int) -> Sample:
    sample = Sample(case.name, subject.name, subject.log, number)
    try:
        sample.figures = _figures(scene, subject, connections)
    except LoadError as exc:
        sample.void = str(exc)
    return sample


def _figures(scene: Scene, subject: Subject, connections: int) -> dict[str, float]:
    """One call first, so that what fills at the first call is not a connection's."""
    if not subject.proxy:
        raise LoadError("nothing to look at")
    pid = subject.proxy.pid
    scene.children.stop(_connected(scene, subject, 1))
    at_start = memory(pid)
    idlers = _connected(scene, subject, connections)
    time.sleep(0.5)  # the last answers' logs
    held = memory(pid)
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(REST)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    scene.children.stop(idlers)
    return {
        "kib": (held - at_start) / connections / 1024,
        "start_mb": at_start / 1e6,
        "cpu_percent": share * 100,
    }


def _connected(scene: Scene, subject: Subject, connections: int) -> subprocess.Popen[bytes]:
    process = scene.module("idlers", f"--port={subject.port}", f"--connections={connections}")
    if read_line(process) != "ready":
        scene.children.stop(process)
        raise LoadError(f"{connections} connections did not come about")
    return process


IDLE = Case(
    "idle",
    "connections that made one call each and then rest (10,000; --quick 1,000)",
    (
        Figure("kib", "KiB/connection", goal=1.0, compared=True),
        Figure("start_mb", "MB at start", goal=0.7, compared=True),
        Figure("cpu_percent", "CPU % at rest", 2),
    ),
    alone=rounds,
)
