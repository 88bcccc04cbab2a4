"""From one replica to three under load, with clients that never reconnect of their own accord.

The replicas share one address (SO_REUSEPORT): the kernel gives each new connection to one of them by
a hash of its addresses, as kube-proxy does at random; a connection, once made, stays. Every client
is a gRPC channel that calls ten times a second for as long as the measurement lasts.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from conformance.lab import pods
from conformance.lab.clients import LIMIT, who_at
from conformance.replicas.picture import draw
from support.exposed import Exposed
from support.proxy_process import ProxyProcess, running_proxy

REPLICAS = 3
CHANNELS = 48
PAUSE = 0.1
GROWS_AT = 10
"""Second at which the second and the third replica start."""
LASTS = 50
AGES = (0, 10)
"""`--max-connection-age` in seconds. Ten is for a short picture; 300 to 1,800 suit a cluster."""
PORTS = tuple(range(22_001, 22_004))  # below those of outgoing connections


@dataclass
class Moment:
    """A second: client connections open at each replica, and requests in it."""

    second: int
    connections: list[int]
    requests: list[int]


@dataclass
class Run:
    age: int
    moments: list[Moment] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    calls: int = 0
    retired: int = 0
    users_moved: int = 0


class Replicas:
    """They come one after the other to one address."""

    def __init__(self, stack: ExitStack, flags: Sequence[str]) -> None:
        self.proxies: list[ProxyProcess] = []
        self._stack = stack
        self._flags = flags
        holder = _listener(0)
        self.port: int = holder.getsockname()[1]
        self._first: socket.socket | None = holder

    def add(self) -> None:
        listener, self._first = self._first or _listener(self.port), None
        fd = listener.fileno()
        proxy = self._stack.enter_context(
            running_proxy(*self._flags, binds=[f"fd://{fd}"], pass_fds=[fd])
        )
        listener.close()
        self.proxies.append(proxy)

    def grow(self) -> None:
        for _ in range(REPLICAS - 1):
            self.add()

    def count(self) -> tuple[list[int], list[int], int]:
        """Connections, requests so far, connections sent away so far; 0 for who is not there yet."""
        seen = [Exposed(proxy) for proxy in self.proxies]
        missing = [0] * (REPLICAS - len(seen))

        def each(name: str) -> list[int]:
            return [int(one.total(f"stickyproxy_downstream_{name}")) for one in seen] + missing

        return (
            each("connections"),
            each("streams_total"),
            sum(each("connections_max_age_total")),
        )


def _listener(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.listen(128)
    return made


async def client(number: int, port: int, stop: asyncio.Event, run: Run) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    user, met = (("x-user", f"user-{number}"),), set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = who_at(channel)
        while not stop.is_set():
            try:
                met.add(await call(b"", metadata=user, timeout=LIMIT))
                run.calls += 1
            except grpc.aio.AioRpcError as error:
                run.failures.append(f"{error.code().name}: {error.details()}")
            await asyncio.sleep(PAUSE)
    run.users_moved += len(met) > 1


async def observe(replicas: Replicas, run: Run) -> None:
    stop = asyncio.Event()
    clients = [asyncio.create_task(client(n, replicas.port, stop, run)) for n in range(CHANNELS)]
    begun = asyncio.get_running_loop().time()
    before = [0] * REPLICAS
    growing: asyncio.Task[None] | None = None
    for second in range(LASTS + 1):
        await asyncio.sleep(max(0, begun + second - asyncio.get_running_loop().time()))
        if second == GROWS_AT:
            growing = asyncio.create_task(asyncio.to_thread(replicas.grow))
        connections, requests, run.retired = await asyncio.to_thread(replicas.count)
        fresh = [now - then for now, then in zip(requests, before, strict=True)]
        before = requests
        run.moments.append(Moment(second, connections, fresh))
    stop.set()
    await asyncio.gather(*clients)
    if growing is not None:
        await growing


def measure(age: int) -> Run:
    run = Run(age)
    with ExitStack() as stack:
        addresses = [f"127.0.0.1:{port}" for port in PORTS]
        for pod in pods.start(["pod-1", "pod-2", "pod-3"], addresses):
            stack.callback(pod.stop)
        flags = [flag for address in addresses for flag in ("--backend", address)]
        flags += ["--sticky", "header:x-user", "--max-connection-age", str(age)]
        replicas = Replicas(stack, flags)
        replicas.add()
        asyncio.run(observe(replicas, run))
    return run


def table(runs: Sequence[Run]) -> str:
    after = [-1, 5, 10, 15, 20, LASTS - GROWS_AT]
    heads = ["before", *(f"after {second} s" for second in after[1:])]
    lines = [
        "| `--max-connection-age` | " + " | ".join(heads) + " | busiest replica's share of calls, "
        "last 10 s | sent away | failed calls | users who changed pod |",
        "| --- |" + " ---: |" * (len(heads) + 4),
    ]
    for run in runs:
        at = [run.moments[GROWS_AT + second] for second in after]
        cells = ["/".join(str(n) for n in moment.connections) for moment in at]
        late = [
            sum(column) for column in zip(*(m.requests for m in run.moments[-10:]), strict=True)
        ]
        name = f"{run.age} s" if run.age else "off"
        lines.append(
            f"| {name} | " + " | ".join(cells) + f" | {max(late) / sum(late):.0%} "
            f"| {run.retired} | {len(run.failures)} of {run.calls} | {run.users_moved} |"
        )
    return "\n".join(lines)


def main(output: Path) -> None:
    runs = [measure(age) for age in AGES]
    print(f"{CHANNELS} channels; connections of the replicas, before and after two were added:\n")
    print(table(runs))
    (output / "replicas-spread.svg").write_text(
        draw([(run.age, [m.connections for m in run.moments]) for run in runs], GROWS_AT)
    )
    figures = [{"age": r.age, "moments": [vars(m) for m in r.moments]} for r in runs]
    (output / "replicas-spread.json").write_text(json.dumps(figures) + "\n")
