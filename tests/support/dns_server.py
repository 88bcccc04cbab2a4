"""A resolver of our own on the loopback, for the system's own stub resolver to ask: no name is patched.

The process under test runs in a mount namespace in which /etc/resolv.conf names it, which takes root.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "127.0.0.54"  # loopback, so that port 53 is nobody else's
SERVFAIL = 2
_A, _IN = 1, 1


def missing() -> str:
    """Why it cannot run here; "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        return "needs root and unshare, for a resolv.conf of its own"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode:
        return "no mount namespace may be made here"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((ADDRESS, 53))
        except OSError as error:
            return f"port 53 of {ADDRESS} is not to be had: {error.strerror}"
    return ""


class Dns:
    """`known` maps names to addresses. `away` answers nobody, `broken` says SERVFAIL to all."""

    def __init__(self, **known: str) -> None:
        self.known = {name.replace("_", "."): address for name, address in known.items()}
        self.away = self.broken = False
        self.asked = 0
        self._stopped = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (ADDRESS, 53))
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(512)
            if self._stopped:
                return
            self.asked += 1
            if not self.away:
                self._socket.sendto(self._answer(question), peer)

    def _answer(self, question: bytes) -> bytes:
        """RFC 1035 §4: one question, at most one address."""
        end, labels = 12, []
        while question[end]:
            labels.append(question[end + 1 : end + 1 + question[end]].decode())
            end += 1 + question[end]
        kind = int.from_bytes(question[end + 1 : end + 3])
        asked = question[12 : end + 5]
        address = self.known.get(".".join(labels).lower())
        code = SERVFAIL if self.broken else 0 if address else 3
        found = kind == _A and address is not None and not self.broken
        head = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, int(found), 0, 0)
        record = b""
        if found and address is not None:
            record = struct.pack("!HHHIH", 0xC00C, _A, _IN, 1, 4) + socket.inet_aton(address)
        return head + asked + record


@contextmanager
def dns_server(**known: str) -> Iterator[Dns]:
    server = Dns(**known)
    try:
        yield server
    finally:
        server.stop()


def resolved_by(folder: Path) -> tuple[str, ...]:
    """What to put before a command so that it asks that server, and soon gives up."""
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {ADDRESS}\noptions timeout:1 attempts:1\n")
    script = f'mount --bind "{conf}" /etc/resolv.conf && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
