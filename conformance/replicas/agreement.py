"""Two replicas and a rolling restart of what is behind them: for how long do they disagree?

Each step changes one pod: a new one comes, an old one goes and is then stopped. Eight users whom the
step moves (an independent table says which) call both replicas without pause, so the moment when a
replica's answer changes is known to a call's time. Beside that both replicas carry ordinary load.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

import grpc
from xxhash import xxh64_intdigest

from conformance.lab import network, pods
from conformance.lab.clients import LIMIT, Clients, Seen, who_at
from conformance.replicas import disagreement
from conformance.replicas.sources import Source, cluster_source, file_source
from stickyproxy.policy.maglev import MaglevTable
from support import kube_apiserver
from support.proxy_process import ProxyProcess

PODS = 3
PROBES = 8
SETTLED = 25
"""Calls of each user with the new answer, at both replicas, before a step counts as done."""
USERS = 1_000


@dataclass
class Step:
    """Milliseconds. `acted`: from the change to the last new answer, for the faster and the slower

    replica; `apart`: from the first to the last moment at which a user got different answers.
    """

    kind: str
    acted: tuple[float, float]
    apart: float
    calls: int


def owners(addresses: Sequence[str], users: Sequence[str]) -> dict[str, str]:
    """Whose is each user, by a table of our own making."""
    ordered = sorted(addresses)
    table = MaglevTable.build([(address, 1.0) for address in ordered])
    return {user: ordered[table.lookup(xxh64_intdigest(user.encode()))] for user in users}


@dataclass
class Answer:
    time: float
    replica: int
    user: str
    address: str


class Probe:
    """Calls both replicas for some users, one call after the other at each."""

    def __init__(self, targets: Sequence[str]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.aio.insecure_channel(t, options=options) for t in targets]
        self.answers: list[Answer] = []

    async def watch(self, users: Sequence[str], done: Callable[[], bool]) -> None:
        await asyncio.gather(*(self._watch(n, users, done) for n in range(len(self.channels))))

    async def _watch(self, replica: int, users: Sequence[str], done: Callable[[], bool]) -> None:
        call = who_at(self.channels[replica])
        while not done():
            for user in users:
                pod = await call(b"", metadata=(("x-user", user),), timeout=LIMIT)
                self.answers.append(Answer(time.perf_counter(), replica, user, pod.decode()))

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close(None)


async def one_step(
    kind: str, targets: Sequence[str], now: Sequence[str], then: Sequence[str], source: Source
) -> Step:
    """From the addresses `now` to `then`; pods are named by their addresses."""
    users = [f"user-{n}" for n in range(USERS)]
    before, after = owners(now, users), owners(then, users)
    moved = [user for user in users if before[user] != after[user]][:PROBES]
    probe = Probe(targets)
    changed_at = 0.0
    want = SETTLED * PROBES * len(targets)

    def settled() -> bool:
        last = probe.answers[-want:]
        return (
            bool(changed_at)
            and len(last) == want
            and all(
                answer.time > changed_at and answer.address == after[answer.user] for answer in last
            )
        )

    watching = asyncio.create_task(probe.watch(moved, settled))
    while len(probe.answers) < want and not watching.done():
        await asyncio.sleep(0.01)
    agreed = all(answer.address == before[answer.user] for answer in probe.answers)
    if not agreed:
        raise RuntimeError("the replicas did not agree before the change")
    changed_at = time.perf_counter()
    await asyncio.to_thread(source.change, then)
    await asyncio.wait_for(watching, 60)
    await probe.close()
    return _evaluate(kind, probe.answers, after, changed_at)


def _evaluate(kind: str, answers: list[Answer], after: dict[str, str], changed_at: float) -> Step:
    said: dict[tuple[int, str], str] = {}
    differing: set[str] = set()
    first = last = 0.0
    acted = [changed_at, changed_at]
    for answer in sorted(answers, key=lambda answer: answer.time):
        key = (answer.replica, answer.user)
        if answer.address == after[answer.user] and said.get(key) not in (None, answer.address):
            acted[answer.replica] = answer.time
        said[key] = answer.address
        other = said.get((1 - answer.replica, answer.user))
        was = bool(differing)
        (differing.add if other not in (None, answer.address) else differing.discard)(answer.user)
        if differing and not was and not first:
            first = answer.time
        if was and not differing:
            last = answer.time
    faster, slower = sorted((when - changed_at) * 1000 for when in acted)
    return Step(kind, (faster, slower), max(0.0, last - first) * 1000, len(answers))


async def rolling_restart(
    proxies: Sequence[ProxyProcess], source: Source, addresses: Iterator[str]
) -> tuple[list[Step], Seen]:
    targets = [proxy.target for proxy in proxies]
    stop, seen = asyncio.Event(), Seen()
    load = Clients(targets, len(targets) * 2, USERS, seed=3)
    running: dict[str, pods.Pod] = dict(source.pods)
    steps: list[Step] = []
    background = asyncio.create_task(load.call_until(stop, 2, seen))
    try:
        for old in list(running):
            fresh = next(addresses)
            now = list(running)
            running[fresh] = await asyncio.to_thread(lambda: pods.start([fresh], [fresh])[0])  # noqa: B023
            steps.append(await one_step("a pod came", targets, now, [*now, fresh], source))
            left = [address for address in running if address != old]
            steps.append(await one_step("a pod went", targets, list(running), left, source))
            await asyncio.to_thread(running.pop(old).stop)
    finally:
        stop.set()
        await background
        await load.close()
        source.pods = running
    return steps, seen


def table(found: Sequence[tuple[str, list[Step], Seen]]) -> str:
    lines = [
        (
            "| told by | change | faster replica acted after | slower one | apart: median (worst) "
            "| failed calls |"
        ),
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, steps, seen in found:
        for kind in ("a pod came", "a pod went"):
            some = [step for step in steps if step.kind == kind]
            faster = median(step.acted[0] for step in some)
            slower = median(step.acted[1] for step in some)
            apart = [step.apart for step in some]
            failed = f"{len(seen.failures)} of {seen.pods.total()}"
            lines.append(
                f"| {name} | {kind} | {faster:.0f} ms | {slower:.0f} ms "
                f"| {median(apart):.0f} ms ({max(apart):.0f} ms) | {failed} |"
            )
    return "\n".join(lines)


def sources(folder: Path) -> Iterator[tuple[str, AbstractContextManager[Source]]]:
    yield "a file and SIGHUP", file_source(folder, signal.SIGHUP)
    yield "a file, looked at each second", file_source(folder, None)
    if reason := kube_apiserver.missing() or "; ".join(network.missing()):
        print(f"not measured with a cluster: {reason}")
    else:
        yield "the API server's watch", cluster_source(folder)


def measure(opened: AbstractContextManager[Source]) -> tuple[list[Step], Seen]:
    with ExitStack() as stack:
        source = stack.enter_context(opened)
        addresses = (f"{network.pod_ip(n)}:{network.POD_PORT}" for n in count(1))
        first = [next(addresses) for _ in range(PODS)]
        source.pods = dict(zip(first, pods.start(first, first), strict=True))
        stack.callback(source.stop_pods)
        source.change(first)
        source.proxies = [stack.enter_context(source.proxy()) for _ in range(2)]
        return asyncio.run(rolling_restart(source.proxies, source, addresses))


def main(output: Path) -> None:
    found: list[tuple[str, list[Step], Seen]] = []
    with tempfile.TemporaryDirectory(prefix="stickyproxy-lab-") as folder:
        for told, opened in sources(Path(folder)):
            steps, seen = measure(opened)
            found.append((told, steps, seen))
    print(table(found))
    print()
    print(disagreement.table())
    figures = [{"told": told, "steps": [vars(s) for s in steps]} for told, steps, _ in found]
    (output / "replicas.json").write_text(json.dumps(figures, indent=1) + "\n")
