"""Makes the calls of a run: an open loop, whose times come from a seed and wait for nobody.

    python -m chaos.load SETUP --seconds 20 --drain 16 --seed 1 [--start MONOTONIC] [--rate R]

SETUP is a `chaos.job.Setup` as JSON. A latency counts from when its call was *due*, also when the proxy's
limits kept it back. It prints one JSON object: `rows` of [due ms, latency ms, status, backend] and
`late_ms`, at p99: how late this process itself looked at a call that was due, which tells a busy machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import selectors
import socket
import time
from collections import deque

from bench.figures import quantile
from chaos.calls import Client, Result, client
from chaos.job import PORT, Setup

READ = 1 << 18
LEAD = 0.3  # seconds from the start of this process to the first call

Row = tuple[float, float, str, str]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """A Poisson process: when calls are due, in seconds."""
    chance = random.Random(seed)
    due: list[float] = []
    at = chance.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += chance.expovariate(rate)
    return due


class Run:
    """All calls, until each is answered or `end` has come. `zero`: monotonic time of second 0."""

    def __init__(self, calls: Client, due: list[float], zero: float, end: float) -> None:
        self.lateness: list[float] = []
        self._calls = calls
        self._due = due
        self._zero = zero
        self._end = end
        self._at = 0
        self._waiting: deque[int] = deque()
        self._rows: dict[int, Row] = {}
        self._gone = ""
        self._sock = socket.create_connection(("127.0.0.1", PORT), timeout=5)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)

    def run(self) -> list[Row]:
        # select(2) has a finer clock than epoll's milliseconds, and there is one socket.
        selector = selectors.SelectSelector()
        selector.register(self._sock, selectors.EVENT_READ)
        while len(self._rows) < len(self._due) and not self._gone:
            now = time.monotonic()
            if now > self._end:
                break
            self._make(now)
            self._send()
            if selector.select(self._wait()):
                self._receive()
        return [self._row(number) for number in range(len(self._due))]

    def _wait(self) -> float:
        if self._calls.out:
            return 0.002  # the socket was full: look again soon
        more = self._at < len(self._due)
        until = self._zero + self._due[self._at] if more else self._end
        return max(0.0, min(until, self._end) - time.monotonic())

    def _make(self, now: float) -> None:
        while self._at < len(self._due) and self._zero + self._due[self._at] <= now:
            self.lateness.append(now - self._zero - self._due[self._at])
            self._waiting.append(self._at)
            self._at += 1
        while self._waiting and self._calls.free:
            self._calls.call(self._waiting.popleft())

    def _send(self) -> None:
        if self._calls.out:
            try:
                del self._calls.out[: self._sock.send(self._calls.out)]
            except BlockingIOError:
                pass
            except OSError as error:
                self._gone = f"connection: {error.strerror}"

    def _receive(self) -> None:
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._gone = f"connection: {error.strerror}"
            return
        if not data:
            self._gone = "connection closed"
        now = time.monotonic() - self._zero
        for result in self._calls.receive(data):
            self._note(result, now)

    def _note(self, result: Result, now: float) -> None:
        number, status, backend = result
        due = self._due[number]
        latency = max(0.0, now - due)  # negative: the connection was gone before it was due
        self._rows[number] = (round(due * 1e3, 1), round(latency * 1e3, 2), status, backend)

    def _row(self, number: int) -> Row:
        if number not in self._rows:
            waited = min(time.monotonic(), self._end) - self._zero
            self._note((number, self._gone or "no answer", ""), waited)
        return self._rows[number]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos.load", description=__doc__)
    parser.add_argument("setup")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--drain", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=float)
    asked = parser.parse_args()
    setup = Setup(**json.loads(asked.setup))
    zero = asked.start or time.monotonic() + LEAD
    due = arrivals(setup.rate, asked.seconds, asked.seed)
    gc.disable()
    run = Run(client(setup), due, zero, zero + asked.seconds + asked.drain)
    rows = run.run()
    late = quantile(sorted(run.lateness), 0.99) * 1e3
    print(json.dumps({"rows": rows, "late_ms": round(late, 2)}))


if __name__ == "__main__":
    main()
