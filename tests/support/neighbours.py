"""A client beside the one that misbehaves: it asks and asks, and must get every answer."""

from __future__ import annotations

import threading
import time
from typing import Self

from support.http_clients import h2_request, raw_h2_client

PAUSE = 0.01
"""Seconds between its calls: most of the machine is the attacker's."""


class Neighbour:
    """Calls one after the other, on one HTTP/2 connection, while the block runs.

    `waits` are the seconds that each answer took, `failures` what else came. The block does not end
    before an answer to a call that began in its last moment.
    """

    def __init__(self, port: int, path: bytes = b"/neighbour", *, pause: float = PAUSE) -> None:
        self.waits: list[float] = []
        self.failures: list[str] = []
        self._port = port
        self._path = path
        self._pause = pause
        self._begun = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with raw_h2_client(self._port) as client:
                stream = 1
                last = False
                while not last:
                    last = self._over.is_set()
                    since = time.perf_counter()
                    client.request(stream, h2_request(self._path))
                    head, _, _ = client.response(stream)
                    self.waits.append(time.perf_counter() - since)
                    if head[b":status"] != b"200":
                        self.failures.append(f"status {head[b':status']!r}")
                    stream += 2
                    self._begun.set()
                    self._over.wait(self._pause)
        except (AssertionError, OSError) as error:
            self.failures.append(str(error))
        finally:
            self._begun.set()
