"""Connect's conformance suite: its runner, its programs, and us between them.

In server mode the runner's clients come through us to the suite's reference server; in client mode a
client goes through us to the runner's servers, which say raw and odd things that no ordinary server
would. For gRPC over HTTP/2 in protobuf the client is grpc-go's, which knows no TLS here; for all
protocols (Connect, gRPC, gRPC-Web), encodings and both HTTPs it is the suite's own, and TLS is on both
sides of us. Deadlines are enforced, which is our default.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance.board.peers import free_port
from conformance.board.proxied import authority
from conformance.board.results import DIRECT, WAYS, Run, Suite, Way
from conformance.board.tools import GoTool
from conformance.connect.adapter import TROUBLE

VERSION = "v1.0.7"
RUNNER, SERVER, GRPC_CLIENT, CLIENT = (
    GoTool(f"connectrpc.com/conformance/cmd/{name}", VERSION)
    for name in ("connectconformance", "referenceserver", "grpcclient", "referenceclient")
)
SERVER_MODE, CLIENT_MODE = "Connect, server mode", "Connect, client mode"
ALL_SERVER, ALL_CLIENT = (
    "Connect, all protocols, server mode",
    "Connect, all protocols, client mode",
)
TIMEOUT = 900.0  # seconds a run; it takes 3 to 30
ADAPTER = Path(__file__).with_name("adapter.py")

ONE = ("--max-servers", "1")
CONFIG_FILE = "connect.yaml"
GRPC = """\
features:
  versions: [HTTP_VERSION_2]
  protocols: [PROTOCOL_GRPC]
  codecs: [CODEC_PROTO]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
"""
ALL = """\
features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
"""
CLEARTEXT = "  supportsTls: false\n"
TLS = "  supportsH2c: false\nexclude_cases: [{use_tls: false}]\n"


def play(way: Way, folder: Path) -> Iterator[Run]:
    """The grpc-go client is for cleartext."""
    authority(folder)  # before several adapters ask for it at once
    for tls in (False, True) if way.direct else (way.tls,):
        yield _server_mode(SERVER_MODE, GRPC, way, tls, folder)
        if not tls:
            yield _client_mode(CLIENT_MODE, GRPC, way, tls, folder, client=GRPC_CLIENT)
        yield _server_mode(ALL_SERVER, ALL, way, tls, folder)
        yield _client_mode(ALL_CLIENT, ALL, way, tls, folder, client=CLIENT)


def _server_mode(row: str, config: str, way: Way, tls: bool, folder: Path) -> Run:
    """One server at a time: the runner gives each ten seconds to start."""
    program = str(SERVER.binary)
    command = [program] if way.direct else _adapter("server", way, folder, program)
    _configure(folder, config, tls=tls)
    return _measured(row, way, folder, ["--mode", "server", *ONE, "--", *command])


def _client_mode(
    row: str, config: str, way: Way, tls: bool, folder: Path, *, client: GoTool
) -> Run:
    """Through us, the runner's servers have to be where the proxy was told."""
    program, port = str(client.binary), str(free_port())
    command = [program] if way.direct else _adapter("client", way, folder, program, port)
    _configure(folder, config, tls=tls)
    place = [] if way.direct else ["--port", port]  # which makes it one at a time too
    return _measured(row, way, folder, ["--mode", "client", *place, "--", *command])


def _configure(folder: Path, config: str, *, tls: bool) -> None:
    (folder / CONFIG_FILE).write_text(config + (TLS if tls else CLEARTEXT))


def _adapter(mode: str, way: Way, folder: Path, program: str, port: str = "0") -> list[str]:
    tls = "TLS" if way.tls else ""
    return [sys.executable, str(ADAPTER), mode, way.codec, tls, str(folder), program, port]


def _measured(row: str, way: Way, folder: Path, arguments: Sequence[str]) -> Run:
    began = time.monotonic()
    done = subprocess.run(
        [str(RUNNER.binary), "--conf", str(folder / CONFIG_FILE), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    run = read(row, way, done.stdout + done.stderr, time.monotonic() - began)
    return _with_trouble(run, folder / TROUBLE)


def read(row: str, way: Way, told: str, seconds: float) -> Run:
    """Of what the runner prints."""
    total = re.search(r"^Total cases: (\d+)\n(\d+) passed", told, re.MULTILINE)
    if total is None:
        raise RuntimeError(f"the runner did not come to an end: {told[-500:]}")
    failed = {
        case: " ".join(why.split())
        for case, why in re.findall(r"^FAILED: (.+?):\n((?:[ \t]+.*\n)*)", told, re.MULTILINE)
    }
    silent = int(total[1]) - int(total[2]) - len(failed)
    if silent:
        failed["cases without a result"] = f"{silent} of them"
    return Run(row, way, int(total[1]), failed, seconds)


def _with_trouble(run: Run, file: Path) -> Run:
    if file.exists():
        run.failed = {**run.failed, "the proxy itself": file.read_text()}
        file.unlink()
    return run


SUITE = Suite(
    "connect",
    {SERVER_MODE: "five of six: all", CLIENT_MODE: "as without them"},
    (DIRECT, *WAYS),
    [RUNNER, SERVER, GRPC_CLIENT, CLIENT],
    play,
)
