"""The proxies under test: where each is found, and how it is started for a Job."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.peers import ENVOY, WISHES, find, version
from chaos import envoy
from chaos.job import BACKEND_PORT, CHAT, NAME, PORT, USER, Job, Setup

OURS, SAFE = "sticky", "sticky-safe"
BASE = "envoy-h2"
"""The peer that all are compared with."""

STREAMS = envoy.STREAMS


@dataclass(frozen=True, slots=True)
class Peer:
    """`prepare` writes its files and returns the command; `able`: it can do what a Setup asks."""

    name: str
    version: str
    prepare: Callable[[Job], list[str]]
    able: Callable[[Setup], bool] = lambda _: True
    ours: bool = False


def present(rivals: Sequence[str] = (), extra: str = "") -> tuple[list[Peer], list[str]]:
    """Those that are here, and what is missing, in words.

    `rivals` are NAME=COMMAND, other builds of stickyproxy; `extra`: more arguments for ours.
    """
    found: list[Peer] = []
    missing = []
    for name, make in ((ENVOY, _envoys), ("haproxy", _haproxy), ("nghttpx", _nghttpx)):
        if binary := find(name):
            found += make(binary)
        else:
            missing.append(f"{name} ({WISHES[name]})")
    ours = [sys.executable, "-m", "stickyproxy"]
    found += _sticky(OURS, SAFE, ours, shlex.split(extra))
    for rival in rivals:
        name, _, command = rival.partition("=")
        found += _sticky(name, f"{name}-safe", shlex.split(command), [])
    return found, missing


def _envoys(binary: str) -> list[Peer]:
    said = version(binary, "--version")
    make = envoy.argv
    return [
        Peer(BASE, said, lambda job: make(binary, job, envoy.DEFAULT), _http2),
        Peer(
            "envoy-h1",
            said,
            lambda job: make(binary, job, envoy.HTTP1),
            lambda setup: not setup.grpc,  # gRPC needs HTTP/2
        ),
        # Its thresholds fit a quick GET, and a try of 30 ms is none for a stream or a megabyte.
        Peer("envoy-max", said, lambda job: make(binary, job, envoy.most()), _quick),
    ]


def _http2(setup: Setup) -> bool:
    return not setup.http1


def _unnamed(setup: Setup) -> bool:
    return not setup.named


def _quick(setup: Setup) -> bool:
    return not setup.http1 and setup.kind != CHAT and setup.answer < 100_000 and setup.tail <= 1


def _haproxy(binary: str) -> list[Peer]:
    def prepare(job: Job) -> list[str]:
        path = job.folder / "haproxy.cfg"
        path.write_text(haproxy(job))
        return [binary, "-db", "-q", "-f", str(path)]

    return [Peer("haproxy", version(binary, "-v"), prepare, _unnamed)]


def haproxy(job: Job) -> str:
    spoken = "" if job.setup.http1 else "proto h2"
    kind = "ssl verify none alpn h2" if job.setup.tls else spoken
    servers = "\n".join(
        f"  server b{at} {host}:{BACKEND_PORT} {kind}" for at, host in enumerate(job.backends, 1)
    )
    seconds = job.timeout or 3600
    policy = f"hdr({USER})\n  hash-type consistent" if job.setup.sticky else "roundrobin"
    return f"""global
  nbthread 1
  maxconn 4000
  tune.h2.max-concurrent-streams {STREAMS}
defaults
  mode http
  timeout connect 1s
  timeout client 3600s
  timeout server {seconds}s
listen lab
  bind 127.0.0.1:{PORT} proto h2
  balance {policy}
{servers}
"""


def _nghttpx(binary: str) -> list[Peer]:
    said = version(binary, "--version")

    def able(setup: Setup) -> bool:
        return not setup.sticky and not setup.named  # it hashes a client's address only

    return [Peer("nghttpx", said, partial(nghttpx, binary), able)]


def nghttpx(binary: str, job: Job) -> list[str]:
    kind = "proto=http/1.1" if job.setup.http1 else "proto=h2"
    kind += ";tls" * job.setup.tls
    seconds = job.timeout or 3600
    return [
        binary,
        "--conf=/dev/null",
        "--workers=1",
        "--log-level=ERROR",
        f"--errorlog-file={job.folder}/nghttpx.err",
        f"--pid-file={job.folder}/nghttpx.pid",
        f"--frontend-http2-max-concurrent-streams={STREAMS}",
        f"--backend-read-timeout={seconds}",
        f"--stream-read-timeout={seconds}",
        f"--frontend=127.0.0.1,{PORT};no-tls",
        "--insecure",
        *(f"--backend={host},{BACKEND_PORT};;{kind}" for host in job.backends),
    ]


def _sticky(name: str, safe: str, command: Sequence[str], more: Sequence[str]) -> list[Peer]:
    """Twice: with a route that says its calls may be sent again, and with one that does not."""
    said = version(*command, "--version")

    def prepare(job: Job, *, idempotent: bool) -> list[str]:
        path = job.folder / "lab.yaml"
        path.write_text(mapping(job, idempotent=idempotent))
        return [*sticky(command, str(path)), *more]

    return [
        Peer(name, said, partial(prepare, idempotent=True), ours=True),
        Peer(safe, said, partial(prepare, idempotent=False), ours=True),
    ]


def sticky(command: Sequence[str], path: str) -> list[str]:
    return [
        *command,
        "run",
        path,
        *("--bind", f"h2c://127.0.0.1:{PORT}"),
        *("--access-log", "off"),
        *("--drain-delay", "0"),
        *("--drain-timeout", "1"),
        *("--max-concurrent-streams", str(STREAMS)),
    ]


def counted(job: Job, tasks: Path) -> list[str]:
    """Ours with an idempotent route; how many tasks it has stands in the file `tasks`."""
    path = job.folder / "lab.yaml"
    path.write_text(mapping(job, idempotent=True))
    return sticky([sys.executable, "-m", "chaos.counted", str(tasks)], str(path))


def mapping(job: Job, *, idempotent: bool) -> str:
    """A Mapping as YAML (JSON is YAML). Of the pool's own settings it says nothing."""
    scheme = "h2" if job.setup.tls else "http" if job.setup.http1 else "h2c"
    places = {} if job.setup.named else {"endpoints": [f"{h}:{BACKEND_PORT}" for h in job.backends]}
    balance = (
        {"policy": "maglev", "header": USER} if job.setup.sticky else {"policy": "round_robin"}
    )
    document = {
        "apiVersion": "ambassador/v1",
        "kind": "Mapping",
        "name": "lab",
        "prefix": "/",
        "rewrite": "",
        "grpc": job.setup.grpc,
        "service": f"{scheme}://{NAME if job.setup.named else 'lab'}:{BACKEND_PORT}",
        **places,
        "timeout_ms": job.timeout * 1000,
        "load_balancer": balance,
        **({"idempotent": True} if idempotent else {}),
    }
    return json.dumps(document, indent=1) + "\n"
