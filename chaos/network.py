"""The lab: namespaces for the proxy and each backend, links between them, faults on the links.

    chaos-PID-N-0: calls and proxy    10.77.i.1  --- link i ---  10.77.i.2 :chaos-PID-N-i, a backend

A link is a pair of veth, or with a delay two TUN devices and a process between. Faults are rules of
nftables in the *receiver's* prerouting hook: a packet dropped in the sender's own output hook is an error
to its TCP (-EPERM), not a packet lost. Nothing leaves the namespaces, and no setting of the machine is
touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bench.children import Children
from bench.peers import environment
from chaos.job import BACKEND_PORT, PORT, Setup
from chaos.needs import TABLE, run, tool
from chaos.scenarios import Step

SYSCTLS = (
    "net.ipv4.tcp_no_metrics_save=1",  # no run inherits another's round-trip times and thresholds
    # Loss-based, as what most machines have. The machine's own default may be bbr, which hides what
    # loss does, and cubic may not be chosen in a namespace without a setting of the machine.
    "net.ipv4.tcp_congestion_control=reno",
    "net.ipv6.conf.all.disable_ipv6=1",
)
PATIENCE = 10.0  # seconds until a process says `ready`, a proxy listens, a backend tells its counts

ADMIN = 9901
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"

Counts = dict[str, int]


NETNS = Path("/etc/netns")


class LabError(Exception):
    """The lab could not be built, or something in it did not come up."""


def prefix() -> str:
    return f"chaos-{os.getpid()}-"


def forget_names(space: str) -> None:
    """The folder that made the lab's name server that of a namespace, if there is one."""
    folder = NETNS / space
    with contextlib.suppress(OSError):
        (folder / "resolv.conf").unlink()
        folder.rmdir()
        NETNS.rmdir()  # if it was ours alone


def sweep() -> None:
    """Take away the namespaces of labs whose process was killed."""
    for line in run(["ip", "netns", "list"]).splitlines():
        found = re.match(r"(chaos-(\d+)-\S+)", line)
        if found and not Path(f"/proc/{found[2]}").exists():
            forget_names(found[1])
            with contextlib.suppress(RuntimeError):
                run(["ip", "netns", "del", found[1]])


