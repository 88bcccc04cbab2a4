"""Clients that say which name they come for, and where they may come in."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from support.edge_files import Pair, authority
from support.http_clients import RawClient

PATIENCE = 30.0


class Seen(NamedTuple):
    """An answer, and the name on the certificate it came with ("" without TLS)."""

    status: int
    location: str
    shown: str
    body: bytes


def free_port() -> int:
    """One that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def context(mine: Pair | None = None, folder: object = None) -> ssl.SSLContext:
    """Trusts our authority, whatever the name. `mine` is shown to those who ask."""
    made = ssl.create_default_context()
    made.check_hostname = False
    authority().configure_trust(made)
    if mine is not None:
        file = f"{folder}/client.pem"
        with open(file, "w") as stream:  # noqa: PTH123 - any folder will do
            stream.write(mine.key + mine.chain)
        made.load_cert_chain(file)
    return made


@contextmanager
def secured(
    port: int, name: str, by: ssl.SSLContext | None = None
) -> Iterator[tuple[RawClient, str]]:
    """A connection for a server name, and the name on the certificate that is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        (by or context()).wrap_socket(plain, server_hostname=name) as sock,
    ):
        certificate = sock.getpeercert() or {}
        names = certificate["subjectAltName"]
        yield RawClient(sock), str(names[0][1])


def ask(client: RawClient, host: str, path: str, shown: str = "") -> Seen:
    """A GET on a connection that stays."""
    client.send(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    status, fields, body = client.read_response()
    return Seen(status, fields.get("location", ""), shown, body)


def plainly(port: int, host: str, path: str = "/") -> Seen:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        return ask(RawClient(sock), host, path)


def securely(
    port: int, host: str, path: str = "/", *, name: str = "", by: ssl.SSLContext | None = None
) -> Seen:
    """`name` is asked for in the handshake: the host, unless it is another."""
    with secured(port, name or host, by) as (client, shown):
        return ask(client, host, path, shown)


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False
