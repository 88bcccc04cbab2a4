"""h2spec: RFC 7540 and 7541 from the server's side, before a small HTTP/1.1 backend."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from conformance.board.proxied import proxied
from conformance.board.results import WAYS, Run, Suite, Way
from conformance.board.tools import GoTool
from support.http_backends import EchoBackend, echo_backends

H2SPEC = GoTool(
    "github.com/summerwind/h2spec/cmd/h2spec",
    "v0.0.0-20200804131034-70ac22940108",  # 2.6.0, which has no version that Go knows
)
PATIENCE = "2"  # seconds that h2spec waits for an answer
TIMEOUT = 600.0  # seconds: were each of its cases to fail

PLAIN, STRICT, SHARED = "h2spec", "h2spec, strict", "h2spec, port shared with HTTP/1.1"


def play(way: Way, folder: Path) -> Iterator[Run]:
    with echo_backends() as [backend]:
        yield _measured(PLAIN, way, folder, backend)
        yield _measured(STRICT, way, folder, backend, "--strict")
        if not way.tls:
            yield _measured(SHARED, way, folder, backend, scheme="")


def _measured(
    row: str, way: Way, folder: Path, backend: EchoBackend, *flags: str, scheme: str = "h2c://"
) -> Run:
    report = folder / f"{row}-{way}.xml".replace(" ", "-").replace("/", "")
    with proxied(way, folder, "--backend", f"http://{backend.address}", scheme=scheme) as proxy:
        tls = ["--tls", "--insecure"] if way.tls else []
        told = subprocess.run(
            [
                *(str(H2SPEC.binary), "--host", "127.0.0.1", "--port", str(proxy.port)),
                *("--timeout", PATIENCE, "--junit-report", str(report), *tls, *flags),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    if not report.exists():
        raise RuntimeError(f"h2spec wrote no report: {(told.stdout + told.stderr)[-300:]}")
    return read(row, way, report.read_bytes())


def read(row: str, way: Way, report: bytes) -> Run:
    """A case is named as its documents do: `http2/6.9.2/2`, and what it does."""
    clean = re.sub(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", b"", report)  # it quotes frames as they are
    suites = ET.fromstring(clean)  # noqa: S314 - written by a program that we built
    cases = 0
    failed = {}
    for group in suites:
        for number, case in enumerate(group, 1):
            cases += 1
            if (wrong := _wrong(case)) is not None:
                name = f"{group.get('package')}/{number} {case.get('classname')}"
                failed[name] = wrong
    return Run(row, way, cases, failed, sum(_seconds(case) for case in suites.iter("testcase")))


def _wrong(case: ET.Element) -> str | None:
    """What is told beside a case; a case that was skipped has not passed."""
    for told in case:
        return " ".join([told.tag, *"".join(told.itertext()).split()])
    return None


def _seconds(case: ET.Element) -> float:
    return float(case.get("time", 0))


SUITE = Suite(
    "h2spec",
    {
        PLAIN: "HAProxy 2.6 146",
        STRICT: "HAProxy 2.6 147",
        SHARED: "nobody: 145",
    },
    WAYS,
    [H2SPEC],
    play,
)
