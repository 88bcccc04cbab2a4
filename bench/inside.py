"""What a call costs inside: the proxy's own parts over memory streams, without sockets or the kernel.

    python -m bench.inside [--case real|unary|headers] [--calls 20000] [--rounds 5] [--profile 40]

CPU time of the process less what its clients and backends took, in microseconds a call: the least
and the median of the rounds. Nothing but the code moves it much, so that it tells 2 % where
`./dev bench` tells ten; it is for finding what costs, not for comparing with anybody. To compare two
trees of ours, alternate: `PYTHONPATH=OTHER/src python -m bench.inside`.

`--profile N` looks at the stack as often as the kernel's clock allows (250 times a second of CPU)
and prints the N functions (`--by`: or lines, or files) in which most of these looks found the
interpreter. C functions count for who called them.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import secrets
import signal
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from types import FrameType
from typing import Any

import trio

from bench import frames, heads
from bench.answers import Unary, message
from bench.frames import FrameReader
from bench.job import USER
from bench.replay import framed
from stickyproxy.accesslog import render_json
from stickyproxy.codec.api import CodecLimits
from stickyproxy.control.garbage import settle
from stickyproxy.events import HeadReceived
from stickyproxy.health.book import HealthBook
from stickyproxy.logs import Output
from stickyproxy.metrics import Metrics
from stickyproxy.model import (
    Cluster,
    ClusterSpec,
    Connection,
    Endpoint,
    HashPolicy,
    LoadBalancer,
    Route,
    RouteMatch,
    Snapshot,
    Target,
    UpstreamProtocol,
)
from stickyproxy.policy.maglev import MaglevTable
from stickyproxy.policy.routes import Routes
from stickyproxy.proxy.context import Context
from stickyproxy.proxy.deadlines import Deadlines
from stickyproxy.proxy.exchange import Exchange
from stickyproxy.proxy.report import Reporter
from stickyproxy.upstream.dial import Dialler
from stickyproxy.upstream.pools import PoolSet
from stickyproxy.wire.codecs import Codecs
from stickyproxy.wire.link import Link
from stickyproxy.wire.stream import Stream
from stickyproxy.wire.watch import LinkWatch

CONNECTIONS, STREAMS, USERS, BODY = 8, 32, 1000, 12
KEYS = ("127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003")
SAMPLE = 0.001


class Outside:
    """CPU time that was not the proxy's."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def call(self, what: Callable[[bytes], None], data: bytes) -> None:
        began = time.thread_time()
        what(data)
        self.seconds += time.thread_time() - began


