"""The backends of a measurement: one process that listens on many ports and answers at once.

    python -m bench.backend --ports 3 [--mode unary|echo|bulk] [--body BYTES]

HTTP/2 with prior knowledge and HTTP/1.1 on the same port. A unary call costs it about 5 us, so that
the proxy is what is measured. The ports are told as one line of JSON on stdout. It ends when its
stdin does, so that it outlives nobody.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import selectors
import socket
import sys

from bench import frames
from bench.answers import MODES, Http1, Http2

READ = 1 << 18  # octets a turn: whatever a proxy sends in one go


class Connection:
    """A socket and, once its first octets are there, what answers on it."""

    def __init__(self, sock: socket.socket, mode: str, body: int) -> None:
        self.sock = sock
        self.writing = False
        self._mode = mode
        self._body = body
        self._start = b""
        self._answers: Http1 | Http2 | None = None

    def serve(self) -> bool:
        """One turn: read, answer, send what goes. False when the peer is gone."""
        with contextlib.suppress(BlockingIOError):
            data = self.sock.recv(READ)
            if not data:
                return False
            self._receive(data)
        answers = self._answers
        while answers and answers.out:
            try:
                sent = self.sock.send(answers.out)
            except BlockingIOError:
                break
            del answers.out[:sent]
            answers.produce()
        self.writing = bool(answers and answers.out)
        return True

    def _receive(self, data: bytes) -> None:
        if self._answers:
            self._answers.receive(data)
            return
        self._start += data
        if self._start.startswith(frames.PREFACE):
            self._answers = MODES[self._mode](self._body)
            self._answers.receive(self._start[len(frames.PREFACE) :])
        elif not frames.PREFACE.startswith(self._start):
            self._answers = Http1(self._body)
            self._answers.receive(self._start)


class Server:
    """All ports and connections of the process."""

    def __init__(self, ports: int, mode: str, body: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._mode = mode
        self._body = body
        self.ports = [self._listen() for _ in range(ports)]

    def _listen(self) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)
        return int(listener.getsockname()[1])

    def run(self, until: int) -> None:
        """Serve until the descriptor `until` is at its end."""
        self._selector.register(until, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.fd == until:
                    if not os.read(until, 4096):
                        return
                elif key.data is None:
                    self._accept(key.fileobj)
                else:
                    self._serve(key.data)

    def _accept(self, listener: object) -> None:
        if isinstance(listener, socket.socket):
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = Connection(sock, self._mode, self._body)
                self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection) -> None:
        wrote = connection.writing
        try:
            alive = connection.serve()
        except OSError:
            alive = False
        if not alive:
            self._selector.unregister(connection.sock)
            connection.sock.close()
        elif wrote != connection.writing:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.writing else 0)
            self._selector.modify(connection.sock, events, connection)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.backend", description=__doc__)
    parser.add_argument("--ports", type=int, default=3)
    parser.add_argument("--mode", choices=sorted(MODES), default="unary")
    parser.add_argument("--body", type=int, default=12)
    asked = parser.parse_args()
    server = Server(asked.ports, asked.mode, asked.body)
    gc.disable()  # nothing here makes cycles; a collection would be somebody's latency
    print(json.dumps(server.ports), flush=True)
    server.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
