"""How long workers may disagree: `python -m bench.agreement [--rounds N]` prints a table.

A Mapping with 10 or 1,000 endpoints by Maglev; one endpoint leaves or comes back, and each worker notes
when it put the new Snapshot into effect. What lies between the first and the last of them, at rest and
with 8 connections that call without pause, is the time in which two workers may send one session to two
backends. The clock is the machine's, the same for all processes.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import h2load, sticky
from bench.answers import message
from bench.children import Children
from bench.figures import spread
from bench.job import USER, Job
from bench.peers import find, present
from bench.scene import Scene, Subject

COUNTS = (2, 4)
ENDPOINTS = (10, 1000)
ROUNDS = 20
PATIENCE = 30.0  # seconds for a change to reach everybody
BETWEEN = 0.2  # seconds from one change to the next: longer than changes are merged for
LONGEST = 600  # seconds after which a load ends that nobody ended

_VERSION = re.compile(r"^stickyproxy_worker_snapshot_version\{.*\} (\S+)$", re.MULTILINE)
_SPREAD = re.compile(r"^stickyproxy_config_snapshot_spread_seconds (\S+)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description="How long workers disagree after a change.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"changes each ({ROUNDS})")
    rounds = parser.parse_args().rounds
    print(
        "| workers | endpoints | load | median ms | worst ms |\n| ---: | ---: | --- | ---: | ---: |"
    )
    with tempfile.TemporaryDirectory(prefix="stickyproxy-agreement-") as folder:
        for workers in COUNTS:
            for endpoints in ENDPOINTS:
                for loaded in (False, True):
                    found = measured(Path(folder), workers, endpoints, rounds, loaded=loaded)
                    told = spread([1e3 * seconds for seconds in found])
                    load = "8 connections" if loaded else "none"
                    row = (
                        f"{workers} | {endpoints:,} | {load} | {told.median:.2f} | {told.most:.2f}"
                    )
                    print(f"| {row} |", flush=True)
    return 0


def measured(
    folder: Path, workers: int, endpoints: int, rounds: int, *, loaded: bool
) -> list[float]:
    """Seconds between the first and the last worker, of each change."""
    with Children() as children:
        own = Path(tempfile.mkdtemp(dir=folder))
        (own / "message").write_bytes(message(12))
        scene = Scene(children, own, Job(own, 0, 0, ()))
        ports = scene.backends(endpoints, "unary", 12)
        job = replace(scene.job, backends=ports, workers=workers)
        subject = scene.bring_up_one(present()[0][0], job, log=False)
        if subject is None or subject.proxy is None:
            raise RuntimeError("; ".join(scene.absent))
        with _load(scene, subject) if loaded else _rest():
            return [_change(subject, ports, number) for number in range(rounds)]


@contextmanager
def _rest() -> Iterator[None]:
    yield


@contextmanager
def _load(scene: Scene, subject: Subject) -> Iterator[None]:
    url = f"http://127.0.0.1:{subject.port}/bench.Echo/Call"
    argv = h2load.command(url, calls=0, connections=8, streams=1, fields=[(USER, "user-0007")])
    argv = [find("h2load") or argv[0], f"--duration={LONGEST}", "-t1", *argv[2:]]
    process = scene.children.start(argv, output=subprocess.DEVNULL, errors=subprocess.DEVNULL)
    try:
        yield
    finally:
        scene.children.stop(process)


def _change(subject: Subject, ports: tuple[int, ...], number: int) -> float:
    if subject.proxy is None:
        raise RuntimeError("nothing to change")
    version = max(_told(subject)[0])
    kept = ports if number % 2 else ports[:-1]
    (subject.proxy.job.folder / "bench.yaml").write_text(sticky.document(subject.proxy.job, kept))
    subject.proxy.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + PATIENCE
    time.sleep(BETWEEN)
    while True:
        versions, seconds = _told(subject)
        if min(versions) == max(versions) > version:
            return seconds
        if time.monotonic() > until:
            raise RuntimeError(f"not all workers have a version above {version}: {versions}")
        time.sleep(0.02)


def _told(subject: Subject) -> tuple[list[float], float]:
    if subject.proxy is None:
        raise RuntimeError("nothing to ask")
    url = f"http://127.0.0.1:{subject.proxy.job.admin}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    (seconds,) = _SPREAD.findall(text)
    return [float(version) for version in _VERSION.findall(text)], float(seconds)


if __name__ == "__main__":
    sys.exit(main())