class Lab:
    """All of it for one run, from `with` to its end. `number`: which of those side by side."""

    def __init__(self, setup: Setup, folder: Path, number: int, tls: tuple[Path, Path]) -> None:
        self.setup = setup
        self.folder = folder
        self.connections_at_fault = 0
        self._children = Children()
        self._spaces = [f"{prefix()}{number}-{at}" for at in range(setup.backends + 1)]
        self._tls = tls
        self._backends: list[subprocess.Popen[bytes]] = []
        self._names: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for space in self._spaces:
                self._make(space)
            for at in range(1, len(self._spaces)):
                self._link(at)
                self._backends.append(self._backend(at))
            for backend in self._backends:
                _ready(backend)
            if self.setup.named:
                self._names = self._name_server()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for backend in self._backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(backend.pid, signal.SIGCONT)
        self._children.__exit__(kind, error, tb)
        forget_names(self._spaces[0])
        for space in self._spaces:
            with contextlib.suppress(RuntimeError):
                run(["ip", "netns", "del", space])

    # --- building

    def _make(self, space: str) -> None:
        run(["ip", "netns", "add", space])
        self.inside(space, "ip", "link", "set", "lo", "up")
        self.inside(space, "sysctl", "-qw", *SYSCTLS)
        self._rules(space, TABLE)

    def _link(self, at: int) -> None:
        ours, theirs = self._spaces[0], self._spaces[at]
        if self.setup.rtt:
            addresses = f"10.77.{at}.1", f"10.77.{at}.2"
            words = [ours, theirs, f"d{at}", *addresses, str(self.setup.rtt / 2)]
            argv = [sys.executable, "-m", "chaos.delay", *words]
            _ready(self._children.start(argv, output=subprocess.PIPE, errors=None))
            return
        pair = ["netns", ours, "type", "veth", "peer", "name", f"v{at}", "netns", theirs]
        run(["ip", "link", "add", f"v{at}", *pair])
        for space, last in ((ours, 1), (theirs, 2)):
            self.inside(space, "ip", "addr", "add", f"10.77.{at}.{last}/24", "dev", f"v{at}")
            # With offloads one lost "packet" would be 64 KB.
            self.inside(space, "ethtool", "-K", f"v{at}", "tso", "off", "gso", "off", "gro", "off")
            self.inside(space, "ip", "link", "set", f"v{at}", "up")

    def _backend(self, at: int) -> subprocess.Popen[bytes]:
        setup = self.setup
        words = ["--name", f"b{at}", "--kind", setup.kind, "--size", str(setup.answer)]
        words += ["--service", str(setup.service), "--tail", str(setup.tail)]
        if setup.tls:
            words += ["--tls", *map(str, self._tls)]
        argv = self.argv(at, [sys.executable, "-m", "chaos.backend", *words])
        pipe = subprocess.PIPE
        return self._children.start(argv, output=pipe, given=pipe, errors=None)

    def _name_server(self) -> subprocess.Popen[bytes]:
        """`ip netns exec` puts what lies in a namespace's folder of /etc/netns over /etc."""
        folder = NETNS / self._spaces[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        argv = self.argv(0, [sys.executable, "-m", "chaos.names", *self.addresses])
        pipe = subprocess.PIPE
        server = self._children.start(argv, output=pipe, given=pipe, errors=None)
        _ready(server)
        return server

    # --- processes

    def argv(self, at: int, command: Sequence[str]) -> list[str]:
        """The command, run in a namespace: 0 is the proxy's."""
        return [tool("ip"), "netns", "exec", self._spaces[at], *command]

    def inside(self, space: str, *command: str) -> str:
        return run(["ip", "netns", "exec", space, tool(command[0]), *command[1:]])

    def start(self, command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
        """Beside the proxy's end of all links."""
        argv = self.argv(0, command)
        return self._children.start(argv, output=said, errors=said, env=environment())

    def stop(self, child: subprocess.Popen[bytes]) -> None:
        self._children.stop(child)

    def wait_listening(self, child: subprocess.Popen[bytes], said: Path) -> None:
        """Raises LabError with the last that it wrote to `said`."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and child.poll() is None:
            if self.inside(self._spaces[0], "ss", "-Htln", "sport", f"= :{PORT}").strip():
                return
            time.sleep(0.05)
        words = said.read_text(errors="replace").strip().splitlines()[-3:]
        raise LabError("; ".join(words) or f"did not listen within {PATIENCE:.0f} s")

    def ask(self, path: str) -> str:
        """What the admin port of stickyproxy says, or Envoy's."""
        argv = [sys.executable, "-c", FETCH, f"http://127.0.0.1:{ADMIN}{path}"]
        return run(self.argv(0, argv))

    # --- backends

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"10.77.{at}.2" for at in range(1, len(self._spaces)))

    def tell(self, at: int, word: str) -> Counts:
        """A word to a backend, and its counts. Raises LabError if it says nothing (it is frozen)."""
        counts: Counts = json.loads(_asked(self._backends[at - 1], word))
        return counts

    def counts(self) -> list[Counts]:
        return [self.tell(at, "stats") for at in range(1, len(self._spaces))]

    # --- faults

    def do(self, step: Step) -> None:
        """What a scenario has happen now, to a backend and its link."""
        at = step.backend
        if step.what in ("loss", "cut"):
            percent = step.value if step.what == "loss" else 100.0
            for one in range(1, len(self._spaces)) if step.everywhere else (at,):
                self._lose(one, percent)
        elif step.what == "heal":
            for space in self._spaces:
                self._rules(space, "flush chain ip chaos pre")
        elif step.what == "cut-connection":
            self._cut_busiest(at)
        elif step.what in ("freeze", "thaw"):
            stop = step.what == "freeze"
            os.kill(self._backends[at - 1].pid, signal.SIGSTOP if stop else signal.SIGCONT)
        elif step.what.startswith("names"):
            if self._names is None:
                raise LabError("backends have no name here")
            _asked(self._names, step.what)
        else:
            self.tell(at, step.what)

    def _rules(self, space: str, text: str) -> None:
        run(["ip", "netns", "exec", space, tool("nft"), "-f", "-"], text + "\n")

    def _drop(self, at: int, to_backend: str, to_proxy: str) -> None:
        add = "add rule ip chaos pre ip saddr"
        self._rules(self._spaces[at], f"{add} 10.77.{at}.1 {to_backend} drop")
        self._rules(self._spaces[0], f"{add} 10.77.{at}.2 {to_proxy} drop")

    def _lose(self, at: int, percent: float) -> None:
        share = round(percent * 100)
        what = "" if share >= 10_000 else f"numgen random mod 10000 < {share}"
        self._drop(at, what, what)

    def _cut_busiest(self, at: int) -> None:
        """One connection is dropped, both ways, for good: the one that has carried the most."""
        found = self.connections(at)
        self.connections_at_fault = len(found)
        if not found:
            raise LabError("there is no connection to cut")
        self._drop(at, f"tcp sport {found[0]}", f"tcp dport {found[0]}")

    def connections(self, at: int) -> list[int]:
        """Ports of the proxy's established connections to a backend, the busiest first."""
        asked = ("state", "established", "dst", f"10.77.{at}.2:{BACKEND_PORT}")
        return busiest(self.inside(self._spaces[0], "ss", "-HtniO", *asked))


def busiest(said: str) -> list[int]:
    """Local ports in what `ss -HtniO` says, those that sent the most first."""
    found = []
    for line in said.splitlines():
        port = re.search(r"\d+\.\d+\.\d+\.\d+:(\d+)", line)
        sent = re.search(r"bytes_sent:(\d+)", line)
        if port:
            found.append((-int(sent[1]) if sent else 0, int(port[1])))
    return [port for _, port in sorted(found)]


def _asked(child: subprocess.Popen[bytes], word: str) -> bytes:
    """What a process of the lab says to a word."""
    if not child.stdin or not child.stdout:
        raise LabError("a process without pipes")
    child.stdin.write(word.encode() + b"\n")
    child.stdin.flush()
    if not select.select([child.stdout], [], [], PATIENCE)[0]:
        raise LabError(f"nothing answers to {word}")
    return child.stdout.readline()


def _ready(child: subprocess.Popen[bytes]) -> None:
    out = child.stdout
    said = out.readline() if out and select.select([out], [], [], PATIENCE)[0] else b""
    if said.strip() != b"ready":
        raise LabError("a process of the lab did not come up")
