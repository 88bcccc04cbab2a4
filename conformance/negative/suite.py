"""grpc's negative HTTP/2 cases: the official client, and a server that misbehaves as it is told.

max_streams is there twice: an excess stream is refused by RST_STREAM, as most servers do it, or is an
error of the whole connection, as h2 does it. The client knows no TLS.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.board.peers import complaint
from conformance.board.proxied import proxied
from conformance.board.results import DIRECT, WAYS, Run, Suite, Way
from conformance.board.tools import GoTool
from conformance.negative.server import CASES, behaving

CLIENT = GoTool("google.golang.org/grpc/interop/http2", "v1.85.0")
NAME = "negative HTTP/2"
TIMEOUT = 60.0  # seconds a case
TOLD = {"rst_during_data": r"= _, Internal, want _"}
"""The client wants UNKNOWN here and reports INTERNAL whatever server it is: by its own table that is

what a reset without an error is, and it is told so in the case before and after this one.
"""


def play(way: Way, folder: Path) -> Iterator[Run]:
    began = time.monotonic()
    found = {case: _wrong(case, way, folder) for case in CASES}
    failed = {case: wrong for case, wrong in found.items() if wrong}
    yield Run(NAME, way, len(CASES), failed, time.monotonic() - began)


def _wrong(case: str, way: Way, folder: Path) -> str:
    with behaving(CASES[case]) as server, _target(way, folder, server.port) as port:
        return _told(case, port) or server.complaint()


@contextmanager
def _target(way: Way, folder: Path, port: int) -> Iterator[int]:
    if way.direct:
        yield port
        return
    with proxied(way, folder, "--backend", f"h2c://127.0.0.1:{port}") as proxy:
        yield proxy.port


def _told(case: str, port: int) -> str:
    command = [
        *(str(CLIENT.binary), "--server_host=127.0.0.1", f"--server_port={port}"),
        f"--test_case={case.partition(',')[0]}",
    ]
    return complaint(command, TIMEOUT, wanted=TOLD.get(case, ""))


SUITE = Suite(
    "negative",
    {NAME: "nginx 1.22 7 of 7"},
    (DIRECT, *(way for way in WAYS if not way.tls)),
    [CLIENT],
    play,
)
