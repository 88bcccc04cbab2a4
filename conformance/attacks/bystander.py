"""A neighbour and its backend in a process of their own: what they wait for is the proxy, not the

Python that plays the attacker.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Self

from support.h2_backend import h2_backend
from support.neighbours import Neighbour

PAUSE = 0.02
"""Seconds between two calls of the neighbour; what they cost by themselves is taken off."""


class Bystander:
    """`address` is its backend's. It calls from `begin` to the end of the block."""

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs,), daemon=True)
        self._process.start()
        self.address: str = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("end")
        self._process.join()

    def begin(self, port: int, path: bytes) -> None:
        self._pipe.send((port, path))
        self._pipe.recv()

    @property
    def waits(self) -> list[float]:
        """Seconds that each of its calls took so far."""
        return self._look()[0]

    @property
    def failures(self) -> list[str]:
        return self._look()[1]

    def _look(self) -> tuple[list[float], list[str]]:
        self._pipe.send("look")
        waits, failures = self._pipe.recv()
        return waits, failures


def _run(pipe: Connection) -> None:
    with h2_backend() as backend:
        pipe.send(backend.address)
        port, path = pipe.recv()
        with Neighbour(port, path, pause=PAUSE) as neighbour:
            pipe.send("begun")
            while pipe.recv() != "end":
                pipe.send((neighbour.waits.copy(), neighbour.failures.copy()))
