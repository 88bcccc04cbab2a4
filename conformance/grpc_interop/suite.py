"""gRPC's interoperability cases: grpc-go's client and server, and us between them.

The eighteen that grpc-go's own script runs; pick_first_unary wants several servers and credentials want
Google. Over TLS both sides are: the client's and the one to the server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.board.peers import complaint, free_port, serving
from conformance.board.proxied import authority, proxied
from conformance.board.results import DIRECT, WAYS, Run, Suite, Way
from conformance.board.tools import GoTool

VERSION = "v1.85.0"
CLIENT = GoTool("google.golang.org/grpc/interop/client", VERSION)
SERVER = GoTool("google.golang.org/grpc/interop/server", VERSION)
NAME = "gRPC interop"
CASES = (
    *("empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong"),
    *("empty_stream", "timeout_on_sleeping_server", "cancel_after_begin"),
    *("cancel_after_first_response", "status_code_and_message", "special_status_message"),
    *("custom_metadata", "unimplemented_method", "unimplemented_service", "orca_per_rpc"),
    *("orca_oob", "rpc_soak", "channel_soak"),
)
LOAD_BALANCING = '{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'
"""Without it nothing that the orca cases look at is measured."""
TIMEOUT = 60.0  # seconds a case; grpc-go's script gives 20 on a machine of its own


def play(way: Way, folder: Path) -> Iterator[Run]:
    began = time.monotonic()
    with _target(way, folder) as port:
        found = {case: _wrong(case, port, way, folder) for case in CASES}
    failed = {case: wrong for case, wrong in found.items() if wrong}
    yield Run(NAME, way, len(CASES), failed, time.monotonic() - began)


@contextmanager
def _target(way: Way, folder: Path) -> Iterator[int]:
    """The port that the client is to be sent to."""
    port = free_port()
    ours = authority(folder)
    tls = ("--use_tls", f"--tls_cert_file={ours.cert_file}", f"--tls_key_file={ours.key_file}")
    with serving(str(SERVER.binary), f"--port={port}", *(tls if way.tls else ()), port=port):
        if way.direct:
            yield port
            return
        backend = f"h2://localhost:{port}" if way.tls else f"h2c://localhost:{port}"
        trust = ("--backend-ca", str(ours.ca_file)) if way.tls else ()
        with proxied(way, folder, "--backend", backend, *trust) as proxy:
            yield proxy.port


def _wrong(case: str, port: int, way: Way, folder: Path) -> str:
    tls = (
        ("--use_tls", "--use_test_ca", f"--ca_file={authority(folder).ca_file}") if way.tls else ()
    )
    command = [
        *(str(CLIENT.binary), "--server_host=localhost", f"--server_port={port}"),
        *(f"--test_case={case}", f"--service_config_json={LOAD_BALANCING}", *tls),
    ]
    return complaint(command, TIMEOUT)


SUITE = Suite(
    "interop",
    {NAME: "all six 18"},
    (DIRECT, *WAYS),
    [CLIENT, SERVER],
    play,
)
