"""The client of a measurement whose requests are written before its clock starts.

    python -m bench.replay --port P --calls N [--connections 8] [--streams 32] [--rate PER_SECOND]

Every request head is different (`bench.heads`), so that a proxy's memos have nothing to hit, yet a
call costs this client only some 3 us. Without `--rate` it keeps `--streams` calls open on each
connection; with it, calls begin when they are due, answered or not, and latency counts from then
(no coordinated omission).

It says `ready` on stdout once all is encoded and connected, begins at the first line on stdin, and
then says one line of JSON, a `Load`; with `--latencies` every call's latency is in it. A call whose
answer was not the backend's fails the whole block.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from bench import frames, heads
from bench.answers import message
from bench.frames import FrameReader, frame
from bench.load import Load

WINDOW = frames.LARGEST_WINDOW // 2  # more than any run sends: we never have to give credit
PATIENCE = 20.0  # seconds without any answer before the rest counts as failed
READ = 1 << 18


@dataclass(slots=True)
class Connection:
    """One connection and all the requests that it will send, in order."""

    sock: socket.socket
    requests: list[bytes]
    size: int
    """Octets of DATA in each request."""
    begun: int = 0
    open: int = 0
    room: int = 0
    """Octets of DATA that the peer still takes on this connection."""
    allowed: int = 100
    """Streams that the peer takes at once; 100 until it says (RFC 9113 §5.1.2 allows more)."""
    gone: bool = False
    out: bytearray = field(default_factory=bytearray)
    reader: FrameReader = field(default_factory=FrameReader)
    answered: list[int] = field(default_factory=list)
    """Numbers of the calls whose answers ended since last asked."""
    failed: int = 0
    received: int = 0

    def begin(self, count: int) -> int:
        """Send up to that many more requests; how many it were."""
        room = min(count, self.room // self.size, self.allowed - self.open)
        count = max(0, min(room, len(self.requests) - self.begun))
        if count:
            self.out += b"".join(self.requests[self.begun : self.begun + count])
            self.begun += count
            self.open += count
            self.room -= count * self.size
        return count

    def flush(self) -> None:
        if self.out and not self.gone:
            try:
                sent = self.sock.send(self.out)
                del self.out[:sent]
            except BlockingIOError:
                pass
            except OSError:
                self.gone = True

    def read(self) -> None:
        try:
            data = self.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.gone = not data
        for kind, flags, stream, payload in self.reader.feed(data):
            if kind == frames.DATA:
                self.received += len(payload)
                if flags & frames.END_STREAM:
                    self._end(stream)
            elif kind == frames.HEADERS:
                if flags & frames.END_STREAM:
                    self._end(stream)
            elif kind == frames.WINDOW_UPDATE and stream == 0:
                self.room += int.from_bytes(payload)
            else:
                self._control(kind, flags, payload)

    def _end(self, stream: int) -> None:
        self.open -= 1
        self.answered.append(stream >> 1)

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            for name, value in frames.read_settings(payload):
                if name == frames.MAX_CONCURRENT_STREAMS:
                    self.allowed = value
            self.out += frame(frames.SETTINGS, frames.ACK, 0)
        elif kind == frames.PING and not flags & frames.ACK:
            self.out += frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.RST_STREAM:
            self.open -= 1
            self.failed += 1
        elif kind == frames.GOAWAY:
            self.gone = True


def encode(asked: argparse.Namespace, connection: int, count: int) -> list[bytes]:
    """The frames of all requests of one connection: its dynamic table lives through them."""
    heavy = asked.heads == "heavy"
    dialect = heads.CORE if connection % 2 else heads.GO
    writer = heads.Writer(dialect, heads.HEAVY_PASSING if heavy else heads.PASSING)
    constant = heads.unary_fields(b"/bench.Echo/Call", b"127.0.0.1")
    stream = heads.heavy_calls if heavy else heads.calls
    wanted = stream(constant, asked.users, f"{asked.seed} {connection}")
    return framed(writer, itertools.islice(wanted, count), message(asked.body))


def framed(writer: heads.Writer, wanted: Iterable[list[heads.Field]], body: bytes) -> list[bytes]:
    """A whole request for each head, on stream 1, 3, 5 and so on."""
    made = []
    for at, fields in enumerate(wanted):
        number = 2 * at + 1
        head = frame(frames.HEADERS, frames.END_HEADERS, number, writer.block(fields))
        made.append(head + frame(frames.DATA, frames.END_STREAM, number, body))
    return made


def connect(asked: argparse.Namespace) -> list[Connection]:
    share = [
        asked.calls // asked.connections + (at < asked.calls % asked.connections)
        for at in range(asked.connections)
    ]
    made = []
    for at, count in enumerate(share):
        requests = encode(asked, at, count)
        sock = socket.create_connection(("127.0.0.1", asked.port), timeout=PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.append(Connection(sock, requests, asked.body + 5, room=frames.FIRST_WINDOW))
    for connection in made:
        connection.sock.sendall(frames.PREFACE + frames.opening(WINDOW))
        connection.read()  # its SETTINGS, before the clock starts
        connection.sock.setblocking(False)
    return made


class Run:
    """All connections until every call is answered, failed or given up."""

    def __init__(self, connections: list[Connection], asked: argparse.Namespace) -> None:
        self._connections = connections
        self._asked = asked
        # An open loop needs a finer clock than epoll's milliseconds; it has few sockets.
        fine = asked.rate > 0
        self._selector = selectors.SelectSelector() if fine else selectors.DefaultSelector()
        for connection in connections:
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self._begun_at: dict[int, list[float]] = {id(c): [] for c in connections}
        self.latencies: list[float] = []
        self.answered = 0

    def closed_loop(self) -> float:
        """Seconds it took with `--streams` calls open on each connection."""
        began = time.monotonic()
        for connection in self._connections:
            self._note(connection, connection.begin(self._asked.streams))
            connection.flush()
        while self._unfinished():
            ready = self._selector.select(PATIENCE)
            if not ready:
                break
            for key, _ in ready:
                self._turn(key.data)
                self._note(key.data, key.data.begin(self._asked.streams - key.data.open))
                key.data.flush()
        return time.monotonic() - began

    def _note(self, connection: Connection, count: int) -> None:
        if self._asked.latencies and count:
            self._begun_at[id(connection)] += [time.monotonic()] * count

    def open_loop(self) -> float:
        """Seconds it took with calls due at a constant rate, spread over the connections in turn."""
        gap = 1 / self._asked.rate
        began = time.monotonic()
        due, total, number = began, self._asked.calls, 0
        turn = itertools.cycle(self._connections)
        while self._unfinished() or number < total:
            now = time.monotonic()
            if number < total and due <= now:
                connection = next(turn)
                self._begun_at[id(connection)].append(due)
                number, due = number + 1, due + gap
            self._begin_due()
            wait = max(0.0, due - time.monotonic()) if number < total else PATIENCE
            ready = self._selector.select(wait)
            if not ready and number >= total:
                break
            for key, _ in ready:
                self._turn(key.data)
        return time.monotonic() - began

    def _begin_due(self) -> None:
        for connection in self._connections:
            if count := len(self._begun_at[id(connection)]) - connection.begun:
                connection.begin(count)
            connection.flush()

    def _turn(self, connection: Connection) -> None:
        connection.read()
        if connection.gone:
            self._selector.unregister(connection.sock)
        if self._asked.latencies and connection.answered:
            now = time.monotonic()
            begun = self._begun_at[id(connection)]
            self.latencies += [(now - begun[at]) * 1e6 for at in connection.answered]
        self.answered += len(connection.answered)
        connection.answered.clear()

    def _unfinished(self) -> bool:
        return any(not c.gone and (c.open or c.begun < len(c.requests)) for c in self._connections)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--body", type=int, default=12)
    parser.add_argument("--heads", choices=("calls", "heavy"), default="calls")
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--latencies", action="store_true")
    asked = parser.parse_args()
    gc.disable()
    connections = connect(asked)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    run = Run(connections, asked)
    seconds = run.open_loop() if asked.rate else run.closed_loop()
    intact = sum(c.received for c in connections) == run.answered * (asked.body + 5)
    said = Load(
        calls=asked.calls,
        failed=asked.calls - run.answered if intact else asked.calls,
        seconds=seconds,
        latencies=[round(latency, 1) for latency in run.latencies],
    )
    print(json.dumps(asdict(said)), flush=True)


if __name__ == "__main__":
    main()
