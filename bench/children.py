"""Processes of a measurement: started here, and ended here whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

GRACE = 3.0  # seconds from SIGTERM to SIGKILL
START = 20.0  # seconds a proxy may take until it listens
ROOT = Path(__file__).parents[1]


class StartError(Exception):
    """A process did not come up; the message says what it said."""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Children:
    """All processes that this run started, each in a session of its own.

    The session keeps Ctrl-C from them, so that they are ended in order by us, and lets a whole
    tree be ended. If we are killed outright, `setpriv` has the kernel end them.
    """

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        setpriv = shutil.which("setpriv")
        self._prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for child in reversed(self._running.copy()):
            self.stop(child)

    def start(
        self,
        argv: Sequence[str],
        *,
        output: IO[bytes] | int = subprocess.DEVNULL,
        errors: IO[bytes] | int | None = subprocess.DEVNULL,
        given: int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [*self._prefix, *argv],
            stdin=given,
            stdout=output,
            stderr=errors,
            cwd=ROOT,
            env=dict(os.environ if env is None else env),
            start_new_session=True,
        )
        self._running.append(child)
        return child

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        """End it and all that it started. Once is enough, twice does no harm."""
        if child in self._running:
            self._running.remove(child)
        for pipe in (child.stdin, child.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        if child.poll() is None:
            child.terminate()  # it alone: masters end their workers themselves, and reap them
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)  # what is left of its session
        child.wait()


def wait_listening(child: subprocess.Popen[bytes], port: int, said: Path) -> None:
    """Until `port` takes a connection. Raises StartError with the last that it wrote to `said`."""
    until = time.monotonic() + START
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    words = said.read_text(errors="replace").strip().splitlines()[-3:] if said.exists() else []
    raise StartError("; ".join(words) or f"did not listen within {START:.0f} s")
