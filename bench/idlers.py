"""The idle clients of a measurement: connections that made one call each and then say nothing.

    python -m bench.idlers --port P --connections 10000

It says `ready` once all are connected and answered, and holds them until its stdin ends.
"""

from __future__ import annotations

import argparse
import socket
import sys

from bench import frames, heads
from bench.answers import message
from bench.frames import FrameReader, frame

PATIENCE = 30.0  # seconds for one answer
BATCH = 100  # connections that are answered before the next ones dial: below every backlog


def call() -> bytes:
    """Preface and one whole request."""
    fields = [
        *heads.unary_fields(b"/bench.Echo/Call", b"127.0.0.1"),
        (b"x-user-id", b"user-0007"),
    ]
    block = heads.Writer(heads.GO, frozenset()).block(fields)
    head = frame(frames.HEADERS, frames.END_HEADERS, 1, block)
    return (
        frames.PREFACE
        + frames.settings()
        + head
        + frame(frames.DATA, frames.END_STREAM, 1, message(12))
    )


def await_answer(sock: socket.socket) -> None:
    """Raises ConnectionError if the peer hangs up."""
    reader = FrameReader()
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("hung up before it answered")
        for kind, flags, stream, payload in reader.feed(data):
            if kind == frames.SETTINGS and not flags & frames.ACK:
                sock.sendall(frame(frames.SETTINGS, frames.ACK, 0))
            elif kind == frames.PING and not flags & frames.ACK:
                sock.sendall(frame(frames.PING, frames.ACK, 0, payload))
            elif stream and flags & frames.END_STREAM and kind in (frames.DATA, frames.HEADERS):
                return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.idlers", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    asked = parser.parse_args()
    request = call()
    held: list[socket.socket] = []
    while len(held) < asked.connections:
        fresh = [
            socket.create_connection(("127.0.0.1", asked.port), timeout=PATIENCE)
            for _ in range(min(BATCH, asked.connections - len(held)))
        ]
        for sock in fresh:
            sock.sendall(request)
        for sock in fresh:
            await_answer(sock)
        held += fresh
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
