"""Programs that serve, for as long as a suite asks."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PATIENCE = 30.0
"""Seconds that a program has to begin listening; a busy machine needs one."""


def free_port() -> int:
    """For programs that do not say where they listen when told to choose."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def complaint(command: Sequence[str], timeout: float, *, wanted: str = "") -> str:
    """What a client said last; "" if it was content, or said what is wanted (a regular expression)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {timeout:.0f} s"
    if not done.returncode or (wanted and re.search(wanted, done.stderr)):
        return ""
    return " ".join((done.stderr.strip().splitlines() or ["it said nothing"])[-1].split())


@contextmanager
def serving(*command: str, port: int) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(process, port)
            yield
        finally:
            process.kill()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nobody listens on port {port}: {process.args!r} ended or is too slow")
