"""Autobahn's cases of RFC 6455 through us, over HTTP/1.1 and over HTTP/2 (RFC 8441) on either side.

kosoku runs the cases and knows HTTP/1.1 without TLS; HAProxy speaks RFC 8441 for it, before us or behind
us. Left out are 9 (performance), 12 and 13 (compression, which is the endpoints' affair).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.peers import find
from conformance.board.peers import free_port, serving
from conformance.board.proxied import proxied
from conformance.board.results import DIRECT, WAYS, Run, Suite, Way
from conformance.board.tools import Installed, PipTool

KOSOKU = PipTool("kosoku", "0.1.0")
HAPROXY = Installed("haproxy", "Debian: apt-get install haproxy")
H1, H2, H2_BEHIND = (
    "Autobahn, HTTP/1.1",
    "Autobahn, RFC 8441 from the client",
    "Autobahn, RFC 8441 to the backend",
)
LEFT_OUT = ("9.*", "12.*", "13.*")
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""Strictness is a matter of timing in some cases, with nobody in between as well."""
AT_ONCE = "4"  # cases that run at the same time; most of a case is waiting
TIMEOUT = 600.0  # seconds a run; it takes 3 to 10

CONFIG = """\
defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 60s
listen conformance
  bind 127.0.0.1:{port} {bind}
  server next 127.0.0.1:{next} {server}
"""


def play(way: Way, folder: Path) -> Iterator[Run]:
    if way.direct:
        yield _measured(H1, way, folder)
    else:
        rows = (H2,) if way.tls else (H1, H2, H2_BEHIND)
        for row in rows:
            yield _measured(row, way, folder)


def _measured(row: str, way: Way, folder: Path) -> Run:
    began = time.monotonic()
    with ExitStack() as running:
        port = _echo(running)
        if row == H2_BEHIND:
            port = _haproxy(running, folder, port, bind="proto h2")
        if not way.direct:
            scheme = "h2c" if row == H2_BEHIND else "http"
            flags = ("--backend", f"{scheme}://127.0.0.1:{port}", "--allow-upgrade", "websocket")
            port = running.enter_context(proxied(way, folder, *flags, scheme="")).port
        if row == H2:
            tls = "ssl verify none alpn h2" if way.tls else "proto h2"
            port = _haproxy(running, folder, port, server=f"{tls} ws h2")
        failed, cases = _asked(port, folder / f"{row}-{way}".replace("/", ""))
    return Run(row, way, cases, failed, time.monotonic() - began)


def _echo(running: ExitStack) -> int:
    port = free_port()
    program = str(Path(__file__).with_name("echo.py"))
    running.enter_context(serving(sys.executable, program, str(port), port=port))
    return port


def _haproxy(
    running: ExitStack, folder: Path, target: int, *, bind: str = "", server: str = ""
) -> int:
    port = free_port()
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(CONFIG.format(port=port, bind=bind, next=target, server=server))
    command = [str(find("haproxy")), "-db", "-q", "-f", str(config)]
    running.enter_context(serving(*command, port=port))
    return port


def _asked(port: int, output: Path) -> tuple[dict[str, str], int]:
    """What failed, and how many cases there were."""
    excluded = [flag for case in LEFT_OUT for flag in ("--exclude", case)]
    done = subprocess.run(
        [
            *(str(KOSOKU.binary), "--parallelism", AT_ONCE, "--outdir", str(output)),
            *(*excluded, f"127.0.0.1:{port}"),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    report = output / "index.json"
    if not report.exists():
        raise RuntimeError(f"kosoku wrote no report: {(done.stdout + done.stderr)[-300:]}")
    [found] = json.loads(report.read_text()).values()
    return {
        case: f"{told['behavior']}, close {told['behaviorClose']}"
        for case, told in found.items()
        if not {told["behavior"], told["behaviorClose"]} <= PASSED
    }, len(found)


SUITE = Suite(
    "autobahn",
    {H1: "all five 247"},
    (DIRECT, *WAYS),
    [KOSOKU, HAPROXY],
    play,
)
