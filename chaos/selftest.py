"""Every fault, tried: what it should do is done, what it should not is not. Some seconds, as root.

A fault that does nothing makes any proxy look good, which is why this comes before figures.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import certificate, frames
from chaos.job import BACKEND_PORT, UNARY, Setup
from chaos.needs import tool
from chaos.network import Lab, sweep
from chaos.scenarios import Step

PROBE = r"""
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
sock.sendall(bytes.fromhex(sys.argv[3]))
sock.settimeout(float(sys.argv[4]))
said = b""
print(sock.getsockname()[1], flush=True)
try:
    while data := sock.recv(65536):
        said += data
    end = "closed"
except TimeoutError:
    end = "open"
except ConnectionResetError:
    end = "reset"
print(end, said.hex())
"""
"""A connection in the proxy's place: its port, how it ended, and all that it was told."""

ASKED = frames.PREFACE + frames.settings() + frames.frame(frames.HEADERS, 5, 1, b"\x82\x86\x84")
PING = frames.frame(frames.PING, 0, 0, b"chaoslab")
LONG = 0.8  # seconds that a probe listens
PINGS = 600


class Checks:
    """What was found, said line by line."""

    def __init__(self) -> None:
        self.failed = 0

    def that(self, words: str, *, holds: bool, found: object) -> None:
        self.failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {words} ({found})", flush=True)


def main() -> int:
    """Exit code: 1 if a fault does not do what it should."""
    sweep()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="stickyproxy-chaos-") as scratch:
        folder = Path(scratch)
        tls = certificate.make(folder)
        for setup in (Setup(backends=2, kind=UNARY), Setup(backends=1, rtt=0.02, kind=UNARY)):
            with Lab(setup, folder / "lab", 0, tls) as lab:
                if setup.rtt:
                    _delay(lab, checks, setup.rtt * 1e3)
                else:
                    for trial in (_loss, _cut, _cut_connection, _freeze, _words):
                        trial(lab, checks)
    print(f"{checks.failed} checks failed" if checks.failed else "all faults work")
    return 1 if checks.failed else 0


def lost(lab: Lab, at: int, count: int = PINGS) -> float:
    """Percent of round trips."""
    said = _ping(lab, at, count)
    found = re.search(r"([\d.]+)% packet loss", said)
    return float(found[1]) if found else 100.0


def _ping(lab: Lab, at: int, count: int) -> str:
    words = ["-q", "-i", "0.002", "-W", "1", "-c", str(count), lab.addresses[at - 1]]
    argv = lab.argv(0, [tool("ping"), *words])
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def _loss(lab: Lab, checks: Checks) -> None:
    for percent in (5.0, 20.0):
        lab.do(Step(0, "loss", percent))
        both = 100 - (100 - percent) ** 2 / 100
        found = lost(lab, 1)
        near = abs(found - both) < 0.5 * both  # of 600 pings; the least is 6 deviations wide
        checks.that(f"loss{percent:g} loses {both:.1f} % of round trips", holds=near, found=found)
        others = lost(lab, 2, 100)
        checks.that("and none of another backend's", holds=others == 0, found=others)
        lab.do(Step(0, "heal"))
    healed = lost(lab, 1, 100)
    checks.that("heal ends it", holds=healed == 0, found=healed)


def _cut(lab: Lab, checks: Checks) -> None:
    lab.do(Step(0, "cut"))
    first, second = lost(lab, 1, 50), lost(lab, 2, 50)
    checks.that("cut: nothing passes", holds=first == 100, found=first)
    checks.that("but to another backend", holds=second == 0, found=second)
    lab.do(Step(0, "heal"))


@contextmanager
def probe(
    lab: Lab, asked: bytes, seconds: float = LONG
) -> Iterator[Callable[[], tuple[str, bytes]]]:
    """An open connection to the first backend, which has been asked; calling it waits for its end."""
    words = [lab.addresses[0], str(BACKEND_PORT), asked.hex(), str(seconds)]
    argv = lab.argv(0, [sys.executable, "-c", PROBE, *words])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        if running.stdout:
            running.stdout.readline()  # it is connected, and has asked

        def ended() -> tuple[str, bytes]:
            end, _, said = running.communicate()[0].strip().partition(" ")
            return end, bytes.fromhex(said)

        try:
            yield ended
        finally:
            running.kill()


def kinds(said: bytes) -> set[int]:
    return {kind for kind, flags, _, _ in frames.FrameReader().feed(said) if not flags & frames.ACK}


def answered(said: bytes) -> bool:
    return frames.HEADERS in {kind for kind, _, _, _ in frames.FrameReader().feed(said)}


def pinged(said: bytes) -> bool:
    found = frames.FrameReader().feed(said)
    return any(kind == frames.PING and flags & frames.ACK for kind, flags, _, _ in found)


def _cut_connection(lab: Lab, checks: Checks) -> None:
    with probe(lab, ASKED) as ended:
        time.sleep(0.1)
        lab.do(Step(0, "cut-connection"))
        with probe(lab, ASKED) as other:
            time.sleep(0.1)
            lab.do(Step(0, "goaway"))
            _, heard = other()
        end, said = ended()
    told = frames.GOAWAY in kinds(said)
    checks.that("cut-connection: it hears nothing more", holds=not told, found=end)
    told = frames.GOAWAY in kinds(heard)
    checks.that("and another one does", holds=told, found=len(heard))
    lab.do(Step(0, "heal"))


def _freeze(lab: Lab, checks: Checks) -> None:
    lab.do(Step(0, "freeze"))
    with probe(lab, ASKED + PING) as ended:
        end, said = ended()
    checks.that("freeze: connects, and hears nothing", holds=not said, found=end)
    found = lost(lab, 1, 50)
    checks.that("while its kernel answers", holds=found == 0, found=found)
    lab.do(Step(0, "thaw"))
    with probe(lab, ASKED + PING) as ended:
        end, said = ended()
    checks.that("thaw: it answers again", holds=answered(said), found=end)


def _words(lab: Lab, checks: Checks) -> None:
    with probe(lab, ASKED) as ended:
        time.sleep(0.1)
        lab.do(Step(0, "rst"))
        end, _ = ended()
    checks.that("rst: the connection is reset", holds=end == "reset", found=end)
    with probe(lab, ASKED) as ended:
        time.sleep(0.1)
        lab.do(Step(0, "goaway"))
        end, said = ended()
    told = frames.GOAWAY in kinds(said)
    checks.that("goaway: it is told, then closed", holds=told and end == "closed", found=end)
    lab.do(Step(0, "deaf"))
    with probe(lab, ASKED + PING) as ended:
        _, said = ended()
    deaf = pinged(said) and not answered(said)
    checks.that("deaf: PING is answered, a call is not", holds=deaf, found=len(said))
    lab.do(Step(0, "mute"))
    with probe(lab, ASKED + PING) as ended:
        end, said = ended()
    checks.that("mute: it connects, and not even SETTINGS come", holds=not said, found=end)
    lab.do(Step(0, "well"))
    with probe(lab, ASKED) as ended:
        end, said = ended()
    checks.that("well: it answers again", holds=answered(said), found=end)


def _delay(lab: Lab, checks: Checks, rtt: float) -> None:
    found = re.search(r"= [\d.]+/([\d.]+)/", _ping(lab, 1, 100))
    mean = float(found[1]) if found else 0.0
    checks.that(f"a delay of {rtt:g} ms there and back", holds=abs(mean - rtt) < 2, found=mean)
