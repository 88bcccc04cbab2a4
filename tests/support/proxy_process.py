"""The real proxy as a process of its own, for end-to-end tests.

Ports are the kernel's choice; the proxy's own log line says which. Everything it wrote is kept, so a
test can say what the access log must hold.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

START_TIMEOUT = 30.0
"""Seconds; a busy CI machine needs one or two."""


KEEPS_IDS = "STICKYPROXY_PRESERVE_EXTERNAL_REQUEST_ID"
"""Tests find a call's line in the log by the id that they sent; "" is the default, which makes its own."""


class ProxyProcess:
    """`port` is that of the first bind, `ports` of all; `admin_port` 0 when switched off."""

    def __init__(self, process: subprocess.Popen[bytes], *, stuck: bool = False) -> None:
        self.process = process
        self.ports: list[int] = []
        self.admin_port = 0
        self.events: list[dict[str, Any]] = []
        self.access: list[dict[str, Any]] = []
        self._lock = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((process.stderr, self.events), (process.stdout, self.access))
            if not (stuck and stream is process.stdout)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[bytes], lines: list[dict[str, Any]]) -> None:
        with stream:
            for raw in stream:
                try:
                    line = json.loads(raw)
                except ValueError:
                    line = {"event": "unparsed", "text": raw.decode(errors="replace")}
                with self._lock:
                    lines.append(line)
                    self._lock.notify_all()

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_until(self, holds: Callable[[], bool], timeout: float = START_TIMEOUT) -> None:
        """Wait, woken by each line the proxy writes, until `holds()`; fail the test otherwise."""
        end = time.monotonic() + timeout
        with self._lock:
            while not holds():
                left = end - time.monotonic()
                if left <= 0:
                    message = f"not within {timeout} s; it said {self.events[-5:]}"
                    raise AssertionError(message)
                self._lock.wait(min(left, 0.05))

    def wait_for_event(self, event: str, count: int = 1) -> dict[str, Any]:
        """The latest operator-log line of that name, once there are `count` of them."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.events if line.get("event") == event]

        self.wait_until(lambda: len(found()) >= count or self.process.poll() is not None)
        if len(found()) < count:
            message = f"it ended with {self.process.poll()} before {event!r}: {self.events}"
            raise AssertionError(message)
        return found()[-1]

    def wait_for_access(self, count: int) -> list[dict[str, Any]]:
        """All access-log lines, once there are at least `count`."""
        self.wait_until(lambda: len(self.access) >= count)
        return list(self.access)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 40.0) -> int:
        """The exit code."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(5)
        return code

    def stop(self) -> None:
        """End it now, however it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for reader in self._readers:
            reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stickyproxy", *arguments]


@contextmanager
def running_proxy(
    *arguments: str,
    binds: Sequence[str] = ("127.0.0.1:0",),
    admin: str = "127.0.0.1:0",
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stuck: bool = False,
    log: IO[bytes] | None = None,
    within: Sequence[str] = (),
) -> Iterator[ProxyProcess]:
    """`stickyproxy run` with JSON logs, ready to serve; ended with the block.

    `stuck`: nobody reads its access log. `log`: that goes there. `within`: a command that runs it.
    """
    flags = [flag for bind in binds for flag in ("--bind", bind)]
    process = subprocess.Popen(
        [*within, *command("run", *flags, "--admin", admin, "--log-format", "json", *arguments)],
        stdout=subprocess.PIPE if log is None else log,
        stderr=subprocess.PIPE,
        env={**os.environ, KEEPS_IDS: "on", **(environment or {})},
        pass_fds=pass_fds,
    )
    proxy = ProxyProcess(process, stuck=stuck or log is not None)
    try:
        proxy.wait_for_event("listening", len(binds) or 1)  # without one Listeners say where
        for line in proxy.events:
            tail = str(line.get("bind", "")).rpartition(":")[2]
            port = int(tail) if tail.isdecimal() else 0  # 0: a unix socket
            if line.get("event") == "listening":
                proxy.ports.append(port)
            elif line.get("event") == "admin_listening":
                proxy.admin_port = port
        yield proxy
    finally:
        proxy.stop()
