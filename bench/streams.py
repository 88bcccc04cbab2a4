"""The streaming client of a measurement: messages back and forth on streams that stay open.

    python -m bench.streams --port P --streams 100 --messages 200 [--rate PER_SECOND_AND_STREAM]

Without `--rate` each stream sends its next message when the last one came back; with it, messages
are due at that rate, spread evenly over the streams, and a round trip counts from when it was due.
It says `ready` once connected, begins at the first line on stdin, and then says a `Load` as JSON:
`calls` are streams, `messages` those of both directions, `latencies` round trips (with `--rate`).
Streams that broke are in `extra`, not in `failed`: a leaving endpoint may take its own with it.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

from bench import frames, heads
from bench.answers import message
from bench.frames import FrameReader, frame
from bench.load import Load

WINDOW = frames.LARGEST_WINDOW // 2
PATIENCE = 20.0  # seconds without anything arriving before the rest counts as broken
READ = 1 << 18


@dataclass(slots=True)
class Stream:
    """`unsent`: messages to be sent yet. `due`: when those on their way were due, the oldest first."""

    number: int
    unsent: int
    window: int
    received: int = 0
    due: list[float] = field(default_factory=list)
    waiting: bool = False
    """A message is due but has no window."""


class Connection:
    """One connection and its streams."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.out = bytearray()
        self.window = frames.FIRST_WINDOW
        self.stream_window = frames.FIRST_WINDOW
        self.streams: dict[int, Stream] = {}
        self.broken = 0
        self.gone = False
        self._reader = FrameReader()
        self.sock.sendall(frames.PREFACE + frames.opening(WINDOW))
        self.receive(self.sock.recv(READ))
        self.sock.setblocking(False)

    def receive(self, data: bytes) -> list[Stream]:
        """Streams on which something arrived."""
        touched = []
        self.gone = not data
        for kind, flags, number, payload in self._reader.feed(data):
            stream = self.streams.get(number)
            if kind == frames.DATA and stream:
                stream.received += len(payload)
                touched.append(stream)
            elif kind == frames.WINDOW_UPDATE:
                self._credit(stream, int.from_bytes(payload))
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                self._configure(payload)
            elif kind == frames.PING and not flags & frames.ACK:
                self.out += frame(frames.PING, frames.ACK, 0, payload)
            if number and (kind == frames.RST_STREAM or (kind <= 1 and flags & frames.END_STREAM)):
                self._end(number)
        return touched

    def _end(self, number: int) -> None:
        stream = self.streams.pop(number, None)
        if stream and (stream.unsent or stream.due):
            self.broken += 1

    def _credit(self, stream: Stream | None, credit: int) -> None:
        if stream:
            stream.window += credit
        else:
            self.window += credit

    def _configure(self, payload: bytes) -> None:
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                for stream in self.streams.values():
                    stream.window += value - self.stream_window
                self.stream_window = value
        self.out += frame(frames.SETTINGS, frames.ACK, 0)

    def flush(self) -> None:
        if self.out and not self.gone:
            try:
                del self.out[: self.sock.send(self.out)]
            except BlockingIOError:
                pass
            except OSError:
                self.gone = True


class Run:
    """All streams until each has had its messages."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._message = message(asked.body)
        self._connections = [Connection(asked.port) for _ in range(asked.connections)]
        # Messages that are due need a finer clock than epoll's milliseconds; sockets are few.
        fine = asked.rate > 0
        self._selector = selectors.SelectSelector() if fine else selectors.DefaultSelector()
        for connection in self._connections:
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self._due: list[tuple[float, int, Connection, Stream]] = []
        self.latencies: list[float] = []
        self.messages = 0

    @property
    def broken(self) -> int:
        return sum(c.broken + len(c.streams) for c in self._connections)

    def run(self) -> float:
        """Seconds it took."""
        began = time.monotonic()
        self._open(began)
        for connection in self._connections:
            connection.flush()
        while any(c.streams and not c.gone for c in self._connections):
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else PATIENCE
            ready = self._selector.select(wait)
            if not ready and not self._due:
                break
            for key, _ in ready:
                self._turn(key.data)
            self._send_due()
        return time.monotonic() - began

    def _open(self, began: float) -> None:
        constant = heads.unary_fields(b"/bench.Echo/Chat", b"127.0.0.1")
        writers = [heads.Writer(heads.GO, frozenset()) for _ in self._connections]
        for at in range(self._asked.streams):
            which = at % len(self._connections)
            connection = self._connections[which]
            stream = Stream(
                2 * len(connection.streams) + 1, self._asked.messages, connection.stream_window
            )
            fields = [*constant, (b"x-user-id", b"user-%04d" % at)]
            block = writers[which].block(fields)
            connection.out += frame(frames.HEADERS, frames.END_HEADERS, stream.number, block)
            connection.streams[stream.number] = stream
            if self._asked.rate:
                first = began + at / self._asked.streams / self._asked.rate
                heapq.heappush(self._due, (first, at, connection, stream))
            else:
                self._send(connection, stream, began)

    def _send(self, connection: Connection, stream: Stream, due: float) -> None:
        size = len(self._message)
        stream.due.append(due)
        stream.unsent -= 1
        if min(connection.window, stream.window) < size:
            stream.waiting = True
            return
        connection.window -= size
        stream.window -= size
        connection.out += frame(frames.DATA, 0, stream.number, self._message)

    def _send_due(self) -> None:
        """What is due by now, in the order of time; a stream's turns come at its rate."""
        now = time.monotonic()
        touched = set()
        while self._due and self._due[0][0] <= now:
            due, at, connection, stream = heapq.heappop(self._due)
            if stream.number not in connection.streams or connection.gone:
                continue
            self._send(connection, stream, due)
            touched.add(connection)
            if stream.unsent:
                heapq.heappush(self._due, (due + 1 / self._asked.rate, at, connection, stream))
        for connection in touched:
            connection.flush()

    def _turn(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        touched = connection.receive(data)
        if connection.gone:
            self._selector.unregister(connection.sock)
        for stream in touched:
            self._returned(connection, stream)
        for stream in [s for s in connection.streams.values() if s.waiting]:
            self._retry(connection, stream)
        connection.flush()

    def _retry(self, connection: Connection, stream: Stream) -> None:
        size = len(self._message)
        if min(connection.window, stream.window) >= size:
            stream.waiting = False
            connection.window -= size
            stream.window -= size
            connection.out += frame(frames.DATA, 0, stream.number, self._message)

    def _returned(self, connection: Connection, stream: Stream) -> None:
        while stream.due and stream.received >= len(self._message):
            stream.received -= len(self._message)
            due = stream.due.pop(0)
            self.messages += 2
            now = time.monotonic()
            if self._asked.rate:
                self.latencies.append(round((now - due) * 1e6, 1))
            elif stream.unsent:
                self._send(connection, stream, now)
            if not stream.unsent and not stream.due:
                connection.out += frame(frames.DATA, frames.END_STREAM, stream.number)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--messages", type=int, required=True, help="of each stream")
    parser.add_argument("--body", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=0.0)
    asked = parser.parse_args()
    gc.disable()
    run = Run(asked)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    seconds = run.run()
    load = Load(
        calls=asked.streams,
        failed=0,
        seconds=seconds,
        latencies=run.latencies,
        messages=run.messages,
        extra={"broken": run.broken},
    )
    print(json.dumps(asdict(load)), flush=True)


if __name__ == "__main__":
    main()
