"""A backend of the lab: one process, one thread, h2c and HTTP/1.1 on one port, or TLS.

    python -m chaos.backend --name b1 --kind get --size 2 --service 0.01 [--tail 20] [--tls CERT KEY]

It says `ready`, and then answers each word on its stdin by a line of JSON with what it has seen:
`stats` nothing else; `rst` resets all connections; `goaway` sends GOAWAY on all; `deaf` answers PING and
nothing else from now on; `mute` resets all connections, takes new ones and says nothing on them;
`well` ends both. It ends when its stdin does.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import heapq
import json
import math
import os
import random
import selectors
import socket
import ssl
import struct
import sys
import time
from dataclasses import asdict

from bench import frames
from chaos.answers import Answers, Chat, Http1, Speech
from chaos.job import BACKEND_PORT, CHAT, UNARY

READ = 1 << 18
P99 = 2.326  # standard deviations: 99 % of a normal distribution lie below


class Service:
    """How long answers take, in seconds."""

    def __init__(self, median: float, tail: float, seed: int = 1) -> None:
        self._median = median
        self._sigma = math.log(tail) / P99 if tail > 1 else 0.0
        self._random = random.Random(seed)

    def next(self) -> float:
        if not self._sigma:
            return self._median
        return self._median * math.exp(self._random.gauss(0.0, self._sigma))


class Connection:
    """A socket and, once its first octets are there, what answers on it."""

    def __init__(self, sock: socket.socket, speech: Speech, *, mute: bool) -> None:
        self.sock = sock
        self.writing = False
        self.answers: Answers | Http1 | None = None
        self._speech = speech
        self._mute = mute
        self._start = b""

    def read(self) -> bool:
        """What is there. False when the peer is gone."""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while data := self.sock.recv(READ):
                if not self._mute:
                    self._receive(data)
                if not isinstance(
                    self.sock, ssl.SSLSocket
                ):  # which may hold what select cannot see
                    return True
            return False
        return True

    def _receive(self, data: bytes) -> None:
        if self.answers:
            self.answers.receive(data)
            return
        self._start += data
        if self._start.startswith(frames.PREFACE):
            self.answers = (Chat if self._speech.kind == CHAT else Answers)(self._speech)
            self.answers.receive(self._start[len(frames.PREFACE) :])
        elif not frames.PREFACE.startswith(self._start):
            self.answers = Http1(self._speech)
            self.answers.receive(self._start)

    def write(self) -> None:
        answers = self.answers
        while answers and answers.out:
            try:
                sent = self.sock.send(answers.out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            del answers.out[:sent]
            answers.produce()
        self.writing = bool(answers and answers.out)


class Server:
    """The port, its connections, and the answers that are due."""

    def __init__(self, speech: Speech, service: Service, tls: ssl.SSLContext | None) -> None:
        self._speech = speech
        self._service = service
        self._tls = tls
        self._mute = False
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[float, int, Connection, int]] = []
        self._number = 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("0.0.0.0", BACKEND_PORT), backlog=1024)  # noqa: S104 - in a namespace of its own
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self, words: int) -> None:
        """Serve until the descriptor `words` is at its end."""
        self._selector.register(words, selectors.EVENT_READ)
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, _ in self._selector.select(wait):
                if key.fd == words:
                    if not self._told(os.read(words, 4096)):
                        return
                elif key.data is None:
                    self._accept()
                else:
                    self._turn(key.data)
            self._answer_due()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._speech.counts.accepted += 1
            connection = Connection(sock, self._speech, mute=self._mute)
            self._connections[sock.fileno()] = connection
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _turn(self, connection: Connection) -> None:
        try:
            alive = connection.read()
        except OSError:
            alive = False
        if not alive:
            self._close(connection)
            return
        if connection.answers:
            for stream in connection.answers.whole:
                self._later(connection, stream)
            connection.answers.whole.clear()
        self._flush(connection)

    def _later(self, connection: Connection, stream: int) -> None:
        if not self._speech.deaf:
            self._number += 1
            due = time.monotonic() + self._service.next()
            heapq.heappush(self._due, (due, self._number, connection, stream))

    def _answer_due(self) -> None:
        touched = set()
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, connection, stream = heapq.heappop(self._due)
            if connection.answers:
                connection.answers.answer(stream)
                touched.add(connection)
        for connection in touched:
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        if self._connections.get(connection.sock.fileno()) is not connection:
            return
        before = connection.writing
        try:
            connection.write()
        except OSError:
            self._close(connection)
            return
        if connection.answers and connection.answers.over and not connection.writing:
            self._close(connection)
        elif before != connection.writing:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.writing else 0)
            self._selector.modify(connection.sock, events, connection)

    def _close(self, connection: Connection, *, reset: bool = False) -> None:
        if self._connections.pop(connection.sock.fileno(), None):
            self._selector.unregister(connection.sock)
            if reset:  # RFC 9293 §3.10.4's ABORT: RST instead of FIN
                linger = struct.pack("ii", 1, 0)
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sock.close()

    def _told(self, said: bytes) -> bool:
        for word in said.decode().split():
            self._do(word)
            counts = asdict(self._speech.counts) | {"open": len(self._connections)}
            print(json.dumps(counts), flush=True)
        return bool(said)

    def _do(self, word: str) -> None:
        if word in ("deaf", "mute", "well"):
            self._speech.deaf, self._mute = word == "deaf", word == "mute"
        for connection in list(self._connections.values()):
            if word in ("rst", "mute"):
                self._close(connection, reset=True)
            elif word == "goaway" and connection.answers:
                connection.answers.leave()
                self._flush(connection)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chaos.backend", description=__doc__)
    parser.add_argument("--name", default="b1")
    parser.add_argument("--kind", default=UNARY)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--service", type=float, default=0.01)
    parser.add_argument("--tail", type=float, default=1.0)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    asked = parser.parse_args()
    context = None
    if asked.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*asked.tls)
        context.set_alpn_protocols(["h2", "http/1.1"])
    speech = Speech(asked.name, asked.kind, asked.size)
    server = Server(speech, Service(asked.service, asked.tail), context)
    gc.disable()  # nothing here makes cycles; a collection would be somebody's latency
    print("ready", flush=True)
    server.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