class Pipe(trio.abc.Stream):
    """The proxy's end of a connection; what it sends is handed over at once."""

    def __init__(self, outside: Outside) -> None:
        self.peer: Callable[[bytes], None]
        self._outside = outside
        self._waiting: deque[bytes] = deque()
        self._reader: trio.lowlevel.Task | None = None

    def push(self, data: bytes) -> None:
        self._waiting.append(data)
        task, self._reader = self._reader, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._outside.call(self.peer, bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes
        if not self._waiting:
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def aclose(self) -> None:
        return


class Backend:
    """Answers on one link."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._answers = Unary(BODY)
        pipe.peer = self.receive
        self._preface: bytes | None = b""
        pipe.push(self._take())

    def receive(self, data: bytes) -> None:
        if self._preface is not None:
            self._preface += data
            data = self._preface[len(frames.PREFACE) :]
            self._preface = None
        self._answers.receive(data)
        if self._answers.out:
            self._pipe.push(self._take())

    def _take(self) -> bytes:
        out = bytes(self._answers.out)
        self._answers.out.clear()
        return out


class Client:
    """Keeps `STREAMS` calls open on one connection as long as requests are left."""

    def __init__(self, pipe: Pipe, requests: list[bytes], done: Callable[[], None]) -> None:
        self._pipe = pipe
        self._requests = requests
        self._done = done
        self._reader = FrameReader()
        self._begun = self._answered = self.until = 0
        self.bytes = 0
        pipe.peer = self.receive
        pipe.push(frames.PREFACE + frames.opening(frames.LARGEST_WINDOW // 2))

    def go(self, until: int) -> None:
        """Up to that many calls in all."""
        self.until = until
        self._begin(STREAMS)

    def _begin(self, count: int) -> None:
        end = min(self._begun + count, self.until)
        if end > self._begun:
            self._pipe.push(b"".join(self._requests[self._begun : end]))
            self._begun = end

    def receive(self, data: bytes) -> None:
        answered = 0
        for kind, flags, _, payload in self._reader.feed(data):
            if kind == frames.DATA:
                self.bytes += len(payload)
            elif kind == frames.HEADERS and flags & frames.END_STREAM:
                answered += 1
        self._answered += answered
        self._begin(answered)
        if answered and self._answered == self.until:
            self._done()


def requests(case: str, connection: int, count: int) -> list[bytes]:
    """As `bench.replay` makes them; unary: all alike."""
    heavy = case == "headers"
    dialect = heads.CORE if connection % 2 else heads.GO
    writer = heads.Writer(dialect, heads.HEAVY_PASSING if heavy else heads.PASSING)
    constant = heads.unary_fields(b"/bench.Echo/Call", b"127.0.0.1")
    stream = heads.heavy_calls if heavy else heads.calls
    wanted = stream(constant, USERS, f"{secrets.token_hex(4)} {connection}")
    if case == "unary":
        wanted = itertools.repeat([*constant, (USER.encode(), b"user-1")])
    return framed(writer, itertools.islice(wanted, count), message(BODY))


def snapshot() -> Snapshot:
    """As `bench.sticky` asks for it: maglev by a header over three backends, a timeout of 15 s."""
    endpoints = tuple(Endpoint(key, ((key[:9], int(key[10:])),)) for key in KEYS)
    spec = ClusterSpec(
        "bench:80",
        "bench:80",
        UpstreamProtocol.H2C,
        tuple(endpoint.addresses[0] for endpoint in endpoints),
        load_balancer=LoadBalancer("maglev", HashPolicy("header", USER)),
    )
    cluster = Cluster(spec, endpoints, MaglevTable.build([(e.key, 1.0) for e in endpoints]))
    target = Target("bench", spec.name, timeout=15.0, grpc=True)
    route = Route("bench", RouteMatch("/"), (target,))
    return Snapshot(1, Routes([route]), {spec.name: cluster})


class Proxy:
    """What a worker is made of, with its metrics and its log on."""

    def __init__(self, nursery: trio.Nursery, outside: Outside, log: Output) -> None:
        self.metrics = Metrics()
        self._outside = outside
        self._codecs = Codecs("fast", CodecLimits(max_concurrent_streams=1024))
        self._watch = LinkWatch()
        deadlines = Deadlines()
        nursery.start_soon(deadlines.run)
        nursery.start_soon(self._watch.run)
        reporter = Reporter(self.metrics, lambda record: log.write(render_json(record)))
        pools = PoolSet(nursery, self._dialler, lambda *_: None, fail, self.metrics)
        self._context = Context(
            snapshot=snapshot(),
            pools=pools,
            health=HealthBook(),
            deadlines=deadlines,
            metrics=self.metrics,
            rng=Random(),
            nursery=nursery,
            ended=reporter.ended,
            bug=fail,
        )

    def link(self, pipe: Pipe, number: int) -> Link:
        connection = Connection("127.0.0.1", 40_000 + number, "127.0.0.1", 8080)
        stats, context = self.metrics.process, self._context

        def serve(stream: Stream, head: HeadReceived) -> Coroutine[Any, Any, None] | None:
            stats.downstream_streams += 1
            stats.downstream_streams_total += 1
            return Exchange(context, stream, head, connection).serve()

        codec = self._codecs.server(multiplexed=True, tls=False)
        return Link(pipe, codec, serve=serve)

    def _dialler(self, spec: ClusterSpec) -> Dialler:
        return Dialler(spec, self._codecs, self._watch, lambda *_: None, self._reach)

    async def _reach(self, *_: object) -> trio.abc.Stream:
        pipe = Pipe(self._outside)
        Backend(pipe)
        return pipe


def fail(error: BaseException, where: str) -> None:
    raise RuntimeError(where) from error


class Sampler:
    """Where the interpreter was, at each tick."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.on = False

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE, SAMPLE)

    def _look(self, _: int, at: FrameType | None) -> None:
        if at is not None:
            code = at.f_code
            place = code.co_filename.rpartition("/src/")[2][-36:]
            self.files[place] += 1
            self.functions[f"{place}:{code.co_qualname}"] += 1
            self.lines[f"{place}:{at.f_lineno}"] += 1

    def print(self, counted: Counter[str], most: int, cost: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole = counted.total()
        theirs = sum(n for name, n in counted.items() if "bench/" in name)
        for name, n in counted.most_common(most):
            print(f"{n / whole:6.1%} {n / (whole - theirs) * cost:6.2f} us  {name}")


async def measure(asked: argparse.Namespace, sampler: Sampler | None) -> list[float]:
    """Microseconds a call, of each round; the one before the first warms up."""
    outside, costs = Outside(), []
    each = asked.calls // CONNECTIONS
    finished = trio.Event()
    waiting = [0]

    def done() -> None:
        waiting[0] -= 1
        if not waiting[0]:
            finished.set()

    log = Output(os.open(os.devnull, os.O_WRONLY))
    async with trio.open_nursery() as nursery:
        proxy = Proxy(nursery, outside, log)
        clients = []
        for number in range(CONNECTIONS):
            pipe = Pipe(outside)
            made = requests(asked.case, number, each * (asked.rounds + 1))
            clients.append(Client(pipe, made, done))
            nursery.start_soon(proxy.link(pipe, number).run)
        await trio.sleep(0.1)
        settle()
        for at in range(asked.rounds + 1):
            if at == 1 and sampler is not None:
                sampler.start()
            finished, waiting[0], outside.seconds = trio.Event(), CONNECTIONS, 0.0
            began = time.process_time()
            for client in clients:
                client.go(each * (at + 1))
            await finished.wait()
            spent = time.process_time() - began - outside.seconds
            costs.append(spent / (each * CONNECTIONS) * 1e6)
        calls = each * CONNECTIONS * (asked.rounds + 1)
        check(proxy.metrics, clients, log, calls)
        nursery.cancel_scope.cancel()
    return costs[1:]


def check(metrics: Metrics, clients: list[Client], log: Output, calls: int) -> None:
    """The books must balance, as in `bench.books`."""
    log.close(10)
    counted = [
        slot.requests for route in metrics.routes.values() for slot in route.methods.values()
    ]
    got = sum(client.bytes for client in clients)
    if (log.written, log.lost, sum(counted), got) != (calls, 0, calls, calls * (BODY + 5)):
        raise SystemExit(f"{calls} calls, but {log.written} lines, {counted} counted, {got} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.inside", description=__doc__)
    parser.add_argument("--case", choices=("real", "unary", "headers"), default="real")
    parser.add_argument("--calls", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=int, default=0, metavar="N")
    parser.add_argument("--by", choices=("files", "functions", "lines"), default="functions")
    asked = parser.parse_args()
    gc.disable()
    sampler = Sampler() if asked.profile else None
    costs = trio.run(partial(measure, asked, sampler))
    print(f"{asked.case}: least {min(costs):.1f}, median {statistics.median(costs):.1f} us a call")
    if sampler is not None:
        counted: Counter[str] = getattr(sampler, asked.by)
        sampler.print(counted, asked.profile, statistics.median(costs))


if __name__ == "__main__":
    main()
