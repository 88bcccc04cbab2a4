"""What the runner takes for an implementation: the suite's own program, with the proxy before it.

`adapter.py server|client CODEC TLS FOLDER PROGRAM PORT`. In server mode the runner is told the proxy's
port in place of the server's; in client mode PORT is where the runner's server will be, and the client
is sent to the proxy instead. What the proxy did wrong stands in FOLDER/trouble.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests")]

from conformance.board.proxied import authority, proxied  # noqa: E402
from conformance.board.results import Way  # noqa: E402
from conformance.connect.messages import (  # noqa: E402
    Value,
    fields,
    read_message,
    replaced,
    write_message,
)

# Numbers of fields: server_compat.proto and client_compat.proto.
PROTOCOL, SERVER_VERSION, CLIENT_VERSION = 1, 2, 2
SERVER_CERT = 8
USE_TLS, CLIENT_TLS_CERT, SERVER_CREDS = 4, 5, 7
ANSWER_HOST, ANSWER_PORT, ANSWER_CERT = 1, 2, 3
HOST, PORT = 6, 7

HTTP_1, HTTP_2 = 1, 2  # of HTTPVersion
GRPC, GRPC_WEB = 2, 3  # of Protocol
LOCAL = b"127.0.0.1"
TROUBLE = "trouble"


def server(way: Way, folder: Path, program: str, _: int) -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    asked = read_message(sys.stdin.buffer) or b""
    ours: dict[int, Value | None] = {USE_TLS: None, CLIENT_TLS_CERT: None, SERVER_CREDS: None}
    if _field(asked, PROTOCOL) == GRPC_WEB:  # it becomes gRPC, which is HTTP/2
        ours |= {PROTOCOL: GRPC, SERVER_VERSION: HTTP_2}
    plain = replaced(asked, ours)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            given, said = _pipe(process.stdin), _pipe(process.stdout)
            write_message(given, plain)
            given.close()
            answer = {number: value for number, value, _ in fields(read_message(said) or b"")}
            backend = _backend(plain, SERVER_VERSION, answer[ANSWER_PORT])
            with proxied(way, folder, "--backend", backend, scheme="") as proxy:
                cert = authority(folder).ca_file.read_bytes() if way.tls else None
                told: dict[int, Value | None] = {
                    ANSWER_HOST: LOCAL,
                    ANSWER_PORT: proxy.port,
                    ANSWER_CERT: cert,
                }
                write_message(sys.stdout.buffer, replaced(b"", told))
                stopped.wait()
        finally:
            process.kill()


def client(way: Way, folder: Path, program: str, port: int) -> None:
    """A proxy for each HTTP, for what is said to a server is said to it in the client's own."""
    with ExitStack() as running:
        ports: dict[str, int] = {}
        process = running.enter_context(subprocess.Popen([program], stdin=subprocess.PIPE))
        given = _pipe(process.stdin)
        while (asked := read_message(sys.stdin.buffer)) is not None:
            backend = _backend(asked, CLIENT_VERSION, port, tls=way.tls)
            if backend not in ports:
                trust = _trust(asked, folder) if way.tls else ()
                relayed = ("--grpc-web", "off")  # the runner's server looks at the protocol
                flags = ("--backend", backend, *trust, *relayed)
                proxy = proxied(way, folder, *flags, scheme="")
                ports[backend] = running.enter_context(proxy).port
            ours: dict[int, Value | None] = {HOST: LOCAL, PORT: ports[backend]}
            if way.tls:
                ours[SERVER_CERT] = authority(folder).ca_file.read_bytes()
            write_message(given, replaced(asked, ours))
        given.close()
        process.wait()


def _backend(asked: bytes, version_field: int, port: Value, *, tls: bool = False) -> str:
    """Its address, in the version of HTTP that is asked for."""
    first = _field(asked, version_field) == HTTP_1
    scheme = ("https" if first else "h2") if tls else ("http" if first else "h2c")
    return f"{scheme}://127.0.0.1:{port!r}"


def _trust(asked: bytes, folder: Path) -> tuple[str, str]:
    """What the runner's server proves itself by."""
    file = folder / "runner.pem"
    cert = _field(asked, SERVER_CERT)
    file.write_bytes(cert if isinstance(cert, bytes) else b"")
    return "--backend-ca", str(file)


def _field(message: bytes, number: int) -> Value | None:
    return {number: value for number, value, _ in fields(message)}.get(number)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise BrokenPipeError
    return stream


def main(arguments: Sequence[str]) -> None:
    mode, codec, tls, folder, program, port = arguments
    play = {"server": server, "client": client}[mode]
    try:
        play(Way(codec, tls == "TLS"), Path(folder), program, int(port))
    except Exception as error:
        (Path(folder) / TROUBLE).write_text(f"{type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main(sys.argv[1:])
